"""``placet dev`` keeps a constellation, and ``placet demo`` cleans up when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("placet_dev.notes.app.store")

from placet_testing.ports import free_ports

from placet.client.vaults_file import read_vaults
from placet_dev.local_http import ask

PLACET = (sys.executable, "-c", "from placet.cli.main import main; main()")
PARTS = ["tee", "vault-1", "vault-2", "vault-3", "vault-4", "vault-5", "platform"]


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def _processes_about(folder: Path) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it ended while we looked
            if str(folder).encode() in command:
                found.add(int(entry.name))
    return found


class Dev:
    """Runs ``placet dev`` on a state folder and ports of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.port = free_ports(6) + 1

    def __call__(self, *arguments: str, state: Path | None = None) -> subprocess.CompletedProcess:
        """Run a subcommand and return what became of it."""
        port = ["--port", str(self.port)] if arguments[0] == "up" else []
        return self.placet("dev", *arguments, *port, "--state", str(state or self.state))

    def placet(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run any command of an owner whose home is beside the constellation."""
        return subprocess.run(
            [*PLACET, *arguments],
            env={**os.environ, "PLACET_HOME": str(self.state.parent / "home")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def parts(self, command: str, *, code: int = 0) -> dict[str, dict[str, Any]]:
        """Return what a subcommand says of each part."""
        done = self(command, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        return {p["name"]: p for p in json.loads(done.stdout)}


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """Return the commands; whatever runs at the end is ended."""
    made = Dev(tmp_path / "state")
    yield made
    made("down")
    _until(lambda: not _processes_about(tmp_path), "its processes have ended")


def lasting(parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what stays over a restart: all but the port of the probe, which nobody keeps."""
    return {name: {k: v for k, v in p.items() if k != "probe"} for name, p in parts.items()}


def test_a_constellation_for_play(dev: Dev, tmp_path: Path) -> None:
    """Up, again, with a vault killed, down, up once more: the vaults stay who they are."""
    first = dev.parts("up")
    assert list(first) == PARTS
    assert all(p["running"] for p in first.values())
    assert first["vault-3"]["endpoint"] == f"127.0.0.1:{dev.port + 2}"
    listed = read_vaults(dev.state / "vaults.json")
    assert [v.id for v in listed.vaults] == [first[f"vault-{i}"]["id"] for i in range(1, 6)]
    assert (listed.k, len(listed.trust_roots)) == (3, 1)

    # A second one on the same ports: which is taken, and what to do about it.
    taken = dev("up", state=tmp_path / "other")
    assert taken.returncode == 6
    assert f"port {dev.port} on 127.0.0.1 is taken" in taken.stderr
    assert "placet dev down" in taken.stderr

    [killed] = _processes_about(dev.state / "vaults" / "3")
    os.kill(killed, signal.SIGKILL)
    _until(lambda: not dev.parts("status", code=1)["vault-3"]["running"], "vault 3 is down")
    assert [n for n, p in dev.parts("status", code=1).items() if not p["running"]] == ["vault-3"]
    assert lasting(dev.parts("up")) == lasting(first)

    said = dev("logs", "vault-3").stdout
    assert said.count(f"vault {first['vault-3']['id']} ready") == 2
    assert dev("logs", "vault-9").returncode == 2

    assert dev("down").returncode == 0
    assert not any(p["running"] for p in dev.parts("status", code=1).values())
    assert lasting(dev.parts("up")) == lasting(first)

    assert dev("down", "--wipe").returncode == 0
    assert not dev.state.exists()
    assert dev("status").returncode == 2


def test_the_notes_app_for_play(dev: Dev) -> None:
    """The commands that ``placet dev`` prints as the next ones lead through the whole story."""

    def good(*arguments: str) -> str:
        done = dev.placet(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    state, key = ("--state", str(dev.state)), "notes/data"
    dev.parts("up")
    assert dev("build", "1").returncode == 2  # there is no owner yet
    good("owner", "init")
    told = good("dev", "build", "1", *state).partition("next: placet ")[2]
    command, _, rest = told.partition("placet dev start")
    good(*command.replace("\\\n", " ").split(), "--yes")
    assert rest.split() == ["1", key]
    first = good("dev", "start", "1", key, *state)
    address = first.rpartition("http://")[2].strip().strip("/")
    ask(address, "POST", "/notes", b'{"text":"Buy milk"}')

    good("dev", "build", "2", *state)
    good("dev", "stage", "2", key, *state)
    refused = dev("start", "2", key)
    assert refused.returncode == 77
    assert "measurement-not-approved" in refused.stderr

    # The refusal names the command by which the owner looks at it, and that one the next.
    review = refused.stderr.partition("placet review ")[2].split()
    assert dev.placet("review", *review).returncode in (0, 1)
    good("promote", *review, "--yes")
    second = good("dev", "start", "2", key, *state)
    assert second.startswith("notes 2 serves")
    address = second.rpartition("http://")[2].strip().strip("/")
    assert [n["text"] for n in ask(address, "GET", "/notes?q=MILK")["notes"]] == ["Buy milk"]


@pytest.mark.parametrize(
    ("number", "code", "left"),
    [
        pytest.param(signal.SIGINT, 130, 0, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 130, 0, id="SIGTERM"),
        pytest.param(signal.SIGKILL, -9, 1, id="SIGKILL leaves files"),
    ],
)
def test_a_demo_that_is_stopped_leaves_no_process(
    tmp_path: Path, number: int, code: int, left: int
) -> None:
    """However it is stopped, all that it started ends; its folder goes if it can."""
    demo = subprocess.Popen(
        # A test run in the background ignores Ctrl-C, and what it starts would as well.
        ["env", "--default-signal=INT", *PLACET, "demo", "--json"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        # The launcher, five vaults and the platform.
        _until(lambda: len(_processes_about(tmp_path)) >= 7, "the demo is under way")
        demo.send_signal(number)
        assert demo.wait(120) == code
    finally:
        demo.kill()
        demo.wait()
    _until(lambda: not _processes_about(tmp_path), "its processes have ended")
    assert len(list(tmp_path.iterdir())) == left
