"""One zygote, one story and one table for all crash tests of a run.

What CI runs is every kill on SQLite and a spread of the rest; ``PLACET_CRASH=all``
(`make nightly` sets it) runs every point in every way.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from placet_testing.clients import memory_folder
from placet_testing.crash_calls import available
from placet_testing.crash_matrix import Table
from placet_testing.crash_story import tell
from placet_testing.crash_zygote import Zygote

REPORT = Path(__file__).resolve().parents[2] / "build" / "crash-matrix.json"


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


TABLE = pytest.StashKey()


@pytest.fixture(scope="session")
def table(pytestconfig):
    """Keep count of what was struck; it is written and shown at the end."""
    table = pytestconfig.stash[TABLE] = Table()
    yield table
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(table.rows(), indent=1) + "\n")


def pytest_terminal_summary(terminalreporter, config):
    """Show how many points were struck, of what and how."""
    if table := config.stash.get(TABLE, None):
        terminalreporter.section("crash matrix")
        terminalreporter.write_line(str(table))


@pytest.fixture(scope="session")
def spread():
    """Return how to choose of many points: all of them at night."""
    whole = os.environ.get("PLACET_CRASH") == "all"
    return lambda points, count: list(points) if whole else _spread(list(points), count)


def _spread(points, count):
    """Return the first, the last and evenly spread ones between them."""
    if len(points) <= count:
        return points
    last = len(points) - 1
    return [points[i] for i in sorted({round(n * last / (count - 1)) for n in range(count)})]
