"""HTTP/1.1 to one attested peer: one request at a time, every size and time bounded."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Generic, NamedTuple, cast

import httptools

from placet.core.limits import KIB, MAX_BODY
from placet.errors import (
    MalformedError,
    PlacetError,
    TooLargeError,
    UnavailableError,
)
from placet.ratls.context import AttestedContext
from placet.ratls.frames import Attest, T
from placet.ratls.transport import connect

MAX_HEAD = 64 * KIB
"""Bytes of an answer's status line, headers and chunk framing."""

_PATH = re.compile(r"/[!-~]*")
_TOKEN = re.compile(r"[A-Za-z0-9-]+")
_VALUE = re.compile(r"[ -~]*")


class Answer(NamedTuple):
    """An answer whose size was bounded; nothing else about it is checked."""

    status: int
    headers: dict[str, str]
    """Lower-case names; of a name sent twice the last."""
    body: bytes


class AttestedConnection(asyncio.Protocol, Generic[T]):
    """A connection to a peer that was attested as ``peer``; made by `ConnectionPool`."""

    def __init__(self, peer: T, host: str) -> None:
        self.peer = peer
        self.closed = False
        self._host = host
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[Answer] | None = None
        self._why: PlacetError = UnavailableError("connection is closed")

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - a deadline of the peer's, not the caller's
    ) -> Answer:
        """Send one request and return the answer.

        Whatever goes wrong closes the connection, since what follows on it would be
        answers to nobody knows which question. A request that fails may have been
        carried out.

        Args:
            method: GET, POST and the like; not HEAD and not CONNECT.
            path: Absolute path and query, in printable ASCII.
            body: At most `MAX_BODY` bytes.
            headers: Besides ``host`` and ``content-length``.
            timeout: Seconds for the whole exchange.

        Raises:
            UnavailableError: The connection is closed, was cut or took too long.
            MalformedError: The answer is not HTTP/1.1.
            TooLargeError: Body or answer is beyond the limit.
            ValueError: A second request at one time, or text that HTTP cannot carry.
        """
        if self._answer is not None:
            raise ValueError("one request at a time on a connection")
        if len(body) > MAX_BODY:
            raise TooLargeError(f"body is {len(body)} bytes, at most {MAX_BODY} are sent")
        head = _head(method, path, {"host": self._host, **(headers or {})}, len(body))
        if self.closed:
            raise self._why
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body, self._received = bytearray(), 0
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._transport.write(head + body)
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError as e:
            raise UnavailableError(f"no answer within {timeout} seconds") from e
        finally:
            if not answer.done() or answer.cancelled():
                self._end(UnavailableError("an earlier request was given up"))
            else:
                answer.exception()  # seen, even if whoever asked is gone
            self._answer = None

    def close(self) -> None:
        """Close the connection; a request under way fails."""
        self.closed = True
        self._transport.close()

    # --- asyncio ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way."""
        gone = UnavailableError("peer closed the connection")
        self._end(exc if isinstance(exc, PlacetError) else gone)

    def eof_received(self) -> None:
        """Fail the request under way: half an answer is none."""
        self._end(UnavailableError("peer closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Parse a piece of the answer."""
        if self._answer is None or self._answer.done():
            self._end(MalformedError("peer sent an answer that nobody asked for"))
            return
        self._received += len(data)
        if self._received > MAX_BODY + MAX_HEAD:
            self._end(TooLargeError(f"answer is beyond {MAX_BODY} bytes"))
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as e:
            self._end(MalformedError(f"answer is not HTTP/1.1: {e}"[:300]))

    # --- httptools -------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Hand the answer over, if it is the only one and a final one."""
        status = self._parser.get_status_code()
        if self._answer is None or self._answer.done() or status < 200:  # noqa: PLR2004 - RFC 9110, 15.2
            self._end(MalformedError("peer sent an answer that nobody asked for"))
            return
        if not self._parser.should_keep_alive():
            self.close()
        self._answer.set_result(Answer(status, self._headers, bytes(self._body)))

    def _end(self, why: PlacetError) -> None:
        if not self.closed:
            self.closed, self._why = True, why
            self._transport.abort()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(why)


def _head(method: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
    if not _TOKEN.fullmatch(method) or method in {"HEAD", "CONNECT"} or not _PATH.fullmatch(path):
        raise ValueError(f"method or path: {method!r} {path[:80]!r} cannot be sent")
    lines = [f"{method} {path} HTTP/1.1"]
    for name, value in {**headers, "content-length": str(length)}.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"headers: {name[:80]!r} cannot be sent")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class ConnectionPool(Generic[T]):
    """Connections to one peer, each attested anew and given up before its evidence ages.

    Args:
        host: Name or address of the peer; decides nothing.
        port: TCP port.
        make: Returns the client context for a new connection, so certificates may rotate.
        attest: The exchange of evidence.
        size: Connections at one time; who wants more waits.
        max_age: Seconds after which a connection is not used again, counted from
            before it was attested.
        timeout: Seconds to connect and attest.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        make: Callable[[], AttestedContext],
        attest: Attest[T],
        *,
        size: int = 4,
        max_age: float,
        timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address, self._make, self._attest = (host, port), make, attest
        self._max_age, self._timeout, self._clock = max_age, timeout, clock
        self._slots = asyncio.Semaphore(size)
        self._idle: list[tuple[float, AttestedConnection[T]]] = []
        self._closed = False

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[AttestedConnection[T]]:
        """Lend a live connection: the one used last, else a new one.

        Raises:
            UnavailableError: The pool is closed, or see `connect`.
        """
        async with self._slots:
            born, connection = await self._take()
            try:
                yield connection
            finally:
                if self._closed:
                    connection.close()
                elif not connection.closed:
                    self._idle.append((born, connection))

    async def _take(self) -> tuple[float, AttestedConnection[T]]:
        while self._idle:
            born, connection = self._idle.pop()
            if not connection.closed and self._clock() - born < self._max_age:
                return born, connection
            connection.close()
        if self._closed:
            raise UnavailableError("this pool is closed")
        born, (host, port) = self._clock(), self._address
        _, connection = await connect(
            host, port, self._make(), self._attest,
            lambda peer: AttestedConnection(peer, f"{host}:{port}"), timeout=self._timeout,
        )  # fmt: skip
        return born, connection

    @property
    def idle(self) -> int:
        """Return how many connections wait for their next use."""
        return len(self._idle)

    def close(self) -> None:
        """Close what is idle now, and what is lent when it comes back."""
        self._closed = True
        while self._idle:
            self._idle.pop()[1].close()
