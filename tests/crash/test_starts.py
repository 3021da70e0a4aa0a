"""Kill a vault at every call of its first start and of a later one, of a migration and of its end.

It is started again, and is who it was; nothing is missing, and it serves.
"""

from __future__ import annotations

import pytest
from placet_testing.crash_bench import EARLIER, PROGRAM, SQLITE, STORE_1, WAS
from placet_testing.crash_calls import AFTERWARDS, Fault
from placet_testing.crash_checks import opened
from placet_testing.crash_starts import FILES, clean_stop, end, first_start, restart, start
from placet_testing.stores import check_contents

from placet.storage.sqlite import SqliteBackend


@pytest.fixture
def faults_of(of_each, spread, tears):
    """Return how to choose kills, the same with the power lost, and torn writes."""

    def chosen(calls, kinds=None):
        return [
            *(Fault(at, kinds=kinds) for at in of_each(calls)),
            *(Fault(at, "power", kinds=kinds) for at in spread(range(len(calls)), 4)),
            *tears(calls, 3, kinds, sends=False),
            AFTERWARDS,
        ]

    return chosen


def count(table, name, fault, hit, *, after):
    """Count a point, unless it was none: all was done and told before the power went."""
    if hit is not None:
        table.count(name, "sqlite", fault.how, hit, "after" if after else "before")


@pytest.mark.req("R7.2", "I16")
async def test_first_start(bench_of, table, faults_of):
    """One identity or none; one that was told stays. The data folder itself is new, too."""
    bench = bench_of(PROGRAM)
    bench.begin()
    whole = await start(bench)
    assert sum(call.kind == "fsync" for call in whole.calls) >= 2
    for fault in faults_of(whole.calls):
        started, boots = await first_start(bench, fault)
        count(table, "first start", fault, started.hit, after=boots == 2)


@pytest.mark.req("R7.2", "I11", "I16")
async def test_restart(rehearsed, table, faults_of):
    """Starts are counted, one that was ready surely; what was there is there, and is released."""
    bench, dry = await rehearsed("release", SQLITE)
    bench.begin(dry.operation.step)
    whole = await start(bench)
    assert sum(call.kind == "fsync" for call in whole.calls) >= 2
    for fault in faults_of(whole.calls):
        started, after = await restart(bench, dry, fault)
        count(table, "restart", fault, started.hit, after=after)


@pytest.mark.req("R7.2", "R7.3", "I16")
async def test_migration(bench_of, table, faults_of):
    """The first start of a newer release: schema 1 or 2, all that was there, and it goes on."""
    bench = bench_of(EARLIER)
    bench.take(STORE_1 / "vault.db")
    whole = await start(bench)
    assert whole.said["vault"] == WAS["vault"]
    seen = set()
    for fault in faults_of(whole.calls):
        bench.take(STORE_1 / "vault.db")
        started = await start(bench, fault)
        backend = SqliteBackend(bench.path)
        schema = backend.open()
        backend.close()
        seen.add(schema)
        assert schema == 2 or started.said is None, fault
        with opened(bench.path, bytes.fromhex(WAS["sealing_key"])) as (store, _, vault, boots):
            check_contents(store, WAS, started=True)
            assert vault == WAS["vault"]
            assert WAS["boots"] < boots <= WAS["boots"] + 2
        again = await start(bench)
        assert (again.said["vault"], again.said["boots"]) == (vault, boots + 1)
        count(table, "migration", fault, started.hit, after=schema == 2)
    assert seen == {1, 2}


@pytest.mark.req("R7.2", "I11", "I16")
async def test_clean_stop(rehearsed, table, faults_of):
    """Told to end with a birth under way: it is finished and answered; then the store is closed."""
    bench, dry = await rehearsed("birth", PROGRAM)
    bench.begin(dry.operation.step)
    whole = await end(bench, dry.operation)
    assert (whole.code, whole.outcome.answer.status) == (0, 200)
    assert not list(bench.folder.glob("vault.db-wal")), "the store was not closed"
    for fault in faults_of(whole.outcome.calls, FILES):
        ended, after = await clean_stop(bench, dry, fault)
        count(table, "clean stop", fault, ended.outcome.hit, after=after)
