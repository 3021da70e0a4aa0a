"""A vault that is stopped at some call: where its store lies, and the lives that it has there."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from placet.errors import UnavailableError
from placet.ratls.http import Answer
from placet_testing import crash_rows, crash_story
from placet_testing.backends import Backend, Postgresql, Sqlite, use
from placet_testing.crash_calls import Call, Fault
from placet_testing.crash_checks import Restarted, restart
from placet_testing.crash_moves import lay
from placet_testing.crash_power import Disk
from placet_testing.crash_report import Stood
from placet_testing.crash_story import Operation, Story
from placet_testing.crash_zygote import Life, Zygote
from placet_testing.ports import free_port


@dataclass(frozen=True, slots=True)
class Variant:
    """A store that the vaults run on."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    job: str = "vault"
    file: str = "served1.db"
    within: str = ""
    """Where in the victim's folder its data lies; a folder that the vault has to make."""
    backend: Backend = field(default_factory=Sqlite)


def on_postgresql(variant: Variant, uri: str) -> Variant:
    """Return the same vault with its store on the server there."""
    return replace(variant, name=crash_rows.POSTGRESQL, backend=Postgresql(uri))


SQLITE = Variant(crash_rows.SQLITE)
PROGRAM = Variant(crash_rows.SQLITE, job="program", file="vault.db", within="data")
"""``placet vault serve`` itself, which stands alone: for what needs no witness."""
FOLDING = Variant(crash_rows.FOLDING, {"checkpoint_rows": 0})
STORE_1 = Path(__file__).resolve().parents[3] / "vectors" / "releases" / "store-1"
WAS = json.loads((STORE_1 / "contents.json").read_text())
"""What must be found in it."""
EARLIER = replace(PROGRAM, settings={"sealing_key": WAS["sealing_key"]})
"""The same on the machine whose store an earlier release left."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request."""

    answer: Answer | None
    """None: the connection ended first."""
    calls: tuple[Call, ...]
    hit: Call | None
    sent: bool
    """A byte of the answer left, or may have."""
    died: bool
    stood: Stood = "before"
    """What the next start found of it."""


class Bench:
    """One victim's folder, and the lives it has had there.

    Args:
        zygote: Forks them.
        story: Where its files come from.
        folder: Empty; its own.
        variant: The store.
    """

    def __init__(self, zygote: Zygote, story: Story, folder: Path, variant: Variant) -> None:
        self.zygote, self.story, self.root, self.variant = zygote, story, folder, variant
        self.folder = folder / variant.within
        self.path = self.folder / variant.file

    def begin(self, step: str = "") -> None:
        """Put the files of a step in place of all that was there, or nothing."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        if isinstance(self.variant.backend, Postgresql):
            if step:
                lay(self.story, step, 1, self.variant.backend, self.path)
            else:
                self.variant.backend.remove(self.path)
        elif step:
            self.story.at(step, self.folder)
            for file in self.folder.glob("served1.db*"):
                file.rename(self.path.with_name(file.name.replace("served1.db", self.path.name)))

    def take(self, file: Path) -> None:
        """Put a store's file in place of all that was there."""
        self.begin()
        self.folder.mkdir(exist_ok=True)
        shutil.copy(file, self.path)

    def served(self) -> Bench:
        """Have the same files served by what needs no witness to go on."""
        variant = replace(self.variant, job=SQLITE.job, file=SQLITE.file)
        bench = Bench(self.zygote, self.story, self.root, variant)
        if isinstance(variant.backend, Postgresql):
            variant.backend.copy(self.path, bench.path)
            return bench
        for file in self.folder.glob(f"{self.path.name}*"):
            file.rename(file.with_name(file.name.replace(self.path.name, bench.path.name)))
        return bench

    def life(self) -> Life:
        """Fork a vault over these files; it has not begun."""
        settings = {"port": free_port(), **self.variant.settings}
        database = isinstance(self.variant.backend, Postgresql)
        if database:
            settings["store"] = self.variant.backend.place(self.path)
        return self.zygote.life(
            self.variant.job,
            folder=str(self.folder),
            number=1,
            settings=settings,
            receives=database,
        )

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[tuple[Life, int, str]]:
        """Start a vault, with its port and id; kill it at the end."""
        life = self.life()
        try:
            life.go()
            said = await life.said()
            if said is None:
                raise UnavailableError(f"the vault did not start: {life.log.read_text()}")
            yield life, said["port"], said["vault"]
        finally:
            await life.kill()

    async def ask(self, operation: Operation, fault: Fault | None = None) -> Outcome:
        """Start a vault, send one request, have the fault strike meanwhile; kill it then."""
        power = fault is not None and fault.how == "power"
        async with self.alive() as (life, port, vault):
            disk = life.trace.disk = Disk(self.root) if power else None
            outcome = await self.strike(life, port, vault, operation, fault)
        if disk is not None:
            disk.lose()
        return outcome

    async def strike(
        self,
        life: Life,
        port: int,
        vault: str,
        operation: Operation,
        fault: Fault | None,
        *,
        on: bool = False,
    ) -> Outcome:
        """Send one request to a living vault; only what comes after it was sent is counted.

        With ``on``, whatever it does after its answer is counted too.
        """
        client = crash_story.client(
            port, vault, operation.role, operation.version, (self.story.key,)
        )
        answer: Answer | None = None
        try:
            async with client._pool.acquire() as connection:
                life.trace.arm(fault)
                try:
                    answer = await connection.request(
                        operation.method, operation.path, operation.body
                    )
                except UnavailableError:
                    answer = None
        finally:
            client.close()
            if not on:
                life.trace.disarm()
        trace = life.trace
        return Outcome(
            answer, tuple(trace.calls), trace.hit, trace.sent or answer is not None,
            died=trace.hit is not None and answer is None,
        )  # fmt: skip

    def restarted(self) -> Restarted:
        """Check what the last life left, as a start finds it."""
        self.folder.mkdir(exist_ok=True)
        with use(self.variant.backend):
            try:
                return restart(self.path, self.story.key)
            except UnavailableError:
                if self.variant.backend.name != crash_rows.POSTGRESQL:
                    raise
                # The last life's COMMIT came true meanwhile: a start that saw it is started again.
                return restart(self.path, self.story.key)
