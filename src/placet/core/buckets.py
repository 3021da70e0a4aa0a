"""Token buckets: who asked how much lately. Pure; the time is an argument."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from placet.core.limits import MAX_NETWORKS
from placet.errors import RateLimitedError

IPV6_NETWORK = 64
"""Bits of an IPv6 address that name who has it."""


def network_of(peername: object) -> str:
    """Return what stands for a peer's address: an IPv4 address, or an IPv6 network."""
    host = str(peername[0]) if isinstance(peername, tuple) and peername else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, IPV6_NETWORK), strict=False))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


class Buckets:
    """Tokens by name: so many a second, so many saved up; whoever has none waits.

    Of names beyond `MAX_NETWORKS` the ones not seen for longest are forgotten, and start full.
    """

    def __init__(self, rate: float, burst: float, what: str) -> None:
        self._rate, self._burst, self._what = rate, burst, what
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, cost: float, now: float) -> None:
        """Take tokens. What costs more than can be saved up takes them all, and goes.

        Args:
            name: Whose.
            cost: How many.
            now: Monotonic seconds.

        Raises:
            RateLimitedError: There are too few; ``retry_after`` says for how many seconds.
        """
        level, at = self._levels.pop(name, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        want = min(cost, self._burst)
        if level < want:
            self._keep(name, level, now)
            wait = int((want - level) / self._rate) + 1
            raise RateLimitedError(
                f"too many {self._what} from one place: {self._rate:g} a second are taken",
                f"Try again in {wait} seconds.",
                retry_after=wait,
            )
        self._keep(name, level - want, now)

    def _keep(self, name: str, level: float, now: float) -> None:
        self._levels[name] = level, now
        if len(self._levels) > MAX_NETWORKS:
            self._levels.popitem(last=False)
