"""An owner whose commands are stopped at any call, and vaults that they speak to."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from placet.client.vaults_file import VaultsFile, write_vaults
from placet.core.profile import VaultMember
from placet_testing.crash_calls import AFTERWARDS, Call, Fault
from placet_testing.crash_power import Disk
from placet_testing.crash_story import K, N, vault_profile
from placet_testing.crash_zygote import Zygote
from placet_testing.tee import Tee, dev_pki, workload_config


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of one command."""

    code: int | None
    """None: it was killed."""
    out: str
    err: str
    calls: tuple[Call, ...]
    hit: Call | None


@dataclass
class Home:
    """An owner's machine.

    Args:
        zygote: Forks commands and vaults.
        folder: Empty; its own.
    """

    zygote: Zygote
    folder: Path
    ports: dict[int, int] = field(default_factory=dict)
    """Of its vaults, which come back where they were."""

    @property
    def path(self) -> Path:
        """Return ``$PLACET_HOME``."""
        return self.folder / "home"

    async def run(self, *arguments: str, fault: Fault | None = None, plant: str = "") -> Ran:
        """Run a command; have a fault strike it, and the power go with it if it says so.

        With ``plant``, a bug of `crash_plants` is in it.
        """
        out = self.folder / "said"
        life = self.zygote.life(
            "command", arguments=list(arguments), out=str(out), plant=plant,
            environment={"PLACET_HOME": str(self.path), "COLUMNS": "160"},
        )  # fmt: skip
        self.path.mkdir(exist_ok=True)
        power = fault is not None and fault.how == "power"
        disk = life.trace.disk = Disk(self.path) if power else None
        life.trace.arm(fault)
        life.go()
        said = await life.said()
        await life.end()
        if disk is not None:
            disk.lose()
        code = said["code"] if said else None
        return Ran(
            code, out.read_text(), life.log.read_text(), tuple(life.trace.calls), life.trace.hit
        )

    async def must(self, *arguments: str, code: int = 0) -> Ran:
        """Run a command undisturbed; it has to end with this code."""
        ran = await self.run(*arguments)
        assert ran.code == code, (arguments, ran.code, ran.out, ran.err)
        return ran

    async def check_init_stays(self, plant: str = "") -> None:
        """Make an owner, and lose the power when that is said: the owner is there."""
        shutil.rmtree(self.path, ignore_errors=True)
        ran = await self.run("owner", "init", fault=AFTERWARDS, plant=plant)
        assert (ran.code, ran.hit) == (0, None)
        await self.must("owner", "show")

    async def json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return its document."""
        return json.loads((await self.must(*arguments, "--json")).out)

    def keep(self, name: str) -> None:
        """Remember the files as they are."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.copytree(self.path, self.folder / name)

    def back(self, name: str) -> None:
        """Put files back as they were."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self.folder / name, self.path)

    async def write_profile(self, version: int) -> Path:
        """Write the profile of a version of the owner's app."""
        owner = (await self.json("owner", "show"))["fingerprint"]
        path = self.folder / f"profile-{version}.json"
        profile = Tee(workload_config(owner), version=version).profile()
        path.write_bytes(msgspec.json.encode(profile))
        return path

    @asynccontextmanager
    async def vaults(self, store: Path, step: str = "") -> AsyncIterator[Path]:
        """Serve three vaults out of a folder; write the file that names them.

        Args:
            store: Their folder.
            step: What of this owner's folder is put there first.
        """
        _lay_out(self.folder / step if step else None, store)
        async with AsyncExitStack() as stack:
            members = []
            for number in range(1, N + 1):
                settings = {"port": self.ports.get(number, 0)}
                life = self.zygote.life(
                    "vault", folder=str(store), number=number, settings=settings
                )
                stack.push_async_callback(life.kill)
                life.go()
                said = await life.said()
                assert said is not None, life.log.read_text()
                self.ports[number] = said["port"]
                endpoint = f"127.0.0.1:{said['port']}"
                members.append(VaultMember(id=said["vault"], endpoint=endpoint, domain=None))
            file = VaultsFile(
                k=K, vaults=tuple(members), profiles=(vault_profile(),),
                trust_roots=(dev_pki().trust_root(),),
            )  # fmt: skip
            write_vaults(self.folder / "vaults.json", file)
            yield self.folder / "vaults.json"


def _lay_out(source: Path | None, store: Path) -> None:
    if source is not None:
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(source, store)
    store.mkdir(exist_ok=True)
