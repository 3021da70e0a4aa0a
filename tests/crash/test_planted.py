"""The matrix finds what it is for: bugs that nobody sees as long as nobody dies.

Each is planted in a process that is stopped as in the other tests, and these tests' own checks
have to go red, by the words of the check that is meant.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from placet_testing.clients import memory_folder
from placet_testing.crash_bench import PROGRAM, SQLITE, on_postgresql
from placet_testing.crash_calls import AFTERWARDS, Fault
from placet_testing.crash_home import Home
from placet_testing.crash_matrix import dry_run, point
from placet_testing.crash_starts import first_start

from placet.errors import VerificationError

pytestmark = pytest.mark.req("R7.2", "R7.3")


def with_bug(variant, bug):
    """Return a variant whose vaults have that bug."""
    return replace(variant, settings={**variant.settings, "plant": bug})


@pytest.fixture
async def caught(rehearsed, bench_of):
    """Return what has a fault strike an operation of a vault with a bug; its check is to fail."""

    async def catch(name, bug, fault_of, words, variant=SQLITE):
        _, dry = await rehearsed(name, variant)
        bench = bench_of(with_bug(variant, bug))
        bench.begin(dry.operation.step)
        fault = fault_of((await bench.ask(dry.operation)).calls)
        with pytest.raises((AssertionError, VerificationError), match=words):
            await point(bench, dry, fault)

    return catch


@pytest.mark.parametrize("on", ["sqlite", "postgresql"])
async def test_answer_that_leaves_before_its_commit(caught, request, on):
    """Half of a share is out, and no log knows of it."""
    variant = SQLITE
    if on == "postgresql":
        variant = on_postgresql(SQLITE, request.getfixturevalue("server").uri)

    def at_send(calls):
        return Fault(0, "torn", what=next(str(call) for call in calls if call.kind == "send"))

    await caught("release", "hasty", at_send, "told, and not there", variant)


async def test_statements_that_are_no_transaction(caught, server):
    """The state is there, and the record that it counts on is not."""

    def at_record(_):
        return Fault(1, what="sendto database: UPDATE records")

    there = on_postgresql(SQLITE, server.uri)
    await caught("release", "in_pieces", at_record, "under its root", there)


@pytest.mark.parametrize("name", ["birth", "commit"])
async def test_effect_before_its_log_entry(caught, name):
    """A charter or a share in one transaction, and the entry that tells of it in the next."""

    def at_second_sync(calls):
        return Fault([at for at, call in enumerate(calls) if call.kind == "fsync"][1], "power")

    await caught(name, "two_steps", at_second_sync, "the log tells of")


async def test_store_that_synchronises_nothing(bench_of, story):
    """Killed anywhere it is whole; the power takes what was answered."""
    bench = bench_of(with_bug(SQLITE, "forgetful"))
    with pytest.raises(AssertionError, match="told, and nothing of it is there"):
        await dry_run(bench, story.operations["release"])


async def test_data_folder_without_a_durable_name(bench_of):
    """The vault said who it is, and is nowhere."""
    with pytest.raises(AssertionError, match="told, lost"):
        await first_start(bench_of(with_bug(PROGRAM, "nameless")), AFTERWARDS)


@pytest.mark.parametrize("bug", ["nameless", "hollow"])
async def test_owners_file_without_name_or_bytes(zygote, bug):
    """Written, renamed, said to be there: and gone, or empty."""
    with memory_folder() as folder, pytest.raises(AssertionError, match="'owner', 'show'"):
        await Home(zygote, folder).check_init_stays(bug)
