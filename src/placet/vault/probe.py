"""A plain HTTP listener for probes and scrapers: GET only, tiny, and it decides nothing.

It is no part of the attested channel and shares no port with it. What it says is for the
machines of whoever runs the vault; it knows no key, no label and no peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from placet.core.encoding import Record, encode
from placet.core.limits import MAX_PROBE_HEAD, MAX_PROBES
from placet.errors import MalformedError
from placet.vault.meters import Meters
from placet.vault.readiness import Readiness, Reason, Source

TIMEOUT = 5.0
"""Seconds for one request."""
JSON, TEXT = "application/json", "text/plain; version=0.0.4; charset=utf-8"
PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}
BUSY = (503, "Service Unavailable")

log = logging.getLogger("placet.vault")


class Health(Record):
    """GET /healthz: does this process live, and does its store answer?"""

    healthy: bool
    reasons: tuple[Reason, ...]


class Ready(Record):
    """GET /readyz: should this vault get requests, and if not, why not?"""

    ready: bool
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What is told, and from where it comes."""

    health: Source
    readiness: Readiness
    meters: Meters

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, media type and body."""
        if path == "/healthz":
            broken = tuple(self.health())
            health = Health(healthy=not broken, reasons=broken)
            return BUSY[0] if broken else 200, JSON, encode(health)
        if path == "/readyz":
            reasons = self.readiness.reasons()
            ready = Ready(ready=not reasons, reasons=reasons)
            return BUSY[0] if reasons else 200, JSON, encode(ready)
        if path == "/metrics":
            return 200, TEXT, self.meters.render().encode()
        return 404, TEXT, b"there are /healthz, /readyz and /metrics here\n"


@contextlib.asynccontextmanager
async def probing(probe: Probe, host: str, port: int) -> AsyncIterator[int]:
    """Answer probes until the block is left; yield the port.

    Raises:
        OSError: The address cannot be listened on.
    """
    open_now: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(open_now) >= MAX_PROBES:
            writer.transport.abort()
            return
        open_now.add(writer)
        try:
            async with asyncio.timeout(TIMEOUT):
                writer.write(_response(*await _one(probe, reader)))
                await writer.drain()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # it went away, was too slow, or sent too much
        finally:
            open_now.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, host, port, limit=MAX_PROBE_HEAD)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in tuple(open_now):
            writer.transport.abort()


async def _one(probe: Probe, reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    try:
        method, path = _target(head)
    except MalformedError as e:
        return 400, TEXT, f"{e.detail}\n".encode()
    if method != "GET":
        return 405, TEXT, b"only GET\n"
    try:
        return probe.answer(path)
    except Exception as e:  # noqa: BLE001 - a probe that fails must not end the vault
        log.error("probe failed inside: %s", type(e).__name__)  # noqa: TRY400 - no locals
        return BUSY[0], TEXT, b"the probe failed\n"


def _target(head: bytes) -> tuple[str, str]:
    parts = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):  # noqa: PLR2004 - RFC 9112, section 3
        raise MalformedError("this is no HTTP/1.1 request")
    return parts[0], parts[1].partition("?")[0]


def _response(status: int, kind: str, body: bytes) -> bytes:
    phrase = dict((BUSY, *PHRASES.items()))[status]
    head = (
        f"HTTP/1.1 {status} {phrase}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        "cache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
