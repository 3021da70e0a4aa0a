"""The app's process: key by descriptor, signals passed on, exit code passed back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from placet.agent import main as agent_main
from placet.agent.child import run_child
from placet.agent.volume import Unlocked
from placet.errors import UnavailableError

SECRET = bytes(range(32))

SHOW = """
import json, os, sys
fd = int(os.environ["PLACET_KEY_FD"])
found = {"key": os.read(fd, 100).hex(), "end": os.read(fd, 1).hex(),
         "environ": dict(os.environ), "argv": sys.argv, "fds": sorted(os.listdir("/proc/self/fd"))}
open(os.path.join(os.environ["PLACET_VOLUME"], "found"), "w").write(json.dumps(found))
"""


def unlocked(folder: Path) -> Unlocked:
    """Return a volume that is open."""
    return Unlocked(path=folder, secret=SECRET, memory_key=b"", remembers=True)


@pytest.mark.req("I13")
def test_the_key_comes_by_descriptor_and_by_nothing_else(tmp_path: Path) -> None:
    """32 bytes, then the end; not in the environment, not in the arguments."""
    code = run_child([sys.executable, "-c", SHOW, "x"], unlocked(tmp_path), dict(os.environ))
    found = json.loads((tmp_path / "found").read_text())
    assert code == 0
    assert (found["key"], found["end"]) == (SECRET.hex(), "")
    assert found["argv"] == ["-c", "x"]
    assert SECRET.hex() not in str(found["environ"])
    assert len(found["fds"]) == 5  # 0, 1, 2, the key's and the one that lists them


@pytest.mark.parametrize(("status", "expected"), [("sys.exit(7)", 7), ("os.abort()", 134)])
def test_the_childs_end_is_ours(tmp_path: Path, status: str, expected: int) -> None:
    """Its exit code, or 128 and its signal."""
    command = [sys.executable, "-c", f"import os, sys; {status}"]
    assert run_child(command, unlocked(tmp_path), dict(os.environ)) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_signals_are_passed_on(tmp_path: Path, number: signal.Signals) -> None:
    """We stay the parent: what we get, the child gets, and its answer is ours."""
    child = f"""
import signal, sys
signal.signal({int(number)}, lambda *_: sys.exit(33))
print("up", flush=True)
signal.pause()
"""
    parent = f"""
import sys, os, pathlib
sys.path[:0] = {sys.path!r}
from placet.agent.child import run_child
from placet.agent.volume import Unlocked
folder = pathlib.Path({str(tmp_path)!r})
volume = Unlocked(path=folder, secret=b"k" * 32, memory_key=b"", remembers=True)
sys.exit(run_child([sys.executable, "-c", {child!r}], volume, dict(os.environ)))
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(number)
        assert process.wait(20) == 33


def test_a_program_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """Typed, and no descriptor is left open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(UnavailableError, match="no-such-program"):
        run_child(["no-such-program"], unlocked(tmp_path), {})
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_outside_a_tee_nothing_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 75, what is missing and what to do, no stack trace."""
    monkeypatch.delenv("PLACET_TEE_FD", raising=False)
    arguments = ["--key", "sha256:00", "--volume", str(tmp_path / "v"), "--", "true"]
    assert agent_main.main(arguments) == agent_main.UNAVAILABLE
    said = capsys.readouterr().err
    assert "no TEE" in said
    assert "next:" in said
    assert "Traceback" not in said
    assert not (tmp_path / "v").exists()
