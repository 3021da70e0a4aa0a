"""Every order of events around three vaults and a short script, each answer against the oracle.

A state is what each vault has stored, which receipts exist, what was ever effective, and
what time it is. An event brings one vault one statement, alone or with what it stands on
and every receipt there is, or lets time pass. All reachable states are visited.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from placet_testing.charters import NOW

from placet.core.dsse import Signed
from placet.policy.receipts import receipt_of
from placet_model import cast, moves, oracle
from placet_model.invariants import Watch
from placet_model.oracle import History, Link
from placet_model.oracle_taking import Vault
from placet_model.world import DisagreementError, Node, World

N, K = 3, 2
DAY = cast.DAY
NUMBER = {cast.vault(i): i for i in range(N)}
Receipt = tuple[str, int, int]
"""Statement, vault and time."""


class State(NamedTuple):
    """Where everything stands."""

    time: int
    vaults: tuple[Any, ...]
    """For each vault: its statements with time and receipts, and what waits there."""
    receipts: frozenset[Receipt]
    effective: frozenset[str]
    """Statements that n-k+1 vaults held at one time."""


@dataclass(frozen=True)
class Script:
    """What was signed, and the moments between which time jumps."""

    name: str
    write: Callable[[World], Sequence[str]]
    times: tuple[int, ...] = (0,)


@dataclass
class Explorer:
    """One script, explored."""

    script: Script
    states: int = 0
    events: int = 0
    answers: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Have everything signed, and the key born at all vaults."""
        self.world = World(N, K, seed=self.script.name)
        for at in range(N):
            self.world.bring(at, [self.world.birth])
        self.said = list(self.script.write(self.world))
        self.paths = {d: tuple(moves.path(self.world, d)) for d in self.said}
        self.made: dict[Receipt, Signed] = {}
        self.kept: dict[object, tuple[Node, Vault]] = {}
        self.memo: dict[object, tuple[object, frozenset[Receipt]]] = {}
        self.served: dict[tuple[int, object, int], frozenset[int]] = {}

    def run(self, limit: int) -> None:
        """Visit every state.

        Raises:
            DisagreementError: A vault differs from the oracle, or an invariant is broken.
            ValueError: There are more states than the limit.
        """
        start = State(0, tuple(map(self._store, range(N))), self._noted(), frozenset())
        seen, queue = {self._shape(start)}, deque([start])
        while queue:
            state = queue.popleft()
            self._check(state)
            for after in self._next(state):
                self.events += 1
                shape = self._shape(after)
                if shape not in seen:
                    seen.add(shape)
                    queue.append(after)
            if len(seen) > limit:
                raise ValueError(f"{self.script.name}: more than {limit} states")
        self.states = len(seen)

    # --- events ---------------------------------------------------------------------------

    def _next(self, state: State) -> Iterator[State]:
        if state.time + 1 < len(self.script.times):
            yield state._replace(time=state.time + 1)
        for at in range(N):
            for digest, path in self.paths.items():
                for run, receipts in (((digest,), frozenset()), (path, state.receipts)):
                    after = self._brought(state, at, run, receipts)
                    if after != state:
                        yield after

    def _brought(
        self, state: State, at: int, run: tuple[str, ...], receipts: frozenset[Receipt]
    ) -> State:
        given = frozenset(r for r in receipts if r[0] in run)
        memo = (at, state.vaults[at], run, given, state.time)
        if memo not in self.memo:
            world = self.world
            world.time = NOW + self.script.times[state.time]
            world.nodes[at], world.oracles[at] = self.kept[state.vaults[at]]
            world.receipts = {}
            for receipt in given:
                world.receipts.setdefault(receipt[0], {})[receipt[1]] = self.made[receipt]
            self.answers.add(world.bring(at, run))
            world.crash(at)
            self.memo[memo] = self._store(at), self._noted(at)
        key, new = self.memo[memo]
        if key == state.vaults[at]:
            return state
        vaults = (*state.vaults[:at], key, *state.vaults[at + 1 :])
        had = {r[:2] for r in state.receipts}
        receipts = state.receipts | {r for r in new if r[:2] not in had}
        return self._effective(State(state.time, vaults, receipts, state.effective))

    def _effective(self, state: State) -> State:
        chains = [self._chain(key) for key in state.vaults]
        found = {
            d
            for d in self.said
            if sum(d in chain for chain in chains) >= N - K + 1 and d not in state.effective
        }
        return state._replace(effective=state.effective | found) if found else state

    def _shape(self, state: State) -> object:
        """Return what is the same for states in which vaults only have each other's names."""
        plain = [(tuple(link[:2] for link in key[0]), key[1]) for key in state.vaults]
        order = sorted(range(N), key=plain.__getitem__)
        shapes = []
        for names in itertools.permutations(range(N)):
            if [plain[i] for i in names] == [plain[i] for i in order]:
                new = {old: at for at, old in enumerate(names)}
                shapes.append((
                    tuple(_renamed(state.vaults[old], new) for old in names),
                    tuple(sorted((d, new[v], t) for d, v, t in state.receipts)),
                ))  # fmt: skip
        return state.time, min(shapes), state.effective

    # --- what is remembered -----------------------------------------------------------------

    def _store(self, at: int) -> object:
        node, vault = self.world.nodes[at], self.world.oracles[at]
        key = (
            tuple(
                (x.said.id, x.at, tuple(sorted(map(_of, kept.receipts))))
                for x, kept in zip(vault.past, node.charter, strict=True)
            ),
            tuple(sorted(vault.waiting.items())),
        )
        self.kept.setdefault(key, (node, vault))
        return key

    def _noted(self, *only: int) -> frozenset[Receipt]:
        """Return the receipts that vaults signed for what they hold now."""
        found = set()
        for at in only or range(N):
            node, vault = self.world.nodes[at], self.world.oracles[at]
            for kept, link in zip(node.charter, vault.past, strict=True):
                own = (kept.sent.digest, at, _of(kept.receipts[0])[1])
                self.made[own] = kept.receipts[0]
                found.add(own)
                assert link.said.id == kept.sent.digest
        return frozenset(found)

    def _chain(self, key: object) -> tuple[str, ...]:
        return tuple(x.said.id for x in self.kept[key][1].past)

    # --- invariants ---------------------------------------------------------------------------

    def _check(self, state: State) -> None:
        released = dict.fromkeys(cast.CODES, 0)
        for at, key in enumerate(state.vaults):
            for code in self._served(at, key, state.time):
                released[code] += 1
        pasts = [self.kept[key][1].past for key in state.vaults]
        for digest in state.effective:
            for code in _shut(self.world, digest):
                if released[code] >= K and not any(_back(past, digest, code) for past in pasts):
                    raise DisagreementError(f"I12: code {code} was retired and k vaults serve it")

    def _served(self, at: int, key: object, time: int) -> frozenset[int]:
        """Return what a vault would release to; each has its approval in its charter (I1)."""
        memo = (at, key, time)
        if memo not in self.served:
            world = self.world
            world.time = NOW + self.script.times[time]
            world.nodes[at], world.oracles[at] = self.kept[key]
            codes = frozenset(c for c in cast.CODES if world.releases(at, c))
            for code in cast.CODES:
                if (code in codes) != oracle.allowed(world.oracles[at].past, code, world.time):
                    raise DisagreementError(f"I1: vault {at} and oracle differ about code {code}")
            watch = Watch(world)
            for code in codes:
                watch.consented(at, code)
            self.served[memo] = codes
        return self.served[memo]


def _of(receipt: Signed) -> tuple[int, int]:
    taken = receipt_of(receipt)
    return NUMBER[taken.vault], taken.time


def _renamed(key: Any, new: dict[int, int]) -> object:
    links = tuple((d, at, tuple(sorted((new[v], t) for v, t in by))) for d, at, by in key[0])
    return links, key[1]


def _shut(world: World, digest: str) -> frozenset[int]:
    return Watch(world).shuts(world.saids[digest])


def _back(past: History, digest: str, code: int) -> bool:
    """Return whether a later statement of a history lets in again what an earlier one shut out."""
    ids = [x.said.id for x in past]
    later = past[ids.index(digest) + 1 :] if digest in ids else ()
    return any(
        code in x.said.lets_in or (x.said.kind == "promote" and x.said.code == code) for x in later
    )


# --- scripts ----------------------------------------------------------------------------------


class Author:
    """Writes a script: each statement stands on one that was written before."""

    def __init__(self, world: World) -> None:
        self.world, self.at = world, {"": world.oracles[0].past}

    def on(self, prev: str, kind: str, by: str, **body: object) -> str:
        """Have people (in one word each) sign a statement; return its digest."""
        past = self.at[prev]
        if kind == "promote":
            body = {"sv": 1, "floor": oracle.floor(past)} | body
        digest = self.world.say(past, kind, by.split(), **body)
        self.at[digest] = (*past, Link(self.world.saids[digest], NOW, frozenset()))
        return digest

    def table(self, **changes: object) -> oracle.Table:
        """Return the first rules with changes."""
        return self.world.table._replace(**changes)  # type: ignore[arg-type]


def fork(world: World) -> Sequence[str]:
    """Write two rival promotes, one that shuts out, something on each, and the merge."""
    say = Author(world)
    two = say.on("", "promote", "owner", code=2)
    three = say.on("", "promote", "spare", code=3, earlier="retire")
    onward = say.on(two, "promote", "spare", code=4)
    ended = say.on(
        two,
        "merge",
        "owner",
        heads=frozenset({two, three}),
        table=world.table,
        lets_in={2: (1, None), 3: (1, None)},
        floor=0,
        tombs=frozenset({1}),
    )
    return two, three, onward, ended


def recovery(world: World) -> Sequence[str]:
    """Write an intent, its completion, the owner's veto, and what the new owner tries."""
    say = Author(world)
    intent = say.on("", "recover", "g1 g2", owner=cast.group(1, "heir"))
    veto = say.on(intent, "void", "page", names=intent)
    done = say.on(intent, "recover", "heir", names=intent)
    return intent, veto, done, say.on(done, "promote", "heir", code=2)


def automatic(world: World) -> Sequence[str]:
    """Write a clause, a use of it, a veto of one signer, and the owner's own promote."""
    say = Author(world)
    clause = say.on("", "update", "owner", table=say.table(clause=cast.CLAUSE))
    use = say.on(clause, "promote", "platform", code=2, auto=cast.CLAUSE)
    veto = say.on(clause, "void", "page", names=use)
    return clause, use, veto, say.on(clause, "promote", "owner", code=3)


def page(world: World) -> Sequence[str]:
    """Write a promote signed on a page alone, a veto, a retire, and the owner on top of it."""
    say = Author(world)
    alone = say.on("", "promote", "page", code=2, earlier="retire")
    veto = say.on("", "void", "spare", names=alone)
    retire = say.on("", "retire", "owner", code=1)
    return alone, veto, retire, say.on(alone, "promote", "owner", code=3)


def retire(world: World) -> Sequence[str]:
    """Write a retire, a rival promote, and a promote that brings the retired code back."""
    say = Author(world)
    gone = say.on("", "retire", "owner", code=1)
    rival = say.on("", "promote", "spare", code=2)
    back = say.on(gone, "promote", "owner", code=1, unretire=True)
    return gone, rival, back, say.on(rival, "retire", "owner", code=1)


def newcomer(world: World) -> Sequence[str]:
    """Write a new owner signer, what he tries at once, and what others sign meanwhile."""
    say = Author(world)
    who = world.table.owner.who | {"new"}
    added = say.on(
        "", "update", "owner", table=say.table(owner=world.table.owner._replace(who=who))
    )
    tries = say.on(added, "promote", "new", code=2)
    alone = say.table(owner=cast.group(1, "new", "page"))
    return added, tries, say.on(added, "update", "owner", table=alone)


def destroyed(world: World) -> Sequence[str]:
    """Write a delete, and a promote on the same head and one on the delete."""
    say = Author(world)
    gone = say.on("", "delete", "owner", label=True)
    rival = say.on("", "promote", "spare", code=2)
    return (
        gone,
        rival,
        say.on(gone, "promote", "owner", code=2),
        say.on(rival, "retire", "owner", code=1),
    )


SCRIPTS = (
    Script("fork and merge", fork, (0, 4 * DAY)),
    Script("recovery and veto", recovery, (0, 2 * DAY, 5 * DAY)),
    Script("auto and veto", automatic, (0, DAY, 4 * DAY)),
    Script("page and veto", page, (0, DAY, 4 * DAY)),
    Script("retire and promote", retire, (0, 4 * DAY)),
    Script("new signer", newcomer, (0, DAY, 4 * DAY)),
    Script("delete and promote", destroyed, (0, 4 * DAY)),
)
