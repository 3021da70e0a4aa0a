"""Ask a software TEE's launcher to start, stop and name processes.

This is all that a platform gets: no request takes anything that is to be quoted, and
nothing here reaches the launcher's keys.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self

from msgspec import Meta

from placet.core.config import TrustRoot
from placet.core.encoding import Base64, Int, Record, Sha256, Sha384, Text, decode, encode
from placet.core.limits import MAX_FRAME
from placet.core.profile import Measurement
from placet.errors import MalformedError, UnavailableError, from_problem

Path_ = Annotated[str, Meta(max_length=4096)]

ANSWER_TIMEOUT = 60.0
"""Seconds for one answer: a start copies and hashes a bundle."""


class Start(Record, tag_field="op", tag="start"):
    """Start a bundle."""

    bundle: Path_
    params: dict[Text, str]
    log: Path_ | None
    """Where standard output and error are appended; ``None``: nowhere."""


class Stop(Record, tag_field="op", tag="stop"):
    """Send a signal to a started process; SIGKILL takes its children with it."""

    id: Text
    signal: Int


class Wait(Record, tag_field="op", tag="wait"):
    """Wait for a process to end, at most so many milliseconds; 0 asks how it is."""

    id: Text
    milliseconds: Int


class List(Record, tag_field="op", tag="list"):
    """Name all processes since the launcher's start."""


class Trust(Record, tag_field="op", tag="trust"):
    """Ask for the root of this TEE and today's collateral."""


class Shutdown(Record, tag_field="op", tag="shutdown"):
    """Stop everything and end."""


Ask = Start | Stop | Wait | List | Trust | Shutdown


class ControlRequest(Record):
    """One request; one connection carries any number, one after another."""

    ask: Ask


class Started(Record):
    """A process, what was measured of it, and how it is."""

    id: Text
    kind: Literal["workload", "vault"]
    app: Text
    image: Sha256
    config: Sha384
    measurement: Measurement
    boot: Text
    pid: Int
    exit: int | None
    """Exit code, negative for a signal; ``None`` while it runs."""


class Trusted(Record):
    """What a verifier needs to believe this TEE, and nobody should."""

    root: TrustRoot
    sgx: Base64
    tdx: Base64
    """Collateral of today, as stapled to each quote."""


class ControlAnswer(Record):
    """Processes, the root, or a problem."""

    processes: tuple[Started, ...] = ()
    trusted: Trusted | None = None
    problem: dict[str, object] | None = None


class Launcher:
    """A client of a running launcher. Calls block, and may come from any thread.

    Args:
        control: Path of its control socket.
        process: The daemon, if this client is to end it in `close`.
    """

    def __init__(self, control: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        self.control = control
        self._process = process

    def start(
        self, bundle: Path, params: Mapping[str, str] | None = None, log: Path | None = None
    ) -> Started:
        """Start a copy of a bundle, and return what was measured.

        Args:
            bundle: Its folder; it may be changed or removed as soon as this returns.
            params: Unmeasured values for the placeholders of its argv.
            log: Where its output is appended.

        Raises:
            NotFoundError: There is no bundle.
            MalformedError: The bundle or a parameter is not what it must be.
            UnavailableError: No launcher answers.
        """
        place = None if log is None else str(log.absolute())
        ask = Start(bundle=str(bundle.absolute()), params=dict(params or {}), log=place)
        return self._one(ask)

    def stop(self, id: str, signum: int = signal.SIGTERM) -> Started:  # noqa: A002 - its name
        """Send a signal to a started process; SIGKILL is the power failure of its TEE."""
        return self._one(Stop(id=id, signal=signum))

    def status(self, id: str) -> Started:  # noqa: A002 - its name
        """Return how a started process is."""
        return self._one(Wait(id=id, milliseconds=0))

    def wait(self, id: str, timeout: float = 30.0) -> int:  # noqa: A002 - its name
        """Return the exit code of a started process, negative for a signal.

        Raises:
            UnavailableError: It still runs after ``timeout`` seconds.
        """
        ask = Wait(id=id, milliseconds=int(timeout * 1000))
        ended = self._one(ask, ANSWER_TIMEOUT + timeout)
        if ended.exit is None:
            raise UnavailableError(f"{id} still runs after {timeout} seconds")
        return ended.exit

    def list(self) -> tuple[Started, ...]:
        """Return all processes since the launcher's start."""
        return self._ask(List()).processes

    def trust(self) -> Trusted:
        """Return the root of this software TEE, and today's collateral."""
        trusted = self._ask(Trust()).trusted
        if trusted is None:
            raise MalformedError("the launcher answered without its root")
        return trusted

    def shutdown(self) -> None:
        """Stop everything that was started, and the launcher itself; wait until it is gone."""
        self._ask(Shutdown(), linger=True)

    def close(self) -> None:
        """End the launcher if `spawn_launcher` started it; wait until it is gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(ANSWER_TIMEOUT)
            if self._process.stdin is not None:
                self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _one(self, ask: Ask, timeout: float = ANSWER_TIMEOUT) -> Started:
        processes = self._ask(ask, timeout).processes
        if len(processes) != 1:
            raise MalformedError(f"the launcher named {len(processes)} processes, not one")
        return processes[0]

    def _ask(
        self, ask: Ask, timeout: float = ANSWER_TIMEOUT, *, linger: bool = False
    ) -> ControlAnswer:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(timeout)
            try:
                with short_address(self.control) as address:
                    sock.connect(address)
                sock.sendall(encode(ControlRequest(ask=ask)))
                raw = sock.recv(MAX_FRAME + 1)
                if linger:
                    sock.recv(1)  # nothing comes; it returns when the launcher is gone
            except OSError as e:
                raise UnavailableError(
                    f"no software TEE answers at {self.control}: {e}",
                    "Start one: python -m placet_dev.tee.launcher --state DIR --control SOCKET",
                ) from e
        if not raw:
            raise UnavailableError(f"the software TEE at {self.control} hung up", "See its log.")
        answer = decode(raw, ControlAnswer, limit=MAX_FRAME)
        if answer.problem is not None:
            raise from_problem(answer.problem)
        return answer


class short_address:  # noqa: N801 - used as a function
    """Name a socket's path by its open folder: a socket address holds 107 bytes only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)


def spawn_launcher(
    state: Path,
    control: Path | None = None,
    *,
    log: Path | None = None,
    detach: bool = False,
    timeout: float = 30.0,
) -> Launcher:
    """Start a launcher daemon and return when it answers.

    Args:
        state: Its private folder: keys, copies of what runs.
        control: Its control socket; ``control`` in the state folder by default.
        log: Where its banner and errors are appended; ``launcher.log`` in the state folder
            by default.
        detach: Whether it outlives this process. Else it ends when this one does.
        timeout: Seconds.

    Raises:
        UnavailableError: It did not start; the end of its log is in the text.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    control = control or state / "control"
    log = log or state / "launcher.log"
    command = [sys.executable, "-m", "placet_dev.tee.launcher"]
    command += ["--state", str(state.absolute()), "--control", str(control.absolute())]
    ready, theirs = os.pipe()
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--ready-fd", str(theirs), *([] if detach else ["--follow-stdin"])],
            stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[theirs],
            start_new_session=detach,
        )
    os.close(theirs)
    readable, _, _ = select.select([ready], [], [], timeout)
    said = os.read(ready, 1) if readable else b""
    os.close(ready)
    if not said:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        tail = log.read_text(errors="replace")[-1000:]
        raise UnavailableError(f"the software TEE did not start:\n{tail}", f"See {log}.")
    return Launcher(control, None if detach else process)
