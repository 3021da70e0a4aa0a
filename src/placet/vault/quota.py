"""How much each place may ask of a vault: before it is read, and again once its size is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from placet.core.buckets import Buckets
from placet.core.limits import (
    ALL_WORK_BURST,
    ALL_WORK_RATE,
    KIB,
    MAX_READING,
    REQUEST_BURST,
    REQUEST_RATE,
    WORK_BURST,
    WORK_RATE,
)
from placet.errors import RateLimitedError
from placet.ratls.exchange import VerifiedPeer

EVERYBODY = ""


class Quota:
    """What visitors and workloads may ask for. It counts, and knows nothing of what is asked.

    Visitors pay by address and all together, since what they bring has signatures to check;
    workloads showed evidence, and pay by request.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._requests = Buckets(REQUEST_RATE, REQUEST_BURST, "requests")
        self._work = Buckets(WORK_RATE, WORK_BURST, "statements and questions")
        self._all_work = Buckets(ALL_WORK_RATE, ALL_WORK_BURST, "statements and questions")
        self._reading = 0

    def request(self, peer: VerifiedPeer) -> None:
        """Count a request, whatever it is.

        Raises:
            RateLimitedError: Too many came over this TLS key.
        """
        self._requests.take(peer.spki, 1, self._clock())

    def work(self, peer: VerifiedPeer, network: str, size: int) -> None:
        """Count what a visitor brings.

        Args:
            peer: Who asks; workloads do not pay here.
            network: Where from.
            size: Bytes of the request's body.

        Raises:
            RateLimitedError: Too much came from there, or from all visitors together.
        """
        if peer.role != "visitor":
            return
        cost, now = 1 + size // KIB, self._clock()
        self._work.take(network, cost, now)
        self._all_work.take(EVERYBODY, cost, now)

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], None]]:
        """Lend what counts bytes of a body while it is kept.

        Raises:
            RateLimitedError: The requests that are read now are too large together.
        """
        mine = 0

        def more(count: int) -> None:
            nonlocal mine
            if self._reading + count > MAX_READING:
                raise RateLimitedError(
                    f"{MAX_READING} bytes of requests are read already",
                    "Try again in a second.",
                    retry_after=1,
                )
            mine += count
            self._reading += count

        try:
            yield more
        finally:
            self._reading -= mine
