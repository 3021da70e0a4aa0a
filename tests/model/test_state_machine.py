"""Vaults under hypothesis: after every step each of them is as the oracle says (issue 4).

Owners, guardians, builders, couriers, clocks and crashes in any order, at n = 3 to 5. What is
checked: the real policy against `placet_model.oracle`, every release against it, and the
invariants of `placet_model.invariants`.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from placet_model import cast, moves
from placet_model.ideal import ideal
from placet_model.invariants import Watch
from placet_model.staging import check_inert
from placet_model.world import World

EXAMPLES = int(os.environ.get("PLACET_MODEL_EXAMPLES", "120"))
SIZES = ((3, 2), (4, 3), (5, 3))


class Machine(RuleBasedStateMachine):
    """Everything that may happen to one key."""

    world: World
    watch: Watch

    @initialize(size=st.sampled_from(SIZES), two=st.booleans(), data=st.data())
    def begin(self, size, two, data):
        """Have a key born at all vaults but perhaps one."""
        self.world = World(*size, table=cast.TWO if two else cast.TABLE)
        self.watch = Watch(self.world)
        for at in range(self.world.n - data.draw(st.integers(0, 1))):
            self.world.bring(at, [self.world.birth])

    def _said(self, data, digest):
        if digest is not None and data.draw(st.booleans()):
            self._bring(data, digest)

    def _bring(self, data, digest):
        at = data.draw(st.integers(0, self.world.n - 1))
        run = data.draw(st.sampled_from(([digest], moves.path(self.world, digest))))
        self.world.bring(at, run, data.draw(st.sampled_from((None, None, (), (0, 1), (1, 2)))))

    @rule(data=st.data(), move=st.sampled_from(moves.KINDS))
    def say(self, data, move):
        """Have somebody sign something, and perhaps bring it to one vault."""
        self._said(data, move(self.world, lambda options: data.draw(st.sampled_from(options))))

    @rule(data=st.data(), odds=st.integers(0, 3))
    def delete(self, data, odds):
        """Have the key deleted, now and then."""
        if not odds:
            pick = lambda options: data.draw(st.sampled_from(options))  # noqa: E731
            self._said(data, moves.delete(self.world, pick))

    @rule(data=st.data())
    def deliver(self, data):
        """Bring a vault any statement there is: late, again, out of order, or with those before."""
        newest = list(self.world.saids)[-6:]
        self._bring(data, data.draw(st.sampled_from(newest)))

    @rule(data=st.data())
    def everywhere(self, data):
        """Bring the newest statement to several vaults."""
        digest = list(self.world.saids)[-1]
        for at in range(data.draw(st.integers(1, self.world.n))):
            self.world.bring(at, moves.path(self.world, digest))

    @rule(data=st.data())
    def relay(self, data):
        """Have a courier bring one vault what another holds."""
        source, target = (data.draw(st.integers(0, self.world.n - 1)) for _ in range(2))
        run = moves.catch_up(self.world, source, target)
        if run:
            self.world.bring(target, run)

    @rule(seconds=st.sampled_from((1, 3600, cast.DAY, 2 * cast.DAY)))
    def wait(self, seconds):
        """Let time pass for everybody."""
        self.world.time += seconds

    @rule(seconds=st.sampled_from((3600, cast.DAY)))
    def be_patient(self, seconds):
        """Let time pass, and bring again what waits."""
        moves.be_patient(self.world, seconds)

    @rule(data=st.data(), seconds=st.sampled_from((1, 3600, cast.DAY)))
    def forward(self, data, seconds):
        """Set one vault's clock forward."""
        self.world.skew[data.draw(st.integers(0, self.world.n - 1))] += seconds

    @rule(data=st.data())
    def crash(self, data):
        """Start one vault again."""
        self.world.crash(data.draw(st.integers(0, self.world.n - 1)))

    @precondition(lambda self: any(o.past for o in self.world.oracles))
    @rule(data=st.data())
    def stage(self, data):
        """Put a version forward, or take one back: nothing changes (I4)."""
        check_inert(self.world, lambda options: data.draw(st.sampled_from(options)))

    @invariant()
    def holds(self):
        """Look at everything."""
        if hasattr(self, "world"):
            self.watch.look()


@pytest.mark.req("I1", "I4", "I5", "I12", "R5.8", "R6.7", "R8.2")
def test_vaults_are_as_the_oracle_says():
    """No history of up to 50 steps leaves a vault with another policy, or breaks an invariant."""
    with ideal():
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=50,
                deadline=None,
                derandomize="PLACET_MODEL_EXAMPLES" not in os.environ,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
