"""Run by test_pitfalls.py in a child whose OpenSSL has not read our configuration."""

from __future__ import annotations

import contextlib

import pytest
from OpenSSL import SSL

from placet.errors import InternalError
from placet.ratls.context import make_context, self_test


@pytest.mark.req("R1.4")
def test_pitfall_05_the_stack_resumes_without_asking_the_callback(ends):
    """With tickets a second connection skips the verify callback: the reason for the rest."""
    calls = []
    lax = ends.raw_context(*ends.server_id, server=True, verify=lambda *a: not calls.append(a))
    lax.set_session_id(b"vault")
    ours = ends.raw_context(*ends.client_id)
    client, _ = ends.shake(*ends.pair(ours, lax))
    with contextlib.suppress(SSL.WantReadError):
        client.recv(1)
    before = len(calls)
    _, server = ends.shake(*ends.pair(ours, lax, client.get_session()))

    assert SSL._lib.SSL_session_reused(server._ssl) == 1
    assert len(calls) == before
    assert server.get_peer_certificate() is not None


@pytest.mark.req("R1.4")
async def test_a_session_that_did_resume_is_closed(ends, listening, raw, monkeypatch):
    """A server whose OpenSSL hands out tickets after all still serves no resumed session."""
    with monkeypatch.context() as lax:
        lax.setattr(SSL, "OP_NO_TICKET", 0)
        lax.setattr(SSL, "SESS_CACHE_OFF", SSL.SESS_CACHE_SERVER)
        context = make_context(*ends.server_id, server=True)
        context.set_session_id(b"lax")
    seen = await listening(context=context)
    ours = ends.raw_context(*ends.client_id)
    first = await raw(seen.port, ours)
    await first.handshake()
    first.send(ends.frame(b"hello"))
    await first.receive()
    await ends.settle(lambda: seen.apps)

    second = await raw(seen.port, ours, first.conn.get_session())
    await second.handshake()
    assert SSL._lib.SSL_session_reused(second.conn._ssl) == 1  # the attack works against TLS
    second.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(SSL.ZeroReturnError):
        await second.receive()
    assert (len(seen.attests), len(seen.apps)) == (1, 1)


def test_the_self_test_finds_tickets_out(ends):
    """A server that loaded OpenSSL too early does not start."""
    with pytest.raises(InternalError, match="session tickets"):
        self_test(now=ends.NOW)
