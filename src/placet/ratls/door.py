"""Who comes in at a server (spec/07, section 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from placet.errors import RateLimitedError


@dataclass(eq=False, slots=True)
class Visit:
    """One connection, from its first byte to its end."""

    network: str
    heard: float
    """Monotonic seconds at which its last bytes were looked at."""
    leave: Callable[[], object]
    """Ends the connection."""
    kind: str = "meeting"
    """Its peer's role, once that has attested."""
    waits: bool = False
    """Whether bytes of it wait to be looked at."""
    steps: int = 0
    """How often that was done."""


class Door:
    """Counts connections and takes so many at one time; what it is made for knows more.

    Args:
        most: Connections at one time, attested or not.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.visits = set[Visit]()

    def enter(self, network: str, leave: Callable[[], object], now: float) -> Visit:
        """Take a connection.

        Args:
            network: From where; see `placet.core.buckets.network_of`.
            leave: Ends it, if its place is needed.
            now: Monotonic seconds.

        Raises:
            RateLimitedError: There is no room, or there are too many from there.
        """
        if len(self.visits) >= self.most:
            raise RateLimitedError(f"{self.most} connections are open")
        visit = Visit(network, now, leave)
        self.visits.add(visit)
        return visit

    def work(self, visit: Visit, step: Callable[[], object]) -> None:
        """Take the next step of its handshake, now or when it is its turn."""
        del visit
        step()

    def met(self, visit: Visit, kind: str, now: float) -> None:
        """Count it as attested from now on; ``kind`` is a peer's role.

        Raises:
            RateLimitedError: There are too many of that kind.
        """
        visit.kind, visit.heard = kind, now

    def left(self, visit: Visit) -> None:
        """Count it no more."""
        self.visits.discard(visit)
