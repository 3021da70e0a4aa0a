"""Taking statements: one table of named attacks, and the promises of the chain (I5, I12, I14)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import pytest
from placet_testing.charters import (
    NOW,
    birth_body,
    composer,
    owner_of,
    person,
    profile,
    signed,
    vault_key,
    vault_name,
    vault_set,
)

from placet.client.signing import promote_body
from placet.core.body import PromoteBody
from placet.core.dsse import Signed, sign_record
from placet.core.encoding import b64
from placet.core.messages import Taken
from placet.core.profile import Profile, code_id
from placet.core.signer import KeySignature, Threshold, owner_fingerprint
from placet.core.statement import UntrustedStatement, compose, open_statement
from placet.errors import (
    AncestorMissingError,
    ApprovalError,
    ApprovalExpiredError,
    ConflictError,
    MalformedError,
    PlacetError,
    PolicyDeniedError,
    UnrepairableError,
)
from placet.policy.charter import (
    CLOCK_SKEW,
    Courier,
    TakenStatement,
    effective_at,
    fold,
    replay,
    take,
)
from placet.policy.key_policy import KeyPolicy

DAY = 86400
V1, V2, V3 = profile(1), profile(2), profile(3, security_version=3)
BIRTH = signed(composer().birth(birth_body()))
P1 = replay([BIRTH])
PROMOTE = signed(composer().promote(P1, promote_body(P1, V2)))
P2 = replay([BIRTH, PROMOTE])
RETIRE = signed(composer().retire(P2, code_id(V1), "old"))
P3 = replay([BIRTH, PROMOTE, RETIRE])


def couriers(*sents: UntrustedStatement) -> list[Courier]:
    """Return statements on their way, without receipts."""
    return [Courier(sent=s) for s in sents]


def edited(sent: UntrustedStatement, **changes: object) -> UntrustedStatement:
    """Return the statement with other fields, under its old signatures."""
    return compose(msgspec.structs.replace(sent.statement, **changes), sent.signatures)


def body(**changes: object) -> PromoteBody:
    """Return the usual approval of version 2, with other fields."""
    return msgspec.structs.replace(promote_body(P1, V2), **changes)


def judged(evaluation: int) -> Profile:
    """Return version 2 with another lowest TCB evaluation."""
    rules = msgspec.structs.replace(V2.tcb, min_evaluation=evaluation)
    return msgspec.structs.replace(V2, tcb=rules)


def promote(policy: KeyPolicy, what: PromoteBody, *by: str, now: int = NOW) -> UntrustedStatement:
    """Return a signed approval on the head of a policy."""
    return signed(composer(now).promote(policy, what), *by)


def two_of_three() -> Threshold:
    """Return an owner of three keys, two of whom must agree."""
    return owner_of(*(person(n).signer for n in ("a", "b", "c")), threshold=2)


def nested() -> Threshold:
    """Owner and (2 of 3): the inner group counts as one part."""
    return Threshold(label="owner", threshold=2, of=(person("owner").signer, two_of_three()))


def born(owner: Threshold, *by: str) -> UntrustedStatement:
    """Return a signed birth."""
    return signed(composer().birth(birth_body(owner)), *by)


def receipts(sent: UntrustedStatement, *numbers: int, **changes: object) -> tuple[Signed, ...]:
    """Return what test vaults say of having taken a statement."""
    return tuple(
        sign_record(
            msgspec.structs.replace(
                Taken(
                    vault=vault_name(n),
                    key=sent.key,
                    statement=sent.digest,
                    version=2,
                    index=3,
                    time=NOW,
                ),
                **changes,
            ),
            vault_key(n),
        )
        for n in numbers
    )


LATE = NOW + 40 * DAY
CASES: dict[str, tuple[type[PlacetError], KeyPolicy | None, Callable[[], Sequence[Courier]], int]]
CASES = {
    # --- whose word ---------------------------------------------------------------------
    "nobody signed": (
        ApprovalError, P1, lambda: couriers(compose(PROMOTE.statement)), NOW,
    ),
    "the platform promotes by itself": (
        ApprovalError, P1, lambda: couriers(promote(P1, body(), "platform")), NOW,
    ),
    "a stranger signs besides nobody": (
        ApprovalError, P1, lambda: couriers(promote(P1, body(), "stranger", "platform")), NOW,
    ),
    "the platform claims the owner's signer id": (
        ApprovalError,
        P1,
        lambda: couriers(
            compose(
                PROMOTE.statement,
                (KeySignature(signer=PROMOTE.signatures[0].signer, signature=b64(bytes(64))),),
            )
        ),
        NOW,
    ),
    "one of two": (
        ApprovalError, None, lambda: couriers(born(two_of_three(), "a")), NOW,
    ),
    "one of two, twice": (
        ApprovalError, None, lambda: couriers(born(two_of_three(), "a", "a")), NOW,
    ),
    "the inner group alone": (
        ApprovalError, None, lambda: couriers(born(nested(), "a", "b", "c")), NOW,
    ),
    "the outer signer alone": (
        ApprovalError, None, lambda: couriers(born(nested(), "owner")), NOW,
    ),
    "an inner group that is not complete": (
        ApprovalError, None, lambda: couriers(born(nested(), "owner", "a")), NOW,
    ),
    # --- the very bytes -----------------------------------------------------------------
    "relayed with another profile": (
        ApprovalError, P1, lambda: couriers(edited(PROMOTE, body=body(profile=V3))), NOW,
    ),
    "relayed with a longer life": (
        ApprovalError, P1, lambda: couriers(edited(PROMOTE, expires_at=NOW + 2 * DAY)), NOW,
    ),
    "relayed with another nonce": (
        ApprovalError, P1, lambda: couriers(edited(PROMOTE, nonce=b64(bytes(32)))), NOW,
    ),
    "a signature over another statement": (
        ApprovalError,
        P1,
        lambda: couriers(compose(PROMOTE.statement, RETIRE.signatures)),
        NOW,
    ),
    "a retire turned into a promote": (
        ApprovalError,
        P2,
        lambda: couriers(compose(promote(P2, body(profile=V3)).statement, RETIRE.signatures)),
        NOW,
    ),
    # --- the place in the chain ---------------------------------------------------------
    "replayed on the next version": (
        ConflictError, P3, lambda: couriers(promote(P1, body(profile=V3))), NOW,
    ),
    "moved to another key": (
        ConflictError,
        P1,
        lambda: couriers(
            promote(replay([signed(composer(seed="other").birth(birth_body()))]), body())
        ),
        NOW,
    ),
    "on a head of the right version that is another": (
        ConflictError, P2,
        lambda: couriers(promote(replace(P2, chain=(P2.key, P2.key)), body(profile=V3))),
        NOW,
    ),
    "on the right head with another version": (
        ConflictError,
        P1,
        lambda: couriers(signed(edited(composer().promote(P1, body()), base_version=7))),
        NOW,
    ),
    "before its ancestors": (AncestorMissingError, P1, lambda: couriers(RETIRE), NOW),
    "before the birth": (AncestorMissingError, None, lambda: couriers(PROMOTE), NOW),
    "in the wrong order": (AncestorMissingError, P1, lambda: couriers(RETIRE, PROMOTE), NOW),
    "a second child of one parent": (
        ConflictError, P2, lambda: couriers(promote(P1, body(profile=V3))), NOW,
    ),
    "a second birth": (
        ConflictError,
        P1,
        lambda: couriers(signed(composer(seed="again").birth(birth_body()))),
        NOW,
    ),
    "a stage in the charter": (
        MalformedError,
        P1,
        lambda: couriers(signed(composer().revoke(P1.key, P1.key, "no"))),
        NOW,
    ),
    # --- time ---------------------------------------------------------------------------
    "dead at the very second": (
        ApprovalExpiredError, P1, lambda: couriers(PROMOTE), NOW + DAY,
    ),
    "signed for a far future": (
        ApprovalExpiredError, P1, lambda: couriers(promote(P1, body(), now=LATE)), NOW,
    ),
    "a life beyond the cap": (
        PolicyDeniedError,
        P1,
        lambda: couriers(signed(edited(composer().promote(P1, body()), expires_at=NOW + 31 * DAY))),
        NOW,
    ),
    "late, with receipts of too few vaults": (
        ApprovalExpiredError,
        P1,
        lambda: [Courier(sent=PROMOTE, receipts=receipts(PROMOTE, 1, 2))],
        LATE,
    ),
    "late, with one vault's receipt three times": (
        ApprovalExpiredError,
        P1,
        lambda: [Courier(sent=PROMOTE, receipts=receipts(PROMOTE, 1, 1, 1))],
        LATE,
    ),
    "late, with receipts of strange vaults": (
        ApprovalExpiredError,
        P1,
        lambda: [Courier(sent=PROMOTE, receipts=receipts(PROMOTE, 7, 8, 9))],
        LATE,
    ),
    "late, with receipts for another statement": (
        ApprovalExpiredError,
        P1,
        lambda: [
            Courier(sent=PROMOTE, receipts=receipts(PROMOTE, 1, 2, 3, statement=BIRTH.digest))
        ],
        LATE,
    ),
    "late, with receipts for another key": (
        ApprovalExpiredError,
        P1,
        lambda: [Courier(sent=PROMOTE, receipts=receipts(PROMOTE, 1, 2, 3, key=RETIRE.digest))],
        LATE,
    ),
    "late, with a receipt that names another vault": (
        ApprovalExpiredError,
        P1,
        lambda: [
            Courier(sent=PROMOTE, receipts=receipts(PROMOTE, 1, 2, 3, vault=vault_name(4)))
        ],
        LATE,
    ),
    "a late one at the end of a run": (
        ApprovalExpiredError,
        None,
        lambda: [
            Courier(sent=BIRTH, receipts=receipts(BIRTH, 1, 2, 3)),
            Courier(sent=PROMOTE),
        ],
        LATE,
    ),
    # --- the rules of each type ---------------------------------------------------------
    "a floor that falls": (
        PolicyDeniedError,
        replace(P1, floor=1),
        lambda: couriers(promote(P1, body(security_version_floor=0))),
        NOW,
    ),
    "an evaluation below one that is retired by now": (
        PolicyDeniedError,
        replace(P1, evaluations=((f"{V2.anchor} tdx", 21),)),
        lambda: couriers(promote(P1, body(profile=judged(20)))),
        NOW,
    ),
    "below the floor in force": (
        PolicyDeniedError,
        replace(P1, floor=2),
        lambda: couriers(promote(P1, body(security_version_floor=2))),
        NOW,
    ),
    "below the floor that it sets": (
        PolicyDeniedError, P1, lambda: couriers(promote(P1, body(security_version_floor=2))), NOW,
    ),
    "retired code comes back unsaid": (
        PolicyDeniedError, P3, lambda: couriers(promote(P3, body(profile=V1))), NOW,
    ),
    "retired code comes back under a new security version": (
        PolicyDeniedError,
        P3,
        lambda: couriers(promote(P3, body(profile=profile(1, security_version=9)))),
        NOW,
    ),
    "code comes back that was never gone": (
        PolicyDeniedError, P1, lambda: couriers(promote(P1, body(unretire=True))), NOW,
    ),
    "retire of what is not approved": (
        PolicyDeniedError,
        P1,
        lambda: couriers(signed(composer().retire(P1, code_id(V3), "?"))),
        NOW,
    ),
    "a profile that accepts no status": (
        MalformedError,
        P1,
        lambda: couriers(
            promote(P1, body(profile=msgspec.structs.replace(
                V2, tcb=msgspec.structs.replace(V2.tcb, statuses=())
            )))
        ),
        NOW,
    ),
    "an owner that nobody can be": (
        UnrepairableError,
        None,
        lambda: couriers(born(owner_of(person("owner").signer, threshold=2), "owner")),
        NOW,
    ),
    "an owner with one key twice": (
        MalformedError,
        None,
        lambda: couriers(
            born(
                owner_of(
                    person("owner").signer,
                    msgspec.structs.replace(person("owner").signer, label="again"),
                    threshold=2,
                ),
                "owner",
            )
        ),
        NOW,
    ),
    "k of n that two halves can reach": (
        MalformedError,
        None,
        lambda: couriers(signed(composer().birth(birth_body(vaults=vault_set(4, 2))))),
        NOW,
    ),
    "k above n": (
        MalformedError,
        None,
        lambda: couriers(signed(composer().birth(birth_body(vaults=vault_set(2, 3))))),
        NOW,
    ),
    "a birth below its own floor": (

        PolicyDeniedError,
        None,
        lambda: couriers(signed(composer().birth(birth_body(floor=2)))),
        NOW,
    ),
}  # fmt: skip


@pytest.mark.req("I5")
@pytest.mark.req("I14")
@pytest.mark.parametrize(("expect", "policy", "sent", "now"), CASES.values(), ids=CASES.keys())
def test_take_refuses(
    expect: type[PlacetError],
    policy: KeyPolicy | None,
    sent: Callable[[], Sequence[Courier]],
    now: int,
) -> None:
    """Each row is refused, by the very class that is named."""
    with pytest.raises(expect) as refused:
        take(policy, sent(), now=now)
    assert type(refused.value) is expect


@pytest.mark.req("I5")
def test_the_chain_is_followed_statement_by_statement() -> None:
    """Versions rise by one, the head is the last statement, and folding gives the same."""
    policy, taken = take(None, couriers(BIRTH, PROMOTE, RETIRE), now=NOW)
    assert (policy.version, policy.head, policy.key) == (3, RETIRE.digest, BIRTH.digest)
    assert policy == fold(taken) == P3
    assert [a.code for a in policy.approvals] == [code_id(V2)]
    assert policy.tombstones == {code_id(V1)}


@pytest.mark.req("I14")
def test_repeating_changes_nothing() -> None:
    """What was taken before is passed over, alone or at the head of a longer run, late too."""
    again, new = take(P3, couriers(PROMOTE), now=LATE)
    assert (again, new) == (P3, ())
    policy, new = take(P2, couriers(BIRTH, PROMOTE, RETIRE), now=NOW)
    assert policy == P3
    assert [t.sent.digest for t in new] == [RETIRE.digest]


@pytest.mark.req("I9")
def test_a_run_is_taken_whole_or_not_at_all() -> None:
    """One bad statement at the end, and nothing of the run is taken."""
    stranger = promote(P2, body(profile=V3), "stranger")
    with pytest.raises(ApprovalError):
        take(None, couriers(BIRTH, PROMOTE, stranger), now=NOW)


def test_an_owners_clock_may_be_ahead_by_the_skew_and_no_more() -> None:
    """A statement of ten minutes ahead is taken, of one second more not yet."""
    ahead = promote(P1, body(), now=NOW + CLOCK_SKEW)
    assert take(P1, couriers(ahead), now=NOW)[0].version == 2
    with pytest.raises(ApprovalExpiredError):
        take(P1, couriers(promote(P1, body(), now=NOW + CLOCK_SKEW + 1)), now=NOW)


@pytest.mark.req("I5")
def test_late_with_receipts_of_k_vaults() -> None:
    """K vaults of the set before it took it in time: a lagging vault takes it for ever."""
    late = [Courier(sent=PROMOTE, receipts=receipts(PROMOTE, 2, 4, 5))]
    assert take(P1, late, now=LATE)[0] == P2


@pytest.mark.req("I5")
def test_late_as_an_ancestor_of_what_the_same_people_signed() -> None:
    """A live statement vouches for those below it, as far as its signers could have signed."""
    fresh = promote(P3, body(profile=V3), now=LATE)
    policy, new = take(None, couriers(BIRTH, PROMOTE, RETIRE, fresh), now=LATE)
    assert policy.version == 4
    assert len(new) == 4


def test_others_cannot_vouch_for_an_ancestor() -> None:
    """The signers of a live statement vouch only for what they could have signed."""
    birth = born(two_of_three(), "a", "b")
    policy = replay([birth])
    old = promote(policy, body(), "a", "b")
    fresh = promote(replay([birth, old]), body(profile=V3), "b", "c", now=LATE)
    # b and c could have signed it as well: that is what descent means.
    assert take(policy, couriers(old, fresh), now=LATE)[0].version == 3
    # An ancestor that other people had to sign gets nothing from it.
    stricter = replace(
        policy,
        rules=msgspec.structs.replace(
            policy.rules, owner=owner_of(*(person(n).signer for n in "ab"), threshold=2)
        ),
    )
    with pytest.raises(ApprovalError):
        take(stricter, couriers(old, fresh), now=LATE)


@pytest.mark.req("I5")
def test_a_receipt_of_its_own_kind_counts_only() -> None:
    """A vault's other signatures are no taken receipts, whatever they say."""
    lookalike = sign_record(BIRTH.signed(), vault_key(1))
    with pytest.raises(ApprovalExpiredError):
        take(P1, [Courier(sent=PROMOTE, receipts=(lookalike,) * 3)], now=LATE)


COUNTS = [(n, k, k, n - k + 1) for n in range(1, 10) for k in range(1, n + 1) if 2 * k > n]


@pytest.mark.req("I12")
@pytest.mark.parametrize(("n", "k", "lets_in", "shuts_out"), COUNTS)
def test_counts_at_which_statements_are_effective(
    n: int, k: int, lets_in: int, shuts_out: int
) -> None:
    """A promote at k, a retire at n-k+1: then fewer than k vaults would still serve it."""
    vaults = vault_set(n, k)
    assert effective_at(BIRTH.statement, vaults) == n
    assert effective_at(PROMOTE.statement, vaults) == lets_in
    assert effective_at(RETIRE.statement, vaults) == shuts_out
    assert n - shuts_out < k
    replaces = compose(msgspec.structs.replace(PROMOTE.statement, body=body(earlier="retire")))
    assert effective_at(replaces.statement, vaults) == max(lets_in, shuts_out)


@pytest.mark.req("I12")
@pytest.mark.parametrize("n", range(1, 12))
def test_a_set_that_two_quorums_could_split_is_refused(n: int) -> None:
    """2k > n, always."""
    for k in range(1, n + 1):
        sent = signed(composer().birth(birth_body(vaults=vault_set(n, k))))
        if 2 * k > n:
            assert take(None, couriers(sent), now=NOW)[0].vault_set.k == k
        else:
            with pytest.raises(MalformedError):
                take(None, couriers(sent), now=NOW)


def test_promote_says_what_happens_to_those_before() -> None:
    """Kept, retired now, or retired at a stated second; the earliest end stands."""
    kept = replay([BIRTH, promote(P1, body())])
    assert [(a.code, a.until) for a in kept.approvals] == [(code_id(V1), None), (code_id(V2), None)]

    gone = replay([BIRTH, promote(P1, body(earlier="retire"))])
    assert [a.code for a in gone.approvals] == [code_id(V2)]
    assert gone.tombstones == {code_id(V1)}

    first = promote(P1, body(earlier="retire-at", retire_at=NOW + 50))
    later = replay([BIRTH, first])
    assert [(a.code, a.until) for a in later.approvals] == [
        (code_id(V1), NOW + 50),
        (code_id(V2), None),
    ]
    assert later.tombstones == {code_id(V1)}
    again = promote(later, body(profile=V3, earlier="retire-at", retire_at=NOW + 99))
    assert [a.until for a in replay([BIRTH, first, again]).approvals] == [NOW + 50, NOW + 99, None]


def test_retired_code_comes_back_by_saying_so() -> None:
    """The tombstone goes, and only that one."""
    back = promote(P3, body(profile=V1, unretire=True))
    policy = replay([BIRTH, PROMOTE, RETIRE, back])
    assert {a.code for a in policy.approvals} == {code_id(V1), code_id(V2)}
    assert policy.tombstones == frozenset()


def test_promoting_again_replaces_the_rules_of_that_code() -> None:
    """One code has one approval: the newest."""
    stricter = msgspec.structs.replace(V2, tcb=msgspec.structs.replace(V2.tcb, min_evaluation=21))
    policy = replay([BIRTH, PROMOTE, promote(P2, body(profile=stricter))])
    assert [a.profile for a in policy.approvals] == [V1, stricter]


@pytest.mark.req("I8")
def test_the_key_id_names_its_owner() -> None:
    """The key id is the birth's digest: another owner, vault set or label is another key."""
    other_owner = signed(composer().birth(birth_body(owner_of(person("a").signer))), "a")
    other_vaults = signed(composer().birth(birth_body(vaults=vault_set(3, 2))))
    other_label = signed(composer().birth(birth_body(label="notes/other")))
    keys = {BIRTH.key, other_owner.key, other_vaults.key, other_label.key}
    assert len(keys) == 4
    assert P1.birth_owner == owner_fingerprint(owner_of(person("owner").signer))


@pytest.mark.req("I8")
def test_the_vault_set_is_signed_by_the_owner() -> None:
    """A birth relayed with other vaults is another key, and signed by nobody."""
    body_ = BIRTH.statement.body
    moved = edited(BIRTH, body=msgspec.structs.replace(body_, vault_set=vault_set(3, 2)))
    with pytest.raises(ApprovalError):
        take(None, couriers(moved), now=NOW)


def test_statements_open_as_they_were_signed() -> None:
    """What is composed, sent and opened again is the same, signatures included."""
    for sent in (BIRTH, PROMOTE, RETIRE):
        assert open_statement(sent.signed()) == sent


def test_an_empty_charter_is_none() -> None:
    """Nothing folds to nothing."""
    with pytest.raises(MalformedError):
        fold([])
    with pytest.raises(MalformedError):
        replay([])
    with pytest.raises(MalformedError):
        fold([TakenStatement(sent=PROMOTE)])


@pytest.mark.req("R3.1")
def test_the_lowest_evaluation_only_rises() -> None:
    """It is kept for each anchor and TEE, over the end of the profile that raised it."""
    assert P1.evaluations == ((f"{V1.anchor} tdx", V1.tcb.min_evaluation),)
    raised = replay([BIRTH, promote(P1, body(profile=judged(25), earlier="retire"))])
    assert raised.evaluations == ((f"{V1.anchor} tdx", 25),)
    after = promote(raised, body(profile=judged(24)))
    with pytest.raises(PolicyDeniedError) as refused:
        replay([BIRTH, promote(P1, body(profile=judged(25), earlier="retire")), after])
    assert refused.value.members["reason"] == "evaluation-lowered"
