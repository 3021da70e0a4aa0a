"""What every test run shares: traceability to requirements, and no quiet skips.

``--requirements`` (``make test`` passes it) writes ``build/requirements.json`` and fails a
run in which an id that ``spec/requirements.toml`` calls proven has no passing test, or one of
its ``both_backends`` none on SQLite or none on PostgreSQL. Tests may run in several processes
(``-n``): what a test proves travels with its report.
``PLACET_REQUIRE_ALL=1`` (``.ci/run`` sets it) makes a skip a failure, unless its reason
names ``../shared``, which a clone does not have.
"""

from __future__ import annotations

import json
import logging
import os
import tomllib
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

import placet  # noqa: F401 - before anything imports cryptography: it configures OpenSSL

ROOT = Path(__file__).resolve().parent.parent
SPEC = tomllib.loads((ROOT / "spec" / "requirements.toml").read_text())
EXCUSE = "../shared"
PROVES, LIES = "req", "backend"
BACKENDS = ("sqlite", "postgresql")
UNTRACED = (
    "tests/model/",
    "tests/property/",
    "tests/scenario/test_creation_model.py",
    "tests/unit/test_fuzz_targets.py",
)
"""What runs the same lines thousands of times: coverage is measured by the tests beside it, since
tracing makes these take three times as long."""

# Two busy cores make any deadline a coin toss; CI must see the same cases twice.
settings.register_profile("placet", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("placet")


def pytest_addoption(parser):
    """Add the switch of a full run."""
    parser.addoption(
        "--requirements",
        action="store_true",
        help="write build/requirements.json; fail if a proven requirement has no passing test",
    )


def pytest_configure(config):
    """Start the record of this run."""
    config.pluginmanager.register(Record(config), "placet-requirements")
    if find_spec("placet_testing"):  # not in the small houses of tests/unit/test_traceability.py
        report = import_module("placet_testing.crash_report").CrashReport
        worker = hasattr(config, "workerinput")
        whole = config.getoption("--requirements") and not worker
        config.pluginmanager.register(report(worker=worker, whole=whole), "placet-crash-report")


def pytest_collection_modifyitems(items):
    """Note at each test what it proves, and whether it is traced; refuse an unknown id."""
    for item in items:
        ids = {i for mark in item.iter_markers("req") for i in mark.args}
        if unknown := ids - SPEC["text"].keys():
            raise pytest.UsageError(
                f"{item.nodeid}: {', '.join(sorted(unknown))} not in spec/requirements.toml"
            )
        item.user_properties += [(PROVES, i) for i in sorted(ids)]
        if lies := getattr(item, "callspec", None) and item.callspec.params.get(LIES):
            item.user_properties.append((LIES, lies))
        if item.nodeid.startswith(UNTRACED) and item.config.pluginmanager.hasplugin("_cov"):
            item.add_marker("no_cover")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn a skip into a failure where everything must run."""
    return refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Do the same for a whole file that skips itself."""
    return refuse_skip((yield))


def refuse_skip(report):
    """Return the report, failed instead of skipped under ``PLACET_REQUIRE_ALL=1``."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("PLACET_REQUIRE_ALL"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if EXCUSE not in reason:
            report.outcome = "failed"
            report.longrepr = f"PLACET_REQUIRE_ALL is set, and this skips: {reason}"
    return report


@pytest.fixture(scope="session")
def server():
    """Run a PostgreSQL server, from the first test on that needs it."""
    with import_module("placet_testing.postgresql").serving() as running:
        if running is None:
            pytest.skip("no PostgreSQL server can be run here")
        yield running


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Have a test's stores lie in files, and again in PostgreSQL; see placet_testing.backends."""
    places = import_module("placet_testing.backends")
    if request.param == "postgresql":
        place = places.Postgresql(request.getfixturevalue("server").uri)
    else:
        place = places.Sqlite()
    with places.use(place):
        yield place


@pytest.fixture
def root_logger():
    """Put the root logger back as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = before
    root.setLevel(level)


class Record:
    """Which requirement ids were tested in this run, and how often that passed."""

    def __init__(self, config):
        worker = hasattr(config, "workerinput")  # sees some of the tests only
        self.gate = (
            config.getoption("--requirements") and not config.option.collectonly and not worker
        )
        self.ids = {}  # node id -> requirement ids
        self.lies = {}  # node id -> where its stores lie, of tests that say so
        self.good, self.bad = set(), set()  # node ids by outcome
        self.missing = []

    def pytest_runtest_logreport(self, report):
        """Count a test as passed when its call passed and nothing around it failed."""
        self.ids[report.nodeid] = {i for name, i in report.user_properties if name == PROVES}
        self.lies[report.nodeid] = dict(report.user_properties).get(LIES)
        if report.failed:
            self.bad.add(report.nodeid)
        elif report.when == "call" and report.passed:
            self.good.add(report.nodeid)

    def pytest_sessionfinish(self, session):
        """Write the record; fail the run if something proven is no longer."""
        if not self.gate:
            return
        tests = Counter(i for ids in self.ids.values() for i in ids)
        passed = Counter(i for node in self.good - self.bad for i in self.ids[node])
        found = {i: {"tests": tests[i], "passed": passed[i]} for i in SPEC["text"] if tests[i]}
        there = Counter(
            (i, self.lies.get(node)) for node in self.good - self.bad for i in self.ids[node]
        )
        both = SPEC.get("both_backends", ())
        for i in found.keys() & set(both):
            found[i] |= {where: there[i, where] for where in BACKENDS}
        (ROOT / "build").mkdir(exist_ok=True)
        (ROOT / "build" / "requirements.json").write_text(json.dumps(found, indent=1) + "\n")
        self.missing = [(i, "") for i in SPEC["proven"] if not passed[i]]
        self.missing += [(i, f" on {b}") for i in both for b in BACKENDS if not there[i, b]]
        if self.missing and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        """Name what is missing."""
        for i, where in self.missing:
            terminalreporter.write_line(
                f"requirement {i} has no passing test{where}: {SPEC['text'][i]}", red=True
            )
