"""Vaults as processes on PostgreSQL: killed, put back from a dump, started twice, without it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from placet_testing import backends, postgresql
from placet_testing.app import OWNER, World, v
from placet_testing.charters import birth_body, composer, signed
from placet_testing.crash_checks import check_receipt
from placet_testing.programs import Program
from placet_testing.tee import Tee, vault_config

from placet.agent.receipts import RECEIPTS
from placet.client.clock import HostClock
from placet.core.dsse import Signed, vault_id
from placet.core.encoding import decode, unb64
from placet.core.profile import VaultSet, code_id
from placet.errors import NotApprovedError, PlacetError
from placet.policy.charter import replay
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet_dev.constellation import LocalConstellation

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["postgresql"], indirect=True),
]

N, K = 3, 2
UNAVAILABLE = 4
"""The exit code."""
PATIENCE = 60


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - other processes, which no event tells
            await asyncio.sleep(0.05)


class Processes(World):
    """A world whose vaults are processes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.programs = [
            Program(folder, f"vault{n}", backends.place(self.path(n))) for n in range(1, N + 1)
        ]

    def path(self, number: int) -> Path:
        """Return the path that stands for a vault's schema."""
        return self.folder / f"served{number}.db"

    async def all_ready(self) -> None:
        """Wait until all vouch for one another."""
        await until(lambda: not any(p.reasons() for p in self.programs))

    def entries(self, number: int) -> tuple[str, tuple[Any, ...]]:
        """Return the vault's id, and its log, which verifies; nobody may have it open."""
        program = self.programs[number - 1]
        seal = Seal(Tee(vault_config()).sealing_key(), program.id, os.urandom)
        with contextlib.closing(backends.open_store(self.path(number), seal)) as store:
            log = Log(store, boot="reader", rng=os.urandom)
            log.verify()
            return program.id, tuple(one.entry for one in log.entries(0, log.head()[0]))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Processes]:
    """Three vaults (k = 2) on PostgreSQL and a key that was born and not created yet."""
    made = Processes(tmp_path)
    try:
        for program in made.programs:
            program.begin()
        for program in made.programs:
            program.ready()
        vaults = VaultSet(
            k=K,
            vaults=tuple(p.member for p in made.programs),
            profiles=(Tee(vault_config()).profile(),),
        )
        body = birth_body(OWNER, profiles=(v(1).profile(),), vaults=vaults)
        made.statements.append(signed(composer(HostClock().now()).birth(body)))
        assert len((await made.submit(made.statements[0])).confirmed) == N
        await made.all_ready()
        yield made
    finally:
        for program in made.programs:
            program.process.kill()
            program.process.wait(60)


def receipts(folder: Path) -> list[Signed]:
    """Return every receipt that the app kept."""
    return [decode(line, Signed) for line in (folder / RECEIPTS).read_bytes().splitlines()]


@pytest.mark.req("R2.1", "I6", "I16")
async def test_killed_put_back_and_started_twice(world: Processes, server: Any) -> None:
    """What was durable goes on; an older dump serves nothing; of two processes one goes on."""
    one, two, three = world.programs
    first = await world.unlock(v(1))
    dump = server.folder / "dump.sql"
    schema = re.search(r"search_path%3D(\w+)", one.store)
    assert schema is not None
    # While the vault runs, as whoever looks after a database does.
    server.run("pg_dump", "--file", str(dump), "--schema", schema[1], "--dbname", server.uri)

    # A power failure of all, in the middle of a boot.
    under_way = asyncio.create_task(world.unlock(v(1)))
    await asyncio.sleep(0)
    for program in world.programs:
        program.end(signal.SIGKILL)
    with contextlib.suppress(PlacetError):
        await under_way
    for program in world.programs:
        program.begin()
    for program in world.programs:
        program.ready()
    await world.all_ready()
    assert (await world.unlock(v(1))).secret == first.secret

    # A second process on a database: the first is out: it takes nothing more, and says so.
    again = Program(world.folder, "again", three.store)
    again.begin()
    try:
        again.ready()
        assert again.id == three.id
        await until(lambda: not again.reasons())
        report = await world.promote(v(2))
        assert (report.effective, set(report.missing)) == (True, {three.id})
        assert "store" in three.reasons()
        assert three.end() == UNAVAILABLE
        assert "somebody else wrote this store" in three.log.read_text()
        assert again.end() == 0
    finally:
        again.process.kill()
        again.process.wait(60)
    three.begin()
    three.ready()
    await world.all_ready()

    # The owner retires version 1; then one vault's database is put back to before that.
    policy = replay(world.statements)
    retire = composer(HostClock().now()).retire(policy, code_id(v(1).profile()), "bad")
    assert len((await world.submit(signed(retire))).confirmed) == N
    assert one.end() == 0
    backends.remove(world.path(1))
    server.run("psql", "--quiet", "--file", str(dump), "--dbname", server.uri)
    one.begin()
    one.ready()
    await until(lambda: "quarantined" in one.reasons())
    with pytest.raises(NotApprovedError):
        await world.unlock(v(1))
    assert (await world.unlock(v(2))).secret == first.secret
    one.end()
    for program in (two, three):
        assert program.end() == 0
    logs = dict(world.entries(number) for number in (2, 3))
    for receipt in receipts(world.folder / "volume"):
        vault = vault_id(unb64(receipt.vault_key))
        if vault in logs:
            check_receipt(receipt, logs[vault], vault)


@pytest.mark.req("R7.3", "I11")
async def test_server_that_ends_in_the_midst(world: Processes, server: Any) -> None:
    """Refused while it is away; nothing that was answered is lost; then all goes on by itself."""
    first = await world.unlock(v(1))
    done, refused, over = 0, list[str](), False

    async def boots() -> None:
        nonlocal done
        while not over:
            try:
                assert (await world.unlock(v(1))).secret == first.secret
                done += 1
            except PlacetError as e:
                refused.append(e.type)

    busy = [asyncio.create_task(boots()) for _ in range(2)]
    try:
        await until(lambda: done > 1)
        server.stop()
        try:
            await until(lambda: len(refused) > 3)
            assert all("store" in p.reasons() for p in world.programs)
        finally:
            server.start()
        before = done
        await until(lambda: done > before + 1)
    finally:
        over = True
        await asyncio.gather(*busy)
    assert set(refused) <= {"unavailable", "quorum-unavailable"}
    await world.all_ready()
    for program in world.programs:
        assert program.end() == 0
    logs = dict(world.entries(number) for number in (1, 2, 3))
    kept = receipts(world.folder / "volume")
    seen = {
        (vault := vault_id(unb64(r.vault_key)), check_receipt(r, logs[vault], vault)) for r in kept
    }
    assert len(seen) == len(kept) >= K * done


def test_vault_of_the_local_constellation(tmp_path: Path, server: Any) -> None:
    """`placet dev up --store`: the driver is in what is measured, each vault has its database."""
    uri = postgresql.fresh(server.uri)
    name = uri.split("/")[3].partition("?")[0]
    with contextlib.closing(psycopg.connect(server.uri, autocommit=True)) as db:
        db.execute(f"CREATE DATABASE {name}_1")
    store = uri.replace(f"/{name}?", f"/{name}_{{vault}}?")
    with LocalConstellation.create(tmp_path, n=1, k=1, store=store) as one:
        first = one.vaults[0].id
        assert not (one.vaults[0].folder / "data" / "vault.db").exists()
        one.kill(1)
        one.restart(1)
        assert (one.vaults[0].id, one.ended()) == (first, ())
        assert LocalConstellation.find(tmp_path).store == store
