"""One tap for all vaults, and the assertions that each of them refuses by itself (R5.2)."""

from __future__ import annotations

import msgspec
import pytest
from placet_testing.charters import NOW, birth_body, composer, owner_of, person, profile, vault_set
from placet_testing.passkey import UP, SoftwarePasskey, authenticator_data, client_data
from placet_testing.vaults import open_bench

from placet.client.signing import promote_body
from placet.core.messages import CourierItem, TakeRequest
from placet.core.statement import compose
from placet.errors import ApprovalError, KeyNotBornError, MalformedError
from placet.policy.charter import Courier, take

PHONE = SoftwarePasskey(name="phone")
OWNER = owner_of(PHONE.signer, person("owner").signer)
BIRTH = PHONE.sign(composer().birth(birth_body(OWNER)))
POLICY, _ = take(None, [Courier(sent=BIRTH)], now=NOW)
PROMOTE = composer().promote(POLICY, promote_body(POLICY, profile(2)))


def request(sent):
    """Return what a courier posts."""
    return TakeRequest(chain=(CourierItem(signed=sent.signed(), receipts=()),))


@pytest.fixture
def vaults(tmp_path):
    """Return three vaults that took the birth."""
    benches = [open_bench(tmp_path, number) for number in (1, 2, 3)]
    for bench in benches:
        bench.vault.take(request(BIRTH))
    yield [bench.vault for bench in benches]
    for bench in benches:
        bench.store.close()


def challenge(sent) -> bytes:
    """Return what a passkey signs for a statement."""
    return bytes.fromhex(sent.digest.removeprefix("sha256:"))


def changed(**changes):
    """Return a promote that differs, in its fields or in those of its body."""
    statement = PROMOTE.statement
    body = {k: v for k, v in changes.items() if k in statement.body.__struct_fields__}
    rest = {k: v for k, v in changes.items() if k not in body}
    return compose(
        msgspec.structs.replace(
            statement, body=msgspec.structs.replace(statement.body, **body), **rest
        )
    )


def moved(approved):
    """Return the promote with an honest assertion over something else."""
    return compose(PROMOTE.statement, PHONE.sign(approved).signatures)


def made(**parts):
    """Return the promote with an assertion over these parts, signed by the passkey."""
    return compose(PROMOTE.statement, (PHONE.assertion(challenge(PROMOTE), **parts),))


def asked(**members):
    """Return the promote with an assertion whose client data says something else."""
    return made(client=client_data(challenge(PROMOTE), **members))


CLIENT = client_data(challenge(PROMOTE))
ATTACKS = {
    "of another key": (moved(changed(key="sha256:" + "1" * 64)), ApprovalError),
    "of another version": (moved(changed(base_version=2)), ApprovalError),
    "of another head": (moved(changed(prev="sha256:" + "1" * 64)), ApprovalError),
    "of another measurement": (moved(changed(profile=profile(3))), ApprovalError),
    "of the same birth with another vault set": (
        moved(composer().birth(birth_body(OWNER, vaults=vault_set(3, 2)))),
        ApprovalError,
    ),
    "of the birth": (moved(BIRTH), ApprovalError),
    "of a promote that expires later": (moved(changed(expires_at=NOW + 9)), ApprovalError),
    "on another origin": (asked(origin="https://evil.example"), ApprovalError),
    "in a frame of another origin": (asked(crossOrigin=True), ApprovalError),
    "for another relying party": (
        made(authenticator=authenticator_data(rp_id="evil.example")),
        ApprovalError,
    ),
    "without verifying the user": (made(authenticator=authenticator_data(flags=UP)), ApprovalError),
    "as a registration": (asked(type="webauthn.create"), ApprovalError),
    "with client data cut short": (made(client=CLIENT[:-1]), MalformedError),
    "with the challenge twice": (
        made(client=CLIENT.replace(b"{", b'{"challenge":"AAAA",', 1)),
        MalformedError,
    ),
    "with the origin twice": (
        made(client=CLIENT.replace(b"{", b'{"origin":"https://evil.example",', 1)),
        MalformedError,
    ),
}


@pytest.mark.req("R5.2")
@pytest.mark.parametrize(("sent", "error"), ATTACKS.values(), ids=ATTACKS.keys())
def test_each_vault_refuses_the_assertion_by_itself(vaults, sent, error):
    """No vault takes it, none changes, and the honest tap still counts afterwards."""
    for vault in vaults:
        with pytest.raises(error):
            vault.take(request(sent))
        assert vault.charter(POLICY.key).head == POLICY.head
        assert vault.take(request(PHONE.sign(PROMOTE))).version == 2


@pytest.mark.req("R5.2")
def test_one_tap_serves_all_vaults_and_repeating_it_changes_nothing(vaults):
    """The same assertion, to every vault, as often as anybody likes."""
    sent = request(PHONE.sign(PROMOTE))
    for vault in (*vaults, *vaults):
        answer = vault.take(sent)
        assert (answer.head, answer.version) == (PROMOTE.digest, 2)


@pytest.mark.req("R5.2")
def test_a_key_is_not_born_by_a_forged_assertion(vaults):
    """A birth names its owner, and is taken by that owner's assertion only."""
    stranger = SoftwarePasskey(name="stranger")
    birth = composer(seed="another").birth(birth_body(OWNER))
    forged = msgspec.structs.replace(
        stranger.assertion(challenge(birth)), signer=PHONE.assertion(challenge(birth)).signer
    )
    for vault in vaults:
        with pytest.raises(ApprovalError):
            vault.take(request(compose(birth.statement, (forged,))))
        with pytest.raises(KeyNotBornError):
            vault.charter(birth.key)
