"""The traceability plugin of ``tests/conftest.py``, run on small houses of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
SPEC = """
proven = ["I1"]
coming = ["I2"]
[text]
I1 = "one"
I2 = "two"
"""
INI = """[pytest]
asyncio_default_fixture_loop_scope = function
markers =
    req(id): what it proves
"""


@pytest.fixture
def house(pytester, monkeypatch):
    """Return a function that runs pytest on one test file in a house with our plugin."""
    monkeypatch.delenv("PLACET_REQUIRE_ALL", raising=False)
    tests = pytester.mkdir("tests")
    shutil.copy(CONFTEST, tests)
    (pytester.mkdir("spec") / "requirements.toml").write_text(SPEC)
    pytester.makeini(INI)

    def run(body, *options, everything=False, processes=0):
        (tests / "test_it.py").write_text("import pytest\n" + body)
        if everything:
            monkeypatch.setenv("PLACET_REQUIRE_ALL", "1")
        several = ("-n", str(processes)) if processes else ()
        started = pytester.runpytest_subprocess if processes else pytester.runpytest_inprocess
        done = started("-p", "no:cacheprovider", *several, "tests", *options)
        record = pytester.path / "build" / "requirements.json"
        return done, json.loads(record.read_text()) if record.exists() else None

    return run


BOTH = """
@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request): return request.param
@pytest.mark.req("I1")
def test_one(backend): assert backend not in {}
"""


def test_what_must_hold_on_both_backends_is_missed_on_each(house):
    """By the names of the cases; a test that says nothing of backends is one on neither."""
    Path("spec", "requirements.toml").write_text('both_backends = ["I1"]\n' + SPEC)
    done, record = house(BOTH.format("()"), "--requirements")
    assert done.ret == 0, str(done.stdout)
    assert record == {"I1": {"tests": 2, "passed": 2, "sqlite": 1, "postgresql": 1}}
    done, record = house(BOTH.format("('postgresql',)"), "--requirements")
    assert done.ret == 1
    assert record == {"I1": {"tests": 2, "passed": 1, "sqlite": 1, "postgresql": 0}}
    done, _ = house(PROOF, "--requirements")
    assert done.ret == 1
    for name in ("sqlite", "postgresql"):
        assert f"requirement I1 has no passing test on {name}: one" in str(done.stdout)


PROOF = "@pytest.mark.req('I1')\ndef test_one(): pass\n"


def test_a_proven_id_with_a_passing_test_is_recorded(house):
    """Every item of a parametrised test counts; ids that are only coming are no condition."""
    table = "@pytest.mark.req('I1')\n@pytest.mark.parametrize('x', range(3))\ndef test_x(x): pass\n"
    done, record = house(PROOF + table, "--requirements")
    assert done.ret == 0, str(done.stdout)
    assert record == {"I1": {"tests": 4, "passed": 4}}


@pytest.mark.parametrize(
    "body",
    [
        "def test_one(): pass",
        "@pytest.mark.req('I2')\ndef test_one(): pass",
        "@pytest.mark.req('I1')\ndef test_one(): pytest.skip('no device')",
        "@pytest.mark.req('I1')\n@pytest.mark.xfail\ndef test_one(): assert 0",
        "",
    ],
    ids=["no marker", "another id", "skipped", "expected to fail", "no tests"],
)
def test_a_proven_id_without_a_passing_test_fails_the_run(house, body):
    """The gate cannot be passed by a test that proved nothing."""
    done, _ = house(body, "--requirements")
    assert done.ret == 1, str(done.stdout)
    assert "requirement I1 has no passing test: one" in str(done.stdout)


def test_a_failing_teardown_is_no_proof(house):
    """A test whose clean-up fails did not pass."""
    fixture = "@pytest.fixture\ndef f():\n    yield\n    raise OSError\n"
    done, record = house(
        fixture + "@pytest.mark.req('I1')\ndef test_one(f): pass", "--requirements"
    )
    assert done.ret == 1
    assert record == {"I1": {"tests": 1, "passed": 0}}


def test_a_part_of_the_tests_is_not_held_to_the_whole(house):
    """Without the switch nothing is written and nothing is missed."""
    done, record = house("def test_other(): pass")
    assert (done.ret, record) == (0, None)


def test_an_unknown_id_is_an_error(house):
    """A typo in an id would otherwise prove nothing, quietly."""
    done, _ = house("@pytest.mark.req('I99')\ndef test_one(): pass")
    assert done.ret == 4
    assert "I99 not in spec/requirements.toml" in str(done.stderr)


@pytest.mark.parametrize(
    "body",
    [
        "def test_one(): pytest.skip('no chromium')",
        "pytest.skip('no node', allow_module_level=True)",
        "@pytest.mark.skip(reason='later')\ndef test_one(): pass",
        "pytest.importorskip('no_such_module')",
    ],
    ids=["in a test", "whole file", "by marker", "missing module"],
)
def test_a_skip_fails_where_everything_must_run(house, body):
    """CI installs what optional tests need, so a skip there hides something."""
    assert house(body)[0].ret in {0, 5}
    done, _ = house(body, everything=True)
    assert done.ret not in {0, 5}, str(done.stdout)


def test_only_the_shared_folder_excuses_a_skip(house):
    """A clone has no ``../shared``."""
    done, _ = house("def test_one(): pytest.skip('needs ../shared')", everything=True)
    assert done.ret == 0, str(done.stdout)


def test_several_processes_are_held_to_the_same(house):
    """What each of them proved counts together; what none proved is missed, a skip fails."""
    Path("spec", "requirements.toml").write_text('both_backends = ["I1"]\n' + SPEC)
    table = (
        "@pytest.mark.parametrize('backend', ['sqlite', 'postgresql'] * 4)\n"
        "@pytest.mark.req('I1')\ndef test_x(backend): pass\n"
    )
    done, record = house(table, "--requirements", processes=2)
    assert done.ret == 0, str(done.stdout)
    assert record == {"I1": {"tests": 8, "passed": 8, "sqlite": 4, "postgresql": 4}}
    skips = "def test_skips(): pytest.skip('no node')\n"
    done, record = house(
        table.replace("I1", "I2") + skips, "--requirements", everything=True, processes=2
    )
    assert done.ret == 1, str(done.stdout)
    done.assert_outcomes(passed=8, failed=1)
    assert record == {"I2": {"tests": 8, "passed": 8}}
    assert "requirement I1 has no passing test: one" in str(done.stdout)
