"""What an authenticator's answer must say before it becomes a signer, or a signature."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from placet_testing.charters import NOW, birth_body, composer, owner_of, person, profile, vault_set
from placet_testing.passkey import (
    AT,
    BE,
    BS,
    ED,
    ORIGIN,
    RP_ID,
    UP,
    UV,
    SoftwarePasskey,
    authenticator_data,
    client_data,
)

from placet.client.authenticators import Wanted, attach, check_wanted, enrolled
from placet.core.encoding import b64, unb64
from placet.core.statement import compose
from placet.errors import ApprovalError, MalformedError, PlacetError
from placet.policy.principal import require
from placet.policy.signers import verify_signatures

CHALLENGE = hashlib.sha256(b"this enrolment").digest()
WANTED = Wanted(
    label="phone",
    rp_id=RP_ID,
    origins=(ORIGIN, "https://other.approve.example"),
    screen="own",
    challenge=CHALLENGE,
    user=b"user",
)
KEYS = {a: SoftwarePasskey(name="phone", algorithm=a) for a in ("es256", "eddsa")}
ID = unb64(KEYS["es256"].signer.credential_id)


def asked(**changes: object) -> bytes:
    """Return client data of a registration."""
    return client_data(CHALLENGE, **({"type": "webauthn.create"} | changes))


def made(
    key: bytes = KEYS["es256"].cose,
    *,
    credential_id: bytes = ID,
    flags: int = UP | UV | AT,
    rp_id: str = RP_ID,
    length: int | None = None,
    rest: bytes = b"",
) -> bytes:
    """Return authenticator data of a registration."""
    size = len(credential_id) if length is None else length
    attested = bytes(16) + size.to_bytes(2, "big") + credential_id + key + rest
    return authenticator_data(rp_id=rp_id, flags=flags, extra=attested)


@pytest.mark.parametrize("algorithm", KEYS)
def test_the_signer_is_the_credential_that_was_made(algorithm):
    """Key, id, RP ID and origins are those of this credential; what it signs then holds."""
    passkey = KEYS[algorithm]
    new = enrolled(WANTED, asked(), made(passkey.cose))

    assert new.signer == msgspec.structs.replace(passkey.signer, origins=WANTED.origins)
    assert not new.synced
    owner = owner_of(new.signer)
    sent = composer().birth(birth_body(owner))
    approved = attach(sent, new.signer, passkey.sign(sent).signatures[0])
    require(owner, verify_signatures(approved, [new.signer]).signers)


def test_what_extensions_say_unasked_is_passed_over():
    """Some security keys add ``credProtect`` to every registration."""
    said = made(flags=UP | UV | AT | ED, rest=bytes.fromhex("a16b6372656450726f7465637402"))
    assert enrolled(WANTED, asked(), said).signer.public_key == b64(KEYS["es256"].cose)


@pytest.mark.parametrize("flags", [BE, BE | BS])
def test_a_passkey_that_may_be_copied_says_so(flags):
    """Backup eligibility is told to the owner."""
    assert enrolled(WANTED, asked(), made(flags=UP | UV | AT | flags)).synced


REFUSED: dict[str, tuple[bytes, bytes, type[PlacetError]]] = {
    "an assertion": (asked(type="webauthn.get"), made(), ApprovalError),
    "another enrolment": (
        client_data(bytes(32), type="webauthn.create"),
        made(),
        ApprovalError,
    ),
    "another origin": (asked(origin="https://evil.example"), made(), ApprovalError),
    "an origin that is not the tool's": (asked(origin=WANTED.origins[1]), made(), ApprovalError),
    "a frame of others": (asked(crossOrigin=True), made(), ApprovalError),
    "no client data": (b"", made(), MalformedError),
    "client data that is a list": (b"[]", made(), MalformedError),
    "client data too long": (b" " * 2049, made(), MalformedError),
    "another relying party": (asked(), made(rp_id="evil.example"), ApprovalError),
    "nobody verified": (asked(), made(flags=UP | AT), ApprovalError),
    "nobody present": (asked(), made(flags=UV | AT), ApprovalError),
    "no credential": (asked(), authenticator_data(), MalformedError),
    "no credential, and a flag that says so": (
        asked(),
        authenticator_data(flags=UP | UV | AT),
        MalformedError,
    ),
    "an id cut short": (asked(), made(b"", length=33), MalformedError),
    "an empty id": (asked(), made(credential_id=b""), MalformedError),
    "an id too long": (asked(), made(credential_id=bytes(1024)), MalformedError),
    "a key cut short": (asked(), made(KEYS["es256"].cose[:-1]), MalformedError),
    "a key of another kind": (
        asked(),
        made(bytes.fromhex("a401030339010020590101") + bytes(257)),
        MalformedError,
    ),
    "a point off the curve": (asked(), made(KEYS["es256"].cose[:-1] + b"\0"), MalformedError),
    "bytes after the key": (asked(), made(rest=b"\xa0"), MalformedError),
}


@pytest.mark.parametrize(("client", "data", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_anything_else_becomes_no_signer(client, data, error):
    """Another question's answer, an unverified person, a key that vaults do not take."""
    with pytest.raises(error):
        enrolled(WANTED, client, data)


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "x" * 201},
        {"rp_id": "evil.example"},
        {"rp_id": ""},
        {"origins": ("http://approve.example",)},
        {"origins": ("https://approve.example/",)},
        {"origins": ("https://notapprove.example",)},
        {"origins": ()},
        {"origins": (ORIGIN,) * 9},
    ],
    ids=str,
)
def test_what_no_policy_takes_is_told_before_anybody_taps(changes):
    """Names, RP IDs and origins are checked first."""
    check_wanted(WANTED)
    values = {f: getattr(WANTED, f) for f in WANTED.__dataclass_fields__} | changes
    with pytest.raises(MalformedError):
        check_wanted(Wanted(**values))


PHONE = SoftwarePasskey(name="phone")
OWNER = owner_of(PHONE.signer, person("owner").signer)
BIRTH = composer().birth(birth_body(OWNER))
D = bytes.fromhex(BIRTH.digest.removeprefix("sha256:"))
CLIENT = client_data(D)


def changed(**changes: object):
    """Return the challenge of a birth that differs."""
    return bytes.fromhex(
        compose(msgspec.structs.replace(BIRTH.statement, **changes)).digest.removeprefix("sha256:")
    )


def other(body) -> bytes:
    """Return the challenge of a birth with another body."""
    return changed(body=body)


LIES = {
    "over another key": PHONE.assertion(changed(nonce=b64(bytes(32)))),
    "over a later end": PHONE.assertion(changed(expires_at=NOW + 9)),
    "over another measurement": PHONE.assertion(other(birth_body(OWNER, profiles=(profile(3),)))),
    "over another vault set": PHONE.assertion(other(birth_body(OWNER, vaults=vault_set(3, 2)))),
    "over nothing": PHONE.assertion(b""),
    "on another origin": PHONE.assertion(D, client=client_data(D, origin="https://evil.example")),
    "for another relying party": PHONE.assertion(
        D, authenticator=authenticator_data(rp_id="evil.example")
    ),
    "without verifying": PHONE.assertion(D, authenticator=authenticator_data(flags=UP)),
    "without presence": PHONE.assertion(D, authenticator=authenticator_data(flags=UV)),
    "as a registration": PHONE.assertion(D, client=client_data(D, type="webauthn.create")),
    "with client data cut short": PHONE.assertion(D, client=CLIENT[:-1]),
    "with a member twice": PHONE.assertion(
        D, client=CLIENT.replace(b"{", b'{"challenge":"AAAA",', 1)
    ),
    "with extensions": PHONE.assertion(
        D, authenticator=authenticator_data(flags=UP | UV | ED, extra=b"\xa0")
    ),
    "signed by another": msgspec.structs.replace(
        SoftwarePasskey(name="thief").assertion(D), signer=PHONE.assertion(D).signer
    ),
    "of another passkey": SoftwarePasskey(name="thief").assertion(D),
}


@pytest.mark.req("R5.2")
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_the_tool_attaches_what_vaults_would_take_and_nothing_else(lie):
    """Every row that a vault refuses is refused on the owner's machine before it is sent."""
    with pytest.raises((ApprovalError, MalformedError)):
        attach(BIRTH, PHONE.signer, lie)
    honest = PHONE.assertion(D)
    assert attach(BIRTH, PHONE.signer, honest).signatures == (honest,)
