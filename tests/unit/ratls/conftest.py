"""Both ends of a TLS connection: ours, and a raw one that an attacker may configure."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from placet.ratls.certificate import make_certificate
from placet.ratls.context import make_context
from placet.ratls.transport import TlsTransport

NOW = int(time.time())
DAY = 24 * 3600
SHA256 = hashes.SHA256()
NO_CA = x509.BasicConstraints(ca=False, path_length=None)


def name(text):
    """Return a distinguished name of one common name."""
    if isinstance(text, x509.Name):
        return text
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def certificate(  # what an attacker may vary about a certificate
    key,
    *,
    subject="placet",
    issuer=None,
    signer=None,
    digest=SHA256,
    extensions=((NO_CA, True),),
    start=-300,
    end=DAY,
):
    """Return a certificate like ours, but for what the arguments say."""
    at = [dt.datetime.fromtimestamp(NOW + t, dt.UTC) for t in (start, end)]
    builder = x509.CertificateBuilder(
        name(issuer or subject), name(subject), key.public_key(), 7, *at
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer or key, digest)


def der(cert):
    """Return a certificate's bytes."""
    return cert.public_bytes(serialization.Encoding.DER)


def anything_goes(*_):
    """Accept any certificate."""
    return True


def raw_context(
    key=None,
    cert=None,
    *,
    server=False,
    versions=(SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION),
    groups=None,
    signatures=None,
    suites=None,
    alpn=(b"http/1.1",),
    verify=anything_goes,
):
    """Return a context that refuses nothing by itself; without ``cert`` it shows none."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(versions[0])
    context.set_max_proto_version(versions[1])
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    if groups is not None:
        assert SSL._lib.SSL_CTX_set1_curves_list(context._context, groups) == 1
    if signatures is not None:
        assert SSL._lib.SSL_CTX_set1_sigalgs_list(context._context, signatures) == 1
    if suites is not None:
        context.set_tls13_ciphersuites(suites)
    if cert is not None:
        context.use_certificate(cert)
        context.use_privatekey(key)
    context.set_verify(SSL.VERIFY_PEER, verify)
    if server:
        context.set_alpn_select_callback(lambda _, offered: offered[0])
    elif alpn:
        context.set_alpn_protos(list(alpn))
    return context


def move(source, target):
    """Carry what one end has written to the other; return the bytes."""
    carried = b""
    with contextlib.suppress(SSL.WantReadError):
        while True:
            carried += source.bio_read(2**17)
    if carried:
        target.bio_write(carried)
    return carried


def step(end):
    """Let one end go on with its handshake as far as it can."""
    with contextlib.suppress(SSL.WantReadError):
        end.do_handshake()


def pair(client_context, server_context, session=None):
    """Return both ends of a connection in memory before anything was said."""
    client, server = SSL.Connection(client_context), SSL.Connection(server_context)
    client.set_connect_state()
    server.set_accept_state()
    if session is not None:
        client.set_session(session)
    return client, server


def shake(client, server):
    """Carry a handshake through in memory; either end's SSL.Error comes out."""
    for _ in range(3):
        step(client)
        move(client, server)
        step(server)
        move(server, client)
    client.do_handshake()
    server.do_handshake()
    return client, server


class RawTls:
    """TLS over a real socket without any of our code."""

    def __init__(self, context, reader, writer, session=None, *, server=False):
        self.conn = SSL.Connection(context)
        self.conn.set_accept_state() if server else self.conn.set_connect_state()
        if session is not None:
            self.conn.set_session(session)
        self.reader, self.writer = reader, writer

    def flush(self):
        """Write what TLS wants to say."""
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self.writer.write(self.conn.bio_read(2**17))

    async def drive(self, action):
        """Repeat an action of TLS until it needs no more bytes."""
        while True:
            try:
                result = action()
            except SSL.WantReadError:
                self.flush()
            except SSL.Error:
                self.flush()
                raise
            else:
                self.flush()
                return result
            data = await self.reader.read(2**16)
            if not data:
                raise ConnectionResetError("end of stream without close_notify")
            self.conn.bio_write(data)

    async def handshake(self):
        """Finish the handshake."""
        await self.drive(self.conn.do_handshake)

    def send(self, data):
        """Send plaintext."""
        self.conn.sendall(data)
        self.flush()

    async def receive(self):
        """Return some plaintext; raise SSL.ZeroReturnError on close_notify."""
        return await self.drive(lambda: self.conn.recv(2**16))


def frame(data):
    """Return bytes with their length before them."""
    return len(data).to_bytes(4, "big") + data


async def greet(channel, tls):
    """Attest by an exchange of greetings; say who it was."""
    await channel.send(b"hello")
    assert await channel.receive(100) == b"hello"
    return tls


class Echo(asyncio.Protocol):
    """The smallest application: it keeps what came and sends it back."""

    def __init__(self, tls):
        self.tls, self.got, self.lost = tls, bytearray(), asyncio.get_running_loop().create_future()
        self.eof = False

    def connection_made(self, transport):
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data):
        """Keep and echo."""
        self.got += data
        self.transport.write(data)

    def eof_received(self):
        """Note the close_notify."""
        self.eof = True

    def connection_lost(self, exc):
        """Keep why."""
        self.lost.set_result(exc)


@pytest.fixture(scope="session")
def ends():
    """Return the tools above, and one identity for each end."""
    tools = SimpleNamespace(**{k: v for k, v in globals().items() if not k.startswith("_")})
    tools.server_id = make_certificate(now=NOW, lifetime=DAY)
    tools.client_id = make_certificate(now=NOW, lifetime=DAY)
    tools.server = make_context(*tools.server_id, server=True)
    tools.client = make_context(*tools.client_id, server=False)
    tools.p256 = ec.generate_private_key(ec.SECP256R1())
    return tools


@pytest.fixture
async def listening(ends):
    """Start servers of our transport; each says which connections it attested and made."""
    servers = []

    async def start(attest=greet, factory=Echo, context=None, timeout=5.0):  # noqa: ASYNC109 - the peers' deadline
        seen = SimpleNamespace(attests=[], apps=[], transports=[])

        async def noted(channel, tls):
            seen.attests.append(tls)
            return await attest(channel, tls)

        def made(result):
            seen.apps.append(factory(result))
            return seen.apps[-1]

        def protocol():
            transport = TlsTransport(context or ends.server, noted, made, timeout=timeout)
            seen.transports.append(transport)
            return transport

        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol, "127.0.0.1", 0)
        seen.port = server.sockets[0].getsockname()[1]
        servers.append((server, seen))
        return seen

    yield start
    for server, seen in servers:
        server.close()
        for transport in seen.transports:
            transport.abort()
    await settle(lambda: all(t._app is None for _, s in servers for t in s.transports))


async def settle(done, seconds=5.0):
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not done():  # noqa: ASYNC110 - what is waited for is not ours to signal
            await asyncio.sleep(0)


@pytest.fixture
async def raw(ends):
    """Open raw TLS clients to a port; the handshake is still to be made."""
    writers = []

    async def dial(port, context=None, session=None):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return RawTls(context or raw_context(*ends.client_id), reader, writer, session)

    yield dial
    for writer in writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
