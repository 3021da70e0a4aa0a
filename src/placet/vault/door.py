"""Who comes in at a vault: cheap refusals before dear checks (spec/07, section 5).

Everything here is bounded, and shared by network address: a crowd from one network is
refused, and leaves room for everybody else. An address vouches for nothing; it only says
who pays for whom.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from placet.core.buckets import Buckets
from placet.core.limits import (
    HANDSHAKE_BURST,
    HANDSHAKE_RATE,
    MAX_CONNECTIONS,
    MAX_MEETINGS,
    MAX_NETWORKS,
    MAX_VISITORS,
)
from placet.errors import RateLimitedError
from placet.ratls.door import Door, Visit

MEETING = "meeting"
SLICE = 0.003
"""Seconds of handshakes between two looks at everything else."""
SILENT = 0.5
"""Seconds without a byte, after which somebody else may have the place."""
AGAIN = 0.05
"""Seconds between two looks at who is silent."""
RESERVED = MAX_MEETINGS // 4
"""Places that only networks get from which a workload attested before."""


Step = tuple[Visit, Callable[[], object]]


class VaultDoor(Door):
    """A `Door` that leaves room for everybody else, however many come from one network.

    Args:
        most: Connections at one time, attested or not.
    """

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        super().__init__(most)
        self.refused = 0
        """How many were turned away or had to leave."""
        self._known: OrderedDict[str, None] = OrderedDict()
        self._first, self._later = deque[Step](), deque[Step]()
        self._pumping, self._looked = False, -AGAIN
        self._tokens = Buckets(HANDSHAKE_RATE, HANDSHAKE_BURST, "connections")

    def enter(self, network: str, leave: Callable[[], object], now: float) -> Visit:
        """Take a connection, if there is room and there are tokens."""
        self.refused += 1  # unless all of this passes
        # 5.1 How many are open, and how many of them have not said yet who they are.
        self._make_room(MEETING, MAX_MEETINGS - RESERVED * (network not in self._known), now)
        # 5.2 How many came from there lately.
        self._tokens.take(network, 1, now)
        visit = super().enter(network, leave, now)
        self.refused -= 1
        return visit

    def work(self, visit: Visit, step: Callable[[], object]) -> None:
        """Take the next step of a handshake when it is its turn.

        In slices, so that requests under way go on in between. Who has come further goes
        first: most of those who flood us never come to a second step.
        """
        queue = self._later if visit.steps or visit.network in self._known else self._first
        queue.append((visit, step))
        visit.waits = True
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        now = time.monotonic()
        end = now + SLICE
        try:
            while now < end and (self._later or self._first):
                visit, step = (self._later or self._first).popleft()
                visit.waits, visit.heard = False, now
                visit.steps += 1
                step()
                now = time.monotonic()
        finally:
            self._pumping = bool(self._later or self._first)
            if self._pumping:
                asyncio.get_running_loop().call_soon(self._pump)

    def met(self, visit: Visit, kind: str, now: float) -> None:
        """Count a connection as attested; visitors have to find room once more."""
        if kind == "visitor":
            self._make_room(kind, MAX_VISITORS, now)
        else:
            self._known[visit.network] = None
            if len(self._known) > MAX_NETWORKS:
                self._known.popitem(last=False)
        super().met(visit, kind, now)

    def count(self) -> dict[str, float]:
        """Return how many are open, by kind."""
        return {k: float(n) for k, n in Counter(v.kind for v in self.visits).items()}

    def _make_room(self, kind: str, most: int, now: float) -> None:
        """Have those leave that are silent, of the networks that have most, if all is full."""
        visits = [v for v in self.visits if v.kind == kind]
        if len(visits) < most:
            return
        if now >= self._looked + AGAIN:  # a crowd asks often, and this reads them all
            self._looked = now
            crowds = Counter(v.network for v in visits)
            silent = [v for v in visits if not v.waits and now - v.heard >= SILENT]
            silent.sort(key=lambda v: (-crowds[v.network], v.heard))
            for visit in silent[: max(1, len(silent) // 2)]:
                self.left(visit)
                self.refused += 1
                visit.leave()
                visits.remove(visit)
        if len(visits) >= most:
            raise RateLimitedError(
                f"{len(visits)} connections are open of kind {kind}",
                "Try again in a second.",
                retry_after=1,
            )
