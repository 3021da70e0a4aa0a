"""Who may decide, at five real vault services: every rule of spec/09 from the outside."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from placet_testing.charters import (
    NOW,
    composer,
    identity,
    person,
    profile,
    signed,
    vault_key,
)
from placet_testing.constellations import Story, run_of
from placet_testing.exports import auditing
from placet_testing.governed import (
    CLAUSE,
    DAY,
    PAGE,
    any_one,
    co_signed,
    governed,
    governed_body,
    some,
    update,
    use_clause,
    with_rules,
)
from placet_testing.vaults import peer

from placet.client.signing import Composer, merge_body, promote_body
from placet.core.body import StageBody
from placet.core.dsse import sign_record
from placet.core.encoding import decode, unb64
from placet.core.logentry import LogEntry
from placet.core.messages import ReleaseRequest, StageRequest, TakeAnswer
from placet.core.profile import code_id
from placet.core.signer import signer_id
from placet.core.statement import UntrustedStatement, compose, open_statement
from placet.core.table import Acts, clause_digest
from placet.errors import (
    ApprovalError,
    ApprovalExpiredError,
    ApprovalWaitingError,
    ConflictError,
    KeyDeletedError,
    MalformedError,
    NotApprovedError,
    PlacetError,
    PolicyDeniedError,
    UnrepairableError,
)
from placet.policy.charter import TakenStatement, fold
from placet.policy.key_policy import KeyPolicy
from placet.policy.receipts import receipt_of
from placet.vault.keys import charter_of

V1, V2, V3 = profile(1), profile(2), profile(3)


@pytest.fixture(autouse=True)
def checked_by_the_auditor() -> Iterator[None]:
    """Audit what the vaults of each test did: an auditor that shares no code accepts it."""
    with auditing():
        yield


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Yield a governed key: three owner signers, managers, guardians."""
    made = governed(tmp_path)
    yield made
    made.close()


def deliver(story: Story, sent: UntrustedStatement, at: int = 0) -> TakeAnswer:
    """Bring a statement to one vault, forgetting nothing if it is refused."""
    return story.benches[at].vault.take(run_of(sent))


def policy_at(story: Story, at: int = 0) -> KeyPolicy:
    """Return the policy in force at one vault, as it would be after a restart."""
    state = story.benches[at].vault._keys.get(story.key)
    again = fold(charter_of(state.record))
    assert again == state.policy
    return again


def refused(story: Story, sent: UntrustedStatement, error: type[PlacetError]) -> PlacetError:
    """Check that every vault refuses a statement, and that nothing changed; return why."""
    before = [b.vault.charter(story.key) for b in story.benches]
    problems = []
    for at in range(len(story.benches)):
        with pytest.raises(error) as refusal:
            deliver(story, sent, at)
        problems.append(refusal.value)
    after = [b.vault.charter(story.key) for b in story.benches]
    assert [a.charter for a in after] == [b.charter for b in before]
    return problems[0]


def trail(story: Story, at: int = 0) -> list[LogEntry]:
    """Return one vault's trail of the key."""
    entries = story.benches[at].vault.log(story.key, 0).entries
    return [decode(unb64(e.entry), LogEntry) for e in entries]


def written(**changes: object) -> KeyPolicy:
    """Return the policy of a birth with other rules, as a vault would fold it."""
    return fold([TakenStatement(sent=signed(composer().birth(governed_body(**changes))))])


def promote(story: Story, what=V2, **changes: object) -> UntrustedStatement:
    """Compose a promote on the policy in force."""
    body = msgspec.structs.replace(promote_body(story.policy, what), **changes)
    return composer(story.clock.time).promote(story.policy, body)


# --- managers (R5.9) --------------------------------------------------------------------------


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Story]:
    """Yield a key whose promotes two of three managers co-sign, within an hour."""
    made = governed(tmp_path, acts=co_signed("promote", "update_policy", lifetime=3600))
    yield made
    made.close()


def hour(story: Story) -> Composer:
    """Return a composer of statements that live an hour."""
    return Composer(now=story.clock.time, rng=composer(story.clock.time).rng, lifetime=3600)


@pytest.mark.req("R5.9")
@pytest.mark.parametrize(
    "names",
    [("owner",), ("m1", "m2", "m3"), ("owner", "m1"), ("owner", "spare", "m1"), ("owner", "g1")],
)
def test_owner_and_managers_both_must_sign(team: Story, names: tuple[str, ...]) -> None:
    """Neither owner nor managers alone, nor one manager short; two owners are no manager."""
    sent = hour(team).promote(team.policy, promote_body(team.policy, V2))
    refused(team, signed(sent, *names), ApprovalError)
    team.take(signed(sent, "owner", "m1", "m3"))
    assert team.gather(V2)


@pytest.mark.req("R5.9")
def test_a_managers_approval_is_of_one_statement(team: Story) -> None:
    """What managers signed for version 2 is no approval of version 3, before or after."""
    two = signed(
        hour(team).promote(team.policy, promote_body(team.policy, V2)), "owner", "m1", "m2"
    )
    other = hour(team).promote(team.policy, promote_body(team.policy, V3))
    owner_only = signed(other, "owner")
    spent = tuple(s for s in two.signatures if s.signer != signer_id(person("owner").signer))
    moved = compose(owner_only.statement, (*owner_only.signatures, *spent))
    refused(team, moved, ApprovalError)
    team.take(two)
    # Used once: the version is spent, at every vault.
    again = signed(hour(team).promote(team.policy, promote_body(team.policy, V3)), "owner")
    refused(team, compose(again.statement, (*again.signatures, *spent)), ApprovalError)
    assert deliver(team, two).version == 2  # repeating changes nothing


@pytest.mark.req("R5.9")
def test_a_statement_lives_no_longer_than_its_row_allows(team: Story) -> None:
    """Freshness is the cap on a statement's lifetime."""
    sent = signed(promote(team), "owner", "m1", "m2")
    problem = refused(team, sent, PolicyDeniedError)
    assert problem.members["reason"] == "lifetime"


ROLES = {
    "a manager who owns": {"managers": some("managers", 2, "owner", "m1", "m2")},
    "a manager who stages": {"managers": some("managers", 2, "platform", "m1", "m2")},
    "a guardian who manages": {"managers": some("managers", 1, "g1")},
    "an auditor who manages": {"auditors": (person("m1").signer,)},
    "an auditor who stages": {"auditors": (person("platform").signer,)},
}


@pytest.mark.req("R5.9")
@pytest.mark.parametrize("changes", ROLES.values(), ids=ROLES)
def test_one_key_one_role(changes: dict[str, object]) -> None:
    """Who proposes never co-signs; who watches or guards decides nothing else."""
    with pytest.raises(MalformedError):
        written(**changes)


TAKEN_FROM_THEM = {
    "their rows": {"acts": Acts()},
    "their seats": {"managers": None, "acts": Acts()},
    "others in their seats": {"managers": some("managers", 1, "owner2")},
    "a clause that promotes without them": {"auto_migrate": CLAUSE},
}


@pytest.mark.req("R5.9")
@pytest.mark.parametrize("changes", TAKEN_FROM_THEM.values(), ids=TAKEN_FROM_THEM)
def test_the_owner_alone_takes_nothing_from_the_managers(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    """Where they co-sign promotes alone, they co-sign what would end that as well."""
    story = governed(tmp_path, acts=co_signed("promote"))
    refused(story, update(story, "owner", "spare", **changes), ApprovalError)
    story.take(update(story, "owner", stager_quota=3))
    story.take(update(story, "owner", "m1", "m2", **changes))
    story.close()


# --- replay (R5.3) ----------------------------------------------------------------------------


@pytest.mark.req("R5.3")
def test_a_replayed_promote_is_refused_and_the_log_says_why(story: Story) -> None:
    """After a retire, after a void, after its end."""
    old = story.policy
    promoted = story.promote(V2)
    story.retire(V2)
    # Repeating what was taken changes nothing, and brings nothing back.
    deliver(story, promoted)
    with pytest.raises(NotApprovedError):
        story.gather(V2)
    # A second promote, signed on the old head.
    replay = signed(composer(seed="again").promote(old, promote_body(old, V2)))
    refused(story, replay, ConflictError)
    # Signed, never sent, voided.
    abandoned = signed(promote(story, V3))
    story.take(signed(composer().void(story.policy, abandoned.digest, "second thoughts")))
    refused(story, abandoned, ConflictError)
    # Past its end.
    late = signed(promote(story, V3))
    story.clock.time += 2 * DAY
    refused(story, late, ApprovalExpiredError)
    said = [(e.statement, (e.detail or {}).get("type")) for e in trail(story) if e.kind == "denied"]
    assert (replay.digest, "statement-conflict") in said
    assert (abandoned.digest, "statement-conflict") in said
    assert (late.digest, "approval-expired") in said


@pytest.mark.req("R5.3")
def test_a_refused_promote_names_its_reason_in_the_log(story: Story) -> None:
    """A rule that was broken has a name."""
    refused(story, signed(promote(story, profile(2, security_version=0), security_version_floor=1)),
            PolicyDeniedError)  # fmt: skip
    assert [(e.detail or {}).get("reason") for e in trail(story) if e.kind == "denied"] == [
        "below-floor"
    ]


# --- pages ------------------------------------------------------------------------------------


@pytest.mark.req("R5.3")
def test_what_a_page_signed_alone_waits_a_day(story: Story) -> None:
    """It is kept and shown, restarts included; after the day it is taken, and lets in."""
    sent = PAGE.sign(promote(story))
    problem = refused(story, sent, ApprovalWaitingError)
    assert problem.members["until"] == NOW + DAY
    story.restart(0)
    [waiting] = story.benches[0].vault.charter(story.key).waiting
    assert (open_statement(waiting.signed).digest, waiting.until) == (sent.digest, NOW + DAY)
    story.clock.time += DAY - 1
    refused(story, sent, ApprovalWaitingError)
    with pytest.raises(NotApprovedError):
        story.gather(V2)
    story.clock.time += 1
    with pytest.raises(ApprovalExpiredError):
        deliver(story, sent)  # composed to live a day: too short to wait out a day


def test_a_page_and_a_second_signer_wait_for_nothing(story: Story) -> None:
    """The second signer looked at another screen."""
    story.take(signed(PAGE.sign(promote(story)), "spare"))
    assert story.gather(V2)


@pytest.fixture
def patient(story: Story) -> UntrustedStatement:
    """Return a promote that a page signed alone and that outlives its delay."""
    long = Composer(now=NOW, rng=composer().rng, lifetime=3 * DAY)
    sent = PAGE.sign(long.promote(story.policy, promote_body(story.policy, V2)))
    refused(story, sent, ApprovalWaitingError)
    return sent


def test_after_the_day_it_takes_effect(story: Story, patient: UntrustedStatement) -> None:
    """Whoever brings it again."""
    story.clock.time += DAY
    story.take(patient)
    assert story.gather(V2)
    assert not [w for w in story.benches[0].vault.charter(story.key).waiting
                if open_statement(w.signed).digest != patient.digest]  # fmt: skip


def test_any_owner_signer_says_no(story: Story, patient: UntrustedStatement) -> None:
    """At the last second, one of three; the version is spent and it is dead for good."""
    story.clock.time += DAY - 1
    story.take(signed(composer(story.clock.time).void(story.policy, patient.digest, "no"), "spare"))
    story.clock.time += DAY
    refused(story, patient, ConflictError)
    assert policy_at(story).version == 2


@pytest.mark.parametrize("names", [("m1",), ("g1", "g2"), ("platform",), ("auditor",)])
def test_nobody_else_says_no(
    story: Story, patient: UntrustedStatement, names: tuple[str, ...]
) -> None:
    """Managers, guardians, stagers and auditors are no owner."""
    refused(
        story, signed(composer().void(story.policy, patient.digest, "no"), *names), ApprovalError
    )


def test_one_signer_of_two_voids_only_what_waits(tmp_path: Path) -> None:
    """A veto is against what waits here; else the owner as a whole decides."""
    story = governed(
        tmp_path, names=("owner", "spare"), owner=some("owner", 2, "owner", "spare", "third")
    )
    other = signed(promote(story), "owner", "spare")
    refused(
        story, signed(composer().void(story.policy, other.digest, "no"), "spare"), ApprovalError
    )
    story.take(signed(composer().void(story.policy, other.digest, "no"), "owner", "spare"))
    refused(story, other, ConflictError)
    story.close()


# --- new signers (R5.7) -----------------------------------------------------------------------


@pytest.mark.req("R5.7")
def test_a_new_signer_counts_for_nothing_at_first(story: Story) -> None:
    """Enrolled by a script, it is shown, and can do nothing; the others take it out again."""
    evil = person("evil").signer
    owner = any_one("owner", *story.policy.owner.of, evil)
    story.take(update(story, "owner", owner=owner))
    assert policy_at(story).young == ((signer_id(evil), NOW + DAY),)
    for sent in (
        promote(story),
        composer().retire(story.policy, code_id(V1), "gone"),
        composer().delete(story.policy, "gone"),
        composer().update(story.policy, with_rules(story, managers=None), "mine"),
    ):
        refused(story, signed(sent, "evil"), ApprovalError)
    without = any_one("owner", *owner.of[:-1])
    story.take(update(story, "spare", owner=without))
    story.clock.time += 2 * DAY
    refused(story, signed(promote(story), "evil"), ApprovalError)


@pytest.mark.req("R5.7")
def test_after_the_cool_down_it_counts(story: Story) -> None:
    """To the second, and after a restart."""
    new = person("new").signer
    story.take(update(story, "owner", owner=any_one("owner", *story.policy.owner.of, new)))
    story.clock.time += DAY - 1
    refused(story, signed(promote(story), "new"), ApprovalError)
    story.restart(0)
    story.clock.time += 1
    story.take(signed(promote(story), "new"))
    assert story.gather(V2)


@pytest.mark.req("R5.7")
def test_one_tap_does_not_put_everybody_else_out(story: Story) -> None:
    """The owner keeps a signer who counts; neither one update nor two evict the others."""
    evil = any_one("owner", person("evil").signer)
    problem = refused(story, update(story, "owner", owner=evil), PolicyDeniedError)
    assert problem.members["reason"] == "all-new"
    story.take(update(story, "owner", owner=any_one("owner", person("owner").signer, evil.of[0])))
    problem = refused(story, update(story, "owner", owner=evil), PolicyDeniedError)
    assert problem.members["reason"] == "all-new"


@pytest.mark.req("R5.7")
def test_the_cool_down_only_rises(story: Story) -> None:
    """Whoever could lower it first would add his key next."""
    problem = refused(story, update(story, "owner", cooldown=0), PolicyDeniedError)
    assert problem.members["reason"] == "cooldown-lowered"
    story.take(update(story, "owner", cooldown=2 * DAY))


# --- recovery (R5.8) --------------------------------------------------------------------------


def intent(story: Story, *names: str, owner: str = "heir") -> UntrustedStatement:
    """Return the guardians' intent."""
    new = any_one("owner", person(owner).signer)
    return signed(composer(story.clock.time).recover(story.policy, new, "lost"), *names)


def completion(story: Story, sent: UntrustedStatement, *names: str) -> UntrustedStatement:
    """Return the completion of an intent."""
    done = composer(story.clock.time).complete(story.policy, sent.digest, "lost")
    return signed(done, *(names or ("heir",)))


@pytest.mark.req("R5.8", "I10")
def test_recovered_after_the_delay(story: Story) -> None:
    """Not a second earlier; then the heir owns it, may retire, and lets nothing in for a while."""
    before = story.policy.approvals
    begun = intent(story, "g1", "g3")
    story.take(begun)
    story.clock.time += 7 * DAY - 1
    problem = refused(story, completion(story, begun), ApprovalWaitingError)
    assert problem.members["until"] == NOW + 7 * DAY
    story.clock.time += 1
    story.take(completion(story, begun))
    assert policy_at(story).approvals == before  # never what runs
    assert story.gather(V1)
    problem = refused(story, signed(promote(story), "heir"), PolicyDeniedError)
    assert problem.members["reason"] == "recovery-cooldown"
    refused(story, signed(promote(story), "owner"), ApprovalError)
    refused(story, signed(composer(story.clock.time).delete(story.policy, "x"), "heir"),
            PolicyDeniedError)  # fmt: skip
    story.take(signed(composer(story.clock.time).retire(story.policy, code_id(V1), "x"), "heir"))
    story.clock.time += 3 * DAY
    story.take(signed(promote(story), "heir"))
    assert story.gather(V2)


@pytest.mark.req("R5.8")
@pytest.mark.parametrize("names", [("g1",), ("owner",), ("m1", "m2", "m3"), ("g1", "heir")])
def test_too_few_guardians(story: Story, names: tuple[str, ...]) -> None:
    """t-1 guardians, the owner, the managers, the heir: none begins a recovery."""
    refused(story, intent(story, *names), ApprovalError)


@pytest.mark.req("R5.8")
def test_the_owner_vetoes_at_the_last_second(story: Story) -> None:
    """Any one signer; afterwards the guardians can begin anew, and the old intent is dead."""
    begun = intent(story, "g1", "g2")
    story.take(begun)
    story.clock.time += 7 * DAY - 1
    story.take(signed(composer(story.clock.time).void(story.policy, begun.digest, "here"), "spare"))
    story.clock.time += DAY
    problem = refused(story, completion(story, begun), PolicyDeniedError)
    assert problem.members["reason"] == "no-recovery"
    story.take(intent(story, "g2", "g3"))


@pytest.mark.req("R5.8")
def test_one_recovery_at_a_time(story: Story) -> None:
    """A second intent is refused while one is open, and no other's intent can be completed."""
    begun = intent(story, "g1", "g2")
    story.take(begun)
    problem = refused(story, intent(story, "g2", "g3", owner="other"), PolicyDeniedError)
    assert problem.members["reason"] == "recovery-open"
    story.clock.time += 7 * DAY
    refused(story, completion(story, begun, "g1", "g2", "g3"), ApprovalError)
    stolen = composer(story.clock.time).complete(story.policy, "sha256:" + "0" * 64, "x")
    refused(story, signed(stolen, "heir"), PolicyDeniedError)


@pytest.mark.req("R5.8", "I10")
def test_guardians_can_do_nothing_else(story: Story) -> None:
    """No promote, retire, update, delete, void or merge, however many of them sign."""
    now = composer()
    for sent in (
        promote(story),
        now.retire(story.policy, code_id(V1), "x"),
        now.update(story.policy, with_rules(story, guardians=None), "x"),
        now.delete(story.policy, "x"),
        now.void(story.policy, "sha256:" + "0" * 64, "x"),
    ):
        refused(story, signed(sent, "g1", "g2", "g3"), ApprovalError)


@pytest.mark.req("R5.8")
def test_guardians_cannot_shorten_the_delay_by_one_run(story: Story) -> None:
    """Intent, completion and what the heir signs next, in one run: descent excuses no delay."""
    begun = intent(story, "g1", "g2")
    story.statements.append(begun)
    done = completion(story, begun)
    story.statements.append(done)
    last = signed(composer().retire(story.policy, code_id(V1), "x"), "heir")
    del story.statements[1:]
    for bench in story.benches:
        with pytest.raises(ApprovalWaitingError):
            bench.vault.take(run_of(begun, done, last))
    assert policy_at(story).owner == story.policy.owner


@pytest.mark.req("R5.8")
def test_one_vaults_clock_forward_recovers_nothing(story: Story) -> None:
    """A host that sets its clock ahead moves its own vault alone: k clocks, not one."""
    begun = intent(story, "g1", "g2")
    story.take(begun)
    done = completion(story, begun)
    story.clock.time += 7 * DAY
    late = completion(story, begun)
    deliver(story, late, 0)  # the liar's vault
    story.clock.time = NOW
    receipts = story.benches[0].vault.charter(story.key).charter[-1].receipts
    for at in (1, 2, 3, 4):
        with pytest.raises(PlacetError):
            story.benches[at].vault.take(run_of(late, receipts=receipts))
        with pytest.raises(ApprovalWaitingError):
            deliver(story, done, at)


# --- auto-migrate (R6.7) ----------------------------------------------------------------------


@pytest.fixture
def auto(story: Story) -> Story:
    """Return the key with a clause in force: the platform may promote, after a day."""
    story.take(update(story, "owner", auto_migrate=CLAUSE))
    return story


def lasting(story: Story) -> Composer:
    """Return a composer of statements that outlive the clause's delay."""
    return Composer(now=story.clock.time, rng=composer(story.clock.time).rng, lifetime=5 * DAY)


def use(story: Story, what=V2, *names: str, **changes: object) -> UntrustedStatement:
    """Return a use of the clause that outlives its delay."""
    short = use_clause(story, what, **changes)
    sent = lasting(story).promote(story.policy, short.statement.body)
    return signed(sent, *(names or ("platform",)))


@pytest.mark.req("R6.7")
def test_a_use_waits_and_is_marked(auto: Story) -> None:
    """Logged as waiting, then as auto with the clause's digest; in force after the day."""
    sent = use(auto)
    problem = refused(auto, sent, ApprovalWaitingError)
    assert problem.members["until"] == NOW + DAY
    with pytest.raises(NotApprovedError):
        auto.gather(V2)
    auto.clock.time += DAY
    auto.take(sent)
    assert auto.gather(V2)
    assert auto.gather(V1)
    clause = clause_digest(CLAUSE)
    marks = [(e.kind, e.subject, (e.detail or {}).get("mark")) for e in trail(auto)
             if e.statement == sent.digest and e.kind in ("waiting", "taken")]  # fmt: skip
    assert marks == [("waiting", clause, None), ("taken", clause, "auto")]


@pytest.mark.req("R6.7")
def test_any_owner_signer_vetoes_a_use(auto: Story) -> None:
    """During its delay."""
    sent = use(auto)
    refused(auto, sent, ApprovalWaitingError)
    auto.take(signed(composer().void(auto.policy, sent.digest, "no"), "spare"))
    auto.clock.time += 2 * DAY
    refused(auto, sent, ConflictError)


BEYOND = {
    "another app": ({"what": profile(2, app="other")}, "changes"),
    "a step too large": ({"what": profile(2, security_version=3)}, "changes"),
    "a step back": ({"what": profile(2, security_version=0)}, None),
    "weaker platform rules": (
        {"what": msgspec.structs.replace(
            V2, tcb=msgspec.structs.replace(V2.tcb, statuses=("UpToDate", "OutOfDate")))},
        "changes",
    ),
    "another anchor": ({"what": msgspec.structs.replace(V2, anchor="intel")}, "changes"),
    "it retires others": ({"what": V2, "earlier": "retire"}, "only-lets-in"),
    "it ends others": ({"what": V2, "earlier": "retire-at", "retire_at": NOW}, "only-lets-in"),
    "it raises the floor": ({"what": V2, "security_version_floor": 1}, "only-lets-in"),
}  # fmt: skip


@pytest.mark.req("R6.7", "R6.1")
@pytest.mark.parametrize(("how", "limit"), BEYOND.values(), ids=BEYOND)
def test_beyond_the_clause(auto: Story, how: dict[str, object], limit: str | None) -> None:
    """Each condition that is missing: refused, and nothing is let in after the delay either."""
    what = how.pop("what") if "what" in how else V2
    how = dict(how)
    sent = use(auto, what, **how)
    how["what"] = what
    problem = refused(auto, sent, PolicyDeniedError)
    if limit is not None:
        assert problem.members["limit"] == limit
    auto.clock.time += 2 * DAY
    refused(auto, sent, PolicyDeniedError)


@pytest.mark.req("R6.7")
@pytest.mark.parametrize("names", [("m1",), ("g1", "g2"), ("auditor",), ("stranger",)])
def test_only_the_clauses_signers(auto: Story, names: tuple[str, ...]) -> None:
    """Nobody else promotes by the clause; and without it its signers promote nothing."""
    refused(auto, use(auto, V2, *names), ApprovalError)
    refused(auto, signed(promote(auto), "platform"), ApprovalError)


@pytest.mark.req("R6.7")
def test_the_budget_is_spent(auto: Story) -> None:
    """Two uses; the third is refused until the owner says more."""
    for what in (V2, V3):
        sent = use(auto, what)
        refused(auto, sent, ApprovalWaitingError)
        auto.clock.time += DAY
        auto.take(sent)
    problem = refused(auto, use(auto, profile(4)), PolicyDeniedError)
    assert problem.members["limit"] == "budget"


@pytest.mark.req("R6.7")
def test_the_clause_ends(auto: Story) -> None:
    """At its time, by each vault's clock."""
    auto.clock.time = CLAUSE.expires_at - DAY
    sent = use(auto)
    refused(auto, sent, ApprovalWaitingError)
    auto.clock.time = CLAUSE.expires_at
    problem = refused(auto, sent, PolicyDeniedError)
    assert problem.members["limit"] == "expires-at"


@pytest.mark.req("R6.7")
def test_a_clause_is_a_statement_of_its_own(story: Story) -> None:
    """Not in a birth, not among other changes; off again at any time, and then it is no clause."""
    problem = refused(
        story, update(story, "owner", auto_migrate=CLAUSE, managers=None), PolicyDeniedError
    )
    assert problem.members["reason"] == "auto-not-alone"
    refused(story, use_as(story), PolicyDeniedError)
    story.take(update(story, "owner", auto_migrate=CLAUSE))
    sent = use(story)
    refused(story, sent, ApprovalWaitingError)
    story.take(update(story, "owner", auto_migrate=None, managers=None))
    story.clock.time += DAY
    refused(story, sent, ConflictError)
    refused(story, use_as(story), PolicyDeniedError)


def use_as(story: Story) -> UntrustedStatement:
    """Return a promote that names a clause which is not in force."""
    body = promote_body(story.policy, V2)
    body = msgspec.structs.replace(body, auto=clause_digest(CLAUSE))
    return signed(lasting(story).promote(story.policy, body), "platform")


@pytest.mark.req("R6.7")
def test_no_key_is_born_with_a_clause() -> None:
    """Turning it on is a decision by itself."""
    with pytest.raises(PolicyDeniedError):
        written(auto_migrate=CLAUSE)


@pytest.mark.req("R6.1", "I4")
def test_what_is_staged_under_a_clause_stays_inert(auto: Story) -> None:
    """The full table of decisions is the same before and after, by whomever it is staged."""
    codes = [V1, V2, V3, profile(4)]

    def decisions() -> list[str]:
        found = []
        for at in range(5):
            for what in codes:
                who = peer(identity(what, (auto.key,)), (auto.key,), at=auto.clock.ticks)
                request = ReleaseRequest(nonce="A" * 43, head=None)
                try:
                    auto.benches[at].vault.release(who, auto.key, request)
                    found.append("yes")
                except PlacetError as e:
                    found.append(e.type)
        return found

    before = decisions()
    for number in (2, 3, 4):
        body = StageBody(profile=profile(number), version="2", source="s", provenance=None,
                         review=None)  # fmt: skip
        sent = signed(composer().stage(auto.key, body), "platform")
        for bench in auto.benches:
            bench.vault.stage(StageRequest(signed=sent.signed()))
    refused(auto, use(auto), ApprovalWaitingError)
    assert decisions() == before
    auto.clock.time += 30 * DAY
    assert decisions() == before


# --- what is fixed, and repair ----------------------------------------------------------------

FIXED = {
    "managers": {"managers": None},
    "guardians": {"guardians": None},
    "acts": {"acts": co_signed("retire")},
    "stagers": {"stagers": ()},
    "auto_migrate": {"auto_migrate": CLAUSE},
    "cooldown": {"cooldown": 3 * DAY},
    "stager_quota": {"stager_quota": 3},
    "auditors": {"auditors": ()},
    "reviewers": {"reviewers": some("reviewers", 1, "r1")},
}


@pytest.mark.parametrize(("field", "changes"), FIXED.items(), ids=FIXED)
def test_immutable_fields_stay(tmp_path: Path, field: str, changes: dict[str, object]) -> None:
    """For life, against the owner himself; and what is immutable cannot be made changeable."""
    story = governed(tmp_path, immutable=(field,))
    problem = refused(story, update(story, "owner", **changes), PolicyDeniedError)
    assert problem.members["reason"] == "immutable"
    refused(story, update(story, "owner", immutable=()), PolicyDeniedError)
    story.close()


def test_a_policy_that_could_never_repair_itself() -> None:
    """An owner fixed for life; managers fixed for life of whom none may be lost."""
    with pytest.raises(UnrepairableError):
        written(immutable=("owner",))
    frozen = {"immutable": ("managers",), "acts": co_signed("update_policy")}
    with pytest.raises(UnrepairableError):
        written(managers=some("managers", 2, "m1", "m2"), **frozen)
    assert written(managers=some("managers", 2, "m1", "m2", "m3"), **frozen)
    with pytest.raises(MalformedError):
        written(managers=None, acts=co_signed("promote"))


# --- reviewers --------------------------------------------------------------------------------


def test_reviewers_add_vault_releases_and_nothing_else(tmp_path: Path) -> None:
    """In the owner's place, for the vault set's profiles alone."""
    story = governed(tmp_path, reviewers=some("reviewers", 2, "r1", "r2", "r3"))
    release = profile(9, app="placet-vault")
    rules = story.policy.rules
    sent = composer().update(story.policy, rules, "vault 2", vault_profiles=(release,))
    refused(story, signed(sent, "r1"), ApprovalError)
    other = composer().update(
        story.policy, with_rules(story, stager_quota=1), "x", vault_profiles=(release,)
    )
    refused(story, signed(other, "r1", "r2"), ApprovalError)
    refused(story, signed(promote(story), "r1", "r2", "r3"), ApprovalError)
    story.take(signed(sent, "r1", "r2"))
    assert policy_at(story).vault_set.profiles[-1] == release
    story.close()


# --- downgrade (R6.4, R6.6) -------------------------------------------------------------------


@pytest.mark.req("R6.4")
def test_downgrades_have_reasons_of_their_own(story: Story) -> None:
    """A lower security version, the same version of another digest, retired code."""
    story.take(signed(promote(story, profile(2, security_version=2), security_version_floor=2,
                              earlier="retire")))  # fmt: skip
    downgrades = (
        promote(story, profile(3, security_version=1)),
        promote(story, profile(3, security_version=2), security_version_floor=1),
        promote(story, profile(1, security_version=2)),
        promote(story, profile(3, security_version=2), unretire=True),
    )
    reasons = [refused(story, signed(d), PolicyDeniedError).members["reason"] for d in downgrades]
    assert reasons == ["below-floor", "floor-lowered", "retired", "never-retired"]
    # The same version of another digest is not let in by its number.
    with pytest.raises(NotApprovedError) as refusal:
        story.gather(profile(3, security_version=2))
    assert refusal.value.members["retired"] is False
    with pytest.raises(NotApprovedError) as refusal:
        story.gather(V1)
    assert refusal.value.members["retired"] is True


NEAR = {
    "app in capitals": {"app": "Notes"},
    "app padded": {"app": "notes "},
    "image in capitals": {"image": V1.image.upper().replace("SHA256", "sha256")},
    "image of another algorithm": {"image": V1.image.replace("sha256:", "sha512:")},
    "image of 31 bytes": {"image": V1.image[:-2]},
    "image with a zero more": {"image": V1.image + "00"},
    "config of another tag": {"config": V1.config.replace("sha384:", "sha256:")},
    "config padded": {"config": V1.config + " "},
}


@pytest.mark.req("R6.6")
@pytest.mark.parametrize("claims", NEAR.values(), ids=NEAR)
def test_claims_that_nearly_match(story: Story, claims: dict[str, str]) -> None:
    """Exact bytes or refused: nothing is normalised."""
    who = identity(V1, (story.key,))
    near = dataclasses.replace(who, claims=msgspec.structs.replace(who.claims, **claims))
    caller = peer(near, (story.key,), at=story.clock.ticks)
    with pytest.raises(NotApprovedError):
        story.benches[0].vault.release(caller, story.key, ReleaseRequest(nonce="A" * 43, head=None))


@pytest.mark.req("R6.4", "I12")
def test_an_overlap_ends_by_itself(story: Story) -> None:
    """The replaced version retires at its time, without another statement."""
    story.take(signed(promote(story, V2, earlier="retire-at", retire_at=NOW + 100)))
    story.clock.time += 99
    assert story.gather(V1)
    story.clock.time += 1
    with pytest.raises(NotApprovedError):
        story.gather(V1)
    assert story.gather(V2)


# --- forks and merges (R8.2) ------------------------------------------------------------------


def fork(story: Story, ours=(0, 1), theirs=(2, 3)) -> tuple[KeyPolicy, KeyPolicy]:
    """Have two devices promote at once; return the policies of both branches."""
    first, second = signed(promote(story, V2)), signed(promote(story, V3), "spare")
    for at in ours:
        deliver(story, first, at)
    for at in theirs:
        deliver(story, second, at)
    return policy_at(story, ours[0]), policy_at(story, theirs[0])


@pytest.mark.req("R8.2")
def test_a_merge_ends_a_fork_everywhere(story: Story) -> None:
    """Neither branch reached k: nobody could release it; one statement levels all vaults."""
    ours, theirs = fork(story)
    for what in (V2, V3):
        served = 0
        for at in range(4):
            try:
                story.release(at, what)
                served += 1
            except NotApprovedError:
                pass
        assert served < story.policy.vault_set.k
    sent = signed(composer().merge([ours, theirs], merge_body([ours, theirs], "both")))
    for at in range(4):
        assert deliver(story, sent, at).version == 3
    # A vault that saw neither takes a branch and the merge in one run.
    branch = story.benches[0].vault.charter(story.key).charter[1]
    story.benches[4].vault.take(
        msgspec.structs.replace(run_of(sent), chain=(branch, *run_of(sent).chain))
    )
    policies = [policy_at(story, at) for at in range(5)]
    assert {p.head for p in policies} == {sent.digest}
    assert {p.approvals for p in policies} == {policies[0].approvals}
    assert {a.code for a in policies[0].approvals} == {code_id(v) for v in (V1, V2, V3)}
    # Late couriers with either branch change nothing.
    for at in range(5):
        items = story.benches[0].vault.charter(story.key).charter
        story.benches[at].vault.take(msgspec.structs.replace(run_of(sent), chain=items))
        assert policy_at(story, at).head == sent.digest


@pytest.mark.req("R8.2")
def test_both_branches_are_shown(story: Story) -> None:
    """A vault keeps what it took first, and shows the other valid statement."""
    ours, theirs = fork(story)
    for at, other in ((0, theirs), (2, ours)):
        item = story.benches[2 - at].vault.charter(story.key).charter[1]
        with pytest.raises(ConflictError):
            story.benches[at].vault.take(
                msgspec.structs.replace(run_of(story.statements[0]), chain=(item,))
            )
        [shown] = story.benches[at].vault.charter(story.key).forks
        assert open_statement(shown).digest == other.head
    # What nobody signed who counts is no fork.
    fake = signed(composer(seed="fake").promote(story.policy, promote_body(story.policy, V3)), "m1")
    with pytest.raises(PlacetError):
        deliver(story, fake)
    assert len(story.benches[0].vault.charter(story.key).forks) == 1


MERGES = {
    "a tombstone forgotten": ({"tombstones": ()}, "tombstone-missing"),
    "the floor lowered": ({"security_version_floor": 0}, "floor-lowered"),
    "a clause slipped in": ({"clause": CLAUSE}, "auto-not-alone"),
    "a cool-down lowered": ({"cooldown": 0}, "cooldown-lowered"),
}


@pytest.mark.req("R8.2")
@pytest.mark.parametrize(("changes", "reason"), MERGES.values(), ids=MERGES)
def test_what_a_merge_cannot_do(story: Story, changes: dict[str, object], reason: str) -> None:
    """Keeps every tombstone, the higher floors, and what only rises."""
    raised = profile(5, security_version=3)
    story.take(signed(promote(story, raised, security_version_floor=1, earlier="retire")))
    first = signed(promote(story, profile(6, security_version=3)))
    second = signed(promote(story, profile(7, security_version=3)), "spare")
    deliver(story, first, 0)
    deliver(story, second, 1)
    branches = [policy_at(story, 0), policy_at(story, 1)]
    body = merge_body(branches, "both")
    changes = dict(changes)
    rules = {"auto_migrate": changes.pop("clause", None)}
    if "cooldown" in changes:
        rules["cooldown"] = changes.pop("cooldown")
    body = msgspec.structs.replace(
        body, policy=msgspec.structs.replace(body.policy, **rules), **changes
    )
    for at in (0, 1):
        with pytest.raises(PolicyDeniedError) as refusal:
            deliver(story, signed(composer().merge(branches, body)), at)
        assert refusal.value.members["reason"] == reason


@pytest.mark.req("R8.2")
def test_a_merge_takes_who_any_of_it_takes(tmp_path: Path) -> None:
    """Managers who co-sign promotes co-sign merges: a merge lets in."""
    story = governed(tmp_path, acts=co_signed("promote"))
    first = signed(promote(story, V2), "owner", "m1", "m2")
    second = signed(promote(story, V3), "spare", "m1", "m2")
    deliver(story, first, 0)
    deliver(story, second, 1)
    branches = [policy_at(story, 0), policy_at(story, 1)]
    sent = composer().merge(branches, merge_body(branches, "both"))
    for at in (0, 1):
        with pytest.raises(ApprovalError):
            deliver(story, signed(sent, "owner"), at)
        deliver(story, signed(sent, "owner", "m2", "m3"), at)
    story.close()


@pytest.mark.req("R8.2")
def test_fewer_than_k_receipts_move_nobody(story: Story) -> None:
    """A branch of two of five vaults wins over nobody, however its receipts are padded."""
    fork(story)
    items = story.benches[2].vault.charter(story.key).charter
    two = [story.benches[at].vault.charter(story.key).charter[1].receipts[0] for at in (2, 3)]
    forged = sign_record(receipt_of(two[0]), vault_key(9))
    for receipts in ((*two,), (*two, two[0]), (*two, forged)):
        branch = msgspec.structs.replace(items[1], receipts=receipts)
        with pytest.raises(ConflictError):
            story.benches[0].vault.take(
                msgspec.structs.replace(run_of(story.statements[0]), chain=(items[0], branch))
            )


# --- delete -----------------------------------------------------------------------------------


def test_delete_destroys_for_ever(story: Story) -> None:
    """Shares are erased, the tombstone stays: nothing is released, taken or created again."""
    wrong = composer().delete(story.policy, "x")
    body = msgspec.structs.replace(wrong.statement.body, label="notes/other")
    other = compose(msgspec.structs.replace(wrong.statement, body=body))
    assert refused(story, signed(other), PolicyDeniedError).members["reason"] == "label"
    story.take(signed(composer().delete(story.policy, "no longer needed")))
    for at in range(5):
        with pytest.raises(KeyDeletedError):
            story.release(at, V1)
        state = story.benches[at].vault._keys.get(story.key)
        assert (state.record.committed, state.record.held) == (None, ())
    refused(story, signed(promote(story)), KeyDeletedError)
    with pytest.raises(KeyDeletedError):
        story.create(attempt=2)
    story.restart(0)
    with pytest.raises(KeyDeletedError):
        story.release(0, V1)
    assert deliver(story, story.statements[0]).version == 2  # its birth again: nothing happens
