"""uvicorn's HTTP parser on the attested transport, with limits that come first.

Who comes in at all, the door says (spec/07, section 5).
An application finds what the attest hook returned in ``scope["extensions"]["placet"]``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from placet.core.buckets import network_of
from placet.core.limits import KIB
from placet.errors import RateLimitedError, UnavailableError
from placet.ratls.door import Door, Visit
from placet.ratls.frames import Attest, FrameChannel, T, TlsPeer
from placet.ratls.transport import TlsTransport

if TYPE_CHECKING:
    from uvicorn._types import ASGIApplication
    from uvicorn.server import ServerState

    from placet.ratls.context import AttestedContext

MAX_HEAD = 32 * KIB
"""Bytes of a request but for its body (chunk framing and trailers count), and of what shares a
TLS record with its beginning."""

IDLE = 75
"""Seconds for which a connection may wait for its next request."""

EXCHANGE = IDLE + 30
"""Seconds from the end of one answer to the end of the next."""


class _Http(HttpToolsProtocol):
    """uvicorn's protocol for one attested peer."""

    def __init__(self, attested: object, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._extensions = {"placet": attested}
        self._head: int | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._rearm()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - see below
        if self._deadline is not None:
            self._deadline.cancel()
        # To uvicorn a truncated connection is one that is gone; it cleans up only on None.
        super().connection_lost(None)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("Request head too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = cast("dict[str, dict[object, object]]", self._extensions)
        self._head = 0

    def on_body(self, body: bytes) -> None:
        if self._head is not None:
            self._head -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        # Not earlier: uvicorn would keep trailers for as long as somebody sends them.
        self._head = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._rearm()

    def _rearm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(EXCHANGE, self.transport.abort)


class _Front(TlsTransport[T, _Http]):
    """A connection that counts from its first byte, attested or not."""

    door: Door
    visit: Visit
    let_in = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tcp = cast("asyncio.Transport", transport)
        try:
            network = network_of(tcp.get_extra_info("peername"))
            self.visit = self.door.enter(network, self.abort, time.monotonic())
            self.let_in = True
            super().connection_made(transport)
        except RateLimitedError:
            tcp.abort()

    def data_received(self, data: bytes) -> None:
        if self.visit.kind == "meeting":
            # 5.3 A handshake has a length, a deadline, and waits its turn.
            self._tcp.pause_reading()
            self.door.work(self.visit, lambda: self._step(data))
        else:
            self.visit.heard = time.monotonic()
            super().data_received(data)

    def _step(self, data: bytes) -> None:
        self._tcp.resume_reading()
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.let_in:
            self.door.left(self.visit)
            super().connection_lost(exc)


class _Server(uvicorn.Server):
    """uvicorn's server, stopped by an event; signals are the main program's."""

    stop: asyncio.Event

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self.stop.is_set()


async def serve(  # noqa: PLR0913 - one keyword a setting
    app: Callable[[Any, Any, Any], Awaitable[None]],
    context: AttestedContext,
    attest: Attest[Any],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    fd: int | None = None,
    announce: Callable[[int], object] | None = None,
    stop: asyncio.Event | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109 - a deadline of the peers', not the caller's
    max_connections: int = 512,
    door: Door | None = None,
) -> None:
    """Serve an ASGI application to attested peers until ``stop`` is set.

    Answers under way are finished, for five seconds at most. *Not* bounded here: the
    body of a request, which the application counts as it reads; 64 KiB wait for it.

    Args:
        app: A bare ASGI 3 application; ``scope["extensions"]["placet"]`` is its peer.
        context: A server's, from `make_context`.
        attest: The exchange of evidence; raising refuses the peer, before any HTTP.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        fd: A bound socket inherited from the parent, instead of ``host`` and ``port``.
        announce: Called with the port once connections are taken.
        stop: Ends the server.
        timeout: Seconds for one peer's handshake and attestation.
        max_connections: Connections open at one time, attested or not; more are dropped.
        door: Bounds connections in place of that number.

    Raises:
        OSError: The address cannot be listened on.
    """
    config = uvicorn.Config(
        cast("ASGIApplication", app), interface="asgi3", lifespan="off", ws="none",
        workers=1, proxy_headers=False, log_config=None, access_log=False, server_header=False,
        date_header=False, timeout_keep_alive=IDLE, timeout_graceful_shutdown=5,
    )  # fmt: skip
    bounds = door or Door(max_connections)

    def front(config: uvicorn.Config, server_state: ServerState, **_: object) -> asyncio.Protocol:
        async def meet(channel: FrameChannel, tls: TlsPeer) -> object:
            peer = await attest(channel, tls)
            if server.stop.is_set():  # uvicorn has told its connections to end; this is none yet
                raise UnavailableError("this server is stopping")
            bounds.met(protocol.visit, getattr(peer, "role", "attested"), time.monotonic())
            return peer

        def http(attested: object) -> _Http:
            return _Http(attested, config, server_state)

        protocol = _Front(context, meet, http, timeout=timeout)
        protocol.door = bounds
        return protocol

    config.http = cast("type[asyncio.Protocol]", front)
    server = _Server(config)
    server.stop = stop or asyncio.Event()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.socket(fileno=fd) if fd is not None
        else socket.create_server((host, port), family=family)
    ) as listener:  # fmt: skip
        # asyncio sets this only on sockets that name their protocol; ours do not. Inherited.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.listen(config.backlog)
        if announce is not None:
            announce(listener.getsockname()[1])
        try:
            await server.serve(sockets=[listener])
        finally:
            for listening in getattr(server, "servers", ()):  # none if it never started
                listening.close()
            for visit in tuple(bounds.visits):
                visit.leave()
