"""The creation protocol as an explicit-state model: every reachable state is visited (R4.8).

Three vaults, two workloads, three attempts each. The model is a superset of what can
happen, so what never happens here never happens:

- A workload is nothing but what it may ask next, by what the vaults said to it. It may
  stop after any message (a crash at every step), several copies of it may run at once,
  and it may go on with an old attempt after it began a newer one.
- What it may ask can reach each vault at any time, in any order, again and again, or
  never; what a vault said can be used at any time later, or be lost.
- The birth statement may end at any moment.

Two things are checked in every state. *Two keys*: vaults never commit different
manifests. *Lost key*: once one committed, a workload that starts over and is left alone
ends with that very manifest committed everywhere.

The vault's rules are written here a second time, from DESIGN section 6 alone; `RULES`
can switch each of them off, and then the model must find the disaster that it prevents.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest

VAULTS = 3
WORKLOADS = "ab"


@dataclass(frozen=True)
class Rules:
    """What a vault insists on."""

    hold_needs_promise: bool = True
    """hold(a) only while a is the newest promise."""
    commit_needs_promise: bool = True
    """commit(a) only while a is the newest promise."""
    promise_rises: bool = True
    """promise(a) only if a is above every earlier promise."""
    promise_shows_commit: bool = True
    """The answer to promise names what is committed here."""
    keep_held: bool = True
    """What is held stays, whatever is promised, until a commit."""
    held_needed: int = VAULTS
    """How many `Held` of one attempt a commit must carry."""
    finishing_late: bool = True
    """A creation that all n held in time may be finished after the birth statement ended."""


RULES = Rules()

# A manifest is named by the proposal that dealt it: (attempt, workload).
# A vault is (promised, held, committed, said), in sorted tuples:
#   held       manifests
#   committed  no manifest or one
#   said       facts that left this vault, signed: ("promised", attempt, workload, what was
#              committed then) and ("held", attempt, manifest)
FRESH = (0, (), (), ())


class World(NamedTuple):
    """Where things stand: what the vaults stored and said, and whether the birth has ended."""

    vaults: tuple = (FRESH,) * VAULTS
    ended: bool = False


def put(items, item):
    """Return a sorted tuple that has the item in it."""
    return items if item in items else tuple(sorted((*items, item)))


def answer(vault, request, world, rules):
    """Return the vault after this request; one that refuses, or repeats itself, is unchanged."""
    kind, attempt, what = request
    if kind == "promise":
        return promise(vault, attempt, what, rules)
    if vault[2] not in ((), (what,)):
        return vault  # another one is committed
    return (hold if kind == "hold" else commit)(vault, attempt, what, world, rules)


def promise(vault, attempt, workload, rules):
    """Take nothing older from now on, and show what is committed."""
    promised, held, committed, said = vault
    if attempt < promised or (attempt == promised and rules.promise_rises):
        return vault
    fact = ("promised", attempt, workload, committed if rules.promise_shows_commit else ())
    return attempt, held if rules.keep_held else (), committed, put(said, fact)


def hold(vault, attempt, manifest, world, rules):
    """Keep a share beside those kept before; after the birth has ended, only to finish."""
    promised, held, committed, said = vault
    if rules.hold_needs_promise and attempt != promised:
        return vault
    if world.ended and not (rules.finishing_late and certified(world, manifest, None, VAULTS)):
        return vault
    held = held if committed else put(held, manifest)
    return promised, held, committed, put(said, ("held", attempt, manifest))


def commit(vault, attempt, manifest, world, rules):
    """Commit what all hold, and only now drop the rest."""
    promised, held, committed, said = vault
    if (
        committed
        or manifest not in held
        or (rules.commit_needs_promise and attempt != promised)
        or not certified(world, manifest, attempt, rules.held_needed)
    ):
        return vault
    return promised, (), (manifest,), said


def certified(world, manifest, attempt, needed):
    """Say whether that many vaults have said that they hold it, for one and the same attempt."""
    held = Counter(f[1] for v in world.vaults for f in v[3] if f[0] == "held" and f[2] == manifest)
    return any(count >= needed and attempt in (None, a) for a, count in held.items())


def requests(world, rules, workload, attempt):
    """Yield what this attempt may ask of every vault, by what the vaults said to it so far."""
    yield "promise", attempt, workload
    told = [{f[3] for f in v[3] if f[:3] == ("promised", attempt, workload)} for v in world.vaults]
    if not all(told):
        return
    shown = set().union(*told) - {()}
    for (manifest,) in shown or {((attempt, workload),)}:
        yield "hold", attempt, manifest
        if certified(world, manifest, attempt, rules.held_needed):
            yield "commit", attempt, manifest


def deliver(world, request, i, rules):
    """Return the vaults after vault ``i`` got this request."""
    vault = world.vaults[i]
    after = answer(vault, request, world, rules)
    if after is vault or after == vault:
        return world.vaults
    return (*world.vaults[:i], after, *world.vaults[i + 1 :])


def steps(world, rules, attempts):
    """Yield every world that one event leads to."""
    if not world.ended:
        yield World(world.vaults, ended=True)
    for attempt, workload in itertools.product(range(1, attempts + 1), WORKLOADS):
        for request in requests(world, rules, workload, attempt):
            for i in range(VAULTS):
                after = deliver(world, request, i, rules)
                if after is not world.vaults:
                    # Which vault is which does not matter: sorting folds six worlds into one.
                    yield World(tuple(sorted(after)), world.ended)


def disaster(world, rules):
    """Return what is wrong with this world, or None."""
    committed = {v[2] for v in world.vaults} - {()}
    if len(committed) > 1:
        return "two keys"
    if committed:
        return None if outcome(world, rules) == committed else "lost key"
    return None if world.ended or len(outcome(world, rules) - {()}) == 1 else "stuck"


def outcome(world, rules):
    """Return what vaults have committed after one more workload ran, undisturbed, to its end."""
    attempt = 1 + max(v[0] for v in world.vaults)
    for kind in ("promise", "hold", "commit"):
        for request in requests(world, rules, "a", attempt):
            # It rebuilds what another one dealt from shares that the vaults still have.
            dealt = request[2] if kind != "promise" else None
            rebuilt = dealt in (None, (attempt, "a")) or all(
                dealt in (*v[1], *v[2]) for v in world.vaults
            )
            if request[0] == kind and rebuilt:
                for i in range(VAULTS):
                    world = World(deliver(world, request, i, rules), world.ended)
    return {v[2] for v in world.vaults}


def explore(rules, attempts):
    """Visit every reachable world; return how many, and the first disaster met, if any."""
    seen, todo = {World()}, deque([World()])
    while todo:
        world = todo.popleft()
        if (wrong := disaster(world, rules)) is not None:
            return len(seen), wrong
        for after in steps(world, rules, attempts):
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return len(seen), None


@pytest.mark.req("R4.8")
def test_no_order_of_events_makes_two_keys_or_loses_one():
    """Every state of 3 vaults and 2 workloads with 3 attempts each is safe and can finish."""
    states, wrong = explore(RULES, attempts=3)
    assert wrong is None
    assert states == 56_460  # a model that shrank has lost something


BROKEN = {
    "a vault holds and commits whatever it promised since": (
        {"hold_needs_promise": False, "commit_needs_promise": False},
        "two keys",
    ),
    "a vault commits what is older than its promise": (
        {"commit_needs_promise": False},
        "two keys",
    ),
    "a vault promises one number to two workloads": ({"promise_rises": False}, "two keys"),
    "a vault does not show what it committed": ({"promise_shows_commit": False}, "lost key"),
    "a promise drops what was held": ({"keep_held": False}, "lost key"),
    "k vaults that hold are enough to commit": ({"held_needed": 2}, "lost key"),
    "nothing is finished after the birth statement ended": (
        {"finishing_late": False},
        "lost key",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_the_model_finds_what_each_rule_prevents(rule):
    """Without the rule there is an order of events that makes two keys or loses the only one."""
    without, wrong = BROKEN[rule]
    assert explore(replace(RULES, **without), attempts=2)[1] == wrong


def test_holding_an_old_attempt_is_harmless_as_long_as_it_is_not_committed():
    """The check in hold is caution: the one in commit carries the protocol."""
    assert explore(replace(RULES, hold_needs_promise=False), attempts=2)[1] is None
