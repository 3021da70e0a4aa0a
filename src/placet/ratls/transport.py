"""TLS over asyncio: handshake, checks, attestation, and only then the application.

    TCP -> TLS 1.3 handshake -> `_check` -> ``attest(channel, tls)`` -> ``factory(result)``

Nothing that a peer sends reaches an application protocol, and no application protocol
exists, before the attest hook has returned (R1.4). Until then the socket is read only
while somebody waits for its bytes, and everything together has one deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from OpenSSL import SSL, crypto

from placet.core.attestation import EXPORTER_LABEL
from placet.core.buckets import network_of
from placet.core.limits import KIB
from placet.errors import (
    EvidenceError,
    PlacetError,
    RateLimitedError,
    TooLargeError,
    UnavailableError,
)
from placet.ratls.certificate import MAX_CERTIFICATE, WITH_EVIDENCE, parse_certificate
from placet.ratls.context import ALPN, AttestedContext, resumed
from placet.ratls.frames import Attest, FrameChannel, TlsPeer

T = TypeVar("T")
P = TypeVar("P", bound=asyncio.Protocol)

MAX_HANDSHAKE = MAX_CERTIFICATE + 16 * KIB
"""Bytes that an unfinished handshake may have received."""

_RECORD = 16 * KIB
_COALESCE = 64 * KIB


class TlsTransport(asyncio.Transport, asyncio.Protocol, Generic[T, P]):
    """A protocol towards TCP and, in one object, the transport of the protocol inside.

    Args:
        context: From `make_context`; says which end this is.
        attest: The exchange of evidence; raising refuses the peer.
        factory: Makes the application protocol from what ``attest`` returned.
        timeout: Seconds for handshake and attestation together.
        ready: Set to the application protocol, or to why there is none. Without it
            (server) a refusal is silent, and an error outside `placet.errors` goes to
            the loop's exception handler.
    """

    def __init__(
        self,
        context: AttestedContext,
        attest: Attest[T],
        factory: Callable[[T], P],
        *,
        timeout: float,
        ready: asyncio.Future[P] | None = None,
    ) -> None:
        super().__init__()
        self._context, self._attest, self._factory = context, attest, factory
        self._timeout, self._ready = timeout, ready
        self._loop = asyncio.get_running_loop()
        self._tcp: asyncio.Transport
        self._tls: SSL.Connection
        self._app: asyncio.Protocol | None = None
        self._task: asyncio.Task[T] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = self._incoming_bytes = self._answered = 0
        self._closing = self._paused = False
        self._why: Exception | None = None

    # --- towards TCP ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake and its deadline."""
        self._tcp = cast("asyncio.Transport", transport)
        self._tls = SSL.Connection(self._context)
        late = UnavailableError(f"no attested connection within {self._timeout} seconds")
        self._timer = self._loop.call_later(self._timeout, self._fail, late)
        if self._context.server:
            self._tls.set_accept_state()
        else:
            self._tls.set_connect_state()
            self._handshake()

    def data_received(self, data: bytes) -> None:
        """Take bytes from TCP."""
        if self._closing:
            return
        self._tls.bio_write(data)
        if self._app is not None:
            self._read()
        elif self._task is None:
            self._incoming_bytes += len(data)
            self._handshake()
        elif self._arrived is not None and not self._arrived.done():
            self._tcp.pause_reading()
            self._arrived.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, as an error when no close_notify came before."""
        if not self._closing:
            cause = f": {exc}" if exc else ""
            self._why = UnavailableError(f"connection ended without close_notify{cause}")
            if self._ready is not None and not self._ready.done():  # who refuses us says so
                self._why = RateLimitedError(f"peer dropped the connection unheard{cause}")
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        app, self._app = self._app, None
        if app is not None:
            app.connection_lost(self._why)
        self._settle(self._why or UnavailableError("connection closed"))

    def pause_writing(self) -> None:
        """Pass TCP's backpressure on."""
        self._writable.clear()
        if self._app is not None:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        """Lift TCP's backpressure."""
        self._writable.set()
        if self._app is not None:
            self._app.resume_writing()

    # --- handshake, checks, attestation --------------------------------------------

    def _handshake(self) -> None:
        try:
            self._tls.do_handshake()
            peer = self._check()
        except SSL.WantReadError:
            self._flush()
            if self._incoming_bytes > MAX_HANDSHAKE:
                self._fail(TooLargeError(f"handshake is over {MAX_HANDSHAKE} bytes"))
        except SSL.Error as e:
            self._fail(EvidenceError(f"TLS handshake failed: {_reason(e)}"))
        except PlacetError as e:  # from `_check` or the ALPN callback
            self._fail(e)
        else:
            self._flush()
            self._tcp.pause_reading()
            self._task = self._loop.create_task(self._attest(FrameChannel(self), peer))
            self._task.add_done_callback(self._attested)

    def _check(self) -> TlsPeer:
        """Believe nothing that the configuration should have ensured (R1.4, R1.5)."""
        tls, group = self._tls, self._tls.get_group_name() or ""
        if tls.get_protocol_version() != SSL.TLS1_3_VERSION or resumed(tls):
            came = f"{tls.get_protocol_version_name()}, resumed: {resumed(tls)}"
            raise EvidenceError(f"a fresh TLS 1.3 session is needed, not {came}")
        if group.casefold() not in self._context.groups:
            raise EvidenceError(f"key exchange group {group!r} is not allowed")
        if tls.get_alpn_proto_negotiated() != ALPN:
            raise EvidenceError(f"peer did not agree to {ALPN.decode()}")
        cert = tls.get_peer_certificate()
        if cert is None:
            raise EvidenceError("peer has no certificate")
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, cert)
        parsed = parse_certificate(der, allowed=WITH_EVIDENCE)

        def export(label: bytes, context: bytes, length: int) -> bytes:
            return tls.export_keying_material(label, length, context)

        export(EXPORTER_LABEL, b"", 32)  # no exporter, no session
        return TlsPeer(
            own_spki=self._context.spki_digest,
            peer_spki=parsed.spki_digest,
            certificate=parsed,
            group=group,
            cipher=tls.get_cipher_name() or "",
            export=export,
            network=network_of(self._tcp.get_extra_info("peername")),
        )

    def _attested(self, task: asyncio.Task[T]) -> None:
        if task.cancelled() or self._closing:
            return
        if isinstance(e := task.exception(), Exception):
            self._fail(e)
            return
        app = self._app = self._factory(task.result())
        app.connection_made(self)
        if self._timer is not None:  # not earlier: had the two lines above raised, it ends us
            self._timer.cancel()
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(app)
        if not self._paused:
            self._tcp.resume_reading()
        self._read()

    async def send_plain(self, data: bytes) -> None:
        """Send bytes before there is an application protocol; for `FrameChannel`."""
        self._encrypt(data)
        await self._writable.wait()

    async def receive_plain(self, count: int) -> bytes:
        """Return exactly ``count`` bytes and leave the rest in TLS; for `FrameChannel`."""
        data = bytearray()
        while len(data) < count:
            if piece := self._decrypt(min(count - len(data), _RECORD)):
                data += piece
            elif piece is None:
                raise UnavailableError("peer closed the connection: it refused us")
            else:
                self._arrived = self._loop.create_future()
                self._tcp.resume_reading()
                await self._arrived
        return bytes(data)

    def _fail(self, why: Exception) -> None:
        if self._closing:
            return
        self._closing, self._why = True, why
        if self._task is not None:
            self._task.cancel()
        if self._ready is None and not isinstance(why, PlacetError):
            message = "attest hook failed: the connection was refused"
            self._loop.call_exception_handler({"message": message, "exception": why})
        self._settle(why)
        if self._app is None:
            self._shutdown()
        else:
            self._tcp.abort()

    def _settle(self, why: Exception) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(why)

    # --- records -------------------------------------------------------------------

    def _read(self) -> None:
        app = self._app
        while app is not None and not self._paused and not self._closing:
            try:
                data = self._decrypt(_RECORD)
            except PlacetError as e:
                self._fail(e)
                return
            if data is None:
                app.eof_received()
                self.close()
            elif data:
                app.data_received(data)
                app = self._app
            else:
                return

    def _decrypt(self, most: int) -> bytes | None:
        """Return plaintext of one record, nothing while there is none, None at the end."""
        try:
            return self._tls.recv(most)
        except SSL.ZeroReturnError:
            return None
        except SSL.WantReadError:
            # What TLS answers by itself are key updates, and nobody needs thousands.
            self._answered += self._flush()
            if self._answered > _COALESCE:
                raise UnavailableError("peer floods us with key updates") from None
            return b""
        except SSL.Error as e:
            self._flush()  # the alert
            raise UnavailableError(f"peer broke off: {_reason(e)}") from e

    def _encrypt(self, data: bytes) -> None:
        # One SSL_write takes at most one record (TLS.md, pitfall 10): sendall loops.
        try:
            self._tls.sendall(data)
        except SSL.Error as e:
            self._fail(UnavailableError(f"cannot send: {_reason(e)}"))
        else:
            self._flush()

    def _flush(self) -> int:
        sent = 0
        with contextlib.suppress(SSL.WantReadError):
            while True:
                data = self._tls.bio_read(_COALESCE)
                self._tcp.write(data)
                sent += len(data)
        return sent

    def _flush_outgoing(self) -> None:
        data, self._outgoing, self._outgoing_bytes = b"".join(self._outgoing), [], 0
        if data and not self._closing:
            self._encrypt(data)

    def _shutdown(self) -> None:
        with contextlib.suppress(SSL.Error):
            self._tls.shutdown()
        self._flush()
        self._tcp.close()
        # A peer that does not read must not keep the socket for ever.
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._timeout, self._tcp.abort)

    # --- towards the application ---------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``; what is written within one turn of the loop travels together."""
        if self._closing or not data:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush_outgoing)
        self._outgoing.append(bytes(data))
        self._outgoing_bytes += len(data)
        if self._outgoing_bytes >= _COALESCE:  # a writer that never yields is paused too
            self._flush_outgoing()

    def close(self) -> None:
        """Send what was written, then close_notify, and close."""
        if not self._closing:
            self._flush_outgoing()
            self._closing = True
            self._shutdown()

    def abort(self) -> None:
        """Drop the connection now."""
        self._closing = True
        self._tcp.abort()

    def is_closing(self) -> bool:
        """Say whether the connection is closed or about to be."""
        return self._closing or self._tcp.is_closing()

    def pause_reading(self) -> None:
        """Stop delivering, and stop reading from TCP."""
        self._paused = True
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        """Deliver again, what TLS holds first."""
        if self._paused and not self._closing:
            self._paused = False
            self._tcp.resume_reading()
            self._loop.call_soon(self._read)

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return the socket's facts; ``sslcontext`` is ours."""
        return self._context if name == "sslcontext" else self._tcp.get_extra_info(name, default)


async def connect(
    host: str,
    port: int,
    context: AttestedContext,
    attest: Attest[T],
    factory: Callable[[T], P],
    *,
    timeout: float = 10.0,  # noqa: ASYNC109 - a deadline of the peer's, not the caller's
) -> tuple[TlsTransport[T, P], P]:
    """Return an attested connection.

    Args:
        host: Name or address; decides nothing.
        port: TCP port.
        context: A client's, from `make_context`.
        attest: The exchange of evidence; raising refuses the peer.
        factory: Makes the protocol from what ``attest`` returned.
        timeout: Seconds for everything.

    Raises:
        UnavailableError: No connection, or no attestation within ``timeout``.
        EvidenceError: The peer's TLS or certificate is not acceptable. Whatever else
            ``attest`` raises comes out as it is, but for an OSError.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[P] = loop.create_future()
    tls = TlsTransport(context, attest, factory, timeout=timeout, ready=ready)
    try:
        async with asyncio.timeout(timeout):
            try:
                await loop.create_connection(lambda: tls, host, port)
            except ValueError as e:  # a name that no resolver takes
                raise UnavailableError(f"{host!r} is no name of a host") from e
            return tls, await ready
    except OSError as e:  # TimeoutError too
        raise UnavailableError(f"no connection to {host} port {port}: {str(e) or 'timeout'}") from e
    finally:
        if ready.cancelled():
            tls.abort()


def _reason(error: SSL.Error) -> str:
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(str(entry[-1]) for entry in queue) or str(error) or type(error).__name__
