"""Running a vault: what it shows to probes and scrapers, and how it ends (docs/operations.md).

Nothing here decides about a request. What is watched is handed in; the words are this code's.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from placet.attest.produce import Producer
from placet.attest.trust import TrustAnchor
from placet.attest.verify import EvidenceVerifier
from placet.core.limits import MIN_FREE
from placet.errors import PlacetError
from placet.storage.log import Log
from placet.vault.door import VaultDoor
from placet.vault.meters import SIZES, Meters
from placet.vault.readiness import Readiness, Reason
from placet.vault.standing import Standing
from placet.vault.turn import Turned
from placet.vault.watch import Answered, write

CLOCK_BACK = 300
"""Seconds by which the host's clock may be behind this vault's time before it is told."""
COLLATERAL_SOON = 3600
"""Seconds before its end from which on our own collateral is told to be short."""

log = logging.getLogger("placet.vault")


@dataclass(slots=True)
class Collateral:
    """When what the vendor signed about our own platform ends; nothing if nobody knows."""

    until: int | None = None

    def look(
        self, producer: Producer, verify: EvidenceVerifier, trust: Sequence[TrustAnchor], now: int
    ) -> None:
        """Make evidence of our own, and look when what vouches for it ends."""
        try:
            evidence = producer.app_report(b"placet-vault: how long is this good for?")
            self.until = verify(evidence, trust=trust, now=now).expires
        except PlacetError as e:
            log.warning("own evidence does not verify", extra={"facts": {"problem": e.type}})

    def reasons(self, now: int) -> Iterable[Reason]:
        """Say so when it is about to end, or did."""
        if self.until is not None and self.until - now < COLLATERAL_SOON:
            yield Reason(reason="collateral", detail=f"own collateral ends at {self.until}")


@dataclass(slots=True, kw_only=True)
class Operations:
    """What one vault shows of itself, gathered from its parts."""

    readiness: Readiness = field(default_factory=Readiness)
    meters: Meters = field(default_factory=Meters)

    def watch(self, answered: Answered) -> None:
        """Count a request, and write a line about it."""
        self.meters.answered(answered)
        write(answered)

    def watch_door(self, door: VaultDoor) -> None:
        """Count connections."""
        self.meters.gauge("placet_connections", "Open now, by who it is.", door.count)
        self.meters.gauge(
            "placet_connections_refused",
            "Turned away or cut since the start.",
            lambda: door.refused,
        )

    def watch_turns(self, log: Log) -> Turned:
        """Return what measures turns that logged something: what only read costs no fsync."""
        requests = self.meters.histogram(
            "placet_turn_requests", "Requests that were made durable together.", SIZES
        )
        commits = self.meters.histogram(
            "placet_commit_seconds", "Time in which they became durable, once decided."
        )
        known = log.head()[0]

        def turned(count: int, seconds: float) -> None:
            nonlocal known
            before, known = known, log.head()[0]
            if known > before:
                requests.observe(count)
                commits.observe(seconds)

        return turned

    def watch_standing(self, standing: Standing, running: Callable[[], float]) -> None:
        """Show how long this vault stands already, and how long it would without an answer."""
        began: float | None = None

        def stands() -> float | None:
            nonlocal began
            if standing.report().state != "standing":
                began = None
                return None
            began = running() if began is None else began
            return running() - began

        self.meters.gauge(
            "placet_lease_seconds", "Until keys are not served, if no witness answers.",
            standing.lease,
        )  # fmt: skip
        self.meters.gauge(
            "placet_standing_seconds", "Since it stands without a break, as scrapes saw it.", stands
        )

    def watch_disk(self, folder: Path) -> None:
        """Say so when the disk of the store is almost full."""

        def free() -> int:
            return shutil.disk_usage(folder).free

        def reasons() -> Iterable[Reason]:
            if (left := free()) < MIN_FREE:
                yield Reason(reason="disk", detail=f"{left} bytes are free, {MIN_FREE} are wanted")

        self.readiness.add(reasons)
        self.meters.gauge("placet_disk_free_bytes", "Free space where the store lies.", free)


def clock_reasons(vault_time: int, host_time: float) -> Iterable[Reason]:
    """Say so when the host's clock went back: this vault's own time does not."""
    behind = vault_time - int(host_time)
    if behind > CLOCK_BACK:
        yield Reason(reason="clock", detail=f"the host's clock is {behind} s behind the vault's")


def end_on_signals(readiness: Readiness, stop: asyncio.Event) -> None:
    """Have SIGTERM or SIGINT drain this process, and a second one end it at once.

    Probes hear of it before the listener closes. To be called in the main task.
    """
    loop, main = asyncio.get_running_loop(), asyncio.current_task()

    def told() -> None:
        if stop.is_set() and main is not None:
            log.warning("told to end again: requests under way are cut")
            main.cancel()
            return
        readiness.drain("this vault was told to end")
        log.info("draining: no new connections, requests under way are finished")
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
