"""Where the stores of a test lie: in files, or in PostgreSQL (R2, R7 and R8.4 hold on both).

A test names its stores by paths on either. What its host does to a disk is said here once: look,
copy, put back, edit. Tests that ask for the fixture `backend` run on both.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from placet.storage.sealed import Seal
from placet.storage.sealed_store import SealedStore
from placet.storage.sqlite import SqliteStore

TABLES = ("records", "entries", "tree")
NAMES = ("sqlite", "postgresql")


class Hand(Protocol):
    """A connection past the vault, as its host has: SQL with `?` for arguments, one statement."""

    def execute(self, sql: str, arguments: Sequence[object] = (), /) -> Any:
        """Run a statement; return something with `fetchall`."""


class Backend(Protocol):
    """A kind of place for stores."""

    name: str

    def open(self, path: Path, seal: Seal) -> SealedStore:
        """Open a store; made if there is none."""

    def place(self, path: Path) -> str:
        """Return what ``--store`` says of it."""

    def exists(self, path: Path) -> bool:
        """Say whether there is one."""

    def copy(self, path: Path, to: Path) -> None:
        """Copy it, also while a vault has it open between two commits; over what is there."""

    def remove(self, path: Path) -> None:
        """Wipe it, if it is there."""

    def hand(self, path: Path) -> contextlib.AbstractContextManager[Hand]:
        """Edit it, while no vault has it open."""

    def raw(self, path: Path) -> bytes:
        """Return all that can be read of it."""


class Sqlite:
    """Stores in files."""

    name = "sqlite"

    def open(self, path: Path, seal: Seal) -> SealedStore:
        """Open the file."""
        return SqliteStore(path, seal)

    def place(self, path: Path) -> str:
        """Return the word for the file that a vault makes in ``--data``."""
        if path.name != "vault.db":
            raise ValueError(f"no vault calls its file {path.name}")
        return self.name

    def exists(self, path: Path) -> bool:
        """Look for the file."""
        return path.exists()

    def copy(self, path: Path, to: Path) -> None:
        """Copy the file and its write-ahead log."""
        self.remove(to)
        to.parent.mkdir(parents=True, exist_ok=True)
        for file in _files(path):
            shutil.copy(file, to.with_name(to.name + file.name.removeprefix(path.name)))

    def remove(self, path: Path) -> None:
        """Unlink the file and what lies beside it."""
        for file in _files(path):
            file.unlink()

    @contextlib.contextmanager
    def hand(self, path: Path) -> Iterator[Hand]:
        """Open the file."""
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            yield db

    def raw(self, path: Path) -> bytes:
        """Read the files."""
        return b"".join(file.read_bytes() for file in _files(path))


def _files(path: Path) -> list[Path]:
    return [path.with_name(path.name + more) for more in ("", "-wal", "-shm", ".lock")
            if path.with_name(path.name + more).exists()]  # fmt: skip


class Postgresql:
    """Stores in one database: a schema each, which is quicker made than a database.

    Args:
        uri: Where a server answers.
    """

    name = "postgresql"

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._made = set[str]()

    def open(self, path: Path, seal: Seal) -> SealedStore:
        """Open the schema, or make it."""
        from placet.storage.postgresql import PostgresqlStore

        return PostgresqlStore(self.place(path), seal)

    def place(self, path: Path) -> str:
        """Return the schema's address; it is made if there is none."""
        if _schema(path) not in self._made:
            with self._connected() as db:
                db.execute(f"CREATE SCHEMA IF NOT EXISTS {_schema(path)}")
            self._made.add(_schema(path))
        return f"{self.uri}&options={quote(f'-c search_path={_schema(path)}')}"

    def exists(self, path: Path) -> bool:
        """Look for its tables."""
        with self._connected() as db:
            return _is_filled(db, path)

    def copy(self, path: Path, to: Path) -> None:
        """Copy the rows of one moment, as a dump does."""
        source, target = _schema(path), _schema(to)
        with self._connected() as db, contextlib.ExitStack() as stack:
            filled = _is_filled(db, path), _is_filled(db, to)
            stack.enter_context(db.transaction())
            db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            if all(filled):
                # Quicker than new tables. Who is about to commit there is waited for, then seen.
                db.execute(f"LOCK TABLE {', '.join(f'{target}.{table}' for table in TABLES)}")
                for table in TABLES:
                    db.execute(f"DELETE FROM {target}.{table}")
                    db.execute(f"INSERT INTO {target}.{table} SELECT * FROM {source}.{table}")
                return
            db.execute(f"DROP SCHEMA IF EXISTS {target} CASCADE")
            db.execute(f"CREATE SCHEMA {target}")
            for table in ("placet_schema", *TABLES) if filled[0] else ():
                own = f"{target}.{table}"
                db.execute(f"CREATE TABLE {own} (LIKE {source}.{table} INCLUDING ALL)")
                db.execute(f"INSERT INTO {own} SELECT * FROM {source}.{table}")

    def remove(self, path: Path) -> None:
        """Drop the schema, whoever is connected."""
        self._made.discard(_schema(path))
        with self._connected() as db:
            db.execute(f"DROP SCHEMA IF EXISTS {_schema(path)} CASCADE")

    @contextlib.contextmanager
    def hand(self, path: Path) -> Iterator[Hand]:
        """Connect to the schema."""
        with self._connected() as db:
            db.execute(f"SET search_path TO {_schema(path)}")
            yield _Hand(db)

    def raw(self, path: Path) -> bytes:
        """Read the rows."""
        with self.hand(path) as db:
            rows = [db.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES]
        return repr(rows).encode()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        import psycopg

        # Not kept: a process that is forked off would share it.
        with contextlib.closing(psycopg.connect(self.uri, autocommit=True)) as db:
            yield db


class _Hand:
    """The driver, told of arguments by `?`."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def execute(self, sql: str, arguments: Sequence[object] = (), /) -> Any:
        """Run a statement."""
        return self._db.execute(sql.replace("?", "%s"), arguments)


def _schema(path: Path) -> str:
    return "s" + hashlib.sha256(str(path).encode()).hexdigest()[:24]


def _is_filled(db: Any, path: Path) -> bool:
    sql = "SELECT to_regclass(%s)"
    return db.execute(sql, (f"{_schema(path)}.placet_schema",)).fetchone()[0] is not None


def cases(values: Sequence[Any], postgresql: Sequence[Any]) -> list[Any]:
    """Return rows for `parametrize` of `backend` and more: all values on SQLite, some on both."""
    rows = [("sqlite", value) for value in values]
    rows += [("postgresql", value) for value in values if value in postgresql]
    return [(name, *value) if isinstance(value, tuple) else (name, value) for name, value in rows]


_chosen: list[Backend] = [Sqlite()]


def chosen() -> Backend:
    """Return where stores lie now."""
    return _chosen[-1]


@contextlib.contextmanager
def use(backend: Backend) -> Iterator[Backend]:
    """Have all stores lie there for a while, those of processes that are forked off too."""
    _chosen.append(backend)
    try:
        yield backend
    finally:
        _chosen.pop()


def open_store(path: Path, seal: Seal) -> SealedStore:
    """Open the store of that path where stores lie now."""
    return chosen().open(path, seal)


def place(path: Path) -> str:
    """Return what ``--store`` says of it."""
    return chosen().place(path)


def exists(path: Path) -> bool:
    """Say whether there is one."""
    return chosen().exists(path)


def copy(path: Path, to: Path) -> None:
    """Copy a store, over what is there."""
    chosen().copy(path, to)


def remove(path: Path) -> None:
    """Wipe a store."""
    chosen().remove(path)


def hand(path: Path) -> contextlib.AbstractContextManager[Hand]:
    """Edit a store as its host can."""
    return chosen().hand(path)


def raw(path: Path) -> bytes:
    """Return all that a host can read of a store."""
    return chosen().raw(path)
