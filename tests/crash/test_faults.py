"""Disks that fail without ending the process: full, read-only, failing; short and torn writes.

R7.3: the operation is refused with a typed problem, nothing left and nothing lost; once the
disk is well and the vault was started again, the client's retry completes.
"""

from __future__ import annotations

import errno
import random
import shutil

import pytest
from placet_testing.crash_bench import FOLDING, SQLITE
from placet_testing.crash_calls import TEARABLE, Fault
from placet_testing.crash_checks import meaning
from placet_testing.crash_faults import meaning_of, refused
from placet_testing.crash_matrix import point
from placet_testing.crash_rows import FAILING, SHORT

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


@pytest.mark.req("R7.3", "I11", "I16")
@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize("name", FAILING)
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


@pytest.mark.req("R7.3")
@pytest.mark.parametrize("name", SHORT)
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
