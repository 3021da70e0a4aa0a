"""What the demo does when a step fails: it says so, keeps the logs, and ends with 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from placet.errors import ApprovalError
from placet_dev import commands
from placet_dev.demo import run as run_module
from placet_dev.demo.steps import Step, StepFailedError, run_steps


def _works(_: object) -> str:
    return "seen"


def _fails(_: object) -> str:
    raise StepFailedError("it was let in")


def _breaks(_: object) -> str:
    return str(1 // 0)


STEPS = (
    Step("one", "works", _works),
    Step("two", "refused", _fails),
    Step("three", "works", _works),
)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the demo use a temporary folder of this test, and a story that fails."""
    monkeypatch.setattr(run_module.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(run_module, "STORY", STEPS)
    return tmp_path


def test_a_failed_step_makes_the_demo_fail(temporary: Path) -> None:
    """Exit code 1, the step named, what followed not done, and the logs kept."""
    done = CliRunner().invoke(commands.demo, ["--json"])
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report["ok"] is False
    assert [s["ok"] for s in report["steps"]] == [True, False, False]
    assert report["steps"][1]["detail"] == "it was let in"
    assert report["steps"][2]["detail"] == "not done: 'two' failed"
    assert [p.name.startswith("placet-demo-") for p in temporary.iterdir()] == [True]


def test_people_are_told_where_the_logs_are(temporary: Path) -> None:
    """The folder that was kept is named in full."""
    done = CliRunner().invoke(commands.demo, [])
    assert done.exit_code == 1
    [kept] = temporary.iterdir()
    assert str(kept) in done.stdout.replace("\n", "")
    assert "1 of 3 steps" in done.stdout


def test_a_folder_of_ones_own_must_be_empty(temporary: Path) -> None:
    """``--keep`` never mixes the demo with what is there."""
    (temporary / "mine").mkdir()
    (temporary / "mine" / "file").touch()
    done = CliRunner().invoke(commands.demo, ["--keep", str(temporary / "mine")])
    assert done.exit_code == 6
    assert "is not empty" in done.stderr


@pytest.mark.parametrize("act", [_breaks, lambda _: _raise(ApprovalError("no", "sign it"))])
def test_any_exception_is_a_failed_step(act) -> None:
    """Nothing that a step raises stops the summary or the clean-up."""
    [result] = run_steps(None, [Step("one", "works", act)])
    assert not result.ok
    assert result.detail


def _raise(error: Exception) -> str:
    raise error
