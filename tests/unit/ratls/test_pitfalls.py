"""TLS.md, section 8: sixteen pitfalls that were reproduced, each with what we do about it.

The number of the pitfall is the number in the test's name. Where the pitfall is the
stack's own behaviour, the test first shows that it is still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL, crypto

from placet.core.limits import MAX_BODY
from placet.errors import EvidenceError, UnavailableError
from placet.ratls.certificate import EVIDENCE, MAX_CERTIFICATE, parse_certificate
from placet.ratls.context import make_context
from placet.ratls.http import ConnectionPool
from placet.ratls.transport import connect

STRANGER = ec.generate_private_key(ec.SECP256R1())
DAY = 24 * 3600


def client_with(ends, **changes):
    """Return a lawless client that shows our certificate, but for the changes."""
    key = changes.pop("key", ends.p256)
    return ends.raw_context(key, ends.certificate(key, **changes))


def peer_der(server):
    """Return the certificate that a finished handshake left behind."""
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, server.get_peer_certificate())


# --- 1 and 2: what OpenSSL checks of a self-signed certificate -------------------------

FILTERED = {
    "expired": {"start": -3 * DAY, "end": -DAY},
    "not yet valid": {"start": DAY, "end": 3 * DAY},
    "issued by a CA": {"issuer": "ca", "signer": STRANGER},
}


@pytest.mark.parametrize("changes", FILTERED)
def test_pitfall_01_the_filter_takes_self_signed_and_in_time_only(ends, changes):
    """An always-true callback takes each of these; ours refuses in the handshake."""
    hostile = client_with(ends, **FILTERED[changes])
    lax = ends.raw_context(*ends.server_id, server=True)
    ends.shake(*ends.pair(hostile, lax))

    with pytest.raises(SSL.Error, match="certificate verify failed"):
        ends.shake(*ends.pair(hostile, ends.server))


def corrupted(ends):
    """Return key and certificate with a flipped bit in its own signature."""
    raw = bytearray(ends.der(ends.certificate(ends.p256)))
    raw[-1] ^= 1
    return ends.p256, x509.load_der_x509_certificate(bytes(raw))


UNCHECKED = {
    "corrupted": corrupted,
    "another key's": lambda ends: (ends.p256, ends.certificate(ends.p256, signer=STRANGER)),
}


@pytest.mark.parametrize("signature", UNCHECKED)
def test_pitfall_02_openssl_ignores_the_self_signature_and_we_do_not(ends, signature):
    """The handshake succeeds, so the check after it must refuse."""
    hostile = ends.raw_context(*UNCHECKED[signature](ends))
    _, server = ends.shake(*ends.pair(hostile, ends.server))

    with pytest.raises(EvidenceError, match="not signed by its own key"):
        parse_certificate(peer_der(server))


KEYS = {
    "RSA": (rsa.generate_private_key(65537, 2048), hashes.SHA256()),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate(), None),
    "P-521": (ec.generate_private_key(ec.SECP521R1()), hashes.SHA256()),
}


@pytest.mark.parametrize("kind", KEYS)
def test_pitfall_02_other_kinds_of_key_end_in_the_handshake(ends, kind):
    """Only ecdsa_secp256r1_sha256 is taken, so no other key can sign the handshake."""
    key, digest = KEYS[kind]
    hostile = client_with(ends, key=key, digest=digest)
    ends.shake(*ends.pair(hostile, ends.raw_context(*ends.server_id, server=True)))

    with pytest.raises(SSL.Error):
        ends.shake(*ends.pair(hostile, ends.server))


# --- 3 and 4: the callback --------------------------------------------------------------


async def test_pitfall_03_a_certificate_without_its_key_is_refused(ends, listening, raw):
    """A client shows somebody else's certificate and signs with its own key: no possession.

    OpenSSL compares a loaded key's public half only, so that half is forged.
    """
    theirs = ends.client_id[1]
    private = STRANGER.private_numbers().private_value.to_bytes(32, "big")
    public = theirs.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    curve = bytes.fromhex("a00a06082a8648ce3d030107")
    body = b"\x02\x01\x01\x04\x20" + private + curve + b"\xa1\x44\x03\x42\0" + public
    forged = crypto.load_privatekey(crypto.FILETYPE_ASN1, b"\x30" + bytes([len(body)]) + body)
    context = ends.raw_context()
    context.use_certificate(theirs)
    assert SSL._lib.SSL_CTX_use_PrivateKey(context._context, forged._pkey) == 1
    context.check_privatekey()  # OpenSSL is content

    server_calls = []
    watched = make_context(*ends.server_id, server=True)
    watched.set_verify(
        SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *a: not server_calls.append(a)
    )
    with pytest.raises(SSL.Error, match="bad signature"):
        ends.shake(*ends.pair(context, watched))
    assert server_calls  # the callback had said yes before: it must decide nothing

    seen = await listening()
    client = await raw(seen.port, context)
    with pytest.raises((SSL.Error, ConnectionError)):  # noqa: PT012 - either of them
        await client.handshake()
        await client.receive()
    assert (seen.attests, seen.apps) == ([], [])


async def test_pitfall_04_an_exception_in_a_callback_ends_this_connection_only(
    ends, listening, raw
):
    """The ALPN callback raises; the peer gets an alert, and the context serves the next."""
    seen = await listening()
    client = await raw(seen.port, ends.raw_context(*ends.client_id, alpn=(b"h2",)))
    with pytest.raises(SSL.Error, match="alert"):
        await client.handshake()
    assert ends.server._alpn_select_helper._problems == []

    transport, _ = await connect("127.0.0.1", seen.port, ends.client, ends.greet, ends.Echo)
    assert len(seen.attests) == 1
    transport.close()


def test_pitfall_04_a_used_context_is_replaced_and_not_changed(ends):
    """Certificates rotate by a new context for each new connection of a pool."""
    made = []

    def fresh():
        made.append(make_context(*ends.client_id, server=False))
        return made[-1]

    pool = ConnectionPool("127.0.0.1", 1, fresh, ends.greet, max_age=1)

    async def two():
        for _ in range(2):
            with pytest.raises(UnavailableError):
                async with pool.acquire():
                    raise AssertionError("nobody listens on port 1")

    asyncio.run(two())
    assert len(set(map(id, made))) == 2


# --- 5: resumption ----------------------------------------------------------------------


@pytest.mark.req("R1.4")
def test_pitfall_05_resumed_sessions_where_tickets_are_possible():
    """A process whose OpenSSL hands out tickets: the stack resumes, and we close it.

    Our configuration knows no tickets, so a child without it runs `resumption_cases.py`.
    """
    cases = Path(__file__).with_name("resumption_cases.py")
    program = (
        "import cryptography.hazmat.bindings._rust, pytest, sys;"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {str(cases)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "3 passed" in done.stdout, done.stdout
    assert done.returncode == 0


@pytest.mark.req("R1.4")
def test_pitfall_05_the_server_never_sends_a_session_ticket(ends):
    """On the wire: not one byte follows the handshake, and an offered session is not taken."""
    ours = ends.raw_context(*ends.client_id)
    client, server = ends.pair(ours, ends.server)
    for _ in range(2):
        ends.step(client)
        ends.move(client, server)
        ends.step(server)
        if server.get_state_string().endswith(b"successfully"):
            break
        ends.move(server, client)
    with pytest.raises(SSL.WantReadError):
        server.bio_read(2**16)

    second = ends.pair(ours, ends.server, client.get_session())
    with contextlib.suppress(SSL.Error):  # an alert is as good as a full handshake
        ends.shake(*second)
    assert [SSL._lib.SSL_session_reused(end._ssl) for end in second] == [0, 0]


@pytest.mark.req("R1.4")
async def test_pitfall_05_no_ticket_over_a_real_socket_either(ends, listening, raw):
    """Between handshake and the server's first frame the client receives nothing."""
    gate = asyncio.Event()

    async def late(channel, tls):
        await gate.wait()
        return await ends.greet(channel, tls)

    seen = await listening(attest=late)
    client = await raw(seen.port)
    await client.handshake()
    await ends.settle(lambda: seen.attests)
    assert bytes(client.reader._buffer) == b""
    gate.set()
    record = await client.reader.readexactly(5)
    assert record[0] == 0x17
    assert int.from_bytes(record[3:], "big") == len(ends.frame(b"hello")) + 1 + 16


# --- 6 and 7: who learns what, and when -------------------------------------------------


async def test_pitfall_06_the_client_learns_of_a_refusal_on_its_first_read(ends, listening, raw):
    """Its handshake is done and its request sent; nothing of it was looked at."""
    seen = await listening()
    client = await raw(seen.port, client_with(ends, start=-3 * DAY, end=-DAY))
    await client.handshake()
    client.send(ends.frame(b"hello") + b"POST /secret HTTP/1.1\r\n\r\n")
    with pytest.raises((SSL.Error, ConnectionError)):
        await client.receive()
    assert (seen.attests, seen.apps) == ([], [])


async def test_pitfall_06_our_client_waits_for_the_verdict_before_it_is_connected(ends, listening):
    """The hook's round trip turns a refusal into an error of `connect`, before any request."""
    seen = await listening()
    key = ends.p256
    expired = make_context(key, ends.certificate(key, start=-3 * DAY, end=-DAY), server=False)
    made = []
    with pytest.raises(UnavailableError):
        await connect("127.0.0.1", seen.port, expired, ends.greet, made.append)
    assert made == []


def test_pitfall_06_a_client_that_refuses_the_server_reveals_nothing(ends):
    """It has sent its ClientHello and an alert, and neither certificate nor evidence."""
    impostor = ends.raw_context(
        ends.p256, ends.certificate(ends.p256, start=-3 * DAY, end=-DAY), server=True
    )
    client, server = ends.pair(ends.client, impostor)
    ends.step(client)
    assert len(ends.move(client, server)) < 2000
    ends.step(server)
    ends.move(server, client)
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        client.do_handshake()
    assert len(ends.move(client, server)) < 100


async def test_pitfall_07_a_failed_hook_is_a_close_and_not_an_alert(ends, listening, raw):
    """After the handshake TLS has no word for it: the peer sees close_notify."""

    async def no(*_):
        raise EvidenceError("no")

    seen = await listening(attest=no)
    client = await raw(seen.port)
    await client.handshake()
    with pytest.raises(SSL.ZeroReturnError):
        await client.receive()
    assert seen.apps == []


# --- 8: sizes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "fate"), [(60_000, "unknown extension"), (MAX_CERTIFICATE, "at most"), (200_000, "")]
)
async def test_pitfall_08_large_certificates_meet_our_limit_and_then_openssls(
    ends, listening, raw, size, fate
):
    """A client certificate beyond 64.7 KB does not crash the server; ours are all refused."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.58270.1"), b"q" * size)
    basic = (x509.BasicConstraints(ca=False, path_length=None), True)
    seen = await listening()
    client = await raw(seen.port, client_with(ends, extensions=(basic, (unknown, False))))
    await client.handshake()
    with pytest.raises((SSL.Error, ConnectionError)):
        await client.receive()
    assert (seen.attests, seen.apps) == ([], [])
    assert fate in str(seen.transports[0]._why)


async def test_pitfall_08_what_a_client_shows_as_evidence_is_carried_and_not_read(
    ends, listening, raw
):
    """A server takes a certificate with 60,000 bytes of anything there, and goes on."""
    shown = x509.UnrecognizedExtension(EVIDENCE, b"q" * 60_000)
    basic = (x509.BasicConstraints(ca=False, path_length=None), True)
    seen = await listening()
    client = await raw(seen.port, client_with(ends, extensions=(basic, (shown, False))))
    await client.handshake()
    assert await client.receive() == ends.frame(b"hello")
    assert seen.attests[0].certificate.evidence == b"q" * 60_000


# --- 9: ALPN ----------------------------------------------------------------------------


@pytest.mark.parametrize("alpn", [(), (b"h2",), (b"http/1.0", b"h2")])
async def test_pitfall_09_only_http_1_1_is_spoken(ends, listening, raw, alpn):
    """Another protocol is a fatal alert; none at all skips the callback and is refused after."""
    seen = await listening()
    client = await raw(seen.port, ends.raw_context(*ends.client_id, alpn=alpn))
    with pytest.raises(SSL.Error) as refusal:  # noqa: PT012 - either of them
        await client.handshake()
        await client.receive()
    assert isinstance(refusal.value, SSL.ZeroReturnError) is (not alpn)
    assert (seen.attests, seen.apps) == ([], [])


def test_pitfall_09_the_client_insists_too(ends):
    """A server that picks nothing leaves the client's session without ALPN, which is checked."""
    silent = ends.raw_context(*ends.server_id, server=True)
    silent.set_alpn_select_callback(lambda *_: SSL.NO_OVERLAPPING_PROTOCOLS)
    client, _ = ends.shake(*ends.pair(ends.client, silent))
    assert client.get_alpn_proto_negotiated() == b""


# --- 10 and 11: writing -----------------------------------------------------------------


def test_pitfall_10_send_takes_one_record(ends):
    """The stack's own behaviour: 16 KiB of what was given."""
    client, _ = ends.shake(*ends.pair(ends.client, ends.server))
    assert client.send(b"x" * 100_000) == 16_384


@pytest.mark.parametrize("size", [16_384, 16_385, 100_000, 3 * 2**20])
async def test_pitfall_10_large_writes_arrive_whole(ends, listening, size):
    """Both ways, byte for byte."""
    seen = await listening()
    transport, app = await connect("127.0.0.1", seen.port, ends.client, ends.greet, ends.Echo)
    app.data_received = app.got.extend
    data = bytes(range(251)) * (size // 251 + 1)
    transport.write(data[:size])
    await ends.settle(lambda: len(app.got) == size)
    assert app.got == seen.apps[0].got == data[:size]
    transport.close()


async def test_pitfall_11_deferred_writes_are_bounded(ends, listening):
    """A writer that never yields holds at most 64 KiB back; the rest is with TCP already."""
    seen = await listening()
    transport, _ = await connect("127.0.0.1", seen.port, ends.client, ends.greet, ends.Echo)
    held = []
    for _ in range(1000):
        transport.write(b"x" * 1000)
        held.append(sum(map(len, transport._outgoing)))
    assert max(held) < 65_536
    transport.abort()


# --- 12: closing ------------------------------------------------------------------------


async def test_pitfall_12_close_notify_is_an_end_and_fin_alone_a_truncation(ends, listening):
    """The application is told which."""
    for notify in (True, False):
        seen = await listening()
        _, app = await connect("127.0.0.1", seen.port, ends.client, ends.greet, ends.Echo)
        await ends.settle(lambda seen=seen: seen.apps)
        inside = seen.transports[0]
        inside.close() if notify else inside._tcp.close()
        why = await app.lost
        assert (why is None) is notify
        assert app.eof is notify


async def test_pitfall_12_half_an_answer_is_an_error_of_the_request(ends, listening):
    """Neither kind of end makes a short body whole."""
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!"

    for end in ("close", "abort"):

        class Half(ends.Echo):
            """Answer half and stop."""

            def data_received(self, _data, end=end):
                """Answer half and stop."""
                self.transport.write(half)
                self.transport._flush_outgoing()
                getattr(self.transport, end)()

        seen = await listening(factory=Half)
        pool = ConnectionPool("127.0.0.1", seen.port, lambda: ends.client, ends.greet, max_age=9)
        async with pool.acquire() as connection:
            with pytest.raises(UnavailableError):
                await connection.request("GET", "/")
            assert connection.closed


# --- 13: after the handshake ------------------------------------------------------------


def expand(secret, label, length):
    """HKDF-Expand-Label of TLS 1.3 with SHA-384 and no context (RFC 8446, section 7.1)."""
    info = length.to_bytes(2, "big") + bytes([6 + len(label)]) + b"tls13 " + label + b"\0"
    return HKDFExpand(hashes.SHA384(), length, info).derive(secret)


def record(secret, kind, content, number=0):
    """Return one protected record under an application traffic secret."""
    key, iv = expand(secret, b"key", 32), expand(secret, b"iv", 12)
    nonce = bytes(a ^ b for a, b in zip(iv, number.to_bytes(12, "big"), strict=True))
    head = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2, "big")
    return head + AESGCM(key).encrypt(nonce, content + bytes([kind]), head)


async def test_pitfall_13_a_flood_of_key_updates_costs_no_memory(ends, listening, raw):
    """Each asks for one back, written by hand: some are answered, 20,000 end the connection.

    TLS 1.3 has no renegotiation; this is what is left of it.
    """
    secrets = []
    context = ends.raw_context(*ends.client_id)
    context.set_keylog_callback(lambda _, line: secrets.append(line.split()))
    seen = await listening()
    client = await raw(seen.port, context)
    await client.handshake()
    client.send(ends.frame(b"hello"))
    await ends.settle(lambda: seen.apps)
    named = {words[0]: bytes.fromhex(words[2].decode()) for words in secrets}
    secret = named[b"CLIENT_TRAFFIC_SECRET_0"]
    sequence = 1  # one record went out under this secret

    def updates(count):
        nonlocal secret, sequence
        flood = bytearray()
        for _ in range(count):
            flood += record(secret, 22, bytes.fromhex("1800000101"), sequence)
            secret, sequence = expand(secret, b"traffic upd", 48), 0
        return bytes(flood) + record(secret, 23, b"still here", sequence)

    client.writer.write(updates(100))
    sequence = 1
    await ends.settle(lambda: seen.apps[0].got == b"still here")
    client.writer.write(updates(5000))
    assert "key updates" in str(await seen.apps[0].lost)
    assert seen.transports[0]._answered < 2**16 + 2**18


# --- 14: peers that stall or flood ------------------------------------------------------


async def test_pitfall_14_a_silent_client_is_closed_at_the_deadline(ends, listening):
    """It never says a byte."""
    seen = await listening(timeout=0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", seen.port)
    async with asyncio.timeout(2):
        await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_pitfall_14_garbage_is_refused_at_once(ends, listening):
    """HTTP without TLS, and noise."""
    seen = await listening(timeout=60)
    for noise in (b"GET / HTTP/1.1\r\n\r\n" * 10, b"\x16\x03\x01\x40\x00" + b"?" * 2**14):
        reader, writer = await asyncio.open_connection("127.0.0.1", seen.port)
        writer.write(noise)
        async with asyncio.timeout(2):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    assert seen.attests == []


async def test_pitfall_14_reading_stops_while_the_hook_runs(ends, listening, raw):
    """TCP is paused as soon as nobody waits for bytes; see test_transport for the megabytes."""
    gate = asyncio.Event()

    async def slow(_channel, tls):
        await gate.wait()
        return tls

    seen = await listening(attest=slow)
    client = await raw(seen.port)
    await client.handshake()
    await ends.settle(lambda: seen.attests)
    assert not seen.transports[0]._tcp.is_reading()
    gate.set()
    await ends.settle(lambda: seen.apps)
    assert seen.transports[0]._tcp.is_reading()


# --- 15 and 16: older TLS, early exporters ----------------------------------------------


@pytest.mark.req("R1.4")
async def test_pitfall_15_tls_1_2_is_an_unsupported_protocol(ends, listening, raw):
    """The alert says so, and nobody was asked."""
    old = ends.raw_context(*ends.client_id, versions=(SSL.TLS1_VERSION, SSL.TLS1_2_VERSION))
    seen = await listening()
    client = await raw(seen.port, old)
    with pytest.raises(SSL.Error, match="protocol version"):
        await client.handshake()
    assert (seen.attests, seen.apps) == ([], [])


def test_pitfall_16_the_servers_exporter_speaks_too_early(ends):
    """Before the client's certificate came it returns a value already, and the same after."""
    client, server = ends.pair(ends.client, ends.server)
    label = b"EXPORTER-placet-attest"
    with pytest.raises(SSL.Error):
        client.export_keying_material(label, 32, b"c")
    ends.step(client)
    ends.move(client, server)
    ends.step(server)
    early = server.export_keying_material(label, 32, b"c")
    assert server.get_peer_certificate() is None
    ends.move(server, client)
    ends.shake(client, server)
    assert early == server.export_keying_material(label, 32, b"c")


async def test_pitfall_16_the_hook_gets_its_exporter_after_the_clients_proof(ends, listening, raw):
    """A client that stops before its Finished is never attested."""
    seen = await listening(timeout=0.2)
    client = await raw(seen.port)
    with contextlib.suppress(SSL.WantReadError):
        client.conn.do_handshake()
    client.flush()
    await client.reader.readexactly(1)  # the server's flight is on its way
    while await client.reader.read(2**16):
        pass
    assert seen.attests == []


def test_pitfall_16_the_standard_library_has_no_exporter():
    """Why this room is not built on the ssl module: tls-unique is undefined in TLS 1.3."""
    assert "tls-exporter" not in ssl.CHANNEL_BINDING_TYPES
    assert MAX_BODY > 0
