"""Seeded histories: what hypothesis does in the state machine, many more times and fast.

A history is random steps on one world, with a look at everything after each; at its end the
network heals, and what k vaults hold has to reach all.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

from placet_model import cast, moves
from placet_model.ideal import ideal
from placet_model.invariants import Watch
from placet_model.staging import check_inert
from placet_model.world import DisagreementError, World

SIZES = ((3, 2), (4, 3), (5, 3))
STEPS = 50


class History:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        n, k = SIZES[seed % len(SIZES)]
        self.world = World(n, k, table=self.pick((cast.TABLE, cast.TWO)), seed=str(seed))
        self.watch = Watch(self.world)
        self.answers: Counter[str] = Counter()
        for at in range(n):
            self.bring(at, self.world.birth)

    def pick(self, options: Any) -> Any:
        """Return one of these."""
        return self.random.choice(options)

    def run(self, steps: int = STEPS) -> None:
        """Do so many things, then heal the network.

        Raises:
            DisagreementError: A vault differs from the oracle, or an invariant is broken.
        """
        for step in range(steps):
            try:
                self.step()
                self.watch.look()
            except DisagreementError as e:
                e.add_note(f"at step {step} of this history")
                raise
        self.heal()

    def step(self) -> None:
        """Do one thing: sign, deliver, double, delay, relay, wait, skew a clock, crash, stage."""
        world, at = self.world, self.random.randrange(self.world.n)
        kind = self.random.choices(
            ("say", "deliver", "everywhere", "relay", "wait", "patience", "skew", "crash", "stage"),
            (40, 20, 12, 10, 6, 4, 4, 4, 1),
        )[0]
        if kind == "say":
            digest = moves.delete if self.random.random() < 0.01 else self.pick(moves.KINDS)
            said = digest(world, self.pick)
            if said is not None and self.random.random() < 0.8:
                self.bring(at, said)
        elif kind == "deliver":
            self.bring(at, self.pick(list(world.saids)[-6:]))
        elif kind == "everywhere":
            for to in range(self.random.randint(1, world.n)):
                self.bring(to, list(world.saids)[-1])
        elif kind == "relay":
            self.relay(at, self.random.randrange(world.n))
        elif kind == "wait":
            world.time += self.pick((1, 3600, cast.DAY, 2 * cast.DAY))
        elif kind == "patience":
            moves.be_patient(world, cast.DAY)
        elif kind == "skew":
            world.skew[at] += self.pick((1, 3600, cast.DAY))
        elif kind == "crash":
            world.crash(at)
        else:
            check_inert(world, self.pick)

    def bring(self, at: int, digest: str) -> None:
        """Bring a vault a statement: alone or with what it stands on, with receipts or without."""
        run = self.pick(([digest], moves.path(self.world, digest)))
        answer = self.world.bring(at, run, self.pick((None, None, (), (0, 1), (1, 2))))
        said = self.world.saids[digest]
        kind = "auto" if said.auto else said.kind
        if said.kind == "recover" and said.owner is None:
            kind = "completion"
        self.answers[f"{kind} {answer}"] += 1

    def relay(self, source: int, target: int) -> None:
        """Have a courier bring one vault what another holds, with every receipt there is."""
        before = self.world.chain(target)
        run = moves.catch_up(self.world, source, target)
        if run:
            self.world.bring(target, run)
            if self.world.chain(target)[: len(before)] != before:
                self.answers["branch changed"] += 1

    def heal(self) -> None:
        """Let couriers bring everybody everything: what k vaults hold, all hold (R8.1)."""
        world = self.world
        for _ in range(world.n):
            before = [world.chain(at) for at in range(world.n)]
            for source in range(world.n):
                for target in range(world.n):
                    # Piece by piece: what nobody vouches for at the end stops nothing before it.
                    run = moves.catch_up(world, source, target)
                    for end in range(1, len(run) + 1):
                        world.bring(target, run[:end])
            self.watch.look()
            if before == [world.chain(at) for at in range(world.n)]:
                break
        chains = [world.chain(at) for at in range(world.n)]
        heads = {c[-1] for c in chains if c}
        self.answers["one head" if len(heads) == 1 else "split"] += 1
        if any(world.saids[d].kind == "merge" for c in chains for d in c):
            # A merge brings those whose head it names; another one brings the others.
            return
        for digest in {d for c in chains for d in c}:
            holders = [c for c in chains if digest in c]
            if world.k <= len(holders) < len(chains):
                raise DisagreementError(
                    f"R8.1: healed, and k vaults hold a {world.saids[digest].kind}, but not all"
                )


def run(seeds: Iterable[int]) -> Counter[str]:
    """Run these seeds; return how often each kind of statement got each answer.

    Raises:
        DisagreementError: Something does not hold; its note names the seed.
    """
    total: Counter[str] = Counter()
    with ideal():
        for seed in seeds:
            history = History(seed)
            try:
                history.run()
            except DisagreementError as e:
                e.add_note(f"seed {seed}")
                raise
            total += history.answers
            total["seeds"] += 1
    return total
