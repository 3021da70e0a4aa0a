"""Vaults on this machine: each a process in the software TEE, with its own folder and port."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from pathlib import Path

from placet.core.config import TrustRoot, VaultConfig, VaultSettings
from placet.core.limits import MAX_EVIDENCE_AGE
from placet.core.profile import TcbRules, VaultMember
from placet_dev.tee.bundle import Bundle, BundleSpec, read_bundle, write_bundle
from placet_dev.tee.control import Launcher
from placet_dev.tee.runtime import build_runtime
from placet_dev.waiting import size, wait_for_line, written

HOST = "127.0.0.1"
APP = "placet-vault"
ARGV = (
    "placet.vault.main:main", "--listen", "{listen}", "--data", "{data}", "--probe", "{probe}"
)  # fmt: skip
SETTINGS = VaultSettings(evidence_age=MAX_EVIDENCE_AGE, max_keys=1000)
UP_TO_DATE = TcbRules(
    statuses=("UpToDate",),
    allowed_advisories=None,
    denied_advisories=(),
    denied_families=(),
    hardware_ids=None,
    min_evaluation=0,
)
READY = re.compile(
    rf"vault (?P<id>sha256:[0-9a-f]{{64}}) ready on {re.escape(HOST)}:(?P<port>\d+), boot \d+$",
    re.MULTILINE,
)
PROBES = re.compile(rf"probes on {re.escape(HOST)}:(?P<port>\d+)$", re.MULTILINE)


def vault_bundle(folder: Path, roots: tuple[TrustRoot, ...], cache: Path) -> Bundle:
    """Return the bundle of vaults in ``folder``; write it if there is none.

    An old one stays as it is: a sealed store opens for the very code that sealed it only.
    """
    if (folder / "bundle.toml").exists():
        return read_bundle(folder)
    config = VaultConfig(app=APP, argv=ARGV, environment={}, settings=SETTINGS, trust_roots=roots)
    return write_bundle(folder, BundleSpec(config=config, runtime=build_runtime(cache)))


@dataclass(slots=True, kw_only=True)
class VaultProcess:
    """One vault: where its store and log lie, and what it was last heard to say.

    Args:
        folder: Of its store and log; made at the first start.
        port: To listen on; 0 takes a free one at the first start, and keeps it.
        probe: Where it answers probes: a free port at each start, or 0 with an older bundle.
        id: Its vault id, once known.
        process: The launcher's name for its last start.
    """

    folder: Path
    port: int = 0
    probe: int = 0
    id: str = ""
    process: str = field(default="")

    @property
    def log(self) -> Path:
        """Return the file that its output is appended to."""
        return self.folder / "vault.log"

    @property
    def member(self) -> VaultMember:
        """Return what a vault set says of it."""
        return VaultMember(id=self.id, endpoint=f"{HOST}:{self.port}", domain=None)

    def start(self, launcher: Launcher, bundle: Path) -> None:
        """Start it and wait until it says that it is ready.

        Raises:
            UnavailableError: It ended, or was not ready in time; the end of its log is told.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = size(self.log)
        params = {"listen": f"{HOST}:{self.port}", "data": str(self.folder.absolute() / "data")}
        if "{probe}" in read_bundle(bundle).config.argv:
            params["probe"] = f"{HOST}:0"
        self.process = launcher.start(bundle, params, log=self.log).id
        said = wait_for_line(launcher, self.process, self.log, READY, before)
        self.id, self.port = said["id"], int(said["port"])
        if probes := PROBES.search(written(self.log, before)):
            self.probe = int(probes["port"])

    def end(self, launcher: Launcher, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end; SIGKILL is a power failure."""
        launcher.stop(self.process, number)
        launcher.wait(self.process)
