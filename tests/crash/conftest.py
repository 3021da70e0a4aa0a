"""One zygote, one story and one table for all crash tests of a run.

CI kills at every call of what gives shares away, at each kind of call of every other operation
(by what it is called on, too), and at a spread of the rest. ``PLACET_CRASH=all`` (`make nightly`
sets it) runs every point in every way. docs/crash-matrix.md says how to read the tables.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os

import pytest
from placet_testing.clients import memory_folder
from placet_testing.crash_bench import Bench
from placet_testing.crash_calls import PARTS, TEARABLE, Fault
from placet_testing.crash_filter import available
from placet_testing.crash_matrix import dry_run
from placet_testing.crash_report import PROPERTY, Table
from placet_testing.crash_story import tell
from placet_testing.crash_zygote import Zygote


@pytest.fixture(scope="session")
def zygote():
    """Lend a process that forks vaults whose calls can be stopped."""
    if why := available():
        pytest.skip(why)
    with memory_folder() as folder:
        zygote = Zygote(folder)
        yield zygote
        zygote.close()


@pytest.fixture(scope="session")
def story(zygote, tmp_path_factory):
    """Tell the story once."""
    return asyncio.run(tell(tmp_path_factory.mktemp("story")))


@pytest.fixture
def table(request):
    """Keep count of what is struck; it travels with the test's report."""
    table = Table()
    yield table
    request.node.user_properties.append((PROPERTY, json.dumps(table.rows())))


@pytest.fixture(scope="session")
def rehearsals():
    """Remember how operations go undisturbed."""
    return {}


@pytest.fixture
def bench_of(zygote, story):
    """Return what gives a victim, in memory."""
    with memory_folder() as folder:
        yield lambda variant: Bench(zygote, story, folder / "victim", variant)


@pytest.fixture
def rehearsed(zygote, story, rehearsals):
    """Return what gives a victim, in memory, and an operation as it goes undisturbed.

    In memory, because what a power cut takes is computed and not waited for.
    """
    with memory_folder() as folder:

        async def rehearse(name, variant):
            bench = Bench(zygote, story, folder / "victim", variant)
            if (name, variant.name) not in rehearsals:
                rehearsals[name, variant.name] = await dry_run(bench, story.operations[name])
            return bench, rehearsals[name, variant.name]

        yield rehearse


@pytest.fixture(scope="session")
def spread():
    """Return how to choose of many points: all of them at night."""
    return lambda points, count: list(points) if at_night() else _spread(list(points), count)


@pytest.fixture(scope="session")
def tears():
    """Return how to tear some calls: by turns anywhere; at night each call at every place."""

    def chosen(calls, count, kinds=None, *, sends=True):
        names = TEARABLE if sends else TEARABLE - {"sendto"}
        torn = [at for at, call in enumerate(calls) if call.name in names]
        if at_night():
            return [Fault(at, "torn", kinds=kinds, part=part) for at in torn for part in PARTS]
        turns = zip(_spread(torn, count), itertools.cycle(PARTS), strict=False)
        return [Fault(at, "torn", kinds=kinds, part=part) for at, part in turns]

    return chosen


@pytest.fixture(scope="session")
def of_each():
    """Return how to choose of many calls the last of each kind, and the last two: of all at night.

    The last, because what was done before the end must not have been told before it.
    """

    def chosen(calls):
        if at_night():
            return list(range(len(calls)))
        return sorted({*{str(c): at for at, c in enumerate(calls)}.values(), len(calls) - 2})

    return chosen


@pytest.fixture(scope="session")
def whole():
    """Return whether this run leaves nothing out."""
    return at_night()


def at_night():
    """Return whether this run leaves nothing out."""
    return os.environ.get("PLACET_CRASH") == "all"


def _spread(points, count):
    """Return the first, the last and evenly spread ones between them."""
    if len(points) <= count:
        return points
    last = len(points) - 1
    return [points[i] for i in sorted({round(n * last / (count - 1)) for n in range(count)})]
