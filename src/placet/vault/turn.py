"""Requests that are ready together are decided in order and made durable together (spec/06, 1.3).

One fsync a turn of the event loop, and not one a request. No answer leaves before it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

from placet.core.limits import MAX_TURN
from placet.errors import PlacetError

Call = Callable[[], object]
Turned = Callable[[int, float], object]
"""Is told how many requests a turn decided, and in how many seconds that became durable."""


class Turn:
    """Runs what waits at the end of each turn of the event loop, as one group of the store.

    Args:
        group: Makes what is committed inside durable when it ends, or raises.
        turned: Is told of turns that ended well; decides nothing.
    """

    def __init__(
        self,
        group: Callable[[], AbstractContextManager[None]],
        turned: Turned = lambda *_: None,
    ) -> None:
        self._group, self._turned = group, turned
        self._waiting = deque[tuple[Call, asyncio.Future[object]]]()

    async def run(self, call: Call) -> object:
        """Return what ``call`` returns, or raise what it raises, once its turn is durable.

        Raises:
            UnavailableError: The turn is not known to be durable: nothing of it is believed, and
                no answer that rests on it leaves.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._run)
        self._waiting.append((call, done))
        return await done

    def _run(self) -> None:
        """Run what waits, without waiting for anything: no other decision comes between."""
        ready = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_TURN))]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._run)
        # Whose peer went away before its turn asks nothing any more.
        asked = [(call, done) for call, done in ready if not done.cancelled()]
        durable = decided = time.monotonic()
        try:
            with self._group():
                outcomes = [_outcome(call) for call, _ in asked]
                decided = time.monotonic()
            durable = time.monotonic()
        except Exception as e:  # noqa: BLE001 - whatever it is, no answer leaves
            outcomes = [(None, _copy(e)) for _ in asked]
        for (_, done), (answer, problem) in zip(asked, outcomes, strict=True):
            if problem is None:
                done.set_result(answer)
            else:
                done.set_exception(problem)
        if durable > decided:
            self._turned(len(asked), durable - decided)


def _outcome(call: Call) -> tuple[object, Exception | None]:
    try:
        return call(), None
    except Exception as e:  # noqa: BLE001 - one request's refusal is not another's
        return None, e


def _copy(problem: Exception) -> Exception:
    """Return a problem of its own for each request: raising writes into it."""
    if isinstance(problem, PlacetError):
        return type(problem)(problem.detail, problem.hint, **problem.members)
    return problem
