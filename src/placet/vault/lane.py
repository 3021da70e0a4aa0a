"""Turns for what is dear: few at one time, and each network's in turn (spec/07, section 5)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator

from placet.core.limits import MAX_QUEUE
from placet.errors import RateLimitedError


class Lane:
    """So many at one time. Who waits is served by network in turn, first come first served.

    Args:
        width: How many at one time.
        depth: How many of one network may wait.
    """

    def __init__(self, width: int, depth: int = MAX_QUEUE) -> None:
        self._free, self._depth = width, depth
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, network: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it for as long as the block runs.

        Raises:
            RateLimitedError: Too many of this network wait already.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(network)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, network: str) -> None:
        queue = self._waiting.setdefault(network, deque())
        if len(queue) >= self._depth:
            raise RateLimitedError(
                f"{len(queue)} connections from one place wait here already",
                "Try again in a second.",
                retry_after=1,
            )
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._pass_on()  # it was our turn, and we are gone
            elif mine in queue:
                queue.remove(mine)
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            network, queue = self._waiting.popitem(last=False)
            if len(queue) > 1:
                self._waiting[network] = queue  # behind all others
            if queue and not (one := queue.popleft()).done():
                one.set_result(None)
                return
        self._free += 1
