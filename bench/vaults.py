"""Five vaults as processes of their own, and a key that was born and created in them.

The processes are forked, so that all of them have one development PKI and nothing of it
lies on the disk. They serve as tests/support does: real sockets, sealed stores that reach
the disk, real quotes, signed in the vault's own process and not by a launcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from placet_testing.charters import birth_body, composer, owner_of, person, signed
from placet_testing.serving import serving, trust
from placet_testing.tee import Tee, dev_pki, vault_config, workload_config

from placet.client.clock import HostClock
from placet.client.constellation import Constellation
from placet.client.creation import create_key
from placet.client.vault_client import Connector, VaultClient, renewed_contexts
from placet.core.attestation import Purpose
from placet.core.profile import VaultMember, VaultSet
from placet.core.signer import owner_fingerprint
from placet.ratls.exchange import ExpectVault, WorkloadProver

N, K = 5, 3
OWNER = owner_of(person("owner").signer)


@dataclass(frozen=True, slots=True)
class World:
    """A constellation that runs, and a workload that its key lets in."""

    vault_set: VaultSet
    tee: Tee
    clock: HostClock
    key: str = ""

    def connector(self, purpose: Purpose | None = "release") -> Connector:
        """Return a connector with a fresh certificate; a visitor's, without a purpose."""
        prover = None
        if purpose is not None:
            keys = (self.key,)
            prover = WorkloadProver(producer=self.tee, instance="w-1", purpose=purpose, keys=keys)
        contexts = renewed_contexts(self.clock)
        return Connector(prover=prover, clock=self.clock, rng=os.urandom, contexts=contexts)

    def constellation(self, purpose: Purpose | None = "release") -> Constellation:
        """Return the constellation; nothing is connected yet."""
        return Constellation.connect(self.vault_set, self.connector(purpose), trust=trust())

    def vault(self, connector: Connector, number: int = 0) -> VaultClient:
        """Return a client of one vault; nothing is connected yet."""
        member = self.vault_set.vaults[number]
        expect = ExpectVault(id=member.id, profiles=self.vault_set.profiles, trust=trust())
        return connector.vault(member.endpoint, expect)


@contextlib.contextmanager
def vault_processes(folder: Path) -> Iterator[World]:
    """Start the vaults; call it before this process has threads or an event loop."""
    dev_pki()
    fork = multiprocessing.get_context("fork")
    pipes, processes, members = list[Connection](), [], []
    for number in range(1, N + 1):
        ours, theirs = fork.Pipe()
        process = fork.Process(target=_serve, args=(folder, number, theirs), daemon=True)
        process.start()
        theirs.close()
        members.append(ours.recv())
        pipes.append(ours)
        processes.append(process)
    try:
        profiles = (Tee(vault_config()).profile(),)
        yield workload(VaultSet(k=K, vaults=tuple(members), profiles=profiles))
    finally:
        for pipe in pipes:
            pipe.send("stop")
        for process in processes:
            process.join(10)


def workload(vault_set: VaultSet) -> World:
    """Return the world of a workload whose key is not born yet."""
    tee = Tee(workload_config(owner_fingerprint(OWNER)))
    return World(vault_set, tee, HostClock())


async def with_key(world: World) -> World:
    """Have the owner bear a key and the workload create it."""
    body = birth_body(OWNER, profiles=(world.tee.profile(),), vaults=world.vault_set)
    birth = signed(composer(int(time.time())).birth(body))
    visitor = world.constellation(None)
    report = await visitor.submit(birth.signed())
    view = await visitor.read_charter(birth.digest)
    visitor.close()
    if len(report.confirmed) != N:
        raise RuntimeError(f"birth was taken by {len(report.confirmed)} of {N} vaults")
    born = World(world.vault_set, world.tee, world.clock, birth.digest)
    creator = born.constellation("create")
    await create_key(view.policy, creator.vaults, rng=os.urandom)
    creator.close()
    return born


def _serve(folder: Path, number: int, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    sys.setswitchinterval(0.0005)  # as a vault's main program does
    asyncio.run(_serve_until_told(folder, number, pipe))


async def _serve_until_told(folder: Path, number: int, pipe: Connection) -> None:
    stop = asyncio.Event()
    async with serving(folder, number) as served:
        member: VaultMember = served.member
        pipe.send(member)
        asyncio.get_running_loop().add_reader(pipe.fileno(), stop.set)
        await stop.wait()
        asyncio.get_running_loop().remove_reader(pipe.fileno())
