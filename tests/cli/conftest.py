"""A house to run commands in: an owner's folder, and vaults that answer on real ports."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from placet_testing.charters import person
from placet_testing.serving import Served, serving
from placet_testing.tee import Tee, dev_pki, workload_config

from placet.cli.main import cli
from placet.client.vaults_file import VaultsFile, write_vaults

PLACET = (sys.executable, "-c", "from placet.cli.main import main; main()")


class Loop:
    """An event loop in a thread of its own, so that commands may run theirs."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, awaitable: Any) -> Any:
        """Run something there and wait for it."""
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop).result(60)

    def close(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@dataclass
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return its one JSON document."""
        return json.loads(self.out)

    @property
    def text(self) -> str:
        """Return all of it, with runs of spaces made one."""
        return " ".join(f"{self.out}\n{self.err}".split())


@dataclass
class House:
    """An owner's folder, and n vaults of which k are needed."""

    folder: Path
    loop: Loop
    vaults: list[Served | None] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    stops: list[Any] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """Return ``$PLACET_HOME``."""
        return self.folder / "home"

    # --- vaults ------------------------------------------------------------------------

    def open(self, n: int = 5, k: int = 3) -> House:
        """Start vaults and write ``vaults.json``."""
        for number in range(1, n + 1):
            self.vaults.append(None)
            self.ports.append(0)
            self.stops.append(None)
            self.start(number)
        self.listed = VaultsFile(
            k=k,
            vaults=tuple(v.member for v in self.vaults if v),
            profiles=(self.vaults[0].tee.profile(),),
            trust_roots=(dev_pki().trust_root(),),
        )
        write_vaults(self.folder / "vaults.json", self.listed)
        return self

    def start(self, *numbers: int) -> None:
        """Start vaults, on the store and port that they had."""
        for number in numbers:
            stack = contextlib.AsyncExitStack()
            context = serving(self.folder, number, port=self.ports[number - 1])
            served = self.loop.run(stack.enter_async_context(context))
            self.vaults[number - 1], self.stops[number - 1] = served, stack
            self.ports[number - 1] = served.port

    def stop(self, *numbers: int) -> None:
        """Stop vaults."""
        for number in numbers:
            self.loop.run(self.stops[number - 1].aclose())
            self.vaults[number - 1] = self.stops[number - 1] = None

    def disk(self, number: int) -> dict[Path, bytes]:
        """Return what a vault's disk holds."""
        return {p: p.read_bytes() for p in self.folder.glob(f"served{number}.db*")}

    def put_back(self, number: int, files: Mapping[Path, bytes]) -> None:
        """Start a vault on an earlier disk."""
        self.stop(number)
        for path in self.folder.glob(f"served{number}.db*"):
            path.unlink()
        for path, content in files.items():
            path.write_bytes(content)
        self.start(number)

    def close(self) -> None:
        """Stop everything."""
        self.stop(*(i for i, s in enumerate(self.stops, 1) if s))
        self.loop.close()

    # --- commands ----------------------------------------------------------------------

    def run(
        self,
        *arguments: str,
        code: int | None = 0,
        answer: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Said:
        """Run ``placet`` with these arguments; the exit code must be ``code``."""
        result = CliRunner().invoke(
            cli,
            [str(a) for a in arguments],
            input=answer,
            env={"PLACET_HOME": str(self.home), "COLUMNS": "160", **(environment or {})},
            prog_name="placet",
            catch_exceptions=True,
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        said = Said(result.exit_code, result.stdout, result.stderr)
        assert code is None or said.code == code, f"{arguments}: {said}"
        return said

    def terminal(
        self, *arguments: str, answer: str = "", code: int = 0, prompt: str = "[y/N]:"
    ) -> str:
        """Run ``placet`` as a process on a terminal of 100 columns; return what is on it.

        Args:
            arguments: Its command line.
            answer: Typed when a question is asked.
            code: The exit code that it must end with.
            prompt: How the question ends.
        """
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
        environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from placet.cli.main import main; main()",
                *map(str, arguments),
            ],
            env={**environment, "PLACET_HOME": str(self.home), "TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        text = b""
        with contextlib.suppress(OSError), os.fdopen(master, "r+b", buffering=0) as screen:
            while more := screen.read(4096):
                text += more
                if answer and text.rstrip().endswith(prompt.strip().encode()):
                    screen.write(answer.encode() + b"\n")
                    answer = ""
        assert process.wait(60) == code, text.decode()
        return text.decode()

    def json(self, *arguments: str, code: int | None = 0) -> Any:
        """Run a command with ``--json`` and return its document."""
        return self.run(*arguments, "--json", code=code).json

    # --- stories -----------------------------------------------------------------------

    def profile(self, version: int, *, security_version: int = 1) -> Path:
        """Write the profile of an app's version to a file."""
        path = self.folder / f"notes-{version}-{security_version}.json"
        owner = self.json("owner", "show")["fingerprint"]
        tee = Tee(workload_config(owner), version=version)
        path.write_bytes(msgspec.json.encode(tee.profile(security_version=security_version)))
        return path

    def stager(self) -> tuple[Path, Path]:
        """Write the platform's key, and its public signer."""
        secret, public = self.folder / "stager.pem", self.folder / "stager.json"
        if not secret.exists():
            person("platform").save(secret)
            public.write_bytes(msgspec.json.encode(person("platform").signer))
        return secret, public

    def born(self) -> str:
        """Make an owner and have a key born; return its id."""
        self.run("owner", "init")
        return self.json(
            *("key", "new", "notes/data", "--vaults", self.folder / "vaults.json"),
            *("--profile", self.profile(1), "--stager", self.stager()[1], "--yes"),
        )["key"]

    def staged(self, version: int = 2) -> dict[str, Any]:
        """Have the platform stage a version."""
        return self.json(
            *("stage", "notes/data", "--profile", self.profile(version)),
            *("--version", str(version), "--source", "1c9f3e0"),
            *("--key-file", self.stager()[0]),
        )


@pytest.fixture
def empty(tmp_path):
    """Return a house without vaults."""
    (tmp_path / "home").mkdir()
    house = House(tmp_path, Loop())
    yield house
    house.close()


@pytest.fixture
def house(empty):
    """Return a house with five running vaults of which three are needed."""
    return empty.open()
