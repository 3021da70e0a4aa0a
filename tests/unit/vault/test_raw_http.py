"""Bytes that no client of ours sends, over a real attested channel: an answer each, and no 5xx."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from placet_testing.serving import serving, trust, vault_set_of

from placet.client.clock import HostClock
from placet.client.constellation import Constellation
from placet.client.vault_client import Connector, VaultClient, renewed_contexts
from placet.core.limits import MAX_BODY
from placet.errors import type_prefix

POST = b"POST /v1/statements HTTP/1.1\r\nhost: x\r\n"
LOG = b"/v1/log?since=0"
END = b" HTTP/1.1\r\nhost: x\r\n\r\n"
NO_HTTP = (400, "")
"""What the parser itself refuses: no problem document, and the end of the connection."""
MALFORMED, TOO_LARGE, NOT_FOUND = (400, "malformed"), (413, "too-large"), (404, "not-found")
OK = (200, "")


def length(value: bytes, body: bytes = b"{}") -> bytes:
    """Return a request with this content-length."""
    return POST + b"content-length: " + value + b"\r\n\r\n" + body


def get(header: bytes) -> bytes:
    """Return a request that is right but for this header."""
    return b"GET " + LOG + b" HTTP/1.1\r\n" + header + b"\r\n\r\n"


LENGTHS = {
    "no length": (POST + b"\r\n", MALFORMED),
    "the right one": (length(b"2"), MALFORMED),
    "no number": (length(b"abc"), NO_HTTP),
    "negative": (length(b"-2"), NO_HTTP),
    "with a sign": (length(b"+2"), NO_HTTP),
    "underscored": (length(b"0_2"), NO_HTTP),
    "hexadecimal": (length(b"0x2"), NO_HTTP),
    "empty": (length(b""), NO_HTTP),
    "two numbers": (length(b"2 2"), NO_HTTP),
    "a list": (length(b"2, 2"), NO_HTTP),
    "other digits": (length("٢".encode()), NO_HTTP),
    "twice": (length(b"2\r\ncontent-length: 2"), NO_HTTP),
    "two lengths": (length(b"2\r\ncontent-length: 3"), NO_HTTP),
    "and chunked": (length(b"2\r\ntransfer-encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"), NO_HTTP),
    "leading zeros": (length(b"0000002"), MALFORMED),
    "thousands of zeros": (length(b"0" * 6000 + b"2"), TOO_LARGE),
    "as much as is read": (length(b"%d" % MAX_BODY, b" " * MAX_BODY), MALFORMED),
    "one byte more": (length(b"%d" % (MAX_BODY + 1), b""), TOO_LARGE),
    "huge": (length(b"99999999999", b""), TOO_LARGE),
    "beyond 64 bits": (length(b"9" * 23, b""), NO_HTTP),
    "thousands of digits": (length(b"9" * 6000, b""), NO_HTTP),
}
OTHERS = {
    "gzip framing": (POST + b"transfer-encoding: gzip\r\n\r\n{}", NO_HTTP),
    "a compressed body": (get(b"content-encoding: gzip"), MALFORMED),
    "text": (get(b"content-type: text/plain"), MALFORMED),
    "a form": (get(b"content-type: application/x-www-form-urlencoded"), MALFORMED),
    "another charset": (get(b"content-type: application/json; charset=a"), MALFORMED),
    "a body nobody asked for": (get(b"content-length: 2") + b"{}", OK),
    "json": (get(b"content-type: Application/JSON; charset=utf-8"), OK),
    "HEAD": (b"HEAD " + LOG + END, (404, "")),
    "PUT": (b"PUT " + LOG + END, NOT_FOUND),
    "POST where GET is": (b"POST " + LOG + END, NOT_FOUND),
    "OPTIONS": (b"OPTIONS *" + END, NOT_FOUND),
    "CONNECT": (b"CONNECT x:1" + END, NO_HTTP),
    "no method": (b"FOO " + LOG + END, NO_HTTP),
    "bad percents": (b"GET /v1/%ff%zz?since=0" + END, NOT_FOUND),
    "bytes above 127": (b"GET /v1/\xff?since=\xff" + END, NO_HTTP),
    "HTTP/1.0": (b"GET " + LOG + b" HTTP/1.0\r\n\r\n", OK),
}


async def ask(vault: VaultClient, data: bytes) -> tuple[int, str]:
    """Send bytes; return status, and type of the problem if there is one."""
    async with vault._pool.acquire() as connection:
        got, answered = bytearray(), asyncio.Event()

        def received(piece: bytes) -> None:
            got.extend(piece)
            head, end, body = bytes(got).partition(b"\r\n\r\n")
            wanted = [
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ]
            if end and (head.startswith(b"HTTP/1.1 404") or len(body) >= (wanted or [0])[0]):
                answered.set()

        connection.data_received = received  # type: ignore[method-assign]
        connection._transport.write(data)  # type: ignore[union-attr]
        try:
            async with asyncio.timeout(5):
                await answered.wait()
        finally:
            connection.close()
    head, _, body = bytes(got).partition(b"\r\n\r\n")
    problem = json.loads(body) if b"application/problem+json" in head and body else {}
    kind = str(problem.get("type", "")).removeprefix(type_prefix)
    return int(head.split()[1]), kind


@pytest.mark.req("R9.4")
async def test_bytes_that_no_client_sends_are_answered_with_4xx(tmp_path: Path) -> None:
    """Each within a moment, by the parser or by the vault, which serves on."""
    async with serving(tmp_path) as served:
        clock = HostClock()
        connector = Connector(
            prover=None, clock=clock, rng=os.urandom, contexts=renewed_contexts(clock)
        )
        vaults = Constellation.connect(vault_set_of(served, k=1), connector, trust=trust())
        try:
            for name, (data, expected) in (LENGTHS | OTHERS).items():
                assert await ask(vaults.vaults[0], data) == expected, name
        finally:
            vaults.close()
