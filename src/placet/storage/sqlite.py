"""The embedded backend: one SQLite file, one process, one writer (spec/06, section 1)."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from placet.errors import ConflictError, UnavailableError
from placet.storage.backend import SCHEMA, Change, Changes, Row
from placet.storage.migration import migrate
from placet.storage.sealed import Seal
from placet.storage.sealed_store import SealedStore
from placet.storage.store import quarantined

TABLES = """\
CREATE TABLE records
  (tag BLOB PRIMARY KEY, kind TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE INDEX records_by_kind ON records (kind);
CREATE TABLE entries
  (number INTEGER PRIMARY KEY, trail BLOB NOT NULL, seq INTEGER NOT NULL, nodes BLOB NOT NULL,
   sealed BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX entries_by_trail ON entries (trail, seq);
"""
TREE = "CREATE TABLE tree (path TEXT PRIMARY KEY, node BLOB NOT NULL) STRICT, WITHOUT ROWID;\n"
SCHEMAS = {1: TABLES, SCHEMA: TABLES + TREE}
UPGRADE = f"{TREE} PRAGMA user_version={SCHEMA};"
"""What makes the tables of the newest schema out of those of schema 1."""

# Exclusive: the index of the write-ahead log stays in memory, out of others' reach. When it
# is folded into the file is ours to say (see `commit`).
OPENING = """PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
PRAGMA wal_autocheckpoint=0;"""
CHECKPOINT_ROWS = 10_000
"""Rows that are written until the write-ahead log is folded into the file. Not commits: a group of
them may hold any number of rows, and the log would grow with it."""

# Casts, since the host may write cells of any type.
_RECORD = (
    "SELECT CAST(tag AS BLOB), IFNULL(CAST(version AS INTEGER), 0),"
    " IFNULL(CAST(sealed AS BLOB), x'') FROM records"
)
_INSERT = "INSERT INTO records VALUES (?1, ?2, ?3, ?4)"
_UPDATE = "UPDATE records SET version = ?2, sealed = ?3 WHERE tag = ?1 AND version = ?4"
_DELETE = "DELETE FROM records WHERE tag = ? AND version = ?"
_ENTRIES = "SELECT number, sealed FROM entries WHERE number >= ? AND number < ? ORDER BY number"
_TRAIL = "SELECT number, sealed FROM entries WHERE trail = ? AND seq >= ? ORDER BY seq LIMIT ?"
_APPEND = "INSERT INTO entries VALUES (?, ?, ?, ?, ?)"
_TREE = "INSERT OR REPLACE INTO tree VALUES (?, ?)"


class SqliteBackend:
    """Rows in the file ``path``; they may be used by several threads.

    Args:
        path: Created if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock, self._folded = path, threading.RLock(), 0
        self._broken: Exception | None = None
        self._db: sqlite3.Connection | None = None
        self._schema = 0
        self._files = ExitStack()

    def open(self) -> int:
        """Open the file, or make it; return its schema. What is open stays open."""
        with self._lock:
            if self._db is None:
                with ExitStack() as stack, self._translated():
                    guard = stack.enter_context(Path(f"{self._path}.lock").open("ab"))
                    fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
                    stack.enter_context(closing(db))
                    self._schema = _prepared(db)
                    self._db, self._files = db, stack.pop_all()
            return self._schema

    def record(self, tag: bytes) -> Row | None:
        """Return the record of that tag."""
        rows = self._read(f"{_RECORD} WHERE tag = ?", tag)
        return Row(*rows[0]) if rows else None

    def records(self, kind: str | None = None) -> Iterator[Row]:
        """Yield all records, or all of a kind."""
        rows = self._read(f"{_RECORD} WHERE kind = ?", kind) if kind else self._read(_RECORD)
        yield from (Row(*row) for row in rows)

    def empty(self) -> bool:
        """Return whether there is not a single row."""
        sql = "SELECT EXISTS (SELECT 1 FROM records) OR EXISTS (SELECT 1 FROM entries)"
        return not self._read(sql)[0][0]

    def node(self, path: str) -> bytes | None:
        """Return the node of the state tree at a path."""
        rows = self._read("SELECT CAST(node AS BLOB) FROM tree WHERE path = ?", path)
        return rows[0][0] if rows else None

    def size(self) -> int:
        """Return the number after that of the last entry."""
        return int(self._read("SELECT IFNULL(MAX(number) + 1, 0) FROM entries")[0][0])

    def entries(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """Return numbers and sealed entries from ``start`` up to ``stop``, in order."""
        return self._read(_ENTRIES, start, stop)

    def trail(self, trail: bytes, since: int, limit: int) -> list[tuple[int, bytes]]:
        """Return up to ``limit`` numbers and sealed entries of a trail, from ``since`` on."""
        return self._read(_TRAIL, trail, since, limit)

    def nodes(self, number: int) -> bytes:
        """Return the log tree's nodes beside an entry; nothing if it is not there."""
        rows = self._read("SELECT CAST(nodes AS BLOB) FROM entries WHERE number = ?", number)
        return bytes(rows[0][0] or b"") if rows else b""

    def commit(self, changes: Changes, *, migrate: bool = False) -> None:
        """Write all of it in one transaction; it is durable on return."""
        with self._lock, self._translated():
            if self._broken:
                raise UnavailableError(f"the store failed: {self._broken}", "Mend it, restart.")
            db = self._opened()
            # Here, and not by SQLite after a commit, where a failing fsync goes unreported.
            if db.total_changes - self._folded >= CHECKPOINT_ROWS:
                self._folded = db.total_changes
                db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            db.execute("BEGIN IMMEDIATE")
            try:
                if migrate:
                    for statement in UPGRADE.split(";"):
                        db.execute(statement)
                _write(db, changes)
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            self._files.close()

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            raise UnavailableError("the store is not open")
        return self._db

    def _read(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        # Under the lock: on one connection, a reader would see what is not durable yet.
        with self._lock, self._translated():
            return self._opened().execute(sql, arguments).fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError as e:
            raise UnavailableError("another process has this store open", "Stop it first.") from e
        except sqlite3.IntegrityError as e:
            raise ConflictError("a record or entry of that name is there already") from e
        except (OSError, sqlite3.OperationalError, sqlite3.ProgrammingError) as e:
            if getattr(e, "sqlite_errorname", "").startswith("SQLITE_IOERR"):
                # After a failed write or fsync the kernel may have dropped what it took.
                self._broken = e
            raise UnavailableError(f"the store does not answer: {e}", "Check the disk.") from e
        except sqlite3.Error as e:
            raise quarantined(f"the store's file is damaged: {e}") from e


class SqliteStore(SealedStore):
    """A `Store` in the file ``path``.

    Args:
        path: Created if it is missing.
        seal: What seals the records; see `SealedStore`.

    Raises:
        UnavailableError: Another process has it open, or the disk does not let us.
        VerificationError: It is no store of this kind, or was changed.
    """

    def __init__(self, path: Path, seal: Seal) -> None:
        super().__init__(SqliteBackend(path), seal, upgrade=migrate)


def _prepared(db: sqlite3.Connection) -> int:
    """Make the tables if there are none; return the schema of those that are there."""
    db.executescript(OPENING)
    ((schema,),) = db.execute("PRAGMA user_version").fetchall()
    if schema == 0:
        db.executescript(f"BEGIN; {SCHEMAS[SCHEMA]} PRAGMA user_version={SCHEMA}; COMMIT;")
        schema = SCHEMA
    elif schema not in SCHEMAS:
        raise UnavailableError(f"the store has schema {schema}, this release reads {SCHEMA}")
    # A trigger or view in the file would be somebody else's code in our writes.
    found = db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    if sorted(f"{sql};" for (sql,) in found) != _statements(SCHEMAS[schema]):
        raise quarantined("the store's tables are not the ones that this release makes")
    return int(schema)


def _statements(sql: str) -> list[str]:
    return sorted(f"{one};" for one in sql.split(";\n") if one)


def _write(db: sqlite3.Connection, changes: Changes) -> None:
    for change in changes.records:
        _change(db, change)
    for e in changes.entries:
        db.execute(_APPEND, (e.number, e.trail, e.seq, e.nodes, e.sealed))
    for node in changes.tree.items():
        db.execute(_TREE, node)


def _change(db: sqlite3.Connection, change: Change) -> None:
    row = change.row
    if row is None:
        done = db.execute(_DELETE, (change.tag, change.expected))
    elif change.expected is None:
        done = db.execute(_INSERT, (change.tag, change.kind, row.version, row.sealed))
    else:
        values = (change.tag, row.version, row.sealed, change.expected)
        done = db.execute(_UPDATE, values)
    if done.rowcount != 1:
        raise ConflictError(f"a {change.kind} record is not at version {change.expected} any more")
