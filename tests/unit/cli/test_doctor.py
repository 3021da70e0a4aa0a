"""What `placet doctor` finds: a healthy key first, then each finding provoked on its own."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from placet_testing.charters import (
    NOW,
    birth_body,
    composer,
    identity,
    owner_of,
    person,
    profile,
    signed,
    vault_name,
    vault_set,
)

from placet.cli.doctor_findings import DAY, ENOUGH, findings
from placet.cli.doctor_visit import Examined, Finding, Visit
from placet.cli.look import Look, VaultState
from placet.client.charters import CharterView, Fork, WaitingStatement
from placet.core.limits import MAX_SKEW
from placet.core.messages import CourierItem, StandingReport
from placet.core.profile import FailureDomain, WitnessMember, code_id
from placet.core.table import Guardians
from placet.errors import QuorumError, TcbError, UnavailableError
from placet.policy.charter import replay
from placet.policy.key_policy import Recovery

OLD, NEW = profile(0, app="placet-vault"), profile(9, app="placet-vault")
OWNER = owner_of(person("owner").signer, person("laptop").signer)
WITNESS = "sha256:" + "77" * 32


def proved(shown=OLD, *, expires=NOW + 30 * DAY, overdue=0, status="UpToDate"):
    """Return what a vault of that release proves."""
    found = identity(shown, ())
    tcb = msgspec.structs.replace(found.evidence.tcb, status=status)
    return replace(
        found, evidence=replace(found.evidence, expires=expires, overdue=overdue, tcb=tcb)
    )


def says(state="standing", reason="", waiting=()):
    """Return how a vault says that it stands."""
    return StandingReport(state=state, reason=reason, waiting=waiting, size=9, witnessed=7)


def well(**changes) -> Examined:
    """Return a vault that is well, but for these."""
    return replace(
        Examined(identity=proved(), skew=1, entries=9, standing=says()),
        **changes,
    )


def looked(owner=OWNER, until=None, **changes) -> Look:
    """Return a charter as all vaults show it, with a share at each."""
    birth = signed(composer().birth(birth_body(owner)), "owner", "laptop")
    policy = replay([birth])
    if until is not None:
        policy = replace(policy, approvals=tuple(replace(a, until=until) for a in policy.approvals))
    view = CharterView(
        policy=policy,
        items=tuple(CourierItem(signed=s.signed(), receipts=()) for s in (birth,)),
        chains={vault_name(n): policy.chain for n in range(1, 6)},
        manifests={vault_name(n): "sha256:" + "aa" * 32 for n in range(1, 6)},
        wrong={},
        forks=(),
    )
    states = tuple(
        VaultState(
            number=n,
            vault=vault_name(n),
            endpoint="-",
            state="current",
            version=policy.version,
            head=policy.head,
            share=None,
            why=None,
        )
        for n in range(1, 6)
    )
    return Look(replace(view, **changes), states)


def visit(look=None, *, gone=None, vaults=None, **changed) -> Visit:
    """Return a visit of five vaults; ``v2=...`` replaces the second one."""
    values = {vault_name(n): changed.get(f"v{n}", well()) for n in range(1, 6)}
    errors = {vault_name(n): e for n, e in (gone or {}).items()}
    return Visit(
        name="notes/data",
        constellation="main",
        vault_set=vaults or vault_set(),
        values={v: e for v, e in values.items() if v not in errors},
        errors=errors,
        look=look or looked(),
        now=NOW,
    )


def at(look: Look, number: int, **changes) -> Look:
    """Return the charter with another state at one vault."""
    states = [
        msgspec.structs.replace(s, **changes) if s.number == number else s for s in look.vaults
    ]
    return Look(look.view, tuple(states))


def run_by(*operators: str):
    """Return the vaults, run by these."""
    plain = vault_set()
    domains = [FailureDomain(operator=o, region="-", vendor="-") for o in operators]
    return msgspec.structs.replace(
        plain,
        vaults=tuple(
            msgspec.structs.replace(m, domain=d) for m, d in zip(plain.vaults, domains, strict=True)
        ),
    )


SILENT = UnavailableError("no answer")
NEWER = msgspec.structs.replace(vault_set(), profiles=(OLD, NEW))
WATCHED = msgspec.structs.replace(
    vault_set(), witnesses=(WitnessMember(id=WITNESS, endpoint="w.example:7600"),)
)
LAGS = {f"v{n}": well(skew=-900) for n in range(1, ENOUGH + 1)}


def waiting() -> Look:
    """Return a charter on which a retire waits, as two vaults show it."""
    found = looked()
    sent = signed(composer().retire(found.policy, code_id(profile(1)), "old"))
    until = {vault_name(1): NOW + 60, vault_name(2): NOW + 61}
    return Look(
        replace(found.view, waiting=(WaitingStatement(sent=sent, until=until),)), found.vaults
    )


def recovering() -> Look:
    """Return a charter in which guardians put a new owner forward."""
    found = looked()
    heir = owner_of(person("heir").signer)
    recovery = Recovery(intent="sha256:" + "cc" * 32, owner=heir, since=NOW, ready=NOW + DAY)
    policy = replace(found.policy, recovery=recovery)
    return Look(replace(found.view, policy=policy), found.vaults)


def fewer(*numbers: int) -> Look:
    """Return a charter of which these vaults have no share."""
    found = looked()
    kept = {v: m for v, m in found.view.manifests.items() if v not in map(vault_name, numbers)}
    return Look(replace(found.view, manifests=kept), found.vaults)


CASES = {
    "unreachable": (visit(gone={2: SILENT}), [("unreachable", 2)]),
    "unproven": (visit(gone={2: TcbError("TCB status is Revoked")}), [("unproven", 2)]),
    "quarantined": (visit(v3=well(standing=says("quarantined", "cloned"))), [("quarantined", 3)]),
    "starting": (visit(v3=well(standing=says("starting", "lease"))), [("starting", 3)]),
    "clock-ahead": (visit(v1=well(skew=MAX_SKEW + 1)), [("clock", 1)]),
    "clock-behind": (visit(v1=well(skew=-MAX_SKEW - 1)), [("clock", 1)]),
    "own-clock": (visit(v4=well(skew=-900), v5=well(skew=-901), **LAGS), [("own-clock", None)]),
    "own-clock-and-one": (
        visit(v4=well(skew=-900), v5=well(skew=0), **LAGS),
        [("own-clock", None), ("clock", 5)],
    ),
    "collateral": (visit(v1=well(identity=proved(expires=NOW + DAY - 1))), [("collateral", 1)]),
    "grace": (visit(v1=well(identity=proved(expires=NOW - 9, overdue=9))), [("collateral", 1)]),
    "release": (visit(vaults=NEWER, v2=well(identity=proved(NEW)),
                      v3=well(identity=proved(NEW)), v4=well(identity=proved(NEW)),
                      v5=well(identity=proved(NEW))), [("release", 1)]),
    "sealing": (visit(v5=well(identity=proved(status="OutOfDate"))), [("sealing", 5)]),
    "sealing-of-many": (
        visit(**{f"v{n}": well(identity=proved(status="OutOfDate")) for n in (1, 2, 3)}),
        [("sealing", 1), ("sealing", 2), ("sealing", 3), ("sealing", None)],
    ),
    "margin": (
        visit(gone={2: SILENT, 3: SILENT}),
        [("unreachable", 2), ("unreachable", 3), ("margin", None)],
    ),
    "one-operator": (visit(vaults=run_by("A", "A", "A", "B", "C")), [("one-operator", None)]),
    "unheard": (
        visit(vaults=WATCHED, v1=well(standing=says(waiting=(WITNESS,)))),
        [("unheard", None)],
    ),
    "partition": (visit(v1=well(standing=says(waiting=(vault_name(2),)))), [("unheard", None)]),
    "charter": (visit(QuorumError("nobody answered")), [("charter", None)]),
    "behind": (visit(at(looked(), 4, state="behind", version=0)), [("behind", 4)]),
    "unborn": (visit(at(looked(), 4, state="unborn", version=None)), [("behind", 4)]),
    "lost-branch": (visit(at(looked(), 4, state="fork")), [("behind", 4)]),
    "not-believed": (visit(at(looked(), 4, state="unbelievable")), [("not-believed", 4)]),
    "no-share": (visit(fewer(5)), [("no-share", 5)]),
    "fork": (
        visit(looked(forks=(Fork(prev="sha256:a", children=("sha256:b", "sha256:c")),))),
        [("fork", None)],
    ),
    "waiting": (visit(waiting()), [("waiting", None)]),
    "recovery": (visit(recovering()), [("recovery", None)]),
    "one-signer": (visit(looked(owner=owner_of(person("owner").signer))), [("one-signer", None)]),
    "two-of-two": (
        visit(looked(owner=msgspec.structs.replace(OWNER, threshold=2))),
        [("one-signer", None)],
    ),
    "ends-soon": (visit(looked(until=NOW + DAY)), [("ends-soon", None)]),
    "nothing-approved": (visit(looked(until=NOW)), [("nothing-approved", None)]),
}  # fmt: skip


def found(seen: Visit) -> list[tuple[str, int | None]]:
    """Return what is found, and where."""
    return [(f.what, f.vault) for f in findings(seen)]


def test_a_key_that_is_well_has_no_findings():
    """Five vaults of five, two operators, two devices, an approval without end."""
    assert found(visit()) == []
    assert found(visit(vaults=run_by("A", "A", "B", "B", "C"))) == []
    assert found(visit(looked(until=NOW + 2 * DAY))) == []
    assert visit().spare == 2


@pytest.mark.parametrize("name", CASES)
def test_each_finding_is_found_and_says_what_to_type(name):
    """And nothing else is found."""
    seen, expected = CASES[name]

    assert found(seen) == expected
    for one in findings(seen):
        assert "placet " in one.next or "timedatectl " in one.next
        assert one.detail


def test_a_vault_without_a_share_or_standing_is_not_counted():
    """Nor one with the share of another attempt."""
    other = {vault_name(1): "sha256:" + "bb" * 32}
    view = looked().view
    mixed = Look(replace(view, manifests={**view.manifests, **other}), looked().vaults)

    assert visit(fewer(4, 5)).spare == 0
    assert visit(mixed).able == {vault_name(n) for n in (2, 3, 4, 5)}
    assert visit(v1=well(standing=says("quarantined", "cloned"))).spare == 1
    # Before it is created nobody has one; a vault of before says nothing of its standing.
    assert visit(looked(manifests={})).spare == 2
    assert visit(v1=well(standing=None)).spare == 2


def test_a_vault_that_is_down_is_not_reported_by_all_others_too():
    """They all wait for it: that is one finding, not five."""
    waits = {f"v{n}": well(standing=says(waiting=(vault_name(5),))) for n in (1, 2, 3, 4)}

    assert found(visit(gone={5: SILENT}, **waits)) == [("unreachable", 5)]


def test_guardians_make_a_single_signer_no_finding():
    """They can put another in its place."""
    seen = CASES["one-signer"][0]
    guardians = Guardians(principal=owner_of(person("aunt").signer), delay=9 * DAY, cooldown=DAY)
    rules = msgspec.structs.replace(seen.look.policy.rules, guardians=guardians)
    policy = replace(seen.look.policy, rules=rules)
    guarded = Look(replace(seen.look.view, policy=policy), seen.look.vaults)

    assert found(visit(guarded)) == []


def test_a_deleted_key_is_one_finding():
    """Its vaults are nobody's business any more."""
    gone = looked()
    policy = replace(gone.policy, deleted=True)
    seen = visit(Look(replace(gone.view, policy=policy), gone.vaults), gone={1: SILENT})

    [one] = findings(seen)

    assert (one.what, one.next) == ("deleted", "placet key forget notes/data")


def test_what_others_wrote_does_not_reach_the_screen_as_it_is():
    """An operator's name is a vaults file's word."""
    [one] = findings(visit(vaults=run_by("A\x1b[2J", "A\x1b[2J", "A\x1b[2J", "B", "C")))

    assert isinstance(one, Finding)
    assert "\x1b" not in one.detail
