"""Vaults on this machine: each a process in the software TEE, with its own folder and port."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from placet.core.config import TrustRoot, VaultConfig, VaultSettings
from placet.core.limits import MAX_EVIDENCE_AGE
from placet.core.profile import TcbRules, VaultMember
from placet.errors import PolicyDeniedError, UnavailableError
from placet_dev.tee.bundle import Bundle, BundleSpec, read_bundle, write_bundle
from placet_dev.tee.control import Launcher
from placet_dev.tee.runtime import build_runtime
from placet_dev.waiting import size, wait_for, wait_for_line, written

HOST = "127.0.0.1"
APP = "placet-vault"
ARGV = (
    "placet.vault.main:main", "--listen", "{listen}", "--data", "{data}", "--probe", "{probe}",
    "--adopt", "{adopt}", "--endpoint", "{endpoint}", "--store", "{store}",
)  # fmt: skip
SQLITE = "sqlite"
DRIVER = ("psycopg", "psycopg-binary")
"""What vaults on PostgreSQL need besides: part of what is measured of them."""
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
CAUGHT_UP = re.compile(
    r"caught up with the old process: (?P<kept>\d+) keys stay there$", re.MULTILINE
)
REFUSED = re.compile(r"waiting to take over from \S+: no key's owner .*$", re.MULTILINE)
PROBES = re.compile(rf"probes on {re.escape(HOST)}:(?P<port>\d+)$", re.MULTILINE)


def vault_bundle(
    folder: Path,
    roots: tuple[TrustRoot, ...],
    cache: Path,
    release: int = 1,
    store: str = SQLITE,
) -> Bundle:
    """Return the bundle of vaults in ``folder``; write it if there is none.

    An old one stays as it is: a sealed store opens for the very code that sealed it only.
    Releases differ in a file of the image that says which one it is, so in their measurement.
    """
    if (folder / "bundle.toml").exists():
        return read_bundle(folder)
    config = VaultConfig(app=APP, argv=ARGV, environment={}, settings=SETTINGS, trust_roots=roots)
    runtime = build_runtime(cache, () if store == SQLITE else DRIVER)
    if release == 1:
        return write_bundle(folder, BundleSpec(config=config, runtime=runtime))
    with tempfile.TemporaryDirectory() as image:
        (Path(image) / "release").write_text(f"{release}\n")
        return write_bundle(folder, BundleSpec(config=config, runtime=runtime, image=Path(image)))


@dataclass(slots=True, kw_only=True)
class VaultProcess:
    """One vault: where its store and log lie, and what it was last heard to say.

    Args:
        folder: Of its store and log; made at the first start.
        port: To listen on; 0 takes a free one at the first start, and keeps it.
        probe: Where it answers probes: a free port at each start, or 0 with an older bundle.
        id: Its vault id, once known.
        process: The launcher's name for its last start.
        release: Which release it runs.
        adopts: Where the older process is that it takes keys over from; empty: nowhere.
        store: Where its records lie: a file in its folder, or the database of that URI.
    """

    folder: Path
    port: int = 0
    probe: int = 0
    id: str = ""
    process: str = field(default="")
    release: int = 1
    adopts: str = ""
    store: str = SQLITE

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
        if self.adopts and not self.port:
            self.port = free_port()
        at = f"{HOST}:{self.port}"
        params = {
            "listen": at,
            "data": str(self.folder.absolute() / "data"),
            "probe": f"{HOST}:0",
            "adopt": self.adopts or "none",
            "endpoint": at,
            "store": self.store,
        }
        argv = read_bundle(bundle).config.argv
        params = {name: value for name, value in params.items() if f"{{{name}}}" in argv}
        self.process = launcher.start(bundle, params, log=self.log).id
        said = wait_for_line(launcher, self.process, self.log, READY, before)
        self.id, self.port = said["id"], int(said["port"])
        if probes := PROBES.search(written(self.log, before)):
            self.probe = int(probes["port"])

    def take_over(self, launcher: Launcher, bundle: Path) -> int:
        """Start it, and wait until it has all that the older process may let it have.

        Returns:
            How many keys stay with the older process.

        Raises:
            PolicyDeniedError: No key's owner has added this release. It is ended again.
        """
        before = size(self.log)
        starting = Thread(target=self._quietly, args=(launcher, bundle), daemon=True)
        starting.start()

        def said() -> re.Match[str] | None:
            text = written(self.log, before)
            if REFUSED.search(text):
                self.end(launcher)
                raise PolicyDeniedError(
                    "no key's owner has added this release of the vaults",
                    "The owner of each key can: placet key update KEY --add-vault-release FILE",
                    reason="vault-release",
                )
            return CAUGHT_UP.search(text)

        kept = int(wait_for(said, f"the new release to take over (see {self.log})")["kept"])
        starting.join()
        return kept

    def _quietly(self, launcher: Launcher, bundle: Path) -> None:
        with contextlib.suppress(UnavailableError):  # it was ended: why is said elsewhere
            self.start(launcher, bundle)

    def end(self, launcher: Launcher, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end; SIGKILL is a power failure."""
        launcher.stop(self.process, number)
        launcher.wait(self.process)


def free_port() -> int:
    """Return a port of this machine that nobody has now.

    It is below those that the kernel gives to connections: a vault that ends and starts again
    finds its port free.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            return port
    raise UnavailableError(f"no port is free on {HOST} between 20000 and 32000", "See: ss -ltn")
