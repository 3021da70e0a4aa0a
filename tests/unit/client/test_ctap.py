"""Security keys over CTAP2: the real client code, with a stand-in below it."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import replace

import msgspec
import pytest
from fido2.client import ClientError
from fido2.ctap import CtapError
from fido2.hid import CAPABILITY
from placet_testing.charters import birth_body, composer, owner_of, person
from placet_testing.passkey import ORIGIN, RP_ID, SoftwarePasskey

from placet.client.authenticators import Wanted, attach, challenge_of
from placet.client.ctap import Person, approve, enrol
from placet.core.encoding import unb64
from placet.errors import (
    ApprovalError,
    ConflictError,
    MalformedError,
    NotFoundError,
    PlacetError,
    PolicyDeniedError,
)
from placet.policy.webauthn import parse_cose_key
from placet_dev.ctap_stand_in import EDDSA, ES256, StandIn

WANTED = Wanted(
    label="key in the safe",
    rp_id=RP_ID,
    origins=(ORIGIN,),
    screen="own",
    challenge=hashlib.sha256(b"enrolment").digest(),
    user=b"user",
)
PIN = "3141"
OTHER = person("owner").signer


class Asked:
    """A person, and what they were asked."""

    def __init__(self, *pins: str) -> None:
        self.pins, self.asked = list(pins), []

    def person(self) -> Person:
        """Return how they are spoken to."""

        def pin() -> str:
            self.asked.append("pin")
            return self.pins.pop(0)

        return Person(pin=pin, touch=lambda: self.asked.append("touch"))


@pytest.fixture
def device(tmp_path):
    """Return a stand-in that verifies its person by itself."""
    return StandIn.open(str(tmp_path / "key.json"))


def with_state(device, **changes):
    """Change what the stand-in's file says."""
    device.state = msgspec.structs.replace(device.state, **changes)
    device.save()
    return device


def statement(signer):
    """Return a birth of an owner of whom the signer is one."""
    return composer().birth(birth_body(owner_of(signer, OTHER)))


@pytest.mark.parametrize(
    ("algorithms", "kind"), [((ES256, EDDSA), "p256"), ((EDDSA,), "ed25519"), ((ES256,), "p256")]
)
def test_one_touch_enrols_and_one_touch_approves(device, algorithms, kind):
    """The first kind of key that vaults take is made; what it signs holds."""
    with_state(device, algorithms=algorithms)
    holder = Asked()
    new = enrol(device, WANTED, holder.person())
    sent = statement(new.signer)
    approval = approve(device, new.signer, challenge_of(sent), holder.person())

    assert (new.signer.label, new.signer.rp_id, new.signer.origins) == (
        WANTED.label,
        RP_ID,
        (ORIGIN,),
    )
    assert parse_cose_key(unb64(new.signer.public_key))[0] == kind
    assert attach(sent, new.signer, approval).signatures == (approval,)
    assert holder.asked == ["touch", "touch"]


def test_what_it_made_is_there_the_next_time(device):
    """The stand-in keeps its keys in a file that only this user reads."""
    new = enrol(device, WANTED, Asked().person())
    again = StandIn.open(str(device.path))
    sent = statement(new.signer)

    attach(sent, new.signer, approve(again, new.signer, challenge_of(sent), Asked().person()))
    assert stat.S_IMODE(device.path.stat().st_mode) == 0o600
    assert "whoever reads this file can approve" in device.path.read_text()


def test_a_pin_is_asked_once_for_each_use_and_kept_nowhere(device, tmp_path, caplog):
    """It is asked when the key wants it, goes to the key, and stays in no log or object."""
    caplog.set_level(0)
    with_state(device, pin=PIN)
    holder = Asked(PIN, PIN)
    new = enrol(device, WANTED, holder.person())
    sent = statement(new.signer)
    approval = approve(device, new.signer, challenge_of(sent), holder.person())

    attach(sent, new.signer, approval)
    assert holder.asked == ["pin", "touch", "pin", "touch"]
    assert PIN not in caplog.text
    assert PIN not in repr((new, approval))


def test_a_wrong_pin_says_how_many_tries_are_left(device):
    """Each wrong one costs a try; the right one gives them back; without any it is locked."""
    with_state(device, pin=PIN)
    new = enrol(device, WANTED, Asked(PIN).person())

    def sign(pin):
        approve(device, new.signer, bytes(32), Asked(pin).person())

    with pytest.raises(ApprovalError, match="7 tries left"):
        sign("0000")
    sign(PIN)
    for left in range(7, -1, -1):
        with pytest.raises(ApprovalError, match=f"wrong PIN: nothing was signed; {left} tries"):
            sign("0000")
    with pytest.raises(ApprovalError, match="locked") as caught:
        sign(PIN)
    assert PIN not in str(caught.value.problem())


def test_no_pin_signs_nothing(device):
    """An empty answer is a no."""
    with_state(device, pin=PIN)
    with pytest.raises(PolicyDeniedError, match="no PIN"):
        enrol(device, WANTED, Asked("").person())
    assert device.state.credentials == ()


def test_one_key_is_no_two_authenticators(device):
    """A key that holds a credential of this owner makes no second one."""
    new = enrol(device, WANTED, Asked().person())
    with pytest.raises(ConflictError, match="enrolled already"):
        enrol(device, replace(WANTED, known=(new.signer.credential_id,)), Asked().person())


def test_another_key_is_not_this_one(device, tmp_path):
    """A key that does not hold the credential says so, and the hint is to take the right one."""
    new = enrol(device, WANTED, Asked().person())
    other = StandIn.open(str(tmp_path / "other.json"))
    with pytest.raises(NotFoundError) as caught:
        approve(other, new.signer, bytes(32), Asked().person())
    assert "right one" in caught.value.hint


def test_what_cannot_be_is_refused_before_a_touch(device):
    """An origin that is not of the RP ID is told without waking the key."""
    holder = Asked()
    with pytest.raises(MalformedError):
        enrol(device, replace(WANTED, origins=("https://evil.example",)), holder.person())
    assert holder.asked == []


def test_a_key_that_makes_no_fitting_kind_is_refused(device):
    """A key without ES256 and EdDSA cannot approve."""
    with_state(device, algorithms=())
    with pytest.raises(ApprovalError):
        enrol(device, WANTED, Asked().person())


class Refuses(StandIn):
    """Answers every request but getInfo with one status."""

    status = CtapError.ERR.OTHER

    def make_credential(self, request):
        """Refuse."""
        del request
        raise CtapError(self.status)

    get_assertion = make_credential


E = CtapError.ERR
STATUSES = {
    E.USER_ACTION_TIMEOUT: PolicyDeniedError,
    E.ACTION_TIMEOUT: PolicyDeniedError,
    E.KEEPALIVE_CANCEL: PolicyDeniedError,
    E.OPERATION_DENIED: PolicyDeniedError,
    E.PIN_BLOCKED: ApprovalError,
    E.PIN_AUTH_BLOCKED: ApprovalError,
    E.PIN_NOT_SET: ApprovalError,
    E.KEY_STORE_FULL: ApprovalError,
    E.OTHER: ApprovalError,
    E.INVALID_CBOR: ApprovalError,
}


@pytest.mark.parametrize("status", STATUSES, ids=lambda s: s.name)
def test_what_a_key_says_becomes_an_error_of_ours(tmp_path, status):
    """Every status is translated by its number; nothing of the library leaves."""
    device = Refuses.open(str(tmp_path / "key.json"))
    device.status = status
    with pytest.raises(STATUSES[status]) as caught:
        enrol(device, WANTED, Asked().person())
    assert not isinstance(caught.value, ClientError | CtapError)


class Old(StandIn):
    """A key of before CTAP2."""

    capabilities = CAPABILITY.WINK


class Silent(StandIn):
    """Pulled out while it was asked."""

    def call(self, cmd, data=b"", event=None, on_keepalive=None):
        """Fail as the operating system does."""
        del cmd, data, event, on_keepalive
        raise OSError(19, "No such device")


class Garbled(StandIn):
    """Answers with bytes that are no CBOR."""

    def call(self, cmd, data=b"", event=None, on_keepalive=None):
        """Answer getInfo well."""
        return b"\0\xff" if data[0] != 4 else super().call(cmd, data, event, on_keepalive)


class Unverified(StandIn):
    """Has no PIN and no sensor."""

    def get_info(self, request):
        """Offer neither."""
        info = super().get_info(request)
        return info | {4: {"rk": False, "up": True, "plat": False, "clientPin": False}}


@pytest.mark.parametrize("kind", [Old, Silent, Garbled, Unverified])
def test_a_device_that_cannot_approve_says_why(tmp_path, kind):
    """No exception of the library, the operating system or the parser leaves."""
    device = kind.open(str(tmp_path / "key.json"))
    with pytest.raises(PlacetError) as caught:
        enrol(device, WANTED, Asked().person())
    assert caught.value.hint


class Liar(StandIn):
    """Signs, and says something else than what happened."""

    flags, rp_id, twist = 0, None, bytes

    def authenticator_data(self, rp_id, flags):
        """Say other flags, or another relying party."""
        return super().authenticator_data(self.rp_id or rp_id, flags & ~self.flags)

    def signature(self, credential, message):
        """Sign other bytes."""
        return super().signature(credential, self.twist(message))


LIES = {
    "another relying party": {"rp_id": "evil.example"},
    "no user verification": {"flags": 0x04},
    "no user presence": {"flags": 0x01},
    "over other bytes": {"twist": lambda m: m[:-1] + b"\0"},
    "over nothing": {"twist": lambda _: b""},
}


@pytest.mark.req("R5.2")
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_lying_security_key_approves_nothing(tmp_path, lie):
    """What it returns is verified as vaults will do it, and is not attached."""
    device = Liar.open(str(tmp_path / "key.json"))
    new = enrol(device, WANTED, Asked().person())
    sent = statement(new.signer)
    for name, value in lie.items():
        setattr(device, name, value)

    with pytest.raises(ApprovalError):
        attach(sent, new.signer, approve(device, new.signer, challenge_of(sent), Asked().person()))


@pytest.mark.req("R5.2")
def test_a_touch_for_another_statement_approves_nothing(device):
    """An honest assertion over one statement is refused for every other."""
    new = enrol(device, WANTED, Asked().person())
    one, two = (
        composer(seed=s).birth(birth_body(owner_of(new.signer, OTHER))) for s in ("one", "two")
    )
    approval = approve(device, new.signer, challenge_of(one), Asked().person())

    with pytest.raises(ApprovalError, match="challenge"):
        attach(two, new.signer, approval)
    with pytest.raises(ApprovalError, match="not of passkey"):
        attach(one, SoftwarePasskey(name="phone").signer, approval)
