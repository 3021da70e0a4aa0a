"""The clock of a program that relies on vaults: the host's, which decides nothing by itself."""

from __future__ import annotations

import time


class HostClock:
    """Unix seconds and monotonic seconds of this machine (`placet.ratls.exchange.Clock`)."""

    def now(self) -> int:
        """Return Unix seconds."""
        return int(time.time())

    def monotonic(self) -> float:
        """Return seconds of a clock that nobody sets."""
        return time.monotonic()
