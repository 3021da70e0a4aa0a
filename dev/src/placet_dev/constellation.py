"""A constellation on this machine: a software TEE and the vaults in it, in one folder.

tee/          the launcher's own: keys, copies of what runs
cache/        runtimes of which bundles are made
bundles/      vault/, and whatever is started here
vaults/1..n   store and log of each vault
vaults.json   what `placet key new --vaults` takes
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import msgspec

from placet.client.vaults_file import VaultsFile, write_vaults
from placet.core.encoding import Int, Record
from placet.core.profile import Profile
from placet.errors import ConflictError, NotFoundError
from placet_dev.tee.bundle import profile_of, read_bundle
from placet_dev.tee.control import Launcher, spawn_launcher
from placet_dev.vaults import HOST, SQLITE, UP_TO_DATE, VaultProcess, vault_bundle

SECURITY_VERSION = 1


class Remembered(Record):
    """``constellation.json``: one vault's port and last start, for whoever comes next."""

    port: Int
    id: str
    process: str
    probe: Int = 0
    release: Int = 1


class LocalConstellation:
    """Vaults in a software TEE. What it starts it ends in `close`, unless it was detached.

    Args:
        state: Its folder.
        launcher: A running launcher.
        vaults: The vaults, started or not.
        k: How many a key needs.
        store: Where their records lie; see `create`.
    """

    def __init__(
        self,
        state: Path,
        launcher: Launcher,
        vaults: Sequence[VaultProcess],
        *,
        k: int,
        store: str = SQLITE,
    ) -> None:
        self.state, self.launcher, self.k, self.store = state, launcher, k, store
        self.vaults = tuple(vaults)
        self.beside: dict[int, VaultProcess] = {}
        """By number of a vault: its newer process, where the older one still has keys."""

    @classmethod
    def create(
        cls,
        state: Path,
        *,
        n: int = 5,
        k: int = 3,
        base_port: int = 0,
        detach: bool = False,
        store: str = SQLITE,
        said: Callable[[str], None] = lambda _: None,
    ) -> Self:
        """Start a launcher and n vaults, and write ``vaults.json``.

        Args:
            state: Its folder; vaults that lived there before live on.
            n: How many vaults.
            k: How many of them a key needs.
            base_port: The first vault's port; 0 takes free ones.
            detach: Whether it outlives this process.
            store: ``sqlite``, or the URI of databases that are there, one a vault: ``{vault}``
                in it stands for ``1``, ``2``, ..., and for ``1_release_2`` in an upgrade.
                Vaults that lived there before stay where they are.
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
            VaultProcess(folder=_folder(state, i, 1), port=port) for i, port in enumerate(ports, 1)
        ]
        made = cls(state, launcher, vaults, k=k, store=store)
        with contextlib.suppress(NotFoundError):
            # What lived there before goes on as the releases that it had.
            made._go_on(cls.find(state))
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
        vaults = [_process(state, i, v) for i, v in enumerate(kept.vaults, 1)]
        launcher = Launcher(state / "tee" / "control")
        found = cls(state, launcher, vaults, k=kept.k, store=kept.store)
        for number, newer in kept.beside.items():
            i = int(number)
            found.beside[i] = _process(state, i, newer, adopts=vaults[i - 1].member.endpoint)
        return found

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
        """Return the folder of the vaults' first bundle."""
        return self.bundle_of(1)

    def bundle_of(self, release: int) -> Path:
        """Return the folder of the bundle of a release of the vaults."""
        return self.state / "bundles" / ("vault" if release == 1 else f"vault-{release}")

    @property
    def releases(self) -> tuple[int, ...]:
        """Return the releases of the vaults that were built here, oldest first."""
        built = (r for r in itertools.count(1) if not self.bundle_of(r).exists())
        return tuple(range(1, next(built)))

    def profile(self, release: int) -> Profile:
        """Return the profile of a release of the vaults, as owners add it."""
        return profile_of(
            read_bundle(self.bundle_of(release)),
            anchor=self.launcher.trust().root.anchor,
            security_version=SECURITY_VERSION,
            tcb=UP_TO_DATE,
        )

    def build_release(self, release: int) -> Path:
        """Build a release of the vaults, and return the file of its profile.

        It differs from the one before in a file that says which it is, so in its
        measurement: no vault of it opens what another one sealed.
        """
        roots = (self.launcher.trust().root,)
        vault_bundle(self.bundle_of(release), roots, self.cache, release, self.store)
        file = self.state / f"vault-release-{release}.json"
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self.profile(release))))
        return file

    def upgrade(self, number: int, release: int) -> int:
        """Have a newer release take over from a vault (counted from 1), as far as owners allow.

        With nothing left to keep, the older process ends, and the newer one gets its port.

        Returns:
            How many keys stay with the older process.

        Raises:
            PolicyDeniedError: No key's owner has added the release. Nothing has changed.
            ConflictError: The vault runs that release already.
        """
        older = self.vaults[number - 1]
        if older.release >= release:
            raise ConflictError(f"vault {number} runs release {older.release} already")
        newer = self.beside.get(number)
        if newer is None:
            newer = VaultProcess(
                folder=_folder(self.state, number, release),
                release=release,
                adopts=older.member.endpoint,
            )
        else:
            newer.end(self.launcher)  # it looks for all that may be had when it starts
        newer.store = self._store_of(newer)
        kept = newer.take_over(self.launcher, self.bundle_of(release))
        self.beside[number] = newer
        self._remember()
        if kept == 0:
            older.end(self.launcher)
            newer.end(self.launcher)
            newer.port, newer.adopts = older.port, ""
            del self.beside[number]
            self.vaults = (*self.vaults[: number - 1], newer, *self.vaults[number:])
            self._remember()
            newer.start(self.launcher, self.bundle_of(release))
            self._remember()
        write_vaults(self.file, self.listed())
        return kept

    def listed(self) -> VaultsFile:
        """Return what ``vaults.json`` says."""
        root = self.launcher.trust().root
        members = tuple(v.member for v in self.vaults)
        newest = max(v.release for v in (*self.vaults, *self.beside.values()))
        profiles = tuple(self.profile(r) for r in self.releases if r <= newest)
        return VaultsFile(k=self.k, vaults=members, profiles=profiles, trust_roots=(root,))

    def kill(self, *numbers: int) -> None:
        """Send vaults (counted from 1) SIGKILL, and wait until they are gone."""
        for number in numbers:
            self.vaults[number - 1].end(self.launcher, signal.SIGKILL)

    def restart(self, *numbers: int) -> None:
        """Start vaults (counted from 1) again, on the store and port that they had."""
        self._each([self.vaults[n - 1] for n in numbers])
        running = {p.id for p in self.launcher.list() if p.exit is None}
        self._each([v for v in self.beside.values() if v.process not in running])
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
        roots = (self.launcher.trust().root,)
        vault_bundle(self.bundle, roots, self.cache, store=self.store)
        said(f"{len(self.vaults)} vaults")
        self._each(self.vaults)
        self._each(tuple(self.beside.values()))
        self._remember()
        write_vaults(self.file, self.listed())

    def _go_on(self, before: Self) -> None:
        self.store = before.store
        for fresh, old in zip(self.vaults, before.vaults, strict=False):
            fresh.folder, fresh.release = old.folder, old.release
        for number, newer in before.beside.items():
            newer.adopts = (
                f"{HOST}:{self.vaults[number - 1].port or before.vaults[number - 1].port}"
            )
            self.beside[number] = newer

    def _each(self, vaults: Sequence[VaultProcess]) -> None:
        """Start vaults side by side: each start copies and hashes a bundle."""
        if not vaults:
            return
        for vault in vaults:
            vault.store = self._store_of(vault)
        with ThreadPoolExecutor(max_workers=len(vaults)) as pool:
            jobs = [pool.submit(v.start, self.launcher, self.bundle_of(v.release)) for v in vaults]
            for done in jobs:
                done.result()

    def _store_of(self, vault: VaultProcess) -> str:
        """Return where its records lie: each vault has a place of its own."""
        return self.store.replace("{vault}", vault.folder.name.replace("-", "_"))

    def _remember(self) -> None:
        kept = _Kept(
            k=self.k,
            vaults=tuple(map(_remembered, self.vaults)),
            beside={str(n): _remembered(v) for n, v in self.beside.items()},
            store=self.store,
        )
        (self.state / "constellation.json").write_bytes(msgspec.json.encode(kept))


class _Kept(Record):
    k: Int
    vaults: tuple[Remembered, ...]
    beside: dict[str, Remembered] = msgspec.field(default_factory=dict)
    store: str = SQLITE


def _remembered(vault: VaultProcess) -> Remembered:
    return Remembered(
        port=vault.port,
        id=vault.id,
        process=vault.process,
        probe=vault.probe,
        release=vault.release,
    )


def _process(state: Path, number: int, kept: Remembered, adopts: str = "") -> VaultProcess:
    return VaultProcess(
        folder=_folder(state, number, kept.release),
        port=kept.port,
        probe=kept.probe,
        id=kept.id,
        process=kept.process,
        release=kept.release,
        adopts=adopts,
    )


def _folder(state: Path, number: int, release: int) -> Path:
    return state / "vaults" / (str(number) if release == 1 else f"{number}-release-{release}")


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
