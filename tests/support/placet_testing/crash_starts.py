"""A vault that is stopped anywhere while it starts, or while it ends as it was told to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from placet_testing.crash_bench import Bench, Outcome
from placet_testing.crash_calls import Call, Fault, Kind
from placet_testing.crash_matrix import Dry, completed
from placet_testing.crash_power import Disk
from placet_testing.crash_story import Operation

FILES: frozenset[Kind] = frozenset({"write", "file", "fsync", "rename"})


@dataclass(frozen=True, slots=True)
class Started:
    """What became of one start."""

    said: dict[str, Any] | None
    """Port, vault id and number of the start; None: it died before it was ready."""
    calls: tuple[Call, ...]
    """Those until it was ready."""
    hit: Call | None


async def start(bench: Bench, fault: Fault | None = None) -> Started:
    """Start a vault and have the fault strike meanwhile; kill it once it is ready."""
    life = bench.life()
    power = fault is not None and fault.how == "power"
    disk = life.trace.disk = Disk(bench.root) if power else None
    life.trace.arm(fault)
    life.go()
    said = await life.said()
    started = Started(said, tuple(life.trace.calls), life.trace.hit)
    await life.kill()
    if disk is not None:
        disk.lose()
    assert started.hit or (said and "vault" in said), life.log.read_text()
    return started


async def first_start(bench: Bench, fault: Fault) -> tuple[Started, int]:
    """Have a fault strike a first start: there is one identity or none, and it is who it said.

    Returns:
        What became of it; and how often it was started when its store was opened next.
    """
    bench.begin()
    started = await start(bench, fault)
    left = bench.restarted()
    if started.said is not None:
        assert (left.state.vault, left.boots) == (started.said["vault"], 2), f"{fault}: told, lost"
    assert left.boots in {1, 2}, (fault, started.hit)
    again = await start(bench)
    assert again.said is not None
    assert (again.said["vault"], again.said["boots"]) == (left.state.vault, left.boots + 1)
    return started, left.boots


async def restart(bench: Bench, dry: Dry, fault: Fault) -> tuple[Started, bool]:
    """Have a fault strike a later start: what was there is there, and an operation goes on.

    Returns:
        What became of it, and whether it was counted.
    """
    where = f"restart, {fault}"
    bench.begin(dry.operation.step)
    started = await start(bench, fault)
    left = bench.restarted()
    assert left.state == dry.before.state, (where, started.hit)
    assert left.boots in {dry.before.boots, dry.before.boots + 1}, (where, started.hit)
    after = left.boots == dry.before.boots + 1
    assert after or started.said is None, f"{where}: told, and not counted"
    nothing = Outcome(None, (), started.hit, sent=False, died=True)
    await completed(bench, dry, left, nothing, where)
    return started, after


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a vault that was told to end while it had a request."""

    outcome: Outcome
    code: int | None
    """None: it was killed."""


async def end(bench: Bench, operation: Operation, fault: Fault | None = None) -> Ended:
    """Send a request, and SIGTERM with its first write; have the fault strike from there on."""
    fault = fault or Fault(10**9, kinds=FILES)
    power = fault.how == "power"
    async with bench.alive() as (life, port, vault):
        disk = life.trace.disk = Disk(bench.root) if power else None
        life.trace.told_to_end = True
        outcome = await bench.strike(life, port, vault, operation, fault, on=True)
        said = await life.said()
        await life.end()
        trace = life.trace
    if disk is not None:
        disk.lose()
    outcome = replace(outcome, calls=tuple(trace.calls), hit=trace.hit)
    return Ended(outcome, said["code"] if said else None)


async def clean_stop(bench: Bench, dry: Dry, fault: Fault) -> tuple[Ended, bool]:
    """Have a fault strike a vault that was told to end: all of its last request, or nothing.

    Returns:
        What became of it, and whether the request stood.
    """
    bench.begin(dry.operation.step)
    ended = await end(bench, dry.operation, fault)
    where = f"clean stop, {fault}, {ended.outcome.hit}"
    left = bench.restarted()
    assert left.state in {dry.before.state, dry.after.state}, f"{where}: half of it is there"
    after = left.state == dry.after.state
    assert after or not ended.outcome.sent, f"{where}: told, and not there"
    await completed(bench.served(), dry, left, ended.outcome, where)
    return ended, after
