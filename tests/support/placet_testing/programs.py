"""Vaults as processes of their own: the main program as it is, but for the TEE below it.

    python -m placet_testing.programs --listen HOST:PORT --data FOLDER ...

The TEE is the one of tests (`placet_testing.tee`), which needs neither a launcher nor a bundle.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from placet.core.profile import VaultMember
from placet.vault import main as vault_main
from placet_dev.vaults import HOST, READY
from placet_dev.waiting import wait_for, written
from placet_testing.ports import free_ports
from placet_testing.tee import PKI_FOLDER, Tee, dev_pki, vault_config


@dataclass
class Program:
    """One vault's process; started again it has the port that it had.

    Args:
        folder: Of its data, its log and the test run's PKI.
        name: Of its files.
        store: What ``--store`` says.
    """

    folder: Path
    name: str
    store: str
    port: int = field(default_factory=lambda: free_ports(2))
    id: str = ""

    def __post_init__(self) -> None:
        """Keep the PKI where the process finds it."""
        self.log, self._skip = self.folder / f"{self.name}.log", 0
        self.log.touch()
        pki = self.folder / "pki"
        if not pki.exists():
            pki.mkdir()
            dev_pki().save(pki)
        self._environment = {
            **os.environ,
            PKI_FOLDER: str(pki),
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        }

    def begin(self) -> None:
        """Start it; `ready` waits until it serves."""
        self._skip = self.log.stat().st_size
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", __name__,
                    "--listen", f"{HOST}:{self.port}", "--probe", f"{HOST}:{self.port + 1}",
                    "--data", str(self.folder / self.name), "--store", self.store,
                ],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def ready(self) -> None:
        """Wait until it says that it is ready."""

        def said() -> str | None:
            ended = self.process.poll()
            found = READY.search(text := written(self.log, self._skip))
            assert found or ended is None, text
            return found and found["id"]

        self.id = wait_for(said, f"{self.name} to be ready")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return its exit code; SIGKILL is a power failure."""
        self.process.send_signal(number)
        return self.process.wait(60)

    @property
    def member(self) -> VaultMember:
        """Return its place in a vault set."""
        return VaultMember(id=self.id, endpoint=f"{HOST}:{self.port}", domain=None)

    def reasons(self) -> list[str]:
        """Return why it is not ready, as its probe says."""
        url = f"http://{HOST}:{self.port + 1}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                said = answer.read()
        except urllib.error.HTTPError as e:
            with contextlib.closing(e):
                said = e.read()
        found: dict[str, Any] = json.loads(said)
        return [one["reason"] for one in found.get("reasons", ())]


def main() -> int:
    """Serve, on the TEE of tests."""
    boot = f"boot-{os.urandom(4).hex()}"
    vault_main.open_producer = lambda: Tee(vault_config(), boot=boot)
    return vault_main.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
