"""May a record move: a row for each step of spec/12, section 2, taken or refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import pytest
from placet_testing.charters import (
    ANCHOR,
    birth_body,
    composer,
    identity,
    profile,
    signed,
    vault_name,
    vault_set,
)

from placet.core.attestation import AttestedIdentity, TcbState
from placet.core.profile import Profile, code_id
from placet.errors import (
    BindingError,
    EvidenceStaleError,
    NotApprovedError,
    PlacetError,
    PolicyDeniedError,
    RoleDeniedError,
    TcbError,
)
from placet.policy.charter import replay
from placet.policy.handover import check_predecessor, decide_hand_over

OLD, NEW, NEWER, STRANGER = (profile(n, app="placet-vault") for n in (0, 1, 2, 3))
VAULT = vault_name(1)
BIRTH = signed(composer().birth(birth_body(vaults=vault_set(3, 2, profiles=(OLD,)))))


def with_releases(*added: Profile):
    """Return the policy of a key whose owner added these releases, one after the other."""
    statements = [BIRTH]
    for number, one in enumerate(added):
        policy = replay(statements)
        update = composer(seed=f"{number}").update(
            policy, policy.rules, "newer", vault_profiles=(one,)
        )
        statements.append(signed(update))
    return replay(statements)


def who(shown: Profile, **changes: object) -> AttestedIdentity:
    """Return a process of this release that is to be vault 1."""
    found = replace(identity(shown, ()), role="resharer")
    said: dict[str, object] = {"instance": VAULT, "purpose": "reshare", "keys": None}
    claims = msgspec.structs.replace(found.claims, **said | changes)
    return replace(found, claims=claims)


ASKS = who(NEW)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request, and what becomes of it."""

    expect: type[PlacetError] | None = None
    asks: AttestedIdentity = ASKS
    added: tuple[Profile, ...] = (NEW,)
    vault: str = VAULT
    runs: Profile = OLD
    age: float = 60
    reason: str | None = None


BAD = TcbState(status="Revoked", advisories=(), evaluation=20, date=0)
CASES = {
    "the release that was added": Case(),
    "the one after it": Case(asks=who(NEWER), added=(NEW, NEWER)),
    "from the second to the third": Case(asks=who(NEWER), added=(NEW, NEWER), runs=NEW),
    "by who was never named itself": Case(runs=STRANGER),
    "fail: nobody added it": Case(expect=NotApprovedError, added=()),
    "fail: another one was added": Case(expect=NotApprovedError, asks=who(NEWER)),
    "fail: a stranger": Case(expect=NotApprovedError, asks=who(STRANGER)),
    "fail: the same release": Case(expect=PolicyDeniedError, asks=who(OLD), reason="not-newer"),
    "fail: back": Case(expect=PolicyDeniedError, asks=who(OLD), runs=NEW, reason="not-newer"),
    "fail: back by one": Case(
        expect=PolicyDeniedError, asks=who(NEW), runs=NEWER, added=(NEW, NEWER), reason="not-newer"
    ),
    "fail: no vault of this key": Case(
        expect=PolicyDeniedError,
        vault=vault_name(9),
        asks=who(NEW, instance=vault_name(9)),
        reason="no-member",
    ),
    "fail: a workload": Case(expect=RoleDeniedError, asks=replace(who(NEW), role="workload")),
    "fail: a vault's own evidence": Case(
        expect=RoleDeniedError, asks=replace(who(NEW), role="vault")
    ),
    "fail: made to release": Case(expect=BindingError, asks=who(NEW, purpose="release")),
    "fail: made for no purpose": Case(expect=BindingError, asks=who(NEW, purpose=None)),
    "fail: names keys": Case(expect=BindingError, asks=who(NEW, keys=BIRTH.digest)),
    "fail: is to be another vault": Case(
        expect=BindingError, asks=who(NEW, instance=vault_name(2))
    ),
    "fail: stale by a second": Case(expect=EvidenceStaleError, age=61),
    "fail: the platform": Case(
        expect=TcbError, asks=replace(who(NEW), evidence=replace(who(NEW).evidence, tcb=BAD))
    ),
    "fail: another anchor": Case(
        expect=TcbError,
        asks=replace(who(NEW), evidence=replace(who(NEW).evidence, anchor="intel")),
    ),
    "fail: an app of that name": Case(expect=NotApprovedError, asks=who(NEW, app="notes")),
    "fail: another image": Case(expect=NotApprovedError, asks=who(NEW, image=OLD.image)),
}


@pytest.mark.req("I1")
@pytest.mark.req("I8")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_hand_over(case: Case) -> None:
    """Each row is one step of spec/12, section 2."""
    policy = with_releases(*case.added)

    def decide() -> Profile:
        return decide_hand_over(
            policy,
            case.asks,
            vault=case.vault,
            release=code_id(case.runs),
            age=case.age,
            max_age=60,
        )

    if case.expect is None:
        assert decide() in case.added
        return
    with pytest.raises(case.expect) as refused:
        decide()
    assert type(refused.value) is case.expect
    if case.reason is not None:
        assert refused.value.members["reason"] == case.reason


def test_the_refusal_says_what_the_owner_can_do() -> None:
    """With the key and the code, for programs."""
    with pytest.raises(NotApprovedError) as refused:
        decide_hand_over(
            replay([BIRTH]), who(NEW), vault=VAULT, release=code_id(OLD), age=0, max_age=60
        )
    assert refused.value.members["code"] == code_id(NEW)
    assert refused.value.members["key"] == BIRTH.digest
    assert "--add-vault-release" in refused.value.hint


@pytest.mark.parametrize(
    ("sender", "runs", "vault", "expect"),
    [
        (OLD, NEW, VAULT, None),
        (OLD, NEWER, VAULT, PolicyDeniedError),
        (NEW, OLD, VAULT, PolicyDeniedError),
        (NEW, NEW, VAULT, PolicyDeniedError),
        (STRANGER, NEW, VAULT, NotApprovedError),
        (OLD, NEW, vault_name(9), PolicyDeniedError),
    ],
)
def test_predecessor(
    sender: Profile, runs: Profile, vault: str, expect: type[PlacetError] | None
) -> None:
    """Who hands over was named by the owner, and the own release after that (2.5)."""
    policy = with_releases(NEW)
    shown = replace(who(sender, instance=vault), role="vault")
    if expect is None:
        check_predecessor(policy, shown, vault=vault, release=code_id(runs))
        return
    with pytest.raises(expect):
        check_predecessor(policy, shown, vault=vault, release=code_id(runs))
    assert shown.evidence.anchor == ANCHOR
