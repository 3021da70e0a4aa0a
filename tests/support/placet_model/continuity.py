"""One vault whose host restarts, copies and puts back its disk at will, as an explicit-state model.

Others are its circle: they hear beats, in any order, and never forget. Every state that can be
reached within the bounds is visited. The rules are the real ones of `placet.policy.continuity`,
over real signatures, asked once for each different question; around them is what spec/10,
section 3 says of a process: who answered it within its lease, and what it does when it is told
that it is not the newest.

Two things are checked in every state. *Clones*: of two processes of one vault that both serve,
the later one began within this lease, and they are not two copies of one start. *Rollback*: what
was witnessed before this lease is in the log of every process that serves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from placet.policy.continuity import Circle
from placet_model.beats import OWN, BrokenError, Log, Told, ask, vault_name


class Process(NamedTuple):
    """One start of the vault."""

    at: Told
    answers: tuple[tuple[int, bool, int], ...] = ()
    """Who said yes, whether in this lease, and how long the log was then."""
    lost: frozenset[int] = frozenset()
    """Who knows another one of the same number."""
    quarantined: bool = False
    served: bool | None = None
    """Whether it first stood in an earlier lease; nothing while it did not."""


class World(NamedTuple):
    """Where things stand.

    A process that was stopped is one that asks no more, and a disk that was put aside is that of
    one that has not asked yet: neither needs a state of its own.
    """

    witnesses: tuple[Told | None, ...]
    processes: tuple[Process, ...] = ()
    lease: int = 0
    witnessed: tuple[tuple[bool, Log], ...] = ()
    """Logs that a process knew to be witnessed by enough, and whether before this lease."""


@dataclass
class Model:
    """A circle, and how far it is explored.

    Args:
        n: Vaults.
        k: Of them needed for a key.
        outside: Witnesses.
        starts: Most processes there ever are.
        entries: Longest log.
        leases: How often a lease may pass.
        lossy: Whether an answer may be lost after the witness remembers the beat.
        trust_answer_forever: A planted bug: an answer counts in every later lease.
    """

    n: int
    k: int
    outside: int
    starts: int = 2
    entries: int = 1
    leases: int = 1
    lossy: bool = True
    trust_answer_forever: bool = False
    states: int = 0
    served_again: int = 0
    """States in which one serves that was not the first."""
    refused: set[str] = field(default_factory=set)
    """Reasons that quarantined a process."""

    def __post_init__(self) -> None:
        names = tuple(vault_name(number) for number in range(1, self.n + self.outside + 1))
        self.circle = Circle(self.k, names[: self.n], names[self.n :])
        self.others = range(2, self.n + self.outside + 1)

    def run(self) -> None:
        """Visit every state.

        Raises:
            BrokenError: In one of them an invariant does not hold.
        """
        first = World(witnesses=(None,) * len(self.others))
        came: dict[World, tuple[World | None, str]] = {first: (None, "")}
        queue = deque([first])
        while queue:
            world = queue.popleft()
            self.check(world, came)
            for what, after in self.moves(world):
                if after not in came:
                    came[after] = (world, what)
                    queue.append(after)
        self.states = len(came)

    # --- what may happen -----------------------------------------------------------------

    def moves(self, world: World) -> Iterator[tuple[str, World]]:
        """Return every step that the host, the network or the vault may take next."""
        if len(world.processes) < self.starts:
            for disk in {p.at for p in world.processes} or {None}:
                yield f"start from {disk}", self._started(world, disk)
        if world.lease < self.leases:
            yield "a lease passes", self._passed(world)
        for number, process in enumerate(world.processes):
            if process.quarantined:
                continue
            if self.serves(process) and len(process.at.log) < self.entries:
                at = process.at._replace(log=(*process.at.log, number))
                yield f"{number} logs", self._with(world, number, process._replace(at=at))
            for witness in self.others:
                for heard in (True, False)[: 1 + self.lossy]:
                    how = "" if heard else ", answer lost"
                    after = self._asked(world, number, witness, heard=heard)
                    yield f"{number} asks {witness}{how}", after

    def _passed(self, world: World) -> World:
        """Return the world a lease later: what was answered before counts no more."""
        old = self.trust_answer_forever
        processes = tuple(
            p._replace(
                answers=tuple((w, fresh and old, size) for w, fresh, size in p.answers),
                served=None if p.served is None else True,
            )
            for p in world.processes
        )
        witnessed = tuple((True, log) for _, log in world.witnessed)
        return world._replace(processes=processes, lease=world.lease + 1, witnessed=witnessed)

    def _started(self, world: World, disk: Told | None) -> World:
        boots = disk.boots + 1 if disk else 1
        at = Told(boots, len(world.processes), disk.log if disk else ())
        return world._replace(processes=(*world.processes, Process(at)))

    @staticmethod
    def _with(world: World, number: int, process: Process) -> World:
        rest = world.processes
        return world._replace(processes=(*rest[:number], process, *rest[number + 1 :]))

    def _asked(self, world: World, number: int, witness: int, *, heard: bool) -> World:
        """Return the world after a beat, and where it was heard, its answer."""
        process, index = world.processes[number], witness - 2
        known = world.witnesses[index]
        after, reason = ask(known, process.at, witness)
        told = (*world.witnesses[:index], after, *world.witnesses[index + 1 :])
        world = world._replace(witnesses=told)
        if not heard:
            return world
        if reason:
            lost = process.lost | {witness}
            left = [vault_name(w) for w in self.others if w not in lost]
            may_win = reason == "cloned" and self.circle.stands(vault_name(OWN), left)
            if not may_win:
                self.refused.add(reason)
            if not may_win:
                return self._with(world, number, Process(process.at, quarantined=True))
            return self._with(world, number, process._replace(lost=lost))
        rest = [one for one in process.answers if one[0] != witness]
        answers = (*rest, (witness, True, len(process.at.log)))
        process = process._replace(answers=tuple(sorted(answers)))
        if process.served is None and self.serves(process):
            process = process._replace(served=False)
        world = self._with(world, number, process)
        return self._witnessed(world, process)

    def _witnessed(self, world: World, process: Process) -> World:
        """Note how much of a log enough have seen, as `check_witnessed` of the vault does."""
        for size in range(len(process.at.log), 0, -1):
            seen = [vault_name(w) for w, _, told in process.answers if told >= size]
            log = process.at.log[:size]
            if self.circle.stands(vault_name(OWN), seen):
                if all(log != known[: len(log)] for _, known in world.witnessed):
                    new = tuple(sorted({*world.witnessed, (False, log)}))
                    return world._replace(witnessed=new)
                break
        return world

    # --- what must hold ------------------------------------------------------------------

    def serves(self, process: Process) -> bool:
        """Say whether a process serves now."""
        fresh = [vault_name(w) for w, now, _ in process.answers if now]
        return not process.quarantined and self.circle.stands(vault_name(OWN), fresh)

    def check(self, world: World, came: dict[World, tuple[World | None, str]]) -> None:
        """Check both invariants in one state."""
        serving = [p for p in world.processes if self.serves(p)]
        self.served_again += any(p.at.boot for p in serving)
        if len(serving) > 1:
            copies = len({p.at.boots for p in serving}) == 1
            if copies or all(p.served for p in serving):
                raise BrokenError(_trace("two processes serve", world, came))
        for process in serving:
            for since, log in world.witnessed:
                if since and process.at.log[: len(log)] != log:
                    raise BrokenError(_trace(f"{log} was forgotten", world, came))


def _trace(what: str, world: World, came: dict[World, tuple[World | None, str]]) -> str:
    steps = list[str]()
    at: World | None = world
    while at is not None:
        at, step = came[at]
        steps.append(step)
    return "\n".join((f"{what}:", *reversed(steps[:-1])))
