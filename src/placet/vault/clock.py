"""A vault's time: never back, and set by nobody while it counts (R2.6; spec/10, section 4)."""

from __future__ import annotations

import time
from collections.abc import Callable

MOVED = 5
"""Seconds by which the host's clock must differ for it to be taken anew."""


def _running() -> float:
    """Return seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class VaultClock:
    """The host's time at the start, carried on by a clock that nobody sets.

    What the host says later changes nothing, unless `settle` is called: while too few
    witnesses agree with this clock, nothing is decided by it.

    Args:
        floor: Returns the time of the last log entry: it is never earlier.
        wall: Returns what the host says, in Unix seconds.
        running: Returns seconds of the clock that nobody sets.
    """

    def __init__(
        self,
        floor: Callable[[], int],
        *,
        wall: Callable[[], float] = time.time,
        running: Callable[[], float] = _running,
    ) -> None:
        self._floor, self._wall, self._running = floor, wall, running
        self._base = wall() - running()

    def now(self) -> int:
        """Return Unix seconds, never before the last log entry."""
        return max(self._floor(), int(self._base + self._running()))

    def monotonic(self) -> float:
        """Return seconds of the clock that nobody sets."""
        return self._running()

    def wall(self) -> float:
        """Return what the host says now: to end a lease with, never to lengthen one."""
        return self._wall()

    def settle(self) -> bool:
        """Take the host's time anew, never one before what is logged; say whether it moved."""
        base = self._wall() - self._running()
        moved = abs(base - self._base) >= MOVED
        if moved:
            self._base = base
        return moved
