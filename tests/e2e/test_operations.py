"""A vault as a process: its probes, and how it ends when it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from placet_testing.serving import client_context

from placet.attest.trust import trust_from_config
from placet.cli import doctor_probe
from placet.client.clock import HostClock
from placet.core.encoding import b64
from placet.errors import UnavailableError
from placet.ratls.exchange import ClientExchange, UnsafeExpectAnyVault
from placet.ratls.transport import connect
from placet_dev.constellation import LocalConstellation
from placet_dev.waiting import wait_for, written

CLOCK = HostClock()


@pytest.fixture
def constellation(tmp_path: Path) -> Iterator[LocalConstellation]:
    """Start one vault in a software TEE."""
    with LocalConstellation.create(tmp_path, n=1, k=1) as one:
        yield one


def probe(one: LocalConstellation, path: str) -> tuple[int, str]:
    """Return status and body of a probe; 0 if nobody answers."""
    url = f"http://127.0.0.1:{one.vaults[0].probe}{path}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()
    except OSError:
        return 0, ""


class Raw(asyncio.Protocol):
    """HTTP by hand on an attested connection."""

    def __init__(self) -> None:
        self.received, self.changed, self.gone = b"", asyncio.Event(), False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self.received += data
        self.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        del exc
        self.gone = True
        self.changed.set()

    async def until(self, wanted: bytes) -> bytes:
        """Return what came, once it holds ``wanted``."""
        async with asyncio.timeout(30):
            while wanted not in self.received and not self.gone:
                self.changed.clear()
                await self.changed.wait()
        return self.received


async def visit(one: LocalConstellation) -> Raw:
    """Return an attested connection of a visitor."""
    trust = trust_from_config((one.launcher.trust().root,))
    exchange = ClientExchange(
        expect=UnsafeExpectAnyVault(trust=trust), prover=None, clock=CLOCK, rng=os.urandom
    )
    port = one.vaults[0].port
    _, raw = await connect("127.0.0.1", port, client_context(), exchange, lambda _: Raw())
    return raw


def tell(one: LocalConstellation) -> None:
    """Send the vault SIGTERM."""
    one.launcher.stop(one.vaults[0].process, signal.SIGTERM)


def ended(one: LocalConstellation) -> int:
    """Wait for its end and return the exit code."""
    return one.launcher.wait(one.vaults[0].process)


async def test_a_vault_that_is_told_to_end_finishes_what_it_began(
    constellation: LocalConstellation,
) -> None:
    """Probes turn first, nobody new comes in, the request under way is answered; then it ends."""
    one = constellation
    assert probe(one, "/healthz")[0] == 200
    assert probe(one, "/readyz") == (200, '{"ready":true,"reasons":[]}')
    seen = await asyncio.to_thread(doctor_probe.probe, f"127.0.0.1:{one.vaults[0].probe}")
    assert (seen.why, list(doctor_probe.probe_findings(seen))) == ("", [])
    # It has no key yet, so no lease.
    assert seen.numbers.keys() == doctor_probe.NUMBERS.keys() - {"lease"}
    raw = await visit(one)
    nonce = b64(os.urandom(32))
    raw.transport.write(f"GET /v1/status?nonce={nonce} HTTP/1.1\r\nhost: v\r\n\r\n".encode())
    assert b"x-request-id" in await raw.until(b"}")
    raw.received = b""
    body = b'{"chain":[]}'
    head = f"POST /v1/statements HTTP/1.1\r\nhost: v\r\ncontent-length: {len(body)}\r\n\r\n"
    raw.transport.write(head.encode() + body[:4])
    # The head is there once a number says that another request came in on that connection.
    assert 'route="/v1/status",role="visitor",outcome="ok"} 1' in probe(one, "/metrics")[1]
    await asyncio.to_thread(tell, one)

    def draining() -> str | None:
        status, said = probe(one, "/readyz")
        return said if status == 503 else None

    said = await asyncio.to_thread(wait_for, draining, "the probe to turn")
    assert [r["reason"] for r in json.loads(said)["reasons"]] == ["draining"]
    assert probe(one, "/healthz")[0] == 200

    async def refused() -> bool:
        try:
            (await visit(one)).transport.abort()
        except UnavailableError:
            return True
        return False

    async with asyncio.timeout(30):
        while not await refused():
            pass
    raw.transport.write(body[4:])
    answer = await raw.until(b'"request"')
    assert b"400 Bad Request" in answer
    assert await asyncio.to_thread(ended, one) == 0
    assert "the store is closed" in written(one.vaults[0].log)
    assert probe(one, "/healthz")[0] == 0
    # It starts again where it was, with the log that it settled.
    one.restart(1)
    assert probe(one, "/readyz")[0] == 200
    assert "placet_log_entries 2" in probe(one, "/metrics")[1]


async def test_a_second_signal_ends_a_vault_at_once(constellation: LocalConstellation) -> None:
    """Who is told twice waits for nobody."""
    one = constellation
    raw = await visit(one)
    raw.transport.write(b"POST /v1/statements HTTP/1.1\r\nhost: v\r\ncontent-length: 9\r\n\r\n{")
    assert probe(one, "/metrics")[0] == 200
    await asyncio.to_thread(tell, one)
    log = one.vaults[0].log
    await asyncio.to_thread(
        wait_for, lambda: "draining" in written(log) or None, "the vault to drain"
    )
    await asyncio.to_thread(tell, one)
    assert await asyncio.to_thread(ended, one) == 0
    said = written(log)
    assert "told to end again" in said
    assert b"HTTP/1.1" not in raw.received
    assert "Traceback" not in said
