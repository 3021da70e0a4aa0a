"""``placet demo --json``, once, as whoever runs it gets it: each of its steps is a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("placet_dev.notes.app.store")

PLACET = (sys.executable, "-c", "from placet.cli.main import main; main()")
LIMIT = 180
"""Seconds that the demo may take (issue 2, point 11)."""


def req(name: str, *ids: str) -> Any:
    """Return the name of a step with the requirements that it shows on real processes."""
    return pytest.param(name, marks=[pytest.mark.req(i) for i in ids], id=name)


WORKS = (
    req("five vaults start (k = 3)"),
    req("platform starts"),
    req("owner gives birth to a key", "I8"),
    req("notes 1 writes", "I8"),
    req("notes 1 restarts and reads"),
    req("notes 2 is built and staged"),
    req("two vaults are killed"),
    req("owner reviews and promotes notes 2", "I12"),
    req("notes 2 reads notes 1's notes", "I1"),
    req("dead vaults return and converge", "I5"),
    req("owner retires notes 1", "I12"),
)
REFUSED = (
    req("notes 2 is deployed, unapproved", "I1", "I4"),
    req("platform promotes notes 2 by itself", "I2"),
    req("platform tampers with a relayed statement", "I2", "I14"),
    req("platform replays an old approval", "I2", "I14"),
    req("platform points notes at its own vaults", "I2", "I8"),
    req("platform swaps the image under an approved name", "I1", "I2"),
    req("notes 1 is started again", "I1"),
)


@dataclass(frozen=True)
class Run:
    """One run of the demo."""

    code: int
    stdout: str
    stderr: str
    left: tuple[str, ...]
    processes: tuple[str, ...]

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """Return its steps by name."""
        return {s["name"]: s for s in json.loads(self.stdout)["steps"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the demo with a temporary folder of its own, and look at what it leaves."""
    temporary = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [*PLACET, "demo", "--json"],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return Run(
        code=done.returncode,
        stdout=done.stdout,
        stderr=done.stderr,
        left=tuple(p.name for p in temporary.iterdir()),
        processes=tuple(_processes_about(temporary)),
    )


def _processes_about(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it ended while we looked
            if str(folder).encode() in command:
                found.append(command.replace(b"\0", b" ").decode())
    return found


def test_it_prints_json_and_nothing_else(run: Run) -> None:
    """Programs read standard output: exactly these members, whatever else happens."""
    assert run.code == 0, run.stdout + run.stderr
    report = json.loads(run.stdout)
    assert set(report) == {"ok", "seconds", "steps"}
    assert report["ok"] is True
    assert report["seconds"] < LIMIT
    for step in report["steps"]:
        assert set(step) == {"name", "kind", "ok", "seconds", "detail"}
        assert step["detail"]
    assert run.stderr == ""


def test_it_shows_these_steps_and_no_others(run: Run) -> None:
    """A step that is taken out of the demo is missed here."""
    assert set(run.steps) == {p.values[0] for p in (*WORKS, *REFUSED)}


@pytest.mark.parametrize("name", WORKS)
def test_works(run: Run, name: str) -> None:
    """What must work, works."""
    step = run.steps[name]
    assert (step["kind"], step["ok"]) == ("works", True), step


@pytest.mark.parametrize("name", REFUSED)
def test_refused(run: Run, name: str) -> None:
    """What must be refused was really tried, and was refused for the right reason."""
    step = run.steps[name]
    assert (step["kind"], step["ok"]) == ("refused", True), step


def test_nothing_is_left(run: Run) -> None:
    """No process and no file of the demo outlives it."""
    assert run.processes == ()
    assert run.left == ()
