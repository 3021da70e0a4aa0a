"""The embedded store: one SQLite file, one process, one writer (spec/06, section 1)."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from placet.errors import ConflictError, UnavailableError
from placet.storage.sealed import Seal
from placet.storage.store import Append, Batch, Delete, Put, Stored, quarantined

VERSION = 1
SCHEMA = """\
CREATE TABLE records
  (tag BLOB PRIMARY KEY, kind TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE INDEX records_by_kind ON records (kind);
CREATE TABLE entries
  (number INTEGER PRIMARY KEY, trail BLOB NOT NULL, seq INTEGER NOT NULL, nodes BLOB NOT NULL,
   sealed BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX entries_by_trail ON entries (trail, seq);
"""
# Exclusive: the index of the write-ahead log stays in memory, out of others' reach. When it
# is folded into the file is ours to say (see `commit`).
OPENING = """PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
PRAGMA wal_autocheckpoint=0;"""
CHECKPOINT_EVERY = 1000

_RECORD = "SELECT CAST(tag AS BLOB), CAST(version AS INTEGER), sealed FROM records"
_INSERT = "INSERT INTO records VALUES (?1, ?2, ?3, ?4)"
_UPDATE = (
    "UPDATE records SET kind = ?2, version = ?3, sealed = ?4 WHERE tag = ?1 AND version = ?3 - 1"
)
_DELETE = "DELETE FROM records WHERE tag = ? AND version = ?"
_ENTRY = "SELECT number, sealed FROM entries"


class SqliteStore:
    """A `Store` in the file ``path``; it may be used by several threads.

    Args:
        path: Created if it is missing.
        seal: What seals the records; see `bind`.

    Raises:
        UnavailableError: Another process has it open, or the disk does not let us.
        VerificationError: It is no store of this kind.
    """

    def __init__(self, path: Path, seal: Seal) -> None:
        self._seal, self._lock, self._commits = seal, threading.RLock(), 0
        self._broken: Exception | None = None
        with ExitStack() as stack, self._translated():
            guard = stack.enter_context(Path(f"{path}.lock").open("ab"))
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db = stack.enter_context(closing(connection))
            self._open()
            self._files = stack.pop_all()

    def _open(self) -> None:
        self._db.executescript(OPENING)
        ((version,),) = self._read("PRAGMA user_version")
        if version == 0:
            self._db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
        elif version != VERSION:
            raise UnavailableError(f"the store has schema {version}, this release reads {VERSION}")
        # A trigger or view in the file would be somebody else's code in our writes.
        found = self._read("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rootpage")
        if "".join(f"{sql};\n" for (sql,) in found) != SCHEMA:
            raise quarantined("the store's tables are not the ones that this release makes")

    def bind(self, vault: str) -> None:
        """Bind whatever is read or written from now on to this vault id."""
        self._seal = self._seal.bound(vault)

    def get(self, name: str) -> Stored | None:
        """Return the record, if there is one."""
        tag = self._seal.tag(name)
        rows = self._read(f"{_RECORD} WHERE tag = ?", tag)
        return Stored(rows[0][1], self._seal.open(*rows[0])[1]) if rows else None

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of all records of a kind."""
        rows = self._read(f"{_RECORD} WHERE kind = ?", kind)
        names = tuple(self._seal.open(*row)[0] for row in rows)
        if any(_kind(name) != kind for name in names):
            raise quarantined(f"a record of another kind is listed as {kind}")
        return names

    def size(self) -> int:
        """Return the number after that of the last entry."""
        return int(self._read("SELECT IFNULL(MAX(number) + 1, 0) FROM entries")[0][0])

    def entries(self, start: int, stop: int) -> tuple[bytes, ...]:
        """Return the entries from ``start`` up to ``stop``."""
        found = self._entries("number >= ? AND number < ? ORDER BY number", start, stop)
        if len(found) != max(stop - start, 0):
            raise quarantined(f"{len(found)} of the log entries {start} to {stop - 1} are there")
        return found

    def trail(self, trail: str, since: int, limit: int) -> tuple[bytes, ...]:
        """Return up to ``limit`` entries of a trail from ``since`` on."""
        where = "trail = ? AND seq >= ? ORDER BY seq LIMIT ?"
        return self._entries(where, self._seal.tag(trail), since, limit)

    def nodes(self, index: int) -> bytes:
        """Return the nodes that entry ``index`` completed."""
        rows = self._read("SELECT CAST(nodes AS BLOB) FROM entries WHERE number = ?", index)
        return bytes(rows[0][0] or b"") if rows else b""

    def commit(self, batch: Batch) -> None:
        """Write all of ``batch``; it is durable on return."""
        with self._lock, self._translated():
            if self._broken:
                raise UnavailableError(f"the store failed: {self._broken}", "Mend it, restart.")
            # Here, and not by SQLite after a commit, where a failing fsync goes unreported.
            self._commits += 1
            if self._commits % CHECKPOINT_EVERY == 0:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for change in batch.changes:
                    self._change(change)
                for entry in batch.entries:
                    self._append(entry)
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            self._files.close()

    def _change(self, change: Put | Delete) -> None:
        tag, kind, old = self._seal.tag(change.name), _kind(change.name), change.expected
        if isinstance(change, Put):
            version = (old or 0) + 1
            sealed = self._seal.seal(change.name, version, change.value)
            sql = _INSERT if old is None else _UPDATE
            done = self._db.execute(sql, (tag, kind, version, sealed))
        else:
            done = self._db.execute(_DELETE, (tag, old))
        if done.rowcount != 1:
            raise ConflictError(f"a {kind} record is not at version {old} any more")

    def _append(self, entry: Append) -> None:
        sealed = self._seal.seal(f"log/{entry.index}", 1, entry.value)
        row = (entry.index, self._seal.tag(entry.trail), entry.seq, entry.nodes, sealed)
        self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)

    def _entries(self, where: str, *arguments: object) -> tuple[bytes, ...]:
        tag, rows = self._seal.tag, self._read(f"{_ENTRY} WHERE {where}", *arguments)
        return tuple(self._seal.open(tag(f"log/{n}"), 1, sealed)[1] for n, sealed in rows)

    def _read(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        # Under the lock: on one connection, a reader would see what is not durable yet.
        with self._lock, self._translated():
            return self._db.execute(sql, arguments).fetchall()

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


def _kind(name: str) -> str:
    return name.partition("/")[0]
