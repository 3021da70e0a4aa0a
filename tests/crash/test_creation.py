"""A data key is made once, whoever dies while it is made: a vault, or the workload (I16, R4.8)."""

from __future__ import annotations

import itertools

import pytest
from placet_testing.backends import Postgresql
from placet_testing.clients import memory_folder
from placet_testing.crash_calls import Fault
from placet_testing.crash_creation import NUMBERS, Scene

from placet.errors import PlacetError


@pytest.fixture
def scene(zygote, story):
    """Lend three vaults at which a key was born."""
    with memory_folder() as folder:
        yield Scene(zygote, story, folder)


@pytest.fixture
def scene_there(zygote, story, server):
    """Lend them with their stores in PostgreSQL."""
    with memory_folder() as folder:
        yield Scene(zygote, story, folder, Postgresql(server.uri))


async def try_create(scene, fault):
    """Have a fault strike the first vault while a workload creates; return its key, if it has one.

    The vault is started again on what it left.
    """
    trace = scene.lives[1].trace
    trace.arm(fault)
    try:
        made = await scene.create()
    except PlacetError:
        made = None
    hit = trace.hit
    trace.disarm()
    await scene.lives[1].kill()
    await scene.start(1)
    return made, hit, list(trace.calls)


async def check_created(scene, made):
    """Check that a workload completes it, and that any two vaults give that one key."""
    key = await scene.create()
    assert made in {None, key}
    for pair in itertools.combinations(NUMBERS, 2):
        assert await scene.gathered(pair) == key
    await scene.one_generation()


@pytest.mark.req("I16", "R4.8")
async def test_a_vault_is_killed_at_every_call_of_a_creation(scene, table, spread):
    """Promise, hold and commit at three vaults, one of which dies anywhere: one key, everywhere."""
    async with scene.vaults():
        made, _, calls = await try_create(scene, None)
        await check_created(scene, made)
    assert len([call for call in calls if call.kind == "fsync"]) >= 3
    for at in spread(range(len(calls)), 16):
        async with scene.vaults():
            made, hit, _ = await try_create(scene, Fault(at))
            assert hit is not None
            await check_created(scene, made)
            stood = "before" if made is None else "after"
            table.count("create (n=3)", "sqlite", "kill", hit, stood)


@pytest.mark.req("I16", "R4.8")
async def test_a_vault_on_postgresql_is_killed(scene_there, table, whole):
    """The same; between a COMMIT and its answer only the database knows what became of it."""
    scene = scene_there
    async with scene.vaults():
        _, _, calls = await try_create(scene, None)
    commits = [at for at, call in enumerate(calls) if call.what == "database: COMMIT"]
    assert len(commits) >= 6
    # The answer follows.
    turns = [at + number % 2 for number, at in enumerate(commits)]
    for at in range(len(calls)) if whole else turns:
        async with scene.vaults():
            made, hit, _ = await try_create(scene, Fault(at))
            await check_created(scene, made)
            if hit is not None:
                stood = "before" if made is None else "after"
                table.count("create (n=3)", "postgresql", "kill", hit, stood)


@pytest.mark.req("I16", "R4.8")
async def test_a_vault_is_killed_again_while_it_is_finished(scene, table, spread):
    """Twice in one creation, anywhere: the third workload finds what there is, and finishes it."""
    async with scene.vaults():
        _, _, calls = await try_create(scene, None)
    last = len(calls) - 1
    pairs = list(itertools.product(range(4, last, 3), range(4, last, 3)))
    for first, second in spread(pairs, 5):
        async with scene.vaults():
            made, hit, _ = await try_create(scene, Fault(first))
            again, _, _ = await try_create(scene, Fault(second))
            assert None in {made, again} or made == again
            await check_created(scene, made or again)
            stood = "before" if made is None and again is None else "after"
            table.count("create, twice", "sqlite", "kill", hit, stood)


@pytest.mark.req("I16", "R4.8")
async def test_the_workload_is_killed_at_every_call_of_its_first_boot(scene, table, spread):
    """Creating, committing, formatting, handing over: the next boot opens one volume by one key."""
    async with scene.vaults():
        code, life, _ = await scene.boot()
        assert code == 0, life.log.read_text()
        calls = list(life.trace.calls)
        assert (await scene.boot())[0] == 0
        assert len(scene.seen()) == 1
    files = [at for at, call in enumerate(calls) if call.kind != "send"]
    ways = [Fault(at) for at in spread(range(len(calls)), 8)]
    ways += [Fault(at) for at in spread(files, 6)]
    ways += [Fault(at, "power") for at in spread(files, 6)]
    for fault in ways:
        async with scene.vaults():
            _, _, hit = await scene.boot(fault)
            before = scene.seen()
            for _ in range(2):
                code, life, _ = await scene.boot()
                assert code == 0, (fault, hit, life.log.read_text())
            assert len(scene.seen()) == 1, (fault, hit)
            assert before <= scene.seen()
            await scene.one_generation()
            if hit is not None:
                table.count("first boot", "volume", fault.how, hit, "after" if before else "before")
