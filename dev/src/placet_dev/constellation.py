"""A constellation on this machine: a software TEE and the vaults in it, in one folder.

tee/          the launcher's own: keys, copies of what runs
cache/        runtimes of which bundles are made
bundles/      vault/, and whatever is started here
vaults/1..n   store and log of each vault
vaults.json   what `placet key new --vaults` takes
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import msgspec

from placet.client.vaults_file import VaultsFile, write_vaults
from placet.core.encoding import Int, Record
from placet.errors import ConflictError, NotFoundError
from placet_dev.tee.bundle import profile_of, read_bundle
from placet_dev.tee.control import Launcher, spawn_launcher
from placet_dev.vaults import HOST, UP_TO_DATE, VaultProcess, vault_bundle

SECURITY_VERSION = 1


class Remembered(Record):
    """``constellation.json``: one vault's port and last start, for whoever comes next."""

    port: Int
    id: str
    process: str
    probe: Int = 0


class LocalConstellation:
    """Vaults in a software TEE. What it starts it ends in `close`, unless it was detached.

    Args:
        state: Its folder.
        launcher: A running launcher.
        vaults: The vaults, started or not.
        k: How many a key needs.
    """

    def __init__(
        self, state: Path, launcher: Launcher, vaults: Sequence[VaultProcess], *, k: int
    ) -> None:
        self.state, self.launcher, self.k = state, launcher, k
        self.vaults = tuple(vaults)

    @classmethod
    def create(
        cls,
        state: Path,
        *,
        n: int = 5,
        k: int = 3,
        base_port: int = 0,
        detach: bool = False,
        said: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """Start a launcher and n vaults, and write ``vaults.json``.

        Args:
            state: Its folder; vaults that lived there before live on.
            n: How many vaults.
            k: How many of them a key needs.
            base_port: The first vault's port; 0 takes free ones.
            detach: Whether it outlives this process.
            said: Is told what is being done.

        Raises:
            ConflictError: A port is taken; which, and what to do, is said.
            UnavailableError: Something did not start; the end of its log is told.
        """
        ports = [base_port + i if base_port else 0 for i in range(n)]
        for port in filter(None, ports):
            check_port(port)
        said("software TEE")
        launcher = spawn_launcher(state / "tee", detach=detach)
        vaults = [
            VaultProcess(folder=state / "vaults" / str(i + 1), port=port)
            for i, port in enumerate(ports)
        ]
        made = cls(state, launcher, vaults, k=k)
        try:
            made._start(said)
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    def find(cls, state: Path) -> Self:
        """Return the constellation that `create` left running in ``state``.

        Raises:
            NotFoundError: None was ever started there.
            UnavailableError: Its launcher does not answer; raised by what is asked of it.
        """
        try:
            kept = msgspec.json.decode((state / "constellation.json").read_bytes(), type=_Kept)
        except FileNotFoundError as e:
            raise NotFoundError(f"no constellation in {state}", "Start one: placet dev up.") from e
        vaults = [
            VaultProcess(
                folder=state / "vaults" / str(i + 1),
                port=v.port,
                probe=v.probe,
                id=v.id,
                process=v.process,
            )
            for i, v in enumerate(kept.vaults)
        ]
        return cls(state, Launcher(state / "tee" / "control"), vaults, k=kept.k)

    @property
    def cache(self) -> Path:
        """Return the folder of runtimes."""
        return self.state / "cache"

    @property
    def file(self) -> Path:
        """Return the path of ``vaults.json``."""
        return self.state / "vaults.json"

    @property
    def bundle(self) -> Path:
        """Return the folder of the vaults' bundle."""
        return self.state / "bundles" / "vault"

    def listed(self) -> VaultsFile:
        """Return what ``vaults.json`` says."""
        root = self.launcher.trust().root
        profile = profile_of(
            read_bundle(self.bundle),
            anchor=root.anchor,
            security_version=SECURITY_VERSION,
            tcb=UP_TO_DATE,
        )
        members = tuple(v.member for v in self.vaults)
        return VaultsFile(k=self.k, vaults=members, profiles=(profile,), trust_roots=(root,))

    def kill(self, *numbers: int) -> None:
        """Send vaults (counted from 1) SIGKILL, and wait until they are gone."""
        for number in numbers:
            self.vaults[number - 1].end(self.launcher, signal.SIGKILL)

    def restart(self, *numbers: int) -> None:
        """Start vaults (counted from 1) again, on the store and port that they had."""
        self._each([self.vaults[n - 1] for n in numbers])
        self._remember()

    def ended(self) -> tuple[int, ...]:
        """Return the vaults (counted from 1) that do not run.

        Raises:
            UnavailableError: The launcher does not answer: nothing runs.
        """
        running = {p.id for p in self.launcher.list() if p.exit is None}
        return tuple(i for i, v in enumerate(self.vaults, 1) if v.process not in running)

    def close(self) -> None:
        """End the launcher, and with it all that it started."""
        with contextlib.suppress(Exception):
            self.launcher.shutdown()
        self.launcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, said: Callable[[str], None]) -> None:
        said("bundle of the vaults")
        vault_bundle(self.bundle, (self.launcher.trust().root,), self.cache)
        said(f"{len(self.vaults)} vaults")
        self._each(self.vaults)
        self._remember()
        write_vaults(self.file, self.listed())

    def _each(self, vaults: Sequence[VaultProcess]) -> None:
        """Start vaults side by side: each start copies and hashes a bundle."""
        if not vaults:
            return
        with ThreadPoolExecutor(max_workers=len(vaults)) as pool:
            for done in [pool.submit(v.start, self.launcher, self.bundle) for v in vaults]:
                done.result()

    def _remember(self) -> None:
        kept = _Kept(
            k=self.k,
            vaults=tuple(
                Remembered(port=v.port, id=v.id, process=v.process, probe=v.probe)
                for v in self.vaults
            ),
        )
        (self.state / "constellation.json").write_bytes(msgspec.json.encode(kept))


class _Kept(Record):
    k: Int
    vaults: tuple[Remembered, ...]


def check_port(port: int) -> None:
    """Raise unless a port of this machine is free, and say what to do.

    Raises:
        ConflictError: Somebody listens there.
    """
    with socket.socket() as probe:
        # As servers do: a port whose last connections are winding down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as e:
            raise ConflictError(
                f"port {port} on {HOST} is taken",
                f"See who has it: ss -ltnp 'sport = :{port}'. Stop that, or `placet dev down` if "
                "it is an earlier constellation, or take other ports: placet dev up --port 8461.",
                port=port,
            ) from e
