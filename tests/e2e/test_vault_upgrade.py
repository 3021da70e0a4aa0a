"""A vault's own upgrade with two vault builds, as real processes: docs/vault-upgrade.md, run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("placet_dev.notes.app.store")

from placet_testing.ports import free_ports

from placet_dev.constellation import LocalConstellation
from placet_dev.local_http import ask

PLACET = (sys.executable, "-c", "from placet.cli.main import main; main()")
N = 5


class World:
    """Five vaults, a platform, and the owner's home beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"

    def placet(self, *arguments: str, code: int = 0) -> str:
        """Run a command of the owner, and return what it says."""
        done = subprocess.run(
            [*PLACET, *arguments],
            env={**os.environ, "PLACET_HOME": str(self.folder / "home")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == code, (
            f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout + done.stderr

    def dev(self, *arguments: str, code: int = 0) -> str:
        """Run ``placet dev`` on this constellation."""
        return self.placet("dev", *arguments, "--state", str(self.state), code=code)

    def up(self, port: int) -> None:
        """Start what does not run."""
        self.dev("up", "--port", str(port))

    def shown(self, key: str) -> dict:
        """Return what the owner's tool says of a key."""
        return json.loads(self.placet("key", "show", key, "--json"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a constellation of release 1; whatever runs at the end is ended."""
    made = World(tmp_path)
    made.up(free_ports(N + 1) + 1)
    yield made
    made.dev("down")


def test_two_builds_of_the_vaults(world: World) -> None:
    """Nothing moves without the owner; then all do, on the same ports, and the notes are read."""
    ids = [v.id for v in LocalConstellation.find(world.state).vaults]
    world.placet("owner", "init")
    built = world.dev("build", "1")
    profile = re.search(r"profile: (\S+)", built)
    stager = re.search(r"--stager (\S+)", built)
    assert profile is not None
    assert stager is not None
    vaults = str(world.state / "vaults.json")
    for label in ("notes/data", "notes/other"):
        world.placet(
            "key", "new", label, "--vaults", vaults, "--profile", profile[1],
            "--stager", stager[1], "--yes",
        )  # fmt: skip
    served = world.dev("start", "1", "notes/data")
    address = re.search(r"http://(\S+)/", served)
    assert address is not None
    ask(address[1], "POST", "/notes", b'{"text":"written under release 1"}')

    # Another build has another measurement, and without a statement it gets nothing.
    release = re.search(r"profile: (\S+)", world.dev("vault-upgrade"))
    assert release is not None
    refused = world.dev("vault-upgrade", "1", code=3)
    assert "--add-vault-release" in refused
    assert world.shown("notes/data")["answered"] == N

    # One owner adds it: that key moves, the other stays and is served by the older process.
    add = ("--add-vault-release", release[1], "--reason", "vaults 2", "--yes")
    world.placet("key", "update", "notes/data", *add)
    moved = world.dev("vault-upgrade", "1")
    assert "1 keys stay with the older release" in moved
    shown = world.shown("notes/data")
    assert [v["release"] for v in shown["vaults"]] == [2, 1, 1, 1, 1]
    assert shown["vaults"][0]["endpoint"] != world.shown("notes/other")["vaults"][0]["endpoint"]
    assert world.shown("notes/other")["answered"] == N
    world.dev("start", "1", "notes/data")

    # Down and up again: both processes of vault 1 are back, each with its own key.
    world.dev("down")
    world.up(LocalConstellation.find(world.state).vaults[0].port)
    assert world.shown("notes/data")["answered"] == N
    assert world.shown("notes/other")["answered"] == N

    # The other owner too: all vaults, the same ids and ports, one process each.
    ports = [v.port for v in LocalConstellation.find(world.state).vaults]
    world.placet("key", "update", "notes/other", *add)
    done = world.dev("vault-upgrade", "all")
    assert done.count("the older release has ended") == N
    after = LocalConstellation.find(world.state)
    assert [v.id for v in after.vaults] == ids
    assert [v.port for v in after.vaults] == ports
    assert after.ended() == ()
    for label in ("notes/data", "notes/other"):
        shown = world.shown(label)
        assert [v["release"] for v in shown["vaults"]] == [2] * N
        assert [v["state"] for v in shown["vaults"]] == ["current"] * N
    assert "vault release 2" in world.placet("key", "show", "notes/data")
    world.placet("log", "notes/data")

    # The app opens its volume by shares that all have moved, and reads what it wrote.
    served = world.dev("start", "1", "notes/data")
    address = re.search(r"http://(\S+)/", served)
    assert address is not None
    notes = ask(address[1], "GET", "/notes?q=release")["notes"]
    assert [n["text"] for n in notes] == ["written under release 1"]
