"""Kill a vault at every call of every operation, tear its writes, take its power away.

Each point is one life of a real vault (its own process, TLS, attested peers, a sealed store on
a disk), one restart on what it left, and the client's retry with the same bytes.
"""

from __future__ import annotations

import pytest
from placet_testing.crash_bench import FOLDING, SQLITE
from placet_testing.crash_calls import Fault
from placet_testing.crash_matrix import point
from placet_testing.crash_rows import FOLDED, OPERATIONS

WHOLE = [(name, SQLITE) for name in ("hold", "release", "deny", "commit")]
"""Where every run kills at every call, and not only the night's: what gives shares away (R7.2)."""


async def strike_all(bench, dry, faults, table):
    """Have each fault strike the operation, from its own beginning."""
    for fault in faults:
        outcome = await point(bench, dry, fault)
        table.count(dry.operation.name, bench.variant.name, fault.how, outcome.hit, outcome.stood)


ON_FILES = pytest.mark.parametrize(
    ("name", "variant"),
    [(name, SQLITE) for name in OPERATIONS] + [(name, FOLDING) for name in FOLDED],
    ids=lambda p: getattr(p, "name", p),
)


@pytest.mark.req("R7.2", "I11", "I14", "I16")
@ON_FILES
async def test_killed_at_every_call(rehearsed, table, of_each, name, variant):
    """Before or after and never between; nothing left that is not in the log; a retry completes."""
    bench, dry = await rehearsed(name, variant)
    assert any(call.kind == "fsync" for call in dry.calls), "nothing is durable before the answer"
    every = range(len(dry.calls))
    points = every if (name, variant) in WHOLE else of_each(dry.calls)
    await strike_all(bench, dry, [Fault(at) for at in points], table)
    assert table.of(name, variant.name, "kill") == len(points)
    assert {str(dry.calls[at]) for at in points} == {str(call) for call in dry.calls}


@pytest.fixture
def lost_and_torn(spread, tears):
    """Return how to choose power cuts, the last sync and the answer with them; and torn calls."""

    def chosen(calls):
        last = len(calls) - 1
        cuts = sorted({*spread(range(len(calls)), 3), last - 1, last})
        return [*(Fault(at, "power") for at in cuts), *tears(calls, 3)]

    return chosen


@pytest.mark.req("R7.2", "I11", "I14", "I16")
@ON_FILES
async def test_power_lost_and_writes_torn(rehearsed, table, lost_and_torn, name, variant):
    """What was not synchronised is lost with the process; or part of a write or answer is out."""
    bench, dry = await rehearsed(name, variant)
    await strike_all(bench, dry, lost_and_torn(dry.calls), table)
