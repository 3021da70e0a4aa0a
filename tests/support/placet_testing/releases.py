"""Five served vaults that may run this release or that, and a key whose owner may add releases."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import msgspec

from placet.agent.unlock import Agent
from placet.agent.volume import EmbeddedVolume, Unlocked
from placet.client.clock import HostClock
from placet.client.constellation import Constellation
from placet.client.following import CharterCopy
from placet.client.vault_client import Connector, renewed_contexts
from placet.core.encoding import encode
from placet.core.messages import CourierItem
from placet.core.profile import Profile, VaultSet
from placet.core.signer import Threshold, owner_fingerprint
from placet.core.statement import UntrustedStatement
from placet.policy.charter import replay
from placet_testing.charters import birth_body, composer, owner_of, person, signed
from placet_testing.serving import Served, serving, trust, vault_set_of
from placet_testing.tee import Tee, vault_config, workload_config

OWNER = owner_of(person("owner").signer)
CONFIG = workload_config(owner_fingerprint(OWNER))
N, K = 5, 3


def release(number: int) -> Profile:
    """Return the profile of a vault release."""
    return Tee(vault_config(), version=number).profile()


class World:
    """Five vaults with one key, which may run release 1 or another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.up: dict[int, tuple[contextlib.AsyncExitStack, Served]] = {}
        self.ports: dict[int, int] = {}
        self.statements: list[UntrustedStatement] = []
        self.vault_set: VaultSet

    async def start(self, *numbers: int, release: int = 1) -> None:
        """Start vaults, each on the port that it had."""
        for number in numbers:
            stack = contextlib.AsyncExitStack()
            at = self.ports.get(number, 0)
            served = await stack.enter_async_context(
                serving(self.folder, number, port=at, release=release)
            )
            self.up[number], self.ports[number] = (stack, served), served.port

    async def stop(self, *numbers: int) -> None:
        """Stop vaults."""
        for number in numbers or tuple(self.up):
            await self.up.pop(number)[0].aclose()

    async def upgrade(self, *numbers: int, to: int = 2) -> None:
        """Have vaults run another release."""
        await self.stop(*numbers)
        await self.start(*numbers, release=to)

    @property
    def key(self) -> str:
        """Return the key id."""
        return self.statements[0].digest

    def connect(self, vault_set: VaultSet | None = None) -> Constellation:
        """Return a visitor's constellation, of the birth's vault set unless told otherwise."""
        clock = HostClock()
        connector = Connector(
            prover=None, clock=clock, rng=os.urandom, contexts=renewed_contexts(clock)
        )
        return Constellation.connect(
            vault_set or self.vault_set, connector, trust=trust(), deadline=5, key=self.key
        )

    async def submit(self, sent: UntrustedStatement) -> int:
        """Bring a statement to the vaults; return at how many it is in force."""
        vaults = self.connect()
        try:
            report = await vaults.submit(sent.signed())
        finally:
            vaults.close()
        if report.effective:
            self.statements.append(sent)
        return len(report.confirmed)

    def add(self, *numbers: int, by: Sequence[str] = ("owner",)) -> UntrustedStatement:
        """Return the statement that adds vault releases."""
        policy = replay(self.statements)
        added = tuple(map(release, numbers))
        return signed(
            composer(HostClock().now(), seed=f"add {numbers}").update(
                policy, policy.rules, "vaults", vault_profiles=added
            ),
            *by,
        )

    async def items(self) -> tuple[CourierItem, ...]:
        """Return the charter with everybody's receipts, as an honest platform passes it."""
        vaults = self.connect()
        try:
            return (await vaults.read_charter(self.key)).items
        finally:
            vaults.close()

    def copy(self, items: Iterable[CourierItem]) -> Path:
        """Write a charter as a platform leaves it for a workload."""
        path = self.folder / "charter.json"
        path.write_bytes(encode(CharterCopy(chain=tuple(items))))
        return path

    def birth(self) -> tuple[CourierItem, ...]:
        """Return a charter of the birth alone."""
        return (CourierItem(signed=self.statements[0].signed(), receipts=()),)

    async def unlock(self, items: Iterable[CourierItem]) -> Unlocked:
        """Boot the workload with this copy of the charter."""
        agent = Agent(
            producer=Tee(CONFIG, version=1, boot=f"boot-{os.urandom(4).hex()}"),
            clock=HostClock(),
            rng=os.urandom,
            instance=f"w-{os.urandom(4).hex()}",
            tell=lambda _: None,
        )
        volume = EmbeddedVolume(self.folder / "volume")
        return await agent.unlock(self.key, self.copy(items), volume)


@contextlib.asynccontextmanager
async def releases(folder: Path, reviewers: Threshold | None = None) -> AsyncIterator[World]:
    """Return five vaults of release 1 (k = 3) and a key that was born and created."""
    made = World(folder)
    await made.start(*range(1, N + 1))
    made.vault_set = vault_set_of(*(s for _, s in made.up.values()), k=K)
    app = Tee(CONFIG, version=1).profile()
    body = birth_body(OWNER, profiles=(app,), vaults=made.vault_set)
    if reviewers is not None:
        policy = msgspec.structs.replace(body.policy, reviewers=reviewers)
        body = msgspec.structs.replace(body, policy=policy)
    made.statements.append(signed(composer(HostClock().now()).birth(body)))
    vaults = made.connect()
    report = await vaults.submit(made.statements[0].signed())
    vaults.close()
    if not report.effective:
        raise RuntimeError("the key was not born")
    await made.unlock(made.birth())
    try:
        yield made
    finally:
        await made.stop()
