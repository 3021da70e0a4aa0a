"""Three vaults at which a key was born, a workload that creates it, and whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from placet.client.creation import create_key
from placet.core.encoding import encode, unb64
from placet.core.messages import CourierItem, TakeRequest
from placet.core.signer import owner_fingerprint
from placet.policy.charter import replay
from placet.sharing.key import Answer, combine
from placet_testing.backends import Backend, Postgresql, Sqlite, use
from placet_testing.crash_calls import Call, Fault
from placet_testing.crash_checks import restart
from placet_testing.crash_moves import lay
from placet_testing.crash_power import Disk
from placet_testing.crash_story import OWNER, K, N, Story, client
from placet_testing.crash_zygote import Life, Zygote

NUMBERS = range(1, N + 1)


@dataclass
class Scene:
    """The vaults' files, their lives, and the machine that the workload runs on.

    Args:
        zygote: Forks all of them.
        story: Where the vaults' files come from.
        folder: Empty; its own.
        backend: Where the vaults' stores lie.
    """

    zygote: Zygote
    story: Story
    folder: Path
    backend: Backend = field(default_factory=Sqlite)
    lives: dict[int, Life] = field(default_factory=dict)
    ports: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take what was signed at the birth."""
        self.policy = replay(self.story.statements[:1])
        self.ids = self.policy.vault_set.ids
        self.machine, self.given = self.folder / "machine", self.folder / "given.json"
        item = CourierItem(signed=self.story.statements[0].signed(), receipts=())
        self.given.write_bytes(encode(TakeRequest(chain=(item,))))

    def path(self, number: int) -> Path:
        """Return what a vault's store is called."""
        return self.folder / "vaults" / f"served{number}.db"

    @asynccontextmanager
    async def vaults(self) -> AsyncIterator[None]:
        """Serve the three vaults as they were when the key was born, on the charter's ports."""
        for folder in (self.folder / "vaults", self.machine):
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(self.backend, Postgresql):
            _make(self.folder / "vaults")
            for number in NUMBERS:
                lay(self.story, "born", number, self.backend, self.path(number))
        else:
            self.story.at("born", self.folder / "vaults")
        _make(self.machine)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.stop)
            await asyncio.gather(*map(self.start, NUMBERS))
            yield

    async def start(self, number: int) -> Life:
        """Start a vault on what its last life left."""
        endpoint = self.policy.vault_set.vaults[number - 1].endpoint
        settings: dict[str, Any] = {"port": int(endpoint.rpartition(":")[2])}
        folder, there = str(self.folder / "vaults"), isinstance(self.backend, Postgresql)
        if there:
            settings["store"] = self.backend.place(self.path(number))
        life = self.zygote.life(
            "vault", folder=folder, number=number, settings=settings, receives=there
        )
        self.lives[number] = life
        life.go()
        said = await life.said()
        assert said is not None, life.log.read_text()
        self.ports[number] = said["port"]
        return life

    async def stop(self) -> None:
        """Kill them all."""
        await asyncio.gather(*(life.kill() for life in self.lives.values()))

    async def create(self) -> bytes:
        """Create the key as a workload that starts now; return it."""
        keys = (self.policy.key,)
        clients = [client(self.ports[i], self.ids[i - 1], "create", 1, keys) for i in NUMBERS]
        try:
            made = await create_key(self.policy, clients, rng=os.urandom, deadline=20)
            assert set(made.committed) == set(self.ids)
            return bytes(made.key)
        finally:
            for one in clients:
                one.close()

    async def gathered(self, numbers: Sequence[int]) -> bytes:
        """Return the key out of these vaults' shares, as any approved boot gets it."""
        answers = []
        for i in numbers:
            asked = client(self.ports[i], self.ids[i - 1], "release", 1, (self.policy.key,))
            said = await asked.release(self.policy.key, os.urandom(32))
            answers.append(
                Answer(vault=self.ids[i - 1], manifest=said.manifest, share=unb64(said.share))
            )
            asked.close()
        combined = combine(answers, k=K, key=self.policy.key, vaults=self.ids)
        assert not combined.cheaters
        return bytes(combined.key)

    async def one_generation(self) -> None:
        """Check every vault's disk: all hold the same one commit, and nothing beside it."""
        await self.stop()
        with use(self.backend):
            left = [restart(self.path(i), self.policy.key).state for i in NUMBERS]
        assert len({state.committed for state in left}) == 1
        assert left[0].committed is not None
        assert all(not state.held for state in left)

    async def boot(self, fault: Fault | None = None) -> tuple[int | None, Life, Call | None]:
        """Run ``placet run`` on the machine; its child writes down what key it got."""
        command = f"cat <&$PLACET_KEY_FD >>{self.machine}/seen; echo >>{self.machine}/seen"
        arguments = [
            *("--key", self.policy.key, "--volume", str(self.machine / "volume")),
            *("--charter", str(self.given), "--", "/bin/sh", "-c", command),
        ]
        life = self.zygote.life(
            "workload", arguments=arguments, owner=owner_fingerprint(OWNER), version=1
        )
        power = fault is not None and fault.how == "power"
        disk = life.trace.disk = Disk(self.machine) if power else None
        life.trace.arm(fault)
        life.go()
        said = await life.said()
        await life.end()
        if disk is not None:
            disk.lose()
        return (said["code"] if said else None), life, life.trace.hit

    def seen(self) -> set[bytes]:
        """Return the keys that children wrote down, whole ones."""
        path = self.machine / "seen"
        raw = path.read_bytes() if path.exists() else b""
        return {raw[i : i + 32] for i in range(0, len(raw) - 32, 33)}


def _make(folder: Path) -> None:
    folder.mkdir()
