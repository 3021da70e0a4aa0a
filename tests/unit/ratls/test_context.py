"""What is negotiated, and everything else that ends before the first application byte."""

from __future__ import annotations

import time

import pytest
from OpenSSL import SSL

from placet.errors import EvidenceError, InternalError
from placet.ratls import context as room
from placet.ratls.context import make_context, self_test
from placet.ratls.transport import connect

TLS12 = (SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)


def extension(hello, kind):
    """Return the body of one extension of a ClientHello or ServerHello record."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    if hello[5] == 1:  # ClientHello: cipher suites and compression methods are lists
        at += 2 + int.from_bytes(hello[at : at + 2], "big")
        at += 1 + hello[at]
    else:
        at += 3
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    while at < end:
        found, size = (int.from_bytes(hello[i : i + 2], "big") for i in (at, at + 2))
        if found == kind:
            return hello[at + 4 : at + 4 + size]
        at += 4 + size
    raise AssertionError(f"no extension {kind}")


@pytest.mark.req("R1.5")
def test_hellos_name_the_allowed_groups_only(ends):
    """On the wire: the two groups are offered, and the hybrid one (0x11ec) is chosen."""
    client, server = ends.pair(ends.client, ends.server)
    ends.step(client)
    client_hello = ends.move(client, server)
    ends.step(server)
    server_hello = ends.move(server, client)

    assert extension(client_hello, 10) == bytes.fromhex("0004 11ec 001d")  # supported_groups
    assert extension(server_hello, 51)[:2] == bytes.fromhex("11ec")  # key_share
    assert extension(client_hello, 43) == bytes.fromhex("02 0304")  # TLS 1.3
    assert extension(client_hello, 13) == bytes.fromhex("0002 0403")  # ecdsa_secp256r1_sha256


@pytest.mark.req("R1.5")
def test_x25519_alone_is_the_one_step_down(ends):
    """A peer without the hybrid group gets X25519, and each end sees that."""
    classic = make_context(*ends.client_id, server=False, groups=("X25519",))
    client, server = ends.shake(*ends.pair(classic, ends.server))

    assert client.get_group_name() == server.get_group_name() == "x25519"
    assert client.get_cipher_name() == "TLS_AES_256_GCM_SHA384"


WEAK = {
    "TLS 1.2": {"versions": TLS12},
    "ffdhe2048": {"groups": b"ffdhe2048"},
    "secp256r1": {"groups": b"secp256r1"},
    "SHA-1 signatures": {"signatures": b"ECDSA+SHA1:RSA+SHA1"},
    "P-521 signatures": {"signatures": b"ecdsa_secp521r1_sha512"},
    "AES-128": {"suites": b"TLS_AES_128_GCM_SHA256"},
    "AES-128-CCM-8": {"suites": b"TLS_AES_128_CCM_8_SHA256"},
}


@pytest.mark.req("R1.5")
@pytest.mark.req("R1.4")
@pytest.mark.parametrize("offer", WEAK)
async def test_server_closes_on_a_client_that_offers_only(ends, listening, raw, offer):
    """Neither the attest hook nor the application ever hears of such a client."""
    seen = await listening()
    client = await raw(seen.port, ends.raw_context(*ends.client_id, **WEAK[offer]))
    with pytest.raises((SSL.Error, ConnectionError)):
        await client.handshake()
    await ends.settle(lambda: seen.transports and seen.transports[0].is_closing())
    assert (seen.attests, seen.apps) == ([], [])


@pytest.mark.req("R1.5")
@pytest.mark.parametrize("offer", WEAK)
def test_client_refuses_a_server_that_offers_only(ends, offer):
    """The same rows from the other side."""
    weak = ends.raw_context(*ends.server_id, server=True, **WEAK[offer])
    with pytest.raises(SSL.Error):
        ends.shake(*ends.pair(ends.client, weak))


def test_self_test_passes_here(ends):
    """This build does what the room relies on."""
    self_test(now=int(time.time()))  # OpenSSL reads this clock, and the run may be long


@pytest.mark.parametrize(
    ("name", "value"),
    [("GROUPS", ("X25519", "X25519MLKEM768")), ("resumed", lambda _: True), ("_SUITES", b"")],
)
def test_self_test_can_fail(monkeypatch, name, value, ends):
    """Another group, a resumed session or no handshake at all stops the process."""
    monkeypatch.setattr(room, name, value)
    if name == "GROUPS":  # the server prefers another one than it should
        monkeypatch.setattr(room.make_context, "__kwdefaults__", {"groups": value[:1]})
        monkeypatch.setattr(room, name, value[::-1])
    with pytest.raises((InternalError, SSL.Error)):
        self_test(now=int(time.time()))


def test_unknown_groups_are_the_callers_fault(ends):
    """A misspelt or missing group is a ValueError at start, never a silent default."""
    for groups in ((), ("X25519MLKEM786",)):
        with pytest.raises(ValueError, match="groups"):
            make_context(*ends.client_id, server=False, groups=groups)


async def test_client_says_why_it_refuses_a_server(ends):
    """The error of `connect` is ours and names the reason."""
    import asyncio

    weak = ends.raw_context(*ends.server_id, server=True, groups=b"secp256r1")

    async def answer(reader, writer):
        peer = ends.RawTls(weak, reader, writer, server=True)
        with pytest.raises((SSL.Error, ConnectionError)):
            await peer.handshake()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(EvidenceError, match="TLS handshake failed"):
        await connect("127.0.0.1", port, ends.client, ends.greet, ends.Echo)
    server.close()
    await server.wait_closed()


@pytest.mark.req("R1.4")
def test_neither_end_keeps_sessions(ends):
    """No ticket and no cache, both: either alone has been seen to resume (pitfall 5)."""
    for context in (ends.server, ends.client):
        assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF
        bits = SSL._lib.SSL_CTX_get_options(context._context)
        assert bits & SSL.OP_NO_TICKET
