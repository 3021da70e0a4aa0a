"""Vaults behind real sockets in this process: the whole channel, without a launcher."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from placet.attest.collateral_folder import CollateralFolder
from placet.attest.trust import TrustAnchor, trust_from_config
from placet.attest.verify import verify_evidence
from placet.core.limits import MAX_QUOTES
from placet.core.profile import VaultMember, VaultSet
from placet.ratls.certificate import make_certificate
from placet.ratls.context import AttestedContext, make_context
from placet.ratls.exchange import ServerExchange
from placet.ratls.server import serve
from placet.ratls.wrapper import own_evidence
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.vault.checks import Checks
from placet.vault.clock import VaultClock
from placet.vault.collateral import MarkedVerifier
from placet.vault.door import VaultDoor
from placet.vault.http import VaultApp
from placet.vault.lane import Lane
from placet.vault.main import open_vault
from placet.vault.peers import Line, Peers
from placet.vault.predecessor import Adoption
from placet.vault.service import Vault
from placet.vault.standing import Standing
from placet.vault.state import VaultIdentity
from placet.vault.succession import Adopting
from placet_testing.backends import open_store
from placet_testing.ports import free_port
from placet_testing.standing import AlwaysStanding
from placet_testing.tee import Tee, dev_pki, vault_config


@dataclass
class Served:
    """One vault that answers on a port."""

    identity: VaultIdentity
    vault: Vault
    tee: Tee
    port: int
    log: Log
    clock: VaultClock
    certificate: tuple[Any, Any]
    """Key and certificate of its TLS end, for tests in which they leak."""
    adoption: Adoption | None = None
    """Takes keys over, where it was told to."""

    @property
    def member(self) -> VaultMember:
        """Return its place in a vault set."""
        return VaultMember(id=self.identity.id, endpoint=f"127.0.0.1:{self.port}", domain=None)


def trust() -> tuple[TrustAnchor, ...]:
    """Return the test run's development root as what to trust."""
    return trust_from_config((dev_pki().trust_root(),))


def client_context() -> AttestedContext:
    """Return a fresh client certificate and its TLS context."""
    return make_context(*make_certificate(now=int(time.time()), lifetime=3600), server=False)


def vault_set_of(*served: Served, k: int) -> VaultSet:
    """Return the set of these vaults."""
    return VaultSet(
        k=k, vaults=tuple(s.member for s in served), profiles=(served[0].tee.profile(),)
    )


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    number: int = 1,
    *,
    port: int = 0,
    release: int = 1,
    adopt: str | None = None,
    alone: bool = True,
) -> AsyncIterator[Served]:
    """Serve a vault from a folder; entering again with the same folder is a restart.

    Another ``release`` opens the same store here, which no hardware would let it do: as if
    all had been handed over to it. With ``adopt`` it has a store of its own, and takes keys
    over from who is there; it is up once an owner lets it. Not ``alone``, it asks its real
    peers before it serves.
    """
    port = port or free_port()
    tee = Tee(vault_config(), version=release, boot=f"boot-{os.urandom(4).hex()}")
    path, sealing = folder / f"served{number}.db", Tee(vault_config())
    if adopt is not None:
        path, sealing = folder / f"served{number}-{release}.db", tee
    with contextlib.closing(open_store(path, Seal(sealing.sealing_key(), "", os.urandom))) as store:
        adopting = Adopting(adopt, f"127.0.0.1:{port}", pause=0.1)
        await adopting.begin(store, tee, verify_evidence)
        rule = partial(AlwaysStanding, ring=str(folder)) if alone else Standing
        vault, identity, config, log, clock = open_vault(tee, store, int(time.time()), rule)
        exchange = ServerExchange(
            producer=tee,
            identity_key=identity.key,
            trust=trust_from_config(config.trust_roots),
            clock=clock,
            rng=os.urandom,
            turn=Lane(MAX_QUOTES).turn,
            verify=Checks(MarkedVerifier(store, CollateralFolder(folder / "collateral"))),
        )
        stop, bound = asyncio.Event(), asyncio.get_running_loop().create_future()
        certificate = make_certificate(
            now=clock.now(), lifetime=3600, evidence_of=partial(own_evidence, tee, identity.id)
        )
        context, door = make_context(*certificate, server=True), VaultDoor()
        app, asking = VaultApp(vault), contextlib.AsyncExitStack()
        if isinstance(vault.standing, Standing):
            line = Line(trust=exchange.trust, verify=verify_evidence, clock=clock, rng=os.urandom)
            peers = Peers(vault.standing, vault, line)
            app = VaultApp(vault, soon=peers.soon)
            await asking.enter_async_context(peers.asking())
        running = asyncio.create_task(
            serve(
                app, context, exchange, port=port, announce=bound.set_result, stop=stop, door=door
            )
        )
        try:
            await asyncio.wait({running, bound}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            async with adopting.going_on(vault, identity, tee, verify_evidence) as adoption:
                yield Served(
                    identity, vault, tee, bound.result(), log, clock, certificate, adoption
                )
        finally:
            await asking.aclose()
            stop.set()
            await running
