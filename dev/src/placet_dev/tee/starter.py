"""The software TEE as the platform's starter ``software-tee``."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

from placet.core.profile import Profile
from placet.errors import UnavailableError
from placet.platform.starter import Workload
from placet_dev.tee.bundle import profile_of, read_bundle
from placet_dev.tee.control import Launcher, Started
from placet_dev.vaults import UP_TO_DATE

GRACE = 10.0
"""Seconds that a workload has to end."""


class SoftwareTee:
    """A launcher, asked over its control socket. See `placet.platform.starter.Starter`."""

    def __init__(self, address: str) -> None:
        self._launcher = Launcher(Path(address))

    def start(self, bundle: Path, params: Mapping[str, str], log: Path) -> Workload:
        """Start a private copy of a bundle."""
        return _workload(self._launcher.start(bundle, params, log))

    def stop(self, id: str) -> Workload:  # noqa: A002 - its name
        """End a workload, by force after `GRACE` seconds."""
        self._launcher.stop(id)
        try:
            self._launcher.wait(id, GRACE)
        except UnavailableError:
            self._launcher.stop(id, signal.SIGKILL)
            self._launcher.wait(id, GRACE)
        return _workload(self._launcher.status(id))

    def list(self) -> tuple[Workload, ...]:
        """Return what was started, vaults left out: they are not the platform's business."""
        return tuple(_workload(p) for p in self._launcher.list() if p.kind == "workload")

    def profile(self, bundle: Path, security_version: int) -> Profile:
        """Return a bundle's profile under this TEE's root."""
        return profile_of(
            read_bundle(bundle),
            anchor=self._launcher.trust().root.anchor,
            security_version=security_version,
            tcb=UP_TO_DATE,
        )


def _workload(started: Started) -> Workload:
    return Workload(
        id=started.id,
        app=started.app,
        image=started.image,
        config=started.config,
        pid=started.pid,
        exit=started.exit,
    )
