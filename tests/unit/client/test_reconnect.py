"""The real connection pool over real sockets: a vault that restarts costs its clients nothing."""

from __future__ import annotations

import os

import pytest
from placet_testing.serving import serving, trust

from placet.client.clock import HostClock
from placet.client.vault_client import Connector, renewed_contexts
from placet.errors import BindingError, UnavailableError
from placet.ratls.exchange import ExpectVault, UnsafeExpectAnyVault


def connector():
    """Return a visitor's connector."""
    clock = HostClock()
    return Connector(prover=None, clock=clock, rng=os.urandom, contexts=renewed_contexts(clock))


async def test_a_restarted_vault_is_met_anew_without_an_error(tmp_path):
    """The pooled connection is dead, the next one is attested again: same vault, another boot."""
    async with serving(tmp_path) as served:
        port, vault = served.port, served.identity.id
        expect = ExpectVault(id=vault, profiles=(served.tee.profile(),), trust=trust())
        client = connector().vault(f"127.0.0.1:{port}", expect)
        before = await client.status(bytes(32))
    with pytest.raises(UnavailableError):
        await client.status(bytes(32))
    async with serving(tmp_path, port=port):
        after = await client.status(bytes(32))
        peer = await client.meet()
        assert peer.identity is not None
        assert peer.identity.claims.boot == after.boot
        client.close()
    assert (before.vault, after.vault) == (vault, vault)
    assert after.boots == before.boots + 1
    assert after.boot != before.boot


async def test_another_vault_at_the_same_address_is_not_asked(tmp_path):
    """The id decides, not the endpoint; who takes any vault learns the id from the exchange."""
    async with serving(tmp_path) as served:
        endpoint = f"127.0.0.1:{served.port}"
        expect = ExpectVault(
            id="sha256:" + "00" * 32, profiles=(served.tee.profile(),), trust=trust()
        )
        with pytest.raises(BindingError):
            await connector().vault(endpoint, expect).status(bytes(32))
        anyone = connector().vault(endpoint, UnsafeExpectAnyVault(trust=trust()))
        assert (await anyone.status(bytes(32))).vault == served.identity.id
        anyone.close()
