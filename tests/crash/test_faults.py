"""Disks that fail without ending the process: full, read-only, failing; short and torn writes.

R7.3: the operation is refused with a typed problem, nothing left and nothing lost; once the
disk is well and the vault was started again, the client's retry completes.
"""

from __future__ import annotations

import errno
import random
import shutil

import pytest
from placet_testing.crash_calls import TEARABLE, Fault
from placet_testing.crash_checks import meaning
from placet_testing.crash_matrix import (
    FOLDING,
    SQLITE,
    check_answer,
    completed,
    point,
)

WRITES = frozenset({"write", "file"})
SYNCS = frozenset({"fsync"})

# An errno, whether it lasts, and the calls that it can befall.
FAULTS = {
    "disk full": (errno.ENOSPC, True, WRITES),
    "read-only": (errno.EROFS, True, WRITES),
    "write fails once": (errno.EIO, False, WRITES),
    "fsync fails once": (errno.EIO, False, SYNCS),
    "fsync fails from then on": (errno.EIO, True, SYNCS),
    "quota used up": (errno.EDQUOT, False, WRITES),
}
OPERATIONS = ["birth", "hold", "commit", "release", "stage", "retire"]


@pytest.mark.req("R7.3", "I11", "I16")
@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_failing_disk_is_a_refusal(rehearsed, table, spread, name, what):
    """Refused in so many words; the living vault gives nothing away; afterwards all is well."""
    how, lasting, kinds = FAULTS[what]
    for variant, most in ((SQLITE, 3), (FOLDING, 2)):
        bench, dry = await rehearsed(name, variant)
        befallen = [call for call in dry.calls if call.kind in kinds]
        assert befallen
        for at in spread(range(len(befallen)), most):
            fault = Fault(at, how, lasting, kinds)
            stood = await refused(bench, dry, fault)
            table.count(name, variant.name, how, befallen[at], stood)


async def refused(bench, dry, fault):
    """Have a fault befall a living vault, ask it twice more, start it again; return what stood."""
    operation, where = dry.operation, f"{dry.operation.name}, {fault}"
    refusal, wanted = (503, "unavailable", None), meaning(dry.answer.status, dry.answer.body)
    bench.begin(operation.step)
    async with bench.alive() as (life, port, vault):
        first = await bench.strike(life, port, vault, operation, fault)
        assert first.hit is not None, where
        if fault.lasting:
            again = Fault(0, fault.how, lasting=True, kinds=fault.kinds)
            second = await bench.strike(life, port, vault, operation, again)
            assert meaning_of(second) == refusal, where
        # The disk is well again, behind our back.
        third = await bench.strike(life, port, vault, operation, None)
    answered = [one for one in (first, third) if meaning_of(one) == wanted]
    refusals = [one for one in (first, third) if meaning_of(one) != wanted]
    assert [meaning_of(one) for one in refusals] == [refusal] * len(refusals), where
    left = bench.restarted()
    told = len(left.state.log) - len(dry.before.state.log)
    step = len(dry.after.state.log) - len(dry.before.state.log)
    if operation.again == "logged" and answered:
        # An entry for each answer; one more if what was refused at its fsync is there.
        assert len(answered) * step <= told <= (len(answered) + 1) * step, where
    else:
        assert left.state in {dry.before.state, dry.after.state}, where
        if not answered:
            check_answer(first.answer, left, dry, where)
        await completed(bench, dry, left, first, where)
    if left.state in {dry.before.state, dry.after.state}:
        return "after" if left.state == dry.after.state else "before"
    return "logged"


def meaning_of(outcome):
    """Return what an answer means; a vault that lives says something."""
    assert outcome.answer is not None, outcome
    return meaning(outcome.answer.status, outcome.answer.body)


@pytest.mark.req("R7.3")
@pytest.mark.parametrize("name", ["commit", "release"])
async def test_short_writes_are_gone_on_with(rehearsed, table, spread, name):
    """The kernel may take less than it was given: the rest follows, and all is as it was."""
    bench, dry = await rehearsed(name, SQLITE)
    for at in spread([i for i, c in enumerate(dry.calls) if c.name in TEARABLE - {"sendto"}], 4):
        outcome = await point(bench, dry, Fault(at, "short"))
        assert meaning_of(outcome) == meaning(dry.answer.status, dry.answer.body)
        table.count(name, bench.variant.name, "short", outcome.hit, outcome.stood)


@pytest.mark.req("R7.3", "I16")
@pytest.mark.parametrize("name", ["birth", "commit", "release", "retire"])
async def test_a_log_torn_within_its_last_transaction(rehearsed, spread, name):
    """Cut anywhere, with noise behind the cut or none: before; only the whole of it is after."""
    bench, dry = await rehearsed(name, SQLITE)
    bench.begin(dry.operation.step)
    started = bench.folder.parent / "started"
    async with bench.alive() as (life, port, vault):
        shutil.rmtree(started, ignore_errors=True)
        shutil.copytree(bench.folder, started)
        outcome = await bench.strike(life, port, vault, dry.operation, None)
        assert outcome.answer is not None
        whole = (bench.folder / "served1.db-wal").read_bytes()
    old = len((started / "served1.db-wal").read_bytes().rstrip(b"\0"))
    dice, seen = random.Random(5), set()
    offsets = sorted({*range(old, len(whole), 512), len(whole) - 1, len(whole)})
    for cut in spread(offsets, 24):
        shutil.rmtree(bench.folder)
        shutil.copytree(started, bench.folder)
        noise = dice.randbytes(700) if cut % 3 == 0 and cut < len(whole) else b""
        (bench.folder / "served1.db-wal").write_bytes(whole[:cut] + noise)
        left = bench.restarted()
        assert left.state in {dry.before.state, dry.after.state}, cut
        assert (left.state == dry.after.state) == (cut == len(whole)), cut
        seen.add(left.state)
    assert len(seen) == 2
