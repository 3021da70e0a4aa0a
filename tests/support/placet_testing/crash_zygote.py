"""A process that has imported everything and opened nothing: each fork of it lives one life.

    python -m placet_testing.crash_zygote CONTROL_FD

It is told on ``CONTROL_FD`` what a fork shall do: a line of JSON with a job of
`placet_testing.crash_jobs` and its arguments, and a socket on which the fork speaks to
the tests. Each fork has its calls held (`crash_filter`) before it does anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from placet_testing import crash_jobs
from placet_testing.crash_filter import hand_over
from placet_testing.crash_trace import Trace
from placet_testing.tee import PKI_FOLDER, dev_pki

LINE = 1 << 16


def main() -> int:
    """Fork whenever that is asked for, until the other end is closed."""
    sys.dont_write_bytecode = True
    dev_pki()
    # Nobody waits for the forks: the kernel buries them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        control.send(b"+")
        while True:
            line, fds, _, _ = socket.recv_fds(control, LINE, 1)
            if not line:
                return 0
            if os.fork() == 0:
                control.close()
                _live(json.loads(line), socket.socket(fileno=fds[0]))
            os.close(fds[0])


def _live(order: dict[str, Any], control: socket.socket) -> None:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order.pop("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        job = getattr(crash_jobs, order.pop("job"))
        hand_over(control, receives=order.pop("receives", False))
        control.recv(1)  # Until somebody reads what was handed over, nothing may be held.
        code = job(control, **order) or 0
    except BaseException:  # noqa: BLE001 - the tests read it
        traceback.print_exc()
    finally:
        os._exit(code)


# --- the tests' side -----------------------------------------------------------------------


class Life:
    """One fork, from its first instruction to its death."""

    def __init__(self, control: socket.socket, trace: Trace, log: Path) -> None:
        self.control, self.trace, self.log = control, trace, log
        self.dead = asyncio.Event()
        trace.on_gone = self.dead.set

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self.trace.pid

    def go(self) -> None:
        """Let it begin."""
        self.trace.start()
        self.control.send(b"g")

    async def said(self) -> dict[str, Any] | None:
        """Return what it says next; nothing if it died first."""
        loop = asyncio.get_running_loop()
        try:
            line = await loop.sock_recv(self.control, LINE)
        except ConnectionError:
            return None
        return json.loads(line) if line else None

    def tell(self, word: bytes) -> None:
        """Tell it something."""
        self.control.send(word)

    async def kill(self) -> None:
        """Kill it, if it lives, and wait until it is gone."""
        if not self.dead.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        await self.end()

    async def end(self) -> None:
        """Wait until it is gone."""
        async with asyncio.timeout(60):
            await self.dead.wait()
        self.control.close()


class Zygote:
    """The process of `main`, and the forks that it is asked for."""

    def __init__(self, folder: Path) -> None:
        import subprocess

        self._folder, self._count = folder, 0
        pki = folder / "pki"
        pki.mkdir()
        dev_pki().save(pki)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        support = str(Path(__file__).resolve().parents[1])
        environment = {**os.environ, PKI_FOLDER: str(pki), "PYTHONPATH": support}
        with theirs, (folder / "zygote.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),), env=environment, stderr=log,
            )  # fmt: skip
        self._control.settimeout(60)
        if self._control.recv(1) != b"+":
            raise RuntimeError((folder / "zygote.log").read_text())

    def life(self, job: str, **arguments: Any) -> Life:
        """Fork; the job begins at `Life.go`, and its calls can be armed before."""
        self._count += 1
        log = self._folder / f"life-{self._count}.log"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = json.dumps({"job": job, "log": str(log), **arguments}).encode()
        with theirs:
            socket.send_fds(self._control, [order], [theirs.fileno()])
        ours.settimeout(60)
        pid, (listener,), _, _ = socket.recv_fds(ours, 32, 1)
        ours.settimeout(0)
        return Life(ours, Trace(int(pid), listener), log)

    def close(self) -> None:
        """End it."""
        self._control.close()
        self._process.wait(60)


if __name__ == "__main__":
    sys.exit(main())
