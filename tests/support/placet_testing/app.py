"""A key with five served vaults and a platform that boots its app: for tests of the agent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from placet.agent.unlock import Agent
from placet.agent.volume import EmbeddedVolume, Unlocked
from placet.client.clock import HostClock
from placet.client.constellation import Constellation, EffectReport
from placet.client.signing import promote_body
from placet.client.vault_client import Connector, renewed_contexts
from placet.core.encoding import encode
from placet.core.messages import CourierItem, TakeRequest
from placet.core.signer import owner_fingerprint
from placet.core.statement import UntrustedStatement
from placet.policy.charter import replay
from placet_testing import backends
from placet_testing.charters import birth_body, composer, owner_of, person, signed
from placet_testing.serving import Served, serving, trust, vault_set_of
from placet_testing.tee import Tee, workload_config

OWNER = owner_of(person("owner").signer)
CONFIG = workload_config(owner_fingerprint(OWNER))


@dataclass
class World:
    """A constellation, the owner's statements, and a platform's folder."""

    folder: Path
    up: dict[int, tuple[contextlib.AsyncExitStack, Served]] = field(default_factory=dict)
    statements: list[UntrustedStatement] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    async def start(self, number: int) -> None:
        """Start a vault, on its old port if it had one."""
        stack = contextlib.AsyncExitStack()
        old = self.ports.get(number, 0)
        served = await stack.enter_async_context(serving(self.folder, number, port=old))
        self.up[number] = (stack, served)
        self.ports[number] = served.port

    async def stop(self, *numbers: int) -> None:
        """Stop vaults."""
        for number in numbers:
            await self.up.pop(number)[0].aclose()

    async def disk(self, number: int) -> Path:
        """Return what a vault's disk holds."""
        await self.stop(number)
        kept = self.folder / "kept" / os.urandom(4).hex()
        backends.copy(self.folder / f"served{number}.db", kept)
        await self.start(number)
        return kept

    async def put_back(self, number: int, disk: Path) -> None:
        """Start a vault on an earlier disk."""
        if number in self.up:
            await self.stop(number)
        backends.copy(disk, self.folder / f"served{number}.db")
        await self.start(number)

    ports: dict[int, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Return the key id."""
        return self.statements[0].digest

    @property
    def vaults(self) -> list[Served]:
        """Return the vaults that are up."""
        return [served for _, served in self.up.values()]

    def connect(self) -> Constellation:
        """Return the owner's (or anybody's) view of the constellation, as a visitor."""
        clock = HostClock()
        connector = Connector(
            prover=None, clock=clock, rng=os.urandom, contexts=renewed_contexts(clock)
        )
        return Constellation.connect(self.vault_set, connector, trust=trust(), deadline=5)

    @property
    def vault_set(self) -> Any:
        """Return the vault set that the owner signed."""
        return replay(self.statements).vault_set

    async def submit(self, sent: UntrustedStatement) -> EffectReport:
        """Bring a statement to all vaults, and remember it if it took effect."""
        constellation = self.connect()
        try:
            report = await constellation.submit(sent.signed())
        finally:
            constellation.close()
        if report.confirmed and sent.digest not in [s.digest for s in self.statements]:
            self.statements.append(sent)
        return report

    async def promote(self, tee: Tee) -> EffectReport:
        """Have the owner promote what a TEE runs."""
        policy = replay(self.statements)
        body = promote_body(policy, tee.profile())
        return await self.submit(signed(composer(HostClock().now()).promote(policy, body)))

    def charter(self) -> Path:
        """Write what a platform passes to a workload."""
        path = self.folder / "charter.json"
        items = tuple(CourierItem(signed=s.signed(), receipts=()) for s in self.statements)
        path.write_bytes(encode(TakeRequest(chain=items)))
        return path

    async def unlock(
        self, tee: Tee, volume: str = "volume", *, key: str = "", charter: Path | None = None
    ) -> Unlocked:
        """Boot a workload."""
        agent = Agent(
            producer=tee,
            clock=HostClock(),
            rng=os.urandom,
            instance=f"w-{os.urandom(4).hex()}",
            tell=self.said.append,
        )
        folder = EmbeddedVolume(self.folder / volume)
        return await agent.unlock(key or self.key, charter or self.charter(), folder)


def v(number: int) -> Tee:
    """Return a start of version ``number`` of the app."""
    return Tee(CONFIG, version=number, boot=f"boot-{os.urandom(4).hex()}")


@contextlib.asynccontextmanager
async def founded(folder: Path) -> AsyncIterator[World]:
    """Give five vaults (k = 3) and a key that was born and not created yet."""
    made = World(folder)
    for number in range(1, 6):
        await made.start(number)
    vaults = vault_set_of(*made.vaults, k=3)
    body = birth_body(OWNER, profiles=(v(1).profile(),), vaults=vaults)
    made.statements.append(signed(composer(HostClock().now()).birth(body)))
    report = await made.submit(made.statements[0])
    assert report.effective
    try:
        yield made
    finally:
        await made.stop(*list(made.up))
