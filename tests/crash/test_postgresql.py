"""The same vault with its store in PostgreSQL: killed at what it sends there and is answered.

A transaction is there or not; between ``COMMIT`` and its answer both are right, as with an
fsync. The vault that is started again does not wait for its forerunner's connection to be noticed.
"""

from __future__ import annotations

import errno
import itertools

import pytest
from placet_testing.crash_bench import PROGRAM, SQLITE, on_postgresql
from placet_testing.crash_calls import PARTS, Call, Fault
from placet_testing.crash_faults import Trigger, refused, refused_by_server
from placet_testing.crash_matrix import point
from placet_testing.crash_rows import FAILING, OPERATIONS, POSTGRESQL
from placet_testing.crash_starts import clean_stop, end, first_start, restart, start

COMMIT, COMMITTED = "sendto database: COMMIT", "recvfrom database: COMMIT"
BEGIN, ANSWER = "sendto database: BEGIN", "sendto socket"
WHOLE = {"release", "hold", "commit"}
"""Where every run kills at every call from the first that writes: what gives shares away."""
SENDS = frozenset({"db-send"})


@pytest.fixture
def rehearsed_there(rehearsed, server):
    """Return what gives a victim and an operation, as in `rehearsed`, on a server."""

    async def rehearse(name):
        return await rehearsed(name, on_postgresql(SQLITE, server.uri))

    return rehearse


def points(calls):
    """Return each call as what it is and how many such came before it: more or fewer may come.

    The parts in which a pipeline's answers arrive are the network's to choose.
    """
    told = [str(call) for call in calls]
    return [(what, told[:at].count(what)) for at, what in enumerate(told)]


@pytest.mark.req("R7.2", "I11", "I14", "I16")
@pytest.mark.parametrize("name", OPERATIONS)
async def test_killed_at_every_call(rehearsed_there, table, whole, name):
    """Nothing leaves before a COMMIT is answered; a restart finds all of it, or nothing."""
    bench, dry = await rehearsed_there(name)
    told = [str(call) for call in dry.calls]
    assert told.index(COMMIT) < told.index(COMMITTED) < told.index(ANSWER)
    every = points(dry.calls)
    if not whole:
        writing = every[told.index(BEGIN) :]
        every = [every[0], *writing] if name in WHOLE else [*every[-3:]]
    struck, done = set(), None if whole else set()
    for what, before in every:
        try:
            outcome = await point(bench, dry, Fault(before, what=what), done)
        except LookupError:
            assert before, f"{name}: there is no {what}"
            continue
        struck.add(what)
        table.count(name, POSTGRESQL, "kill", outcome.hit, outcome.stood)
    assert struck == {what for what, _ in every}


@pytest.mark.req("R7.2", "I11", "I16")
@pytest.mark.parametrize("name", OPERATIONS)
async def test_part_of_a_message(rehearsed_there, table, whole, name):
    """Part of a COMMIT is none; part of an answer has its entry."""
    bench, dry = await rehearsed_there(name)
    told = [(what, at) for what, at in points(dry.calls) if what.startswith("sendto")]
    ways = list(itertools.product(told, PARTS))
    if not whole:
        ways = [((COMMIT, 0), "last"), ((ANSWER, 0), "half")][: 2 if name in WHOLE else 1]
    for (what, before), part in ways:
        try:
            outcome = await point(bench, dry, Fault(before, "torn", what=what, part=part))
        except LookupError:
            assert before, f"{name}: there is no {what}"
            continue
        assert outcome.stood == ("after" if what == ANSWER else "before")
        table.count(name, POSTGRESQL, "torn", outcome.hit, outcome.stood)


@pytest.mark.req("R7.2", "I11", "I16")
@pytest.mark.parametrize("name", sorted(WHOLE))
async def test_commit_that_nobody_waits_for(rehearsed_there, table, name):
    """It is at the server, whole, and who sent it is dead: both are right, and nothing between."""
    bench, dry = await rehearsed_there(name)
    outcome = await point(bench, dry, Fault(0, "torn", what=COMMIT, part="all"))
    table.count(name, POSTGRESQL, "torn", outcome.hit, outcome.stood)


@pytest.mark.req("R7.2", "I16")
async def test_first_start(bench_of, server, table, spread):
    """The tables are made, then the identity; each is there or not."""
    bench = bench_of(on_postgresql(PROGRAM, server.uri))
    bench.begin()
    whole = await start(bench)
    for what, before in spread(points(whole.calls), 6):
        started, boots = await first_start(bench, Fault(before, what=what))
        if started.hit:
            stood = "after" if boots == 2 else "before"
            table.count("first start", POSTGRESQL, "kill", started.hit, stood)


@pytest.mark.req("R7.2", "I11", "I16")
async def test_restart(rehearsed_there, table, spread):
    """A start is counted or not; what was there is there, and is released."""
    bench, dry = await rehearsed_there("release")
    bench.begin(dry.operation.step)
    whole = await start(bench)
    for what, before in spread(points(whole.calls), 5):
        started, after = await restart(bench, dry, Fault(before, what=what))
        if started.hit:
            table.count("restart", POSTGRESQL, "kill", started.hit, "after" if after else "before")


@pytest.mark.req("R7.2", "I11", "I16")
async def test_clean_stop(rehearsed, server, table, spread):
    """Told to end with a birth under way: it is finished and answered before the connection is."""
    bench, dry = await rehearsed("birth", on_postgresql(PROGRAM, server.uri))
    bench.begin(dry.operation.step)
    whole = await end(bench, dry.operation, Fault(10**9, kinds=SENDS))
    assert (whole.code, whole.outcome.answer.status) == (0, 200)
    for at in spread(range(len(whole.outcome.calls)), 3):
        ended, after = await clean_stop(bench, dry, Fault(at, kinds=SENDS))
        if ended.outcome.hit:
            stood = "after" if after else "before"
            table.count("clean stop", POSTGRESQL, "kill", ended.outcome.hit, stood)


@pytest.mark.req("R7.3", "I11", "I16")
@pytest.mark.parametrize("name", FAILING)
async def test_connection_that_is_cut(rehearsed_there, table, name):
    """Before a transaction, before its COMMIT, or with its answer; or none can be made again."""
    bench, dry = await rehearsed_there(name)
    for fault, call in (
        (Fault(0, "cut", what=BEGIN), BEGIN),
        (Fault(0, "cut", what=COMMIT), COMMIT),
        (Fault(0, errno.ECONNRESET, what=COMMITTED), COMMITTED),
        (Fault(0, "cut", lasting=True, kinds=SENDS), str(dry.calls[0])),
    ):
        stood = await refused(bench, dry, fault)
        struck = next(one for one in dry.calls if str(one) == call)
        table.count(name, POSTGRESQL, fault.how, struck, stood)


ERRORS = {
    "disk full": Trigger("53100", "entries", at_commit=False),
    "read-only": Trigger("25006", "records", at_commit=False),
    "out of memory": Trigger("53200", "tree", at_commit=False),
    "disk full at the COMMIT": Trigger("53100", "records", at_commit=True),
}


@pytest.mark.req("R7.3", "I11", "I16")
@pytest.mark.parametrize("name", FAILING)
async def test_server_that_cannot_write(rehearsed_there, table, spread, name):
    """Refused with a problem that is safe to retry; once the server is well, the vault goes on."""
    bench, dry = await rehearsed_there(name)
    for what in spread(ERRORS, 4 if name in WHOLE else 2):
        stood = await refused_by_server(bench, dry, ERRORS[what])
        call = Call("recvfrom", "db-recv", f"database: {what}")
        table.count(name, POSTGRESQL, "error", call, stood)
