"""What earlier releases signed and took, which must open for ever."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from placet.core.dsse import open_signed
from placet.core.encoding import decode, encode
from placet.core.messages import CourierItem, Taken
from placet.core.signer import Signer
from placet.core.statement import Birth, SignedStatement, open_statement
from placet.core.table import Rules
from placet.errors import ApprovalExpiredError
from placet.policy.charter import Courier, TakenStatement, fold, take
from placet.policy.principal import check_principal
from placet.policy.signers import signer_key_check, verify_signatures

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "releases"
RELEASES = sorted(path.parent for path in FOLDER.glob("*/statements.json"))
LONG_AFTER = 4_000_000_000


def load(release: Path, name: str):
    """Return a file of a release."""
    return json.loads((release / name).read_text())


STATEMENTS = [
    pytest.param(release, case, id=f"{release.name} {case['type']} {case['digest'][7:15]}")
    for release in RELEASES
    for case in load(release, "statements.json")["cases"]
]


def test_there_are_releases_and_they_hold_every_type():
    """An empty folder is a failure; so is a type that nothing keeps readable."""
    assert RELEASES
    for release in RELEASES:
        types = {case["type"] for case in load(release, "statements.json")["cases"]}
        assert types >= {"birth", "promote", "retire", "stage", "revoke-pending"}


@pytest.mark.parametrize(("release", "case"), STATEMENTS)
def test_released_statement_opens_and_verifies(release, case):
    """Bytes, digest and every signature of each kind still hold."""
    signers = [msgspec.convert(s, Signer) for s in load(release, "statements.json")["signers"]]
    for signer in signers:
        signer_key_check(signer)
    signed = decode(encode(case["signed"]), SignedStatement)
    sent = open_statement(signed)
    assert sent.digest == case["digest"]
    assert sent.signed() == signed
    verified = verify_signatures(sent, signers)
    assert sorted(verified.signers) == case["signed_by"]
    assert verified.strangers == frozenset()


def couriers(release: Path) -> list[Courier]:
    """Return the release's charter as a courier would bring it."""
    items = [decode(encode(item), CourierItem) for item in load(release, "charter.json")["charter"]]
    return [Courier(sent=open_statement(i.signed), receipts=i.receipts) for i in items]


def expected(release: Path, policy) -> None:
    """Compare a policy with the one that the release had."""
    frozen = load(release, "charter.json")["policy"]
    assert (policy.key, policy.label) == (frozen["key"], frozen["label"])
    assert (policy.version, list(policy.chain)) == (frozen["version"], frozen["chain"])
    assert policy.birth_owner == frozen["birth_owner"]
    assert (policy.floor, sorted(policy.tombstones)) == (frozen["floor"], frozen["tombstones"])
    approvals = [
        {"code": a.code, "statement": a.statement, "until": a.until} for a in policy.approvals
    ]
    assert approvals == frozen["approvals"]
    if "rules" in frozen:
        assert policy.rules == decode(encode(frozen["rules"]), Rules)
        assert policy.deleted is frozen["deleted"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda r: r.name)
def test_released_charter_folds_to_the_same_policy(release):
    """Nobody's policy changes because a vault was upgraded."""
    expected(release, fold(TakenStatement(sent=c.sent) for c in couriers(release)))


@pytest.mark.parametrize("release", RELEASES, ids=lambda r: r.name)
def test_released_charter_is_taken_long_after(release):
    """By the receipts of three vaults; with those of two, the time has passed."""
    brought = couriers(release)
    policy, new = take(None, brought, now=LONG_AFTER)
    expected(release, policy)
    # Delays that statements began count from the latest time of those who vouch.
    since = load(release, "charter.json")["policy"].get("promote_from", 0)
    assert policy.promote_from == since
    assert len(new) == len(brought)
    fewer = [Courier(sent=c.sent, receipts=c.receipts[:2]) for c in brought]
    with pytest.raises(ApprovalExpiredError):
        take(None, fewer, now=LONG_AFTER)


@pytest.mark.parametrize("release", RELEASES, ids=lambda r: r.name)
def test_released_owner_and_receipts_are_sound(release):
    """The owner passes today's checks, and each receipt is of the vault that it names."""
    brought = couriers(release)
    birth = brought[0].sent.statement
    assert isinstance(birth, Birth)
    check_principal(birth.body.policy.owner)
    for courier in brought:
        vaults = birth.body.vault_set.ids
        for vault, receipt in zip(vaults, courier.receipts, strict=False):
            taken = open_signed(receipt, Taken, vault=vault)
            assert (taken.vault, taken.statement) == (vault, courier.sent.digest)
