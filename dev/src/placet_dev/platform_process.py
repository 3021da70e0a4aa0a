"""The platform of a local constellation: a process of its own, and its API from outside."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from placet.core.signer import KeySigner
from placet.errors import UnavailableError
from placet_dev.constellation import LocalConstellation
from placet_dev.local_http import ask
from placet_dev.vaults import HOST
from placet_dev.waiting import TOLD, size, wait_for, written

PLACET = (sys.executable, "-c", "from placet.cli.main import main; main()")
"""The command ``placet`` of this very installation."""
READY = re.compile(rf"platform ready on ({re.escape(HOST)}:\d+)$", re.MULTILINE)
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform that runs, asked over HTTP.

    Args:
        address: ``host:port``.
        state: Its folder.
        process: If it is to be ended by `close`.
    """

    address: str
    state: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def bundles(self) -> Path:
        """Return the folder from which it starts bundles."""
        return self.state / "bundles"

    def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """Ask its API; bytes are sent as they are, all else as JSON."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        return ask(self.address, method, path, raw)

    def stager(self) -> KeySigner:
        """Return the signer that it stages with."""
        return msgspec.convert(self.ask("GET", "/v1/stager"), KeySigner)

    def start(self, bundle: str, key: str, params: Mapping[str, str], volume: str) -> str:
        """Start a bundle on a key's volume and return the workload's id."""
        wanted = {"bundle": bundle, "key": key, "volume": volume, "params": dict(params)}
        return str(self.ask("POST", "/v1/workloads", wanted)["id"])

    def exit_of(self, workload: str) -> int | None:
        """Return a workload's exit code; ``None`` while it runs."""
        code: int | None = self.ask("GET", f"/v1/workloads/{workload}")["exit"]
        return code

    def log_of(self, workload: str) -> str:
        """Return the end of what a workload printed."""
        return str(self.ask("GET", f"/v1/workloads/{workload}/log"))

    def stop(self, workload: str) -> int | None:
        """Stop a workload and return its exit code."""
        code: int | None = self.ask("DELETE", f"/v1/workloads/{workload}")["exit"]
        return code

    def relay(self, body: bytes) -> list[dict[str, Any]]:
        """Have a statement request relayed; return what each vault answered."""
        answers: list[dict[str, Any]] = self.ask("POST", "/v1/relay", body)["vaults"]
        return answers

    def close(self) -> None:
        """End the process, if this one started it."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def start_platform(
    constellation: LocalConstellation, state: Path, *, port: int = 0, detach: bool = False
) -> Platform:
    """Start a platform for a constellation and wait until it is ready.

    Args:
        constellation: Whose TEE starts its workloads, and to whose vaults it relays.
        state: Its folder.
        port: 0 takes a free one.
        detach: Whether it outlives this process.

    Raises:
        UnavailableError: It did not start; the end of its log is told.
    """
    (state / "bundles").mkdir(mode=0o700, parents=True, exist_ok=True)
    log = state / "platform.log"
    before = size(log)
    command = [*PLACET, "platform", "serve", "--listen", f"{HOST}:{port}", "--state", str(state)]
    command += ["--bundles", str(state / "bundles"), "--vaults", str(constellation.file)]
    command += ["--starter", "software-tee", "--tee", str(constellation.launcher.control)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=None if detach else end_with(os.getpid()),  # noqa: PLW1509 - one call of libc
        )

    def said() -> re.Match[str] | None:
        code = process.poll()
        text = written(log, before)
        found = READY.search(text)
        if found is None and code is not None:
            raise UnavailableError(
                f"the platform ended with {code}:\n{text[-TOLD:]}", f"See {log}."
            )
        return found

    try:
        ready = wait_for(said, f"the platform to be ready (see {log})")
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Platform(ready[1], state, process)


def end_with(parent: int) -> Callable[[], None]:
    """Return what a child does before exec so that it does not outlive its parent."""

    def prepare() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
