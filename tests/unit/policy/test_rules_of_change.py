"""Rules of spec/09 one by one, on policies without vaults: what `take` and `follow` refuse."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from placet_testing.charters import (
    NOW,
    composer,
    person,
    profile,
    signed,
    vault_key,
    vault_name,
    vault_set,
)
from placet_testing.governed import CLAUSE, DAY, PAGE, any_one, co_signed, governed_body, some
from placet_testing.oidc_provider import SoftwareProvider

from placet.client.signing import Composer, auto_body, merge_body, promote_body
from placet.core.dsse import Signed, sign_record
from placet.core.limits import MAX_CHARTER, MAX_PROFILES
from placet.core.messages import Taken
from placet.core.profile import SgxMeasurement, code_id
from placet.core.signer import signer_id
from placet.core.statement import UntrustedStatement, compose
from placet.core.table import Act, Acts, Rules
from placet.errors import (
    AncestorMissingError,
    ApprovalError,
    ApprovalExpiredError,
    ApprovalWaitingError,
    ConflictError,
    MalformedError,
    PlacetError,
    PolicyDeniedError,
    UnrepairableError,
)
from placet.policy.branches import change_branch, check_child
from placet.policy.charter import (
    Courier,
    TakenStatement,
    effective_at,
    fold,
    replay,
    take,
)
from placet.policy.governance import follow
from placet.policy.key_policy import KeyPolicy
from placet.policy.rules import check_rules, check_succession, indispensable

V1, V2, V3 = profile(1), profile(2), profile(3)
TWO_OF_THREE = some("owner", 2, "owner", "spare", "third")


def born(*names: str, **changes: object) -> KeyPolicy:
    """Return the policy of a governed key."""
    return replay([signed(composer().birth(governed_body(**changes)), *names)])


def with_rules(policy: KeyPolicy, **changes: object) -> Rules:
    """Return the rules in force with some fields changed."""
    return msgspec.structs.replace(policy.rules, **changes)


def after(policy: KeyPolicy, *sents: UntrustedStatement, now: int = NOW) -> KeyPolicy:
    """Return the policy after statements, each taken by itself."""
    for sent in sents:
        policy, _ = take(policy, [Courier(sent=sent)], now=now)
    return policy


def refusal(policy: KeyPolicy | None, sent: UntrustedStatement, **more: object) -> PlacetError:
    """Return why a statement is not taken."""
    with pytest.raises(PlacetError) as caught:
        take(policy, [Courier(sent=sent)], **({"now": NOW} | more))
    return caught.value


def reason(policy: KeyPolicy, sent: UntrustedStatement, **more: object) -> object:
    """Return the reason by which a statement is refused."""
    return refusal(policy, sent, **more).members.get("reason")


def receipt(number: int, sent: UntrustedStatement, *, time: int = NOW) -> Signed:
    """Return what test vault ``number`` signed when it took a statement."""
    taken = Taken(
        vault=vault_name(number), key=sent.key, statement=sent.digest, version=1, index=0, time=time
    )
    return sign_record(taken, vault_key(number))


def vouched(sent: UntrustedStatement, count: int = 3, *, time: int = NOW) -> Courier:
    """Return a statement with so many receipts."""
    return Courier(
        sent=sent, receipts=tuple(receipt(i, sent, time=time) for i in range(1, count + 1))
    )


def promote(policy: KeyPolicy, what=V2, seed: str = "p", **changes: object) -> UntrustedStatement:
    """Compose a promote."""
    body = msgspec.structs.replace(promote_body(policy, what), **changes)
    return composer(seed=seed).promote(policy, body)


# --- who must sign (section 3) ----------------------------------------------------------------


@pytest.mark.req("R5.8")
def test_one_of_three_vetoes_where_two_decide() -> None:
    """An open recovery; by one signer without the others, and by no stranger."""
    policy = born("owner", "spare", owner=TWO_OF_THREE)
    intent = composer().recover(policy, any_one("owner", person("heir").signer), "lost")
    opened = after(policy, signed(intent, "g1", "g2"))
    veto = composer().void(opened, opened.head, "here")
    assert isinstance(refusal(opened, signed(veto, "m1")), ApprovalError)
    assert after(opened, signed(veto, "third")).recovery is None
    # Another statement than the intent is not ended by it.
    other = composer().void(opened, "sha256:" + "0" * 64, "no")
    assert isinstance(refusal(opened, signed(other, "third")), ApprovalError)
    assert after(opened, signed(other, "third", "owner")).recovery is not None


def test_a_veto_where_the_statement_waits() -> None:
    """Given what waits here, one signer is enough; given nothing, it takes the owner."""
    policy = born("owner", "spare", owner=TWO_OF_THREE)
    sent = signed(composer().void(policy, "sha256:" + "1" * 64, "no"), "spare")
    assert isinstance(refusal(policy, sent), ApprovalError)
    waiting = {"sha256:" + "1" * 64: NOW}
    assert take(policy, [Courier(sent=sent)], now=NOW, waiting=waiting)[0].version == 2
    # Elsewhere k vaults saw it wait.
    assert take(policy, [vouched(sent)], now=NOW)[0].version == 2
    assert isinstance(refusal_of(policy, vouched(sent, 2)), ApprovalError)


@pytest.mark.req("R5.1")
def test_a_token_is_no_veto() -> None:
    """Any one owner signer, but no identity provider by itself."""
    provider = SoftwareProvider()
    owner = any_one("owner", person("owner").signer, person("spare").signer)
    both = msgspec.structs.replace(owner, threshold=2, of=(*owner.of, provider.signer()))
    policy = born("owner", "spare", owner=both)
    begun = composer().recover(policy, any_one("owner", person("heir").signer), "lost")
    opened = after(policy, signed(begun, "g1", "g2"))
    veto = composer().void(opened, opened.head, "here")
    assert isinstance(refusal(opened, provider.sign(veto)), ApprovalError)
    assert after(opened, signed(veto, "spare")).recovery is None


def refusal_of(policy: KeyPolicy | None, *couriers: Courier, now: int = NOW) -> PlacetError:
    """Return why a run is not taken."""
    with pytest.raises(PlacetError) as caught:
        take(policy, couriers, now=now)
    return caught.value


def test_without_reviewers_nobody_stands_in_for_the_owner() -> None:
    """A vault release takes the owner then; a stranger is none."""
    policy = born()
    release = profile(9, app="placet-vault")
    sent = composer().update(policy, policy.rules, "vault 2", vault_profiles=(release,))
    assert isinstance(refusal(policy, signed(sent, "r1")), ApprovalError)
    grown = after(policy, signed(sent))
    assert grown.vault_set.profiles[-1] == release
    again = composer().update(grown, grown.rules, "again", vault_profiles=(release,))
    assert isinstance(refusal(grown, signed(again)), PolicyDeniedError)
    bad = msgspec.structs.replace(release, app="no\nname")
    odd = composer().update(grown, grown.rules, "odd", vault_profiles=(bad,))
    assert isinstance(refusal(grown, signed(odd)), MalformedError)


def test_a_key_without_guardians_has_no_recovery() -> None:
    """Whoever signs."""
    policy = born(guardians=None)
    sent = composer().recover(policy, any_one("owner", person("heir").signer), "lost")
    assert reason(policy, signed(sent, "g1", "g2")) == "no-guardians"
    assert reason(policy, signed(sent)) == "no-guardians"


@pytest.mark.req("R5.8")
def test_a_completion_is_of_the_intent_that_is_open() -> None:
    """Not of another, and not where none is."""
    policy = born()
    begun = signed(
        composer().recover(policy, any_one("owner", person("heir").signer), "lost"), "g1", "g2"
    )
    opened = after(policy, begun)
    other = composer().complete(opened, policy.key, "x")
    assert reason(opened, signed(other, "heir")) == "no-recovery"
    none = composer().complete(policy, policy.key, "x")
    assert reason(policy, signed(none, "heir")) == "no-recovery"


@pytest.mark.parametrize(
    ("heir", "error"),
    [
        (any_one("owner", person("m1").signer), MalformedError),
        (any_one("owner", PAGE.signer), UnrepairableError),
    ],
    ids=["a manager", "a page alone"],
)
def test_the_heir_fits_the_rules(heir: object, error: type[PlacetError]) -> None:
    """An intent for an owner that could not act, or that is somebody else already."""
    policy = born()
    sent = composer().recover(policy, heir, "lost")  # type: ignore[arg-type]
    assert isinstance(refusal(policy, signed(sent, "g1", "g2")), error)


# --- what an update does (sections 2 and 4) ---------------------------------------------------


def test_an_update_that_changes_nothing_is_refused() -> None:
    """It would use up a version for nothing."""
    policy = born()
    assert reason(policy, signed(composer().update(policy, policy.rules, "x"))) == "no-change"


def test_an_update_is_checked_as_a_birth_is() -> None:
    """Rules that could not be kept are refused at any time."""
    policy = born()
    bad = with_rules(policy, managers=some("managers", 1, "g1"))
    assert isinstance(refusal(policy, signed(composer().update(policy, bad, "x"))), MalformedError)


def test_an_update_ends_a_recovery_and_a_vault_release_does_not() -> None:
    """An owner who changes the rules needs none; reviewers decide nothing of it."""
    policy = born(reviewers=some("reviewers", 1, "r1"))
    begun = composer().recover(policy, any_one("owner", person("heir").signer), "lost")
    opened = after(policy, signed(begun, "g1", "g2"))
    update = composer().update(opened, with_rules(opened, stager_quota=2), "alive")
    assert after(opened, signed(update)).recovery is None
    release = composer().update(
        opened, opened.rules, "vault 2", vault_profiles=(profile(9, app="placet-vault"),)
    )
    assert after(opened, signed(release, "r1")).recovery == opened.recovery


def test_uses_are_counted_for_one_clause() -> None:
    """Another clause has its whole budget; another change of the rules leaves the count."""
    policy = born()
    policy = after(
        policy, signed(composer().update(policy, with_rules(policy, auto_migrate=CLAUSE), "on"))
    )
    used = replace(policy, auto_uses=2)
    same = composer().update(used, with_rules(used, stager_quota=2), "x")
    assert after(used, signed(same)).auto_uses == 2
    clause = msgspec.structs.replace(CLAUSE, budget=3)
    new = composer().update(used, with_rules(used, auto_migrate=clause), "x")
    assert after(used, signed(new)).auto_uses == 0


@pytest.mark.req("R5.7")
def test_who_is_young_stays_so_and_who_was_there_is_not() -> None:
    """A second update does not make a young signer old, nor an old one young."""
    policy = born()
    new = person("new").signer
    wider = any_one("owner", *policy.owner.of, new)
    policy = after(policy, signed(composer().update(policy, with_rules(policy, owner=wider), "x")))
    assert policy.young == ((signer_id(new), NOW + DAY),)
    third = person("third").signer
    widest = any_one("owner", *wider.of, third)
    later = composer(NOW + 60).update(policy, with_rules(policy, owner=widest), "x")
    grown = after(policy, signed(later), now=NOW + 60)
    assert grown.young == ((signer_id(new), NOW + DAY), (signer_id(third), NOW + 60 + DAY))
    narrow = any_one("owner", *policy.owner.of[:2], third)
    gone = composer(NOW + 60).update(grown, with_rules(grown, owner=narrow), "x")
    assert after(grown, signed(gone), now=NOW + 60).young == grown.young[1:]


@pytest.mark.req("R5.7")
def test_receipts_of_k_vaults_stand_for_a_cool_down() -> None:
    """A laggard takes what the new signer signed after it; with one receipt fewer it does not."""
    policy = born()
    wider = any_one("owner", *policy.owner.of, person("new").signer)
    grown = after(policy, signed(composer().update(policy, with_rules(policy, owner=wider), "x")))
    sent = signed(promote(grown), "new")
    assert take(grown, [vouched(sent)], now=NOW)[0].version == 3
    assert isinstance(refusal_of(grown, vouched(sent, 2)), ApprovalError)


def test_delays_count_from_the_latest_of_k_receipts() -> None:
    """Not from when a laggard hears of it; and never later than that."""
    policy = born()
    wider = any_one("owner", *policy.owner.of, person("new").signer)
    update = signed(composer().update(policy, with_rules(policy, owner=wider), "x"))
    for now, time, since in ((NOW + 900, NOW + 5, NOW + 5), (NOW + 5, NOW + 900, NOW + 5)):
        grown, taken = take(policy, [vouched(update, time=time)], now=now)
        assert grown.young[0][1] == since + DAY
        assert taken[0].at == since
        again = fold([TakenStatement(sent=birth_of_governed()), taken[0]])
        assert again.young == grown.young


def birth_of_governed() -> UntrustedStatement:
    """Return the birth that `born` is of."""
    return signed(composer().birth(governed_body()))


@pytest.mark.req("R5.9")
def test_the_owner_alone_takes_a_clause_out() -> None:
    """Rights shrink without the managers who co-sign promotes; other rows stay the owner's too."""
    policy = born(acts=co_signed("promote"))
    on = composer().update(policy, with_rules(policy, auto_migrate=CLAUSE), "on")
    policy = after(policy, signed(on, "owner", "m1", "m2"))
    for change in ({"stager_quota": 3}, {"auto_migrate": None}):
        policy = after(policy, signed(composer().update(policy, with_rules(policy, **change), "x")))
    assert policy.rules.auto_migrate is None


@pytest.mark.req("R5.7")
def test_an_owner_who_stays_may_be_young() -> None:
    """What an update leaves is asked of updates that change the owner alone."""
    two = born("owner", "spare", owner=some("owner", 2, "owner", "spare"))
    wider = some("owner", 3, "owner", "spare", "new")
    new = (signer_id(person("new").signer), NOW + DAY)
    policy = replace(two, rules=with_rules(two, owner=wider), young=(new,))
    sent = composer(NOW + DAY).update(policy, with_rules(policy, stager_quota=3), "x")
    late = signed(sent, "owner", "spare", "new")
    assert after(policy, late, now=NOW + DAY).version == 2
    rules = with_rules(policy, stager_quota=3)
    early = signed(composer().update(policy, rules, "x"), "owner", "spare", "new")
    assert isinstance(refusal(policy, early), ApprovalError)
    assert take(policy, [vouched(early)], now=NOW)[0].version == 2


SUCCESSIONS = {
    "the same clause and another row": ({"auto_migrate": CLAUSE}, {"stager_quota": 3}, None),
    "another clause and another row": (
        {"auto_migrate": CLAUSE},
        {"stager_quota": 3, "auto_migrate": msgspec.structs.replace(CLAUSE, budget=1)},
        "auto-not-alone",
    ),
    "the clause off and another row": (
        {"auto_migrate": CLAUSE}, {"stager_quota": 3, "auto_migrate": None}, None,
    ),
    "an immutable field more": ({"immutable": ("acts",)}, {"immutable": ("acts", "owner")}, None),
    "an immutable field less": ({"immutable": ("acts",)}, {"immutable": ()}, "immutable"),
    "the same cool-down": ({"cooldown": 60}, {"stager_quota": 3}, None),
    "a second less": ({"cooldown": 60}, {"cooldown": 59}, "cooldown-lowered"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "change", "why"), SUCCESSIONS.values(), ids=SUCCESSIONS)
def test_what_may_follow(before: dict[str, object], change: dict[str, object], why: object) -> None:
    """Rule by rule."""
    old = msgspec.structs.replace(born().rules, **before)
    new = msgspec.structs.replace(old, **change)
    if why is None:
        check_succession(old, new)
        return
    with pytest.raises(PolicyDeniedError) as caught:
        check_succession(old, new)
    assert caught.value.members["reason"] == why


BAD_PAGE = any_one("page", PAGE.signer)
UNKEPT = {
    "an owner who could do nothing": ({"owner": BAD_PAGE}, UnrepairableError),
    "managers who could do nothing": ({"managers": BAD_PAGE}, UnrepairableError),
    "reviewers who could do nothing": ({"reviewers": BAD_PAGE}, UnrepairableError),
    "guardians who could do nothing": (
        {"guardians": msgspec.structs.replace(born().rules.guardians, principal=BAD_PAGE)},
        UnrepairableError,
    ),
    "builders who could do nothing": (
        {"auto_migrate": msgspec.structs.replace(CLAUSE, signers=BAD_PAGE)}, UnrepairableError,
    ),
    "a builder who manages": (
        {"auto_migrate": msgspec.structs.replace(CLAUSE, signers=some("b", 1, "m1"))},
        MalformedError,
    ),
    "a builder who guards": (
        {"auto_migrate": msgspec.structs.replace(CLAUSE, signers=some("b", 1, "g1"))},
        MalformedError,
    ),
    "an unfit stager": (
        {"stagers": (msgspec.structs.replace(person("x").signer, public_key="AAAA"),)},
        MalformedError,
    ),
    "an unfit auditor": (
        {"auditors": (msgspec.structs.replace(person("x").signer, public_key="AAAA"),)},
        MalformedError,
    ),
    "managers for life, of whom none may go": (
        {"immutable": ("managers",), "managers": some("m", 2, "m1", "m2"),
         "acts": co_signed("retire")},
        UnrepairableError,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error"), UNKEPT.values(), ids=UNKEPT)
def test_rules_that_cannot_be_kept(change: dict[str, object], error: type[PlacetError]) -> None:
    """Each principal, each plain signer, each role."""
    rules = msgspec.structs.replace(born().rules, **change)
    with pytest.raises(error):
        check_rules(rules)


@pytest.mark.parametrize(
    "change",
    [
        {"immutable": ("managers",), "managers": some("m", 2, "m1", "m2")},
        {"immutable": ("managers",), "managers": None},
        {"managers": some("m", 2, "m1", "m2"), "acts": co_signed("promote")},
        {"auto_migrate": msgspec.structs.replace(CLAUSE, signers=some("b", 1, "owner"))},
        {"stagers": (person("owner").signer,)},
    ],
)
def test_rules_that_can(change: dict[str, object]) -> None:
    """Managers who co-sign nothing freeze nothing; an owner may stage."""
    check_rules(msgspec.structs.replace(born().rules, **change))


def test_who_is_indispensable() -> None:
    """Nobody in two of three; both in two of two."""
    assert indispensable(TWO_OF_THREE) == ()
    assert len(indispensable(some("both", 2, "a", "b"))) == 2


# --- lifetimes, size, place -------------------------------------------------------------------


def test_each_row_caps_its_own_lifetime() -> None:
    """A delete lives an hour here, a retire a day; a merge falls under every row."""
    policy = born(acts=Acts(delete=Act(lifetime=3600)))
    assert reason(policy, signed(composer().delete(policy, "x"))) == "lifetime"
    short = Composer(now=NOW, rng=composer().rng, lifetime=3600)
    assert after(policy, signed(short.delete(policy, "x"))).deleted
    after(policy, signed(composer().retire(policy, code_id(V1), "x")))
    merge = composer().merge([policy, policy], merge_body([policy, other_branch(policy)], "x"))
    assert reason(policy, signed(merge)) == "lifetime"


def other_branch(policy: KeyPolicy) -> KeyPolicy:
    """Return a policy with another head, as long."""
    return replace(policy, chain=(*policy.chain[:-1], "sha256:" + "7" * 64))


def test_a_charter_is_full() -> None:
    """At its limit nothing more is taken, one before it is."""
    policy = replace(born(), version=MAX_CHARTER)
    sent = signed(promote(policy))
    with pytest.raises(PolicyDeniedError):
        follow(policy, sent, at=NOW)
    last = replace(policy, version=MAX_CHARTER - 1)
    assert follow(last, signed(promote(last)), at=NOW).version == MAX_CHARTER


def test_a_key_is_born_once() -> None:
    """A birth follows on nothing."""
    with pytest.raises(ConflictError):
        follow(born(), birth_of_governed(), at=NOW)


def test_a_statement_of_another_key() -> None:
    """However its place fits."""
    policy = born()
    sent = promote(policy)
    moved = compose(msgspec.structs.replace(sent.statement, key="sha256:" + "5" * 64))
    with pytest.raises(ConflictError, match="about key"):
        take(policy, [Courier(sent=signed(moved))], now=NOW)


def test_nothing_is_taken_of_nothing() -> None:
    """An empty run is the caller's mistake."""
    with pytest.raises(ValueError, match="no statement"):
        take(None, [], now=NOW)
    with pytest.raises(MalformedError):
        fold([])


def test_a_reader_sees_a_gap() -> None:
    """Replaying a charter with a statement missing is refused."""
    policy = born()
    first = signed(promote(policy))
    second = signed(promote(after(policy, first), V3))
    with pytest.raises(AncestorMissingError):
        replay([birth_of_governed(), second])
    assert replay([birth_of_governed(), first, second]).version == 3


@pytest.mark.req("I12")
@pytest.mark.parametrize(("n", "k"), [(3, 2), (4, 3), (5, 3), (5, 5), (7, 4)])
def test_what_takes_effect_where(n: int, k: int) -> None:
    """A delete shuts out at n-k+1; what gives and takes is never effective before that."""
    policy, vaults = born(), vault_set(n, k)
    give = promote(policy, earlier="retire")
    assert effective_at(give.statement, vaults) == k >= n - k + 1  # type: ignore[arg-type]
    gone = composer().delete(policy, "x")
    assert effective_at(gone.statement, vaults) == n - k + 1  # type: ignore[arg-type]


# --- birth and promote ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "profiles",
    [(), (V1, V1), (msgspec.structs.replace(V1, app="no\nname"),)],
    ids=["none", "one twice", "one that is none"],
)
def test_a_birth_names_code(profiles: tuple[object, ...]) -> None:
    """At least one profile, each once, each sound."""
    body = governed_body()
    body = msgspec.structs.replace(
        body, policy=msgspec.structs.replace(body.policy, profiles=profiles)
    )
    with pytest.raises(MalformedError):
        take(None, [Courier(sent=signed(composer().birth(body)))], now=NOW)


def test_a_birth_cannot_wait() -> None:
    """A page alone gives birth to nothing; with a second signer it does."""
    body = governed_body(owner=any_one("owner", PAGE.signer, person("owner").signer))
    sent = PAGE.sign(composer().birth(body))
    assert type(refusal(None, sent)) is ApprovalError
    assert take(None, [Courier(sent=signed(sent))], now=NOW)[0].version == 1


def test_profiles_have_room() -> None:
    """At the limit a promote says to retire some; code that is there already needs no room."""
    policy = born()
    full = replace(policy, approvals=tuple(
        replace(policy.approvals[0], code="sha256:" + f"{i:064x}") for i in range(MAX_PROFILES)
    ))  # fmt: skip
    assert isinstance(refusal(full, signed(promote(full))), PolicyDeniedError)
    room = replace(full, approvals=full.approvals[1:])
    assert len(after(room, signed(promote(room))).approvals) == MAX_PROFILES


# --- the clause (section 5) -------------------------------------------------------------------


@pytest.fixture
def auto() -> KeyPolicy:
    """Return a policy with a clause in force."""
    policy = born()
    update = composer().update(policy, with_rules(policy, auto_migrate=CLAUSE), "on")
    return after(policy, signed(update))


def use(policy: KeyPolicy, what=V2, **changes: object) -> UntrustedStatement:
    """Return a use of the clause that outlives its delay."""
    body = msgspec.structs.replace(auto_body(policy, what), **changes)
    long = Composer(now=NOW, rng=composer().rng, lifetime=20 * DAY)
    return signed(long.promote(policy, body), "platform")


@pytest.mark.req("R6.7")
def test_the_clause_is_named_by_its_digest(auto: KeyPolicy) -> None:
    """Another clause than the one in force is none."""
    assert refusal(auto, use(auto, auto="sha256:" + "9" * 64)).members["limit"] == "no-clause"


@pytest.mark.req("R6.7")
def test_the_clause_revives_nothing(auto: KeyPolicy) -> None:
    """Not even when it says so plainly."""
    policy = after(auto, signed(promote(auto)))
    policy = after(policy, signed(composer().retire(policy, code_id(V2), "bad")))
    assert refusal(policy, use(policy, unretire=True)).members["limit"] == "only-lets-in"
    assert reason(policy, use(policy)) == "retired"


@pytest.mark.req("R6.7")
def test_the_clause_rests_on_what_stays_approved(auto: KeyPolicy) -> None:
    """A version that is on its way out vouches for no other."""
    ending = replace(auto, approvals=(replace(auto.approvals[0], until=NOW + DAY),))
    assert refusal(ending, use(ending)).members["limit"] == "changes"


NARROWED = {
    "an attribute": {"td_attributes": "0000000000000000"},
    "features": {"xfam": "0000000000000000"},
}


@pytest.mark.req("R6.7")
@pytest.mark.parametrize("fields", NARROWED.values(), ids=NARROWED)
def test_the_clause_changes_no_other_field(auto: KeyPolicy, fields: dict[str, str]) -> None:
    """What narrows, or is no measurement of code, stays as it was."""
    measurement = msgspec.structs.replace(V2.measurement, **fields)
    what = msgspec.structs.replace(V2, measurement=measurement)
    assert refusal(auto, use(auto, what)).members["limit"] == "changes"


@pytest.mark.req("R6.7")
def test_the_clause_stays_with_one_kind_of_tee(auto: KeyPolicy) -> None:
    """Another TEE is another machine, whatever may change of the code."""
    sgx = SgxMeasurement(mrenclave="ab" * 32, mrsigner=None, isv_prod_id=None, isv_svn=None)
    what = msgspec.structs.replace(V2, measurement=sgx)
    assert refusal(auto, use(auto, what)).members["limit"] == "changes"


@pytest.mark.req("R6.7")
@pytest.mark.parametrize(("step", "taken"), [(0, True), (1, True), (2, False)])
def test_the_clause_steps_no_further(auto: KeyPolicy, step: int, *, taken: bool) -> None:
    """Up to its largest step of the security version, and that is one here."""
    what = profile(2, security_version=1 + step)
    found = refusal(auto, use(auto, what))
    assert isinstance(found, ApprovalWaitingError) is taken


@pytest.mark.req("R6.7")
def test_what_the_clause_does_not_name(auto: KeyPolicy) -> None:
    """An image that changes under a clause about measurements."""
    clause = msgspec.structs.replace(CLAUSE, changes=("measurement",))
    policy = replace(auto, rules=with_rules(auto, auto_migrate=clause))
    assert refusal(policy, use(policy)).members["limit"] == "changes"


# --- merges and branches ----------------------------------------------------------------------


@pytest.fixture
def branches() -> tuple[KeyPolicy, KeyPolicy]:
    """Return two branches, the second one statement longer."""
    policy = born()
    ours = after(policy, signed(promote(policy, V2, seed="a")))
    theirs = after(policy, signed(promote(policy, V3, seed="b")))
    theirs = after(theirs, signed(promote(theirs, profile(4), seed="c")))
    return ours, theirs


def merge(branches: tuple[KeyPolicy, ...], **changes: object) -> UntrustedStatement:
    """Compose and sign a merge of branches, with some of its body changed."""
    body = msgspec.structs.replace(merge_body(branches, "one"), **changes)
    return signed(composer().merge(branches, body))


@pytest.mark.req("R8.2")
def test_a_merge_counts_on_from_the_longest(branches: tuple[KeyPolicy, KeyPolicy]) -> None:
    """Both are at one version and one head then, and know the heads of each other."""
    sent = merge(branches)
    ours, theirs = (after(b, sent) for b in branches)
    assert ours.version == theirs.version == 4
    assert (ours.head, ours.approvals) == (theirs.head, theirs.approvals)
    assert ours.knows(branches[1].head)
    assert not ours.knows("sha256:" + "0" * 64)
    follow_on = signed(promote(ours, profile(5)))
    assert after(theirs, follow_on).version == 5


@pytest.mark.req("R8.2")
def test_a_merge_of_others(branches: tuple[KeyPolicy, KeyPolicy]) -> None:
    """A branch that it does not name: behind it, or in conflict with it."""
    sent = merge(branches)
    stranger = after(born(), signed(promote(born(), profile(6), seed="x")))
    assert isinstance(refusal(stranger, sent), AncestorMissingError)
    longer = after(stranger, signed(promote(stranger, profile(7), seed="y")))
    assert type(refusal(longer, sent)) is ConflictError
    heads = tuple(sorted(["sha256:" + "1" * 64, "sha256:" + "2" * 64]))
    assert isinstance(refusal(branches[1], merge(branches, heads=heads)), MalformedError)
    # Counted from the shorter one, the longer one refuses it.
    short = composer().merge([branches[0], branches[0]], merge_body(branches, "one"))
    assert type(refusal(branches[1], signed(short))) is ConflictError


UNMERGED = {
    "a profile that is none": (
        lambda b: {"profiles": (changed(b, 0, app="no\nname"), *b.profiles[1:])}, MalformedError,
    ),
    "a profile below the floor": (lambda _: {"security_version_floor": 5}, PolicyDeniedError),
    "code twice": (lambda b: {"profiles": (b.profiles[0], b.profiles[0])}, MalformedError),
    "code with a tombstone": (
        lambda b: {"tombstones": tuple(sorted({*b.tombstones, code_id(b.profiles[0].profile)}))},
        PolicyDeniedError,
    ),
    "rules that cannot be kept": (
        lambda b: {"policy": msgspec.structs.replace(b.policy, immutable=("owner",))},
        UnrepairableError,
    ),
}  # fmt: skip


def changed(body: object, index: int, **fields: object) -> object:
    """Return one of a merge's profiles with fields changed."""
    merged = body.profiles[index]  # type: ignore[attr-defined]
    return msgspec.structs.replace(
        merged, profile=msgspec.structs.replace(merged.profile, **fields)
    )


@pytest.mark.req("R8.2")
@pytest.mark.parametrize(("change", "error"), UNMERGED.values(), ids=UNMERGED)
def test_a_merge_is_checked(branches, change, error) -> None:
    """As a birth and a promote are."""
    body = merge_body(branches, "one")
    assert isinstance(refusal(branches[1], merge(branches, **change(body))), error)


@pytest.mark.req("R8.2", "R6.4")
def test_a_merge_keeps_the_lowest_evaluation() -> None:
    """What a branch demanded of platforms is demanded of what is let in."""
    policy = born()
    strict = msgspec.structs.replace(V2, tcb=msgspec.structs.replace(V2.tcb, min_evaluation=9))
    ours = after(policy, signed(promote(policy, strict, seed="a")))
    theirs = after(policy, signed(promote(policy, V3, seed="b")))
    assert reason(ours, merge((ours, theirs))) == "evaluation-lowered"


@pytest.mark.req("R8.2")
def test_a_merge_lets_an_overlap_run_out() -> None:
    """Code with a tombstone stays where it has an end, and until then only."""
    policy = born()
    ending = promote(policy, V2, seed="a", earlier="retire-at", retire_at=NOW + 50)
    ours = after(policy, signed(ending))
    theirs = after(policy, signed(promote(policy, V3, seed="b")))
    merged = after(ours, merge((ours, theirs)))
    assert {a.code: a.until for a in merged.approvals}[code_id(V1)] == NOW + 50
    # A clause in force on this branch may stay.
    on = composer().update(policy, with_rules(policy, auto_migrate=CLAUSE), "on")
    ours, theirs = (after(policy, signed(on)),) * 2
    ours = after(ours, signed(promote(ours, V2, seed="a")))
    theirs = after(theirs, signed(promote(theirs, V3, seed="b")))
    assert after(ours, merge((ours, theirs))).rules.auto_migrate == CLAUSE
    # Or go, by the merge as well.
    body = merge_body((ours, theirs), "one")
    off = msgspec.structs.replace(body.policy, auto_migrate=None)
    assert after(ours, merge((ours, theirs), policy=off)).rules.auto_migrate is None


@pytest.mark.req("R5.7", "R8.2")
def test_a_merge_puts_nobody_out(branches: tuple[KeyPolicy, KeyPolicy]) -> None:
    """It leaves an owner who counts, as an update does."""
    body = merge_body(branches, "one")
    evil = msgspec.structs.replace(body.policy, owner=any_one("owner", person("evil").signer))
    assert reason(branches[1], merge(branches, policy=evil)) == "all-new"


@pytest.mark.req("R8.2")
def test_a_vault_changes_branch_for_k_receipts_alone() -> None:
    """Three of five, against fewer; and to nothing that stands elsewhere."""
    birth = birth_of_governed()
    policy = replay([birth])
    ours, theirs = signed(promote(policy, V2, seed="a")), signed(promote(policy, V3, seed="b"))
    more = signed(promote(after(policy, theirs), profile(4), seed="c"))
    charter = [TakenStatement(sent=birth), TakenStatement(sent=ours)]
    kept, there, taken = change_branch(
        charter, [Courier(sent=birth), vouched(theirs), Courier(sent=more)], now=NOW
    )
    assert (kept, there.head, len(taken)) == (1, more.digest, 2)
    with pytest.raises(ConflictError, match="another branch"):
        change_branch(charter, [vouched(theirs, 2)], now=NOW)
    backed = [charter[0], replace(charter[1], receipts=vouched(ours).receipts)]
    with pytest.raises(ConflictError, match="another branch"):
        change_branch(backed, [vouched(theirs)], now=NOW)
    nearly = [charter[0], replace(charter[1], receipts=vouched(ours, 2).receipts)]
    assert change_branch(nearly, [vouched(theirs)], now=NOW)[0] == 1
    for run in (
        [Courier(sent=birth)],
        [vouched(more)],
        [vouched(signed(promote(after(policy, ours))))],
    ):
        with pytest.raises(ConflictError, match="nowhere"):
            change_branch(charter, run, now=NOW)


@pytest.mark.req("R8.2")
def test_a_fork_is_a_statement_that_could_have_come_first() -> None:
    """Signed by who counts, on something that is here."""
    birth = birth_of_governed()
    policy = replay([birth])
    charter = [TakenStatement(sent=birth), TakenStatement(sent=signed(promote(policy)))]
    other = signed(promote(policy, V3, seed="b"))
    assert check_child(charter, Courier(sent=other), now=NOW).digest == other.digest
    with pytest.raises(ApprovalError):
        check_child(charter, Courier(sent=signed(promote(policy, V3), "m1")), now=NOW)
    away = signed(promote(after(policy, other), profile(4)))
    with pytest.raises(ConflictError):
        check_child(charter, Courier(sent=away), now=NOW)


# --- time -------------------------------------------------------------------------------------


def test_a_completion_that_waits_says_until_when() -> None:
    """And what was never seen says how long."""
    policy = born()
    begun = signed(
        composer().recover(policy, any_one("owner", person("heir").signer), "x"), "g1", "g2"
    )
    opened = after(policy, begun)
    late = refusal(opened, signed(composer().complete(opened, begun.digest, "x"), "heir"))
    assert isinstance(late, ApprovalWaitingError)
    assert late.members["until"] == NOW + 7 * DAY
    assert str(NOW + 7 * DAY) in late.detail
    page = refusal(policy, PAGE.sign(promote(policy)))
    assert (page.members["until"], page.members["delay"]) == (None, DAY)
    assert "until" not in page.detail
    sent = PAGE.sign(promote(policy))
    seen = refusal(policy, sent, waiting={sent.digest: NOW - 5})
    assert seen.members["until"] == NOW - 5 + DAY


@pytest.mark.req("R5.8")
def test_what_a_recovered_owner_may_do() -> None:
    """Until the cool-down ends: update, but set no clause; afterwards everything."""
    policy = replace(born(), promote_from=NOW + 100)
    quota = signed(composer().update(policy, with_rules(policy, stager_quota=2), "x"))
    assert after(policy, quota).version == 2
    clause = signed(composer().update(policy, with_rules(policy, auto_migrate=CLAUSE), "x"))
    assert reason(policy, clause) == "recovery-cooldown"
    assert reason(policy, signed(promote(policy)), now=NOW + 99) == "recovery-cooldown"
    assert after(policy, signed(promote(policy)), now=NOW + 100).version == 2


@pytest.mark.req("R6.7")
def test_a_clause_that_ended_binds_only_its_uses(auto: KeyPolicy) -> None:
    """The owner promotes on."""
    now = CLAUSE.expires_at
    own = composer(now).promote(auto, promote_body(auto, V2))
    assert after(auto, signed(own), now=now).version == 3


def test_a_later_statement_excuses_an_end_and_no_delay() -> None:
    """By descent: signed by people who could have signed the earlier one at once."""
    policy = born()
    old = signed(promote(policy))
    mid = after(policy, old)
    late = NOW + 3 * DAY
    new = signed(composer(late).promote(mid, promote_body(mid, V3)))
    run = [Courier(sent=old), Courier(sent=new)]
    assert take(policy, run, now=late)[0].version == 3
    page = PAGE.sign(composer(late).promote(mid, promote_body(mid, V3)))
    assert isinstance(refusal_of(policy, Courier(sent=old), Courier(sent=page), now=late),
                      ApprovalExpiredError)  # fmt: skip
    # A page alone before it waited for nobody: expired or not, it waits.
    early = PAGE.sign(promote(policy, seed="q"))
    on_it = follow(policy, early, at=NOW)
    then = signed(composer().promote(on_it, promote_body(on_it, V3)))
    assert isinstance(
        refusal_of(policy, Courier(sent=early), Courier(sent=then)), ApprovalWaitingError
    )


def test_only_what_counts_is_kept() -> None:
    """A stranger's signature and a second one of the same signer are dropped."""
    policy = born()
    sent = signed(promote(policy), "owner", "m1", "stranger", "owner")
    _, taken = take(policy, [Courier(sent=sent)], now=NOW)
    assert [s.signer for s in taken[0].sent.signatures] == [signer_id(person("owner").signer)]
    young = person("new").signer
    wider = any_one("owner", *policy.owner.of, young)
    grown = after(policy, signed(composer().update(policy, with_rules(policy, owner=wider), "x")))
    _, taken = take(grown, [Courier(sent=signed(promote(grown), "owner", "new"))], now=NOW)
    assert signer_id(young) not in [s.signer for s in taken[0].sent.signatures]
