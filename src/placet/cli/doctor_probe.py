"""What a vault's own machine knows of it: disk, lease, collateral, by its probe. For its operator.

A probe is plain HTTP on the operator's side of the network (docs/operations.md), so what it says is
believed as far as that network is. Nobody else sees it: how full a disk is, is told to no visitor.
"""

from __future__ import annotations

import http.client
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from placet.cli.doctor_visit import FETCH_COLLATERAL, SET_CLOCK, Finding, of_key
from placet.cli.live import address
from placet.cli.output import Cell, bad, good, odd, plain, show_table
from placet.client.signing import DAY
from placet.core.encoding import decode
from placet.core.limits import KIB, LEASE, MIN_FREE
from placet.errors import PlacetError, UnavailableError
from placet.vault.probe import Ready

TIMEOUT = 5.0
"""Seconds for one answer."""
LONGEST = 1024 * KIB
"""Bytes of one answer."""
MIB = 1024 * KIB
ROOM = 8 * MIN_FREE
"""Bytes free on a vault's disk below which it is time to make room."""
SOON = LEASE // 2
"""Seconds of a lease: by then five beats in a row were not answered by enough."""

NUMBERS = {
    "disk": "placet_disk_free_bytes",
    "lease": "placet_lease_seconds",
    "collateral": "placet_collateral_seconds",
    "entries": "placet_log_entries",
}
_sample = re.compile(r"([a-z_]+) (-?[0-9.e+-]+)")

NEXT = {
    "disk": "on its machine, make room where --data lies: df -h",
    "clock": SET_CLOCK,
    "collateral": FETCH_COLLATERAL,
    "lease": "bring back the other vaults and witnesses: placet doctor   (where their owner is)",
    "starting": "bring back the other vaults and witnesses: placet doctor   (where their owner is)",
    "store": "on its machine, look at the disk or the database, then at the vault's log",
    "quarantined": "replace it, and start nothing from its disk again: docs/continuity.md",
    "draining": "it was told to end; start it again: placet vault serve",
}
"""What to do about each reason that a vault gives for not being ready."""
OTHERS = "see what its reason asks for: docs/continuity.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One probe and what it said."""

    where: str
    ready: Ready | None
    numbers: Mapping[str, float]
    why: str = ""
    """It said nothing, and this is why."""


def probe(where: str) -> Probed:
    """Ask a vault's probe; who does not answer is a finding, and no error.

    Raises:
        MalformedError: It is no address.
    """
    _, host, port = address(where)
    try:
        ready = decode(_get(host, port, "/readyz", (200, 503)), Ready)
        text = _get(host, port, "/metrics", (200,)).decode()
    except (PlacetError, UnicodeDecodeError) as e:
        why = e.detail if isinstance(e, PlacetError) else "it answers, and not as a probe does"
        return Probed(where=where, ready=None, numbers={}, why=why)
    said = {m[1]: m[2] for m in map(_sample.fullmatch, text.splitlines()) if m}
    numbers = {name: _number(said[key]) for name, key in NUMBERS.items() if key in said}
    return Probed(where=where, ready=ready, numbers=numbers)


def probe_findings(seen: Probed) -> Iterator[Finding]:
    """Yield what wants doing there: why it is not ready, and what will be such a reason soon."""
    if seen.ready is None:
        following = "on its machine: does placet vault serve --probe run, and listen there?"
        yield of_key(
            "unprobed", f"the probe at {seen.where} does not answer: {seen.why}", following
        )
        return
    told = {reason.reason for reason in seen.ready.reasons}
    for reason in seen.ready.reasons:
        detail = f"{seen.where} is not ready: {reason.detail or reason.reason}"
        yield of_key(reason.reason, detail, NEXT.get(reason.reason, OTHERS))
    free = seen.numbers.get("disk", ROOM)
    if free < ROOM and "disk" not in told:
        detail = f"{int(free) // MIB} MiB are free where {seen.where} keeps its store; below "
        detail += f"{MIN_FREE // MIB} it is not ready any more, and on a full disk it refuses"
        yield of_key("disk", detail, NEXT["disk"])
    lease = seen.numbers.get("lease", LEASE)
    if lease < SOON and not told & {"lease", "starting", "quarantined"}:
        detail = f"{seen.where} serves for {int(lease)} s more, unless its witnesses answer"
        yield of_key("lease", detail, NEXT["lease"])
    left = seen.numbers.get("collateral", DAY)
    if left < DAY and "collateral" not in told:
        detail = f"what vouches for the platform of {seen.where} ends in {int(left) // 3600} h"
        yield of_key("collateral", detail, NEXT["collateral"])


def probe_document(seen: Probed, found: tuple[Finding, ...]) -> dict[str, object]:
    """Return it for programs."""
    return {
        "probe": seen.where,
        "answered": seen.ready is not None,
        "ready": None if seen.ready is None else seen.ready.ready,
        **{name: seen.numbers.get(name) for name in NUMBERS},
        "findings": found,
    }


def show_probes(probed: list[Probed]) -> None:
    """Show what probes said, a line each."""
    rows = list[tuple[Cell, ...]]()
    for one in probed:
        numbers, at = one.numbers, plain(one.where)
        if one.ready is None:
            rows.append((at, bad("no answer"), "", "", "", ""))
            continue
        free, entries = numbers.get("disk"), numbers.get("entries")
        rows.append(
            (
                at,
                good("ready") if one.ready.ready else bad("not ready"),
                None if entries is None else int(entries),
                None if free is None else (odd if free < ROOM else str)(f"{int(free) // MIB} MiB"),
                _span(numbers.get("lease"), "s", 1),
                _span(numbers.get("collateral"), "h", 3600),
            )
        )
    columns = ("probe", "says", "log", "disk", "lease", "collateral")
    show_table("Probes", columns, rows)


def _span(seconds: float | None, unit: str, of: int) -> str | None:
    return None if seconds is None else f"{int(seconds) // of} {unit}"


def _number(text: str) -> float:
    with suppress(ValueError):
        if math.isfinite(found := float(text)):
            return found
    return 0.0  # what is no number is nothing to rely on


def _get(host: str, port: int, path: str, expected: tuple[int, ...]) -> bytes:
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(LONGEST)
    except (OSError, http.client.HTTPException) as e:
        raise UnavailableError(str(e) or type(e).__name__) from e
    finally:
        connection.close()
    if answer.status not in expected:
        raise UnavailableError(f"{path} is answered with status {answer.status}")
    return body
