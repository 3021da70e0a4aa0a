"""The constellation and platform that ``placet dev up`` leaves running, found again later."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import msgspec

from placet.core.encoding import Int, Record
from placet.errors import NotFoundError, UnavailableError
from placet_dev.constellation import LocalConstellation, check_port
from placet_dev.platform_process import Platform, start_platform
from placet_dev.vaults import HOST, SQLITE
from placet_dev.waiting import wait_for

PORT = 7461
"""Of the first vault; the platform has the one below."""
N, K = 5, 3


class _PlatformRecord(Record):
    address: str
    pid: Int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of what runs."""

    name: str
    endpoint: str
    running: bool
    id: str
    log: Path
    probe: str = ""
    """Where a vault answers /healthz, /readyz and /metrics."""


def default_state() -> Path:
    """Return the folder in which ``placet dev`` keeps its constellation."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "placet-dev"


def up(state: Path, port: int = PORT, store: str = SQLITE) -> tuple[Part, ...]:
    """Start what does not run yet; repeating it starts again what has ended.

    Raises:
        ConflictError: A port is taken; which, and what to do, is said.
        UnavailableError: Something did not start; the end of its log is told.
    """
    try:
        constellation = LocalConstellation.find(state)
        constellation.restart(*constellation.ended())
    except (NotFoundError, UnavailableError):
        constellation = LocalConstellation.create(
            state, n=N, k=K, base_port=port, detach=True, store=store
        )
    if not _platform_runs(state):
        check_port(port - 1)
        started = start_platform(constellation, state / "platform", port=port - 1, detach=True)
        pid = started.process.pid if started.process else 0
        record = _PlatformRecord(address=started.address, pid=pid)
        _record(state).write_bytes(msgspec.json.encode(record))
    return status(state)


def status(state: Path) -> tuple[Part, ...]:
    """Return every part and whether it runs.

    Raises:
        NotFoundError: None was ever started in this folder.
    """
    constellation = LocalConstellation.find(state)
    try:
        ended, tee = constellation.ended(), True
    except UnavailableError:
        ended, tee = tuple(range(1, len(constellation.vaults) + 1)), False
    vaults = tuple(
        Part(
            name=f"vault-{i}",
            endpoint=v.member.endpoint,
            running=i not in ended,
            id=v.id,
            log=v.log,
            probe=f"{HOST}:{v.probe}" if v.probe and i not in ended else "",
        )
        for i, v in enumerate(constellation.vaults, 1)
    )
    control = str(constellation.launcher.control)
    log = state / "tee" / "launcher.log"
    kept = _read(state)
    running = () if not tee else {p.id for p in constellation.launcher.list() if p.exit is None}
    newer = tuple(
        Part(
            name=f"vault-{i}-release-{v.release}",
            endpoint=v.member.endpoint,
            running=v.process in running,
            id=v.id,
            log=v.log,
            probe=f"{HOST}:{v.probe}" if v.probe and v.process in running else "",
        )
        for i, v in sorted(constellation.beside.items())
    )
    return (
        Part(name="tee", endpoint=control, running=tee, id="", log=log),
        *vaults,
        *newer,
        Part(
            name="platform",
            endpoint=kept.address if kept else "",
            running=_platform_runs(state),
            id="",
            log=state / "platform" / "platform.log",
        ),
    )


def down(state: Path) -> None:
    """End all processes; what they stored stays, and the next `up` goes on with it.

    Raises:
        NotFoundError: None was ever started in this folder.
    """
    constellation = LocalConstellation.find(state)
    kept = _read(state)
    if kept is not None and _platform_runs(state):
        os.kill(kept.pid, signal.SIGTERM)
        wait_for(lambda: None if _platform_runs(state) else True, "the platform to end")
    _record(state).unlink(missing_ok=True)
    constellation.close()


def platform(state: Path) -> Platform:
    """Return the platform that runs.

    Raises:
        UnavailableError: None does.
    """
    kept = _read(state)
    if kept is None or not _platform_runs(state):
        raise UnavailableError(f"no platform runs in {state}", "Start one: placet dev up.")
    return Platform(kept.address, state / "platform")


def _record(state: Path) -> Path:
    return state / "platform.json"


def _read(state: Path) -> _PlatformRecord | None:
    try:
        return msgspec.json.decode(_record(state).read_bytes(), type=_PlatformRecord)
    except FileNotFoundError:
        return None


def _platform_runs(state: Path) -> bool:
    """Say whether the recorded process lives, and is that platform and nobody else."""
    kept = _read(state)
    if kept is None:
        return False
    with contextlib.suppress(OSError):
        command = Path("/proc", str(kept.pid), "cmdline").read_bytes().split(b"\0")
        return str(state / "platform").encode() in command
    return False
