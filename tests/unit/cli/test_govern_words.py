"""Rules in words, whose signatures lack, and the branches of a fork; without a vault."""

from __future__ import annotations

import msgspec
import pytest
from placet_testing.charters import NOW, composer, person, profile, signed
from placet_testing.governed import CLAUSE, DAY, PAGE, any_one, co_signed, governed, some, update

from placet.cli.govern_branches import branches_of
from placet.cli.govern_rules import sentence_of
from placet.cli.govern_view import effective_from, vetoables
from placet.cli.govern_ways import lacking, who_can_veto
from placet.cli.govern_words import change_facts, changes, newcomers, rules_facts
from placet.cli.look import Look, VaultState
from placet.cli.output import PARTLY, exit_code
from placet.cli.pen import result, waits
from placet.client.charters import merge_charters
from placet.client.constellation import EffectReport
from placet.client.signing import auto_body, promote_body
from placet.core.messages import CourierItem, TakeRequest
from placet.core.signer import signer_id
from placet.core.table import Guardians, Rules
from placet.errors import ApprovalWaitingError, ConflictError, UnavailableError
from placet.policy.authority import ways
from placet.policy.principal import leaves

PLAIN = Rules(owner=any_one("owner", person("phone").signer), stagers=())
ROWS = {
    "owner": ("owner", any_one("owner", person("phone").signer, person("laptop").signer)),
    "managers": ("managers", some("managers", 2, "m1", "m2", "m3")),
    "guardians": (
        "guardians",
        Guardians(principal=some("guardians", 1, "g1"), delay=DAY, cooldown=DAY),
    ),
    "reviewers": ("reviewers", some("reviewers", 1, "r1")),
    "stagers": ("stagers", (person("platform").signer,)),
    "auditors": ("auditors", (person("auditor").signer,)),
    "auto-migrate": ("auto_migrate", CLAUSE),
    "cool-down": ("cooldown", 2 * DAY),
    "stager's quota": ("stager_quota", 3),
    "fixed for life": ("immutable", ("managers",)),
}


@pytest.mark.parametrize(("row", "field", "value"), [(r, *v) for r, v in ROWS.items()], ids=ROWS)
def test_each_row_that_differs_is_told(row, field, value):
    """No row of the rules changes without a word, and none is told that does not."""
    other = msgspec.structs.replace(PLAIN, **{field: value})

    [change] = changes(PLAIN, other)

    assert change.rule == row
    assert change.before != change.after
    assert changes(other, other) == ()
    assert [name for name, _ in change_facts((change,))] == [row, ""]


def test_every_field_of_the_rules_has_a_row():
    """A field that is added to the table must be told too."""
    acts = {"acts"}
    assert {field for field, _ in ROWS.values()} | acts == set(Rules.__struct_fields__)


@pytest.mark.parametrize("act", ["promote", "retire", "update_policy", "rotate", "move", "delete"])
def test_each_act_has_a_row(act):
    """Who must sign for it, and for how long that counts."""
    other = msgspec.structs.replace(PLAIN, acts=co_signed(act))
    [change] = changes(PLAIN, other)
    assert (change.rule, change.after) == (
        act.replace("_", "-"),
        "owner and managers; a signed statement counts for 1d at most",
    )


def test_other_keys_under_the_same_names_are_told():
    """Labels prove nothing: a signer swapped under its name is a change."""
    other = msgspec.structs.replace(
        PLAIN,
        owner=any_one("owner", msgspec.structs.replace(person("stranger").signer, label="phone")),
    )
    [change] = changes(PLAIN, other)
    old, new = (signer_id(leaves(r.owner)[0])[7:19] for r in (PLAIN, other))
    assert (change.rule, change.before, change.after) == (
        "owner",
        f"phone ({old})",
        f"phone ({new})",
    )
    assert [s.label for s in newcomers(PLAIN, other)] == ["phone"]


def test_plain_rules_are_not_told_twice():
    """What is as it is where nothing was said is left out of a key's facts."""
    assert rules_facts(PLAIN, plain=True) == []
    team = msgspec.structs.replace(PLAIN, managers=some("managers", 1, "m1", "m2"))
    assert rules_facts(team, plain=True) == [("managers", "m1 or m2")]


def test_the_sentence_names_everybody():
    """All signers of the clause, and the key's label."""
    clause = msgspec.structs.replace(CLAUSE, signers=some("builders", 2, "ci", "releaser"))
    assert sentence_of(clause, "notes/data") == "let ci and releaser promote notes/data without me"


@pytest.fixture
def begun(tmp_path):
    """Return a function that has a governed key born; its vaults are closed at the end."""
    made = []

    def begin(**changes):
        made.append(governed(tmp_path, **changes))
        return made[-1]

    yield begin
    for story in made:
        story.close()


# --- whose signatures lack --------------------------------------------------------------------


def ids(*names):
    """Return the ids of these roles."""
    return frozenset(signer_id(person(n).signer) for n in names)


@pytest.mark.req("R5.9")
@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "owner: 1 of 3 must sign, 0 did; managers: 2 of 3 must sign, 0 did"),
        (("owner",), "managers: 2 of 3 must sign, 0 did"),
        (("owner", "m1"), "managers: 2 of 3 must sign, 1 did"),
        (("m1", "m2"), "owner: 1 of 3 must sign, 0 did"),
        (("owner", "m1", "m3"), None),
    ],
)
def test_every_principal_that_lacks_is_named(begun, names, said):
    """Owner and managers each with how many must sign and how many did."""
    story = begun(acts=co_signed("promote"))
    sent = composer().promote(story.policy, promote_body(story.policy, profile(2)))
    found = ways(story.policy, sent)

    error = lacking(found, ids(*names), policy=story.policy, seen=frozenset(), now=NOW)

    assert (error.detail if error else None) == said


@pytest.mark.req("R5.7")
def test_a_young_signature_is_named_as_one(begun):
    """It counts for nothing, and it is said from when on it will."""
    story = begun()
    owner = any_one("owner", person("owner").signer, person("spare").signer, person("new").signer)
    story.take(update(story, "owner", owner=owner))
    sent = composer(story.clock.time).promote(story.policy, promote_body(story.policy, profile(2)))
    found = ways(story.policy, sent)

    error = lacking(found, ids("new"), policy=story.policy, seen=frozenset(), now=story.clock.time)

    assert error.detail.startswith("owner: 1 of 3 must sign, 0 did (new counts from ")
    late = story.clock.time + 2 * DAY
    assert lacking(found, ids("new"), policy=story.policy, seen=frozenset(), now=late) is None


def test_a_veto_takes_one_only_of_what_is_seen(begun):
    """Unseen, the whole owner signs a no; seen, any one of its signers."""
    story = begun(names=("owner", "spare"), owner=some("owner", 2, "owner", "spare"))
    sent = composer().void(story.policy, "sha256:" + "ab" * 32, "x")
    found, named = ways(story.policy, sent), frozenset({"sha256:" + "ab" * 32})

    unseen = lacking(found, ids("spare"), policy=story.policy, seen=frozenset(), now=NOW)

    assert unseen.detail == "owner: 2 of 2 must sign, 1 did"
    assert lacking(found, ids("spare"), policy=story.policy, seen=named, now=NOW) is None


def test_who_can_say_no_is_the_owner_without_providers(begun):
    """Each device, the page as well."""
    story = begun()
    assert PAGE.signer.label == "page"
    assert who_can_veto(story.policy.rules) == "owner, spare or page"


# --- what waits, and branches -----------------------------------------------------------------


def seen_by(story):
    """Return what the vaults of a story show, as `placet.cli.look` makes it."""
    answers = {b.vault._identity.id: b.vault.charter(story.key) for b in story.benches}
    view = merge_charters(story.key, answers, now=story.clock.time)
    states = tuple(
        VaultState(
            number=n,
            vault=v,
            endpoint="",
            state="current",
            version=1,
            head=None,
            share=None,
            why=None,
        )
        for n, v in enumerate(answers, 1)
    )
    return Look(view, states), answers


def bring(story, sent, *numbers):
    """Bring a statement to some vaults only; what they refuse is none of this."""
    run = TakeRequest(chain=(CourierItem(signed=sent.signed(), receipts=()),))
    for number in numbers:
        try:
            story.benches[number - 1].vault.take(run)
        except (ApprovalWaitingError, ConflictError):
            continue


@pytest.mark.parametrize("seen", [2, 3, 5])
def test_until_when_something_waits(begun, seen):
    """When so many vaults take it that it counts; with fewer that saw it, nobody knows."""
    story = begun()
    story.take(update(story, "owner", auto_migrate=CLAUSE))
    body = auto_body(story.policy, profile(2))
    sent = signed(composer(story.clock.time).promote(story.policy, body), "platform")
    bring(story, sent, *range(1, seen + 1))
    found, _ = seen_by(story)

    [one] = vetoables(found)

    expected = story.clock.time + DAY if seen >= 3 else None
    assert (one.until, one.at) == (expected, tuple(range(1, seen + 1)))
    assert (one.kind, one.veto) == ("waiting", ("owner", "spare", "page"))
    [waiting] = found.view.waiting
    assert effective_from(found, waiting) == expected


@pytest.mark.req("R8.2")
def test_branches_are_told_apart(begun):
    """Two heads are two branches with the vaults on each; who is behind is on both or none."""
    story = begun()
    policy = story.policy
    one, two = (
        signed(composer(story.clock.time, seed=s).promote(policy, promote_body(policy, profile(v))))
        for s, v in (("a", 2), ("b", 3))
    )
    assert len(branches_of(*seen_by(story), now=story.clock.time)) == 1
    bring(story, one, 1, 2)
    bring(story, two, 3, 4)

    branches = branches_of(*seen_by(story), now=story.clock.time)

    assert [(b.policy.head, b.at) for b in branches] == [
        (one.digest, (1, 2, 5)),
        (two.digest, (3, 4, 5)),
    ]
    assert [[s.digest for s in b.own] for b in branches] == [[one.digest], [two.digest]]


# --- what became of a statement ---------------------------------------------------------------

SOON = ApprovalWaitingError("waits", until=NOW + 5, delay=5)
LATER = ApprovalWaitingError("waits", until=NOW + 9, delay=9)
AWAY, NO = UnavailableError("away"), ConflictError("no")


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ((SOON, LATER, SOON, SOON, SOON), PARTLY),
        ((SOON, LATER, SOON, AWAY, NO), PARTLY),
        ((SOON, LATER, AWAY, AWAY, AWAY), 4),
        ((SOON, NO, NO, NO, AWAY), 6),
    ],
)
def test_what_waits_is_neither_done_nor_refused(missing, code):
    """Exit code 5 if so many keep it that it will count; else silence or the refusal decides."""
    report = EffectReport(
        statement="sha256:" + "ab" * 32,
        needed=3,
        confirmed={},
        missing={f"vault-{i}": e for i, e in enumerate(missing)},
    )
    assert result(report) == code
    assert waits(report) == tuple(
        sorted(e.members["until"] for e in missing if "until" in e.members)
    )
    assert exit_code(SOON) == PARTLY
