"""Handshake, checks and attestation come before the application; both ways are bounded."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
from OpenSSL import SSL

from placet.core.limits import MAX_FRAME
from placet.errors import (
    EvidenceError,
    NotApprovedError,
    PlacetError,
    TooLargeError,
    UnavailableError,
)
from placet.ratls import transport as room
from placet.ratls.context import make_context
from placet.ratls.transport import MAX_HANDSHAKE, TlsTransport, connect

MiB = 2**20


async def dial(ends, port, attest=None, factory=None, **more):
    """Connect as our own client."""
    return await connect(
        "127.0.0.1", port, ends.client, attest or ends.greet, factory or ends.Echo, **more
    )


@pytest.mark.req("R1.5")
async def test_both_ends_see_one_session(ends, listening):
    """Digests cross over, secrets and group agree, and differ from the next connection's."""
    seen = await listening()
    exported = []
    for _ in range(2):
        transport, app = await dial(ends, seen.port)
        await ends.settle(lambda: seen.apps and seen.apps[-1].got is not None)
        here, there = app.tls, seen.attests[-1]
        assert (here.own_spki, here.peer_spki) == (there.peer_spki, there.own_spki)
        assert here.group == there.group == "X25519MLKEM768"
        assert here.cipher == there.cipher == "TLS_AES_256_GCM_SHA384"
        assert here.certificate.spki_digest == ends.server.spki_digest
        exported += [e.export(b"EXPORTER-placet-attest", b"c", 32) for e in (here, there)]
        assert here.export(b"EXPORTER-placet-attest", b"d", 32) != exported[-1]
        transport.close()
        assert await app.lost is None
    assert exported[0] == exported[1] != exported[2] == exported[3]


async def test_bytes_after_the_last_frame_reach_the_application(ends, listening, raw):
    """A peer may send its first request right behind its last frame."""
    seen = await listening()
    client = await raw(seen.port)
    await client.handshake()
    client.send(ends.frame(b"hello") + b"GET / HTTP/1.1\r\n")
    received = await client.receive()
    while len(received) < len(ends.frame(b"hello")) + 16:
        received += await client.receive()

    assert received == ends.frame(b"hello") + b"GET / HTTP/1.1\r\n"
    assert seen.apps[0].got == b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 8])
async def test_frames_may_arrive_in_pieces(ends, listening, raw, cut):
    """A frame is whole before the hook sees it, wherever the network cut it."""
    seen = await listening()
    client = await raw(seen.port)
    await client.handshake()
    whole = ends.frame(b"hello") + b"tail"
    client.send(whole[:cut])
    await ends.settle(lambda: seen.attests)
    client.send(whole[cut:])
    await ends.settle(lambda: seen.apps and seen.apps[0].got == b"tail")


async def test_a_large_frame_travels_whole(ends, listening):
    """Exactly MAX_FRAME bytes go both ways; one more is the sender's ValueError."""
    big = bytes(range(256)) * (MAX_FRAME // 256)

    async def swap(channel, tls):
        sending = asyncio.create_task(channel.send(big))
        got = await channel.receive()
        await sending
        with pytest.raises(ValueError, match="at most"):
            await channel.send(big + b"x")
        assert got == big
        return tls

    seen = await listening(attest=swap)
    transport, _ = await dial(ends, seen.port, swap)
    transport.close()


@pytest.mark.parametrize(("limit", "announced"), [(100, 101), (2**40, MAX_FRAME + 1)])
async def test_a_frame_over_the_limit_is_refused_by_its_length_alone(
    ends, listening, raw, limit, announced
):
    """Four bytes suffice for the refusal; MAX_FRAME holds whatever the hook allows."""
    failures = []

    async def picky(channel, _):
        try:
            return await channel.receive(limit)
        except PlacetError as e:
            failures.append(e)
            raise

    seen = await listening(attest=picky)
    client = await raw(seen.port)
    await client.handshake()
    client.send(announced.to_bytes(4, "big"))
    with pytest.raises(SSL.ZeroReturnError):
        await client.receive()
    assert isinstance(failures[0], TooLargeError)
    assert seen.apps == []


@pytest.mark.req("R1.4")
async def test_no_application_byte_moves_while_the_hook_runs(ends, listening, raw):
    """Megabytes pushed meanwhile stay in the kernel; the hook's end lets them through."""
    gate = asyncio.Event()

    async def slow(_channel, tls):
        await gate.wait()
        return tls

    seen = await listening(attest=slow)
    client = await raw(seen.port)
    await client.handshake()
    await ends.settle(lambda: seen.attests)
    held, inside = [], seen.transports[0]
    take = inside.data_received
    inside.data_received = lambda data: (held.append(len(data)), take(data))
    client.send(b"x" * 16 * MiB)
    for _ in range(200):
        await asyncio.sleep(0)
    assert seen.apps == []
    assert sum(held) <= 512 * 1024
    assert client.writer.transport.get_write_buffer_size() > MiB

    gate.set()
    await ends.settle(lambda: seen.apps and len(seen.apps[0].got) > MiB)


@pytest.mark.req("R1.4")
@pytest.mark.parametrize("lost", ["exporter", "certificate", "alpn", "version", "group", "fresh"])
async def test_the_checks_after_the_handshake_stand_alone(ends, listening, raw, monkeypatch, lost):
    """Even if OpenSSL let it pass, a session without one of these ends before the hook."""
    context = make_context(*ends.server_id, server=True)
    seen = await listening(context=context)
    real = SSL.Connection

    class Broken(real):
        """OpenSSL as it would be if the configuration had not held."""

        def export_keying_material(self, *_):
            """Export nothing."""
            raise SSL.Error([("", "", "no exporter")])

        def get_peer_certificate(self, **_):
            """Know no peer."""

        def get_alpn_proto_negotiated(self):
            """Agree to nothing."""
            return b""

        def get_protocol_version(self):
            """Claim the version before."""
            return SSL.TLS1_2_VERSION

    method = {
        "exporter": "export_keying_material",
        "certificate": "get_peer_certificate",
        "alpn": "get_alpn_proto_negotiated",
        "version": "get_protocol_version",
    }.get(lost)
    only = type("Only", (real,), {method: getattr(Broken, method)} if method else {})
    monkeypatch.setattr(room, "SSL", SimpleNamespace(**{**vars(SSL), "Connection": only}))
    if lost == "group":
        context.groups = frozenset({"x25519"})
    if lost == "fresh":
        monkeypatch.setattr(room, "resumed", lambda _: True)
    client = await raw(seen.port)
    await client.handshake()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(SSL.ZeroReturnError):
        await client.receive()
    assert (seen.attests, seen.apps) == ([], [])


@pytest.mark.req("R1.4")
async def test_early_data_never_reaches_anyone(ends, listening, raw):
    """The session allows none, OpenSSL's client sends none, and bytes put there by hand fail."""
    seen = await listening()
    client = await raw(seen.port)
    with contextlib.suppress(SSL.WantReadError):
        client.conn.do_handshake()
    client.flush()
    client.writer.write(b"\x17\x03\x03\x00\x20" + b"e" * 32)  # an application data record
    with pytest.raises((SSL.Error, ConnectionError)):  # noqa: PT012 - whichever of them fails
        await client.handshake()
        await client.receive()
    await ends.settle(seen.transports[0].is_closing)
    assert (seen.attests, seen.apps) == ([], [])

    second = await raw(seen.port)
    await second.handshake()
    session = SSL._lib.SSL_get1_session(second.conn._ssl)
    assert SSL._lib.SSL_SESSION_get_max_early_data(session) == 0
    SSL._lib.SSL_SESSION_free(session)


@pytest.mark.req("R1.4")
@pytest.mark.parametrize("context", ["no certificate", "no ALPN", "other ALPN"])
async def test_a_client_that_lacks_something_is_closed(ends, listening, raw, context):
    """It may believe that the handshake is done; its request is never read."""
    identity = () if context == "no certificate" else ends.client_id
    alpn = {"no ALPN": (), "other ALPN": (b"h2",)}.get(context, (b"http/1.1",))
    seen = await listening()
    client = await raw(seen.port, ends.raw_context(*identity, alpn=alpn))
    with pytest.raises((SSL.Error, ConnectionError)):  # noqa: PT012 - either of them refuses
        await client.handshake()
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        await client.receive()
    await ends.settle(seen.transports[0].is_closing)
    assert (seen.attests, seen.apps) == ([], [])


async def test_a_refusing_hook_closes_without_a_word(ends, listening):
    """The server's reason stays with the server; the client learns that it was refused."""

    async def no(*_):
        raise NotApprovedError("not on the list")

    seen = await listening(attest=no)
    with pytest.raises(UnavailableError, match="refused"):
        await dial(ends, seen.port)
    assert seen.apps == []


async def test_a_clients_refusal_comes_out_of_connect_as_it_is(ends, listening):
    """Whatever the client's own hook raises is what the caller sees."""

    async def no(*_):
        raise NotApprovedError("not on the list")

    seen = await listening()
    with pytest.raises(NotApprovedError):
        await dial(ends, seen.port, no)
    await ends.settle(lambda: seen.transports and seen.transports[0].is_closing())


async def test_a_bug_in_the_hook_is_reported_and_refuses(ends, listening):
    """An error that is not ours goes to the loop's handler, never to the peer."""
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: reported.append(c["exception"]))

    async def buggy(*_):
        raise KeyError("oops")

    seen = await listening(attest=buggy)
    with pytest.raises(UnavailableError):
        await dial(ends, seen.port)
    assert isinstance(reported[0], KeyError)
    assert seen.apps == []


async def test_a_bug_in_the_factory_ends_at_the_deadline(ends, listening):
    """The connection is closed and the error reported; nothing is served."""
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: reported.append(c["exception"]))

    def buggy(_):
        raise KeyError("oops")

    seen = await listening(factory=buggy, timeout=0.2)
    _, app = await dial(ends, seen.port)
    assert await app.lost is None
    assert isinstance(reported[0], KeyError)


@pytest.mark.parametrize("stage", ["silent", "no frame"])
async def test_one_deadline_covers_handshake_and_hook(ends, listening, raw, stage):
    """A peer that stops talking is closed when the time is over."""
    seen = await listening(timeout=0.2)
    client = await raw(seen.port)
    if stage == "no frame":
        await client.handshake()
    start = asyncio.get_running_loop().time()
    while await client.reader.read(2**16):
        pass
    assert 0.1 < asyncio.get_running_loop().time() - start < 2
    assert seen.apps == []


async def test_connect_has_a_deadline_and_our_errors(ends):
    """A listener that never answers, and a port where nobody listens."""
    kept = []
    server = await asyncio.start_server(lambda _, writer: kept.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(UnavailableError, match=r"no (attested )?connection"):
        await dial(ends, port, timeout=0.1)
    server.close()
    for writer in kept:
        writer.close()
        await writer.wait_closed()
    await server.wait_closed()
    with pytest.raises(UnavailableError, match="no connection"):
        await dial(ends, port)


async def test_a_cancelled_connect_leaves_nothing_open(ends, listening):
    """The server sees the connection go."""
    hang = asyncio.Event()

    async def wait(_channel, tls):
        await hang.wait()
        return tls

    seen = await listening()
    dialling = asyncio.create_task(dial(ends, seen.port, wait))
    await ends.settle(lambda: seen.attests)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    await ends.settle(seen.transports[0].is_closing)


async def test_an_endless_handshake_is_cut(ends, listening, raw):
    """Bytes that never finish a handshake are bounded, not only timed."""
    seen = await listening()
    client = await raw(seen.port)
    hello = b"\x01\x01\xf0\x00" + b"\0" * 16380  # a ClientHello of 124 KiB: OpenSSL waits
    record = b"\x16\x03\x01\x40\x00"
    client.writer.write(record + hello + (record + b"\0" * 2**14) * 5)
    with contextlib.suppress(ConnectionError):
        await client.reader.read()
    assert isinstance(seen.transports[0]._why, TooLargeError)
    assert seen.transports[0]._incoming_bytes > MAX_HANDSHAKE
    assert seen.attests == []


async def test_close_notify_travels_both_ways(ends, listening, raw):
    """The side that is told says so too, and both know that nothing is missing."""
    seen = await listening()
    client = await raw(seen.port)
    await client.handshake()
    client.send(ends.frame(b"hello"))
    await ends.settle(lambda: seen.apps)
    client.conn.shutdown()
    client.flush()
    await client.receive()  # the server's frame
    with pytest.raises(SSL.ZeroReturnError):
        await client.receive()
    assert seen.apps[0].eof
    assert await seen.apps[0].lost is None

    transport, app = await dial(ends, seen.port)
    await ends.settle(lambda: len(seen.apps) == 2)
    seen.transports[1].close()
    assert await app.lost is None
    assert app.eof
    assert transport.is_closing()


@pytest.mark.parametrize("end", ["FIN", "RST"])
async def test_truncation_is_an_error_at_both_ends(ends, listening, end):
    """TCP that ends without close_notify may have lost something."""
    seen = await listening()
    _, app = await dial(ends, seen.port)
    await ends.settle(lambda: seen.apps)
    tcp = seen.transports[0]._tcp
    tcp.abort() if end == "RST" else tcp.close()
    assert isinstance(await app.lost, UnavailableError)
    assert "close_notify" in str(app.lost.result())


async def test_a_record_that_was_changed_breaks_the_connection(ends, listening, raw):
    """After attestation too: nothing of it is delivered, and the reason is kept."""
    seen = await listening()
    client = await raw(seen.port)
    await client.handshake()
    client.send(ends.frame(b"hello"))
    await ends.settle(lambda: seen.apps)
    client.writer.write(b"\x17\x03\x03\x00\x20" + b"e" * 32)
    assert "broke off" in str(await seen.apps[0].lost)
    assert seen.apps[0].got == b""


async def test_a_writer_is_held_back_by_a_peer_that_does_not_read(ends, listening, raw):
    """pause_writing comes at once, even to one who never yields; the buffer stays small."""
    paused = []

    class Flood(ends.Echo):
        """Write until told to stop."""

        def connection_made(self, transport):
            """Write 64 MiB, or until told to stop."""
            super().connection_made(transport)
            for _ in range(1024):
                if paused:
                    break
                transport.write(b"z" * 2**16)

        def pause_writing(self):
            """Take note."""
            paused.append("stop")

        def resume_writing(self):
            """Take note."""
            paused.append("go on")

    seen = await listening(factory=Flood)
    client = await raw(seen.port)
    await client.handshake()
    client.reader._transport.pause_reading()
    client.send(ends.frame(b"hello"))
    await ends.settle(lambda: paused)
    assert seen.transports[0]._tcp.get_write_buffer_size() < 2 * MiB
    client.reader._transport.resume_reading()
    while paused[-1] != "go on":
        await client.receive()


async def test_a_reader_that_pauses_gets_no_bytes_until_it_resumes(ends, listening, raw):
    """What TLS holds is delivered first, in order, and nothing while paused."""
    seen = await listening()
    client = await raw(seen.port)
    await client.handshake()
    client.send(ends.frame(b"hello"))
    await ends.settle(lambda: seen.apps)
    app, transport = seen.apps[0], seen.transports[0]
    transport.pause_reading()
    data = bytes(range(256)) * 2**12
    client.send(data)
    for _ in range(100):
        await asyncio.sleep(0)
    assert app.got == b""
    transport.resume_reading()
    await ends.settle(lambda: len(app.got) > 2**15)
    transport.pause_reading()
    held = len(app.got)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(app.got) == held
    transport.resume_reading()
    await ends.settle(lambda: len(app.got) == len(data))
    assert app.got == data


async def test_small_writes_of_one_turn_share_a_record(ends, listening):
    """Head and body of an answer leave in one TLS record and one system call."""
    seen = await listening()
    _, app = await dial(ends, seen.port)
    await ends.settle(lambda: seen.apps)
    written = []
    real = seen.transports[0]._tcp.write
    seen.transports[0]._tcp.write = lambda data: (written.append(len(data)), real(data))
    for part in (b"head", b"", b"body"):
        seen.transports[0].write(part)
    await ends.settle(lambda: app.got == b"headbody")
    assert len(written) == 1


async def test_closing_does_not_wait_for_ever_on_a_peer_that_does_not_read(ends, listening, raw):
    """The socket is dropped after the deadline of the connection."""
    seen = await listening(timeout=0.3)
    client = await raw(seen.port)
    await client.handshake()
    client.send(ends.frame(b"hello"))
    await ends.settle(lambda: seen.apps)
    client.reader._transport.pause_reading()
    transport = seen.transports[0]
    while transport._tcp.get_write_buffer_size() < MiB:
        transport.write(b"z" * MiB)
    transport.close()
    transport.close()
    transport.write(b"too late")
    assert await asyncio.wait_for(seen.apps[0].lost, 3) is None


async def test_abort_drops_everything(ends, listening):
    """No close_notify: the other end sees a truncation."""
    seen = await listening()
    transport, app = await dial(ends, seen.port)
    await ends.settle(lambda: seen.apps)
    transport.abort()
    assert await app.lost is None
    assert isinstance(await seen.apps[0].lost, UnavailableError)


async def test_the_transport_answers_for_the_socket(ends, listening):
    """An HTTP server asks for the addresses and takes an sslcontext for https."""
    seen = await listening()
    transport, _ = await dial(ends, seen.port)
    assert transport.get_extra_info("peername") == ("127.0.0.1", seen.port)
    assert transport.get_extra_info("sslcontext") is ends.client
    assert transport.get_extra_info("nothing", 5) == 5
    transport.close()


def test_evidence_errors_are_refusals():
    """What the checks raise is a verification error, never an invitation to retry."""
    assert not issubclass(EvidenceError, UnavailableError)
    assert TlsTransport.__mro__[1] is asyncio.Transport


async def test_an_application_may_pause_before_its_first_byte(ends, listening, raw):
    """Pausing in connection_made holds, though attestation ends with reading resumed."""

    class Shy(ends.Echo):
        """Not yet."""

        def connection_made(self, transport):
            """Pause at once."""
            super().connection_made(transport)
            transport.pause_reading()

    seen = await listening(factory=Shy)
    client = await raw(seen.port)
    await client.handshake()
    client.send(ends.frame(b"hello") + b"early")
    await ends.settle(lambda: seen.apps)
    assert not seen.transports[0]._tcp.is_reading()
    assert seen.apps[0].got == b""
    seen.transports[0].resume_reading()
    await ends.settle(lambda: seen.apps[0].got == b"early")
