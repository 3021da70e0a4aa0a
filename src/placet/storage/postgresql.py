"""Rows in PostgreSQL, for vaults whose users outgrow one machine (spec/06, 1.10; docs/adr/0021).

Plain SQL, so that databases which speak the same protocol can serve. Nothing in it is readable
there, and it is believed in nothing but that a commit is durable. One writer is enforced by the
first statement of each transaction, a compare-and-swap of the state's row; no lock is needed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from placet.errors import ConflictError, UnavailableError
from placet.storage.backend import SCHEMA, Change, Changes, Row
from placet.storage.migration import migrate
from placet.storage.sealed import Seal
from placet.storage.sealed_store import SealedStore
from placet.storage.store import quarantined

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

PATIENCE = 3
"""Seconds for which a connection is tried, and then for which none is."""
SILENCE = {
    "tcp_user_timeout": "15000",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
"""A network that swallows everything ends a connection in 20 s, and not in a quarter of an hour;
unless the URI says otherwise."""

LOCKED, ABANDONED = "3s", "10s"
"""For how long a row that another session has may be waited for; and after how long without a word
the server gives up a transaction of ours. A forerunner whose machine is gone is in nobody's way."""

TABLES = """\
CREATE TABLE placet_schema (version BIGINT NOT NULL);
CREATE TABLE records (tag BYTEA PRIMARY KEY, kind TEXT NOT NULL, version BIGINT NOT NULL,
  sealed BYTEA NOT NULL);
CREATE INDEX records_by_kind ON records (kind);
CREATE TABLE entries (number BIGINT PRIMARY KEY, trail BYTEA NOT NULL, seq BIGINT NOT NULL,
  nodes BYTEA NOT NULL, sealed BYTEA NOT NULL, UNIQUE (trail, seq));
CREATE TABLE tree (path TEXT PRIMARY KEY, node BYTEA NOT NULL);
"""
_RECORD = "SELECT tag, version, sealed FROM records"
_ROW = (bytes, int, bytes)
_NOT_OURS = "the database's tables are not the ones that this release makes"
_INSERT = "INSERT INTO records VALUES (%s, %s, %s, %s)"
_UPDATE = "UPDATE records SET version = %s, sealed = %s WHERE tag = %s AND version = %s"
_DELETE = "DELETE FROM records WHERE tag = %s AND version = %s"
_ENTRIES = "SELECT number, sealed FROM entries WHERE number >= %s AND number < %s ORDER BY number"
_TRAIL = "SELECT number, sealed FROM entries WHERE trail = %s AND seq >= %s ORDER BY seq LIMIT %s"
_APPEND = "INSERT INTO entries VALUES (%s, %s, %s, %s, %s)"
_TREE = "INSERT INTO tree VALUES (%s, %s) ON CONFLICT (path) DO UPDATE SET node = excluded.node"


class PostgresqlBackend:
    """Rows in the database at ``uri``, on one connection.

    Args:
        uri: As libpq reads it. It decides nothing, and it is never shown: it may hold a password.
        clock: Returns seconds, of whatever beginning.
    """

    def __init__(self, uri: str, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            import psycopg  # noqa: PLC0415 - an extra: most vaults have no use for it
        except ImportError as e:
            raise UnavailableError(
                "this vault was built without the PostgreSQL backend",
                "Install placet[postgresql], which is part of its measurement.",
            ) from e
        self._driver, self._uri, self._clock = psycopg, uri, clock
        self._lock = threading.RLock()
        self._db: psycopg.Connection[Any] | None = None
        self._closed, self._not_before = False, 0.0

    def open(self) -> int:
        """Connect, anew if the connection was lost; return the schema."""
        with self._lock, self._translated():
            if self._closed:
                raise UnavailableError("the store was closed")
            if self._db is None:
                if self._clock() < self._not_before:
                    raise UnavailableError("the database could not be reached a moment ago")
                self._not_before = self._clock() + PATIENCE
                # Autocommit: `BEGIN` and `COMMIT` are ours to send, and nothing stays open.
                said = self._driver.conninfo.conninfo_to_dict(self._uri)
                options: dict[str, Any] = SILENCE | said | {"connect_timeout": PATIENCE}
                self._db = self._driver.connect(autocommit=True, **options)
                self._not_before = 0.0
            try:
                return self._prepared(self._db)
            except UnavailableError:
                self._drop()
                raise

    def record(self, tag: bytes) -> Row | None:
        """Return the record of that tag."""
        rows = self._read(_ROW, f"{_RECORD} WHERE tag = %s", tag)
        return Row(*rows[0]) if rows else None

    def records(self, kind: str | None = None) -> Iterator[Row]:
        """Yield all records, or all of a kind."""
        of_kind = (f"{_RECORD} WHERE kind = %s", kind) if kind else (_RECORD,)
        yield from (Row(*row) for row in self._read(_ROW, *of_kind))

    def empty(self) -> bool:
        """Return whether there is not a single row."""
        sql = "SELECT EXISTS (SELECT 1 FROM records) OR EXISTS (SELECT 1 FROM entries)"
        return not self._only(bool, sql)

    def node(self, path: str) -> bytes | None:
        """Return the node of the state tree at a path."""
        rows = self._read((bytes,), "SELECT node FROM tree WHERE path = %s", path)
        return rows[0][0] if rows else None

    def size(self) -> int:
        """Return the number after that of the last entry."""
        return self._only(int, "SELECT COALESCE(MAX(number) + 1, 0) FROM entries")

    def entries(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """Return numbers and sealed entries from ``start`` up to ``stop``, in order."""
        return self._read((int, bytes), _ENTRIES, start, stop)

    def trail(self, trail: bytes, since: int, limit: int) -> list[tuple[int, bytes]]:
        """Return up to ``limit`` numbers and sealed entries of a trail, from ``since`` on."""
        return self._read((int, bytes), _TRAIL, trail, since, limit)

    def nodes(self, number: int) -> bytes:
        """Return the log tree's nodes beside an entry; nothing if it is not there."""
        rows = self._read((bytes,), "SELECT nodes FROM entries WHERE number = %s", number)
        return rows[0][0] if rows else b""

    def commit(self, changes: Changes, *, migrate: bool = False) -> None:
        """Write all of it in one transaction; it is durable on return."""
        if migrate:
            raise UnavailableError("no release wrote an earlier schema to this database")
        with self._lock, self._translated():
            db = self._opened()
            db.execute("BEGIN")
            try:
                with db.cursor() as cursor:
                    _write(cursor, changes)
                db.execute("COMMIT")
            except ConflictError:
                db.execute("ROLLBACK")
                raise
            except self._driver.IntegrityError as e:
                db.execute("ROLLBACK")
                raise ConflictError("an entry of that name is there already") from e
            except self._driver.Error:
                # Whether a COMMIT that failed is durable, only a new connection tells.
                self._drop()
                raise

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._closed = True
            self._drop()

    def _prepared(self, db: psycopg.Connection[Any]) -> int:
        """Make the tables if there are none; refuse a database that forgets."""
        found = db.execute("SHOW synchronous_commit").fetchone()
        if found is None or found[0] not in {"on", "remote_apply"}:
            raise UnavailableError(
                f"synchronous_commit is {found and found[0]}: commits would not be durable",
                "Set synchronous_commit to on for this database and its role.",
            )
        # For this session: who changes the server's settings meanwhile changes nothing here.
        db.execute(f"SET synchronous_commit = {found[0]}")
        db.execute(f"SET lock_timeout = '{LOCKED}'")
        db.execute(f"SET idle_in_transaction_session_timeout = '{ABANDONED}'")
        sql = "SELECT 1 FROM information_schema.tables WHERE table_name = 'placet_schema'"
        if not db.execute(f"{sql} AND table_schema = current_schema()").fetchall():
            with db.transaction():
                db.execute(TABLES)
                db.execute("INSERT INTO placet_schema VALUES (%s)", (SCHEMA,))
        rows = db.execute("SELECT version FROM placet_schema").fetchall()
        if rows != [(SCHEMA,)]:
            raise UnavailableError(f"the store has schema {rows}, this release reads {SCHEMA}")
        return SCHEMA

    def _opened(self) -> psycopg.Connection[Any]:
        if self._db is None:
            raise UnavailableError("the database is not connected", "Ask again.")
        return self._db

    def _read(self, shape: tuple[type, ...], sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        # One connection under one lock: a reader never sees what is not durable yet.
        with self._lock, self._translated():
            rows = self._opened().execute(sql, arguments).fetchall()
        # The server says what it sends, and may send anything.
        if any(tuple(map(type, row)) != shape for row in rows):
            raise quarantined(_NOT_OURS)
        return rows

    def _only(self, shape: type[T], sql: str) -> T:
        rows = self._read((shape,), sql)
        if len(rows) != 1:
            raise quarantined(_NOT_OURS)
        found: T = rows[0][0]
        return found

    def _drop(self) -> None:
        if self._db is not None:
            with suppress(self._driver.Error):
                self._db.close()
        self._db = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as e:
            self._drop()
            # The class only: what the driver says may hold the address and its password.
            what = type(e).__name__
            hint = "Check the database and the way to it."
            raise UnavailableError(f"the database does not answer: {what}", hint) from None


class PostgresqlStore(SealedStore):
    """A `Store` in the database at ``uri``.

    Args:
        uri: See `PostgresqlBackend`.
        seal: What seals the records; see `SealedStore`.

    Raises:
        UnavailableError: It cannot be reached, or does not make commits durable.
        VerificationError: It is no store of this kind, or was changed.
    """

    def __init__(self, uri: str, seal: Seal) -> None:
        super().__init__(PostgresqlBackend(uri), seal, upgrade=migrate)


def _write(cursor: psycopg.Cursor[Any], changes: Changes) -> None:
    for change in changes.records:
        _change(cursor, change)
    rows = [(e.number, e.trail, e.seq, e.nodes, e.sealed) for e in changes.entries]
    if rows:
        cursor.executemany(_APPEND, rows)
    if changes.tree:
        cursor.executemany(_TREE, changes.tree.items())


def _change(cursor: psycopg.Cursor[Any], change: Change) -> None:
    row = change.row
    if row is None:
        cursor.execute(_DELETE, (change.tag, change.expected))
    elif change.expected is None:
        # Not an error of the database's: that would end the transaction, and look like a failure.
        cursor.execute(
            f"{_INSERT} ON CONFLICT (tag) DO NOTHING",
            (change.tag, change.kind, row.version, row.sealed),
        )
    else:
        cursor.execute(_UPDATE, (row.version, row.sealed, change.tag, change.expected))
    if cursor.rowcount != 1:
        raise ConflictError(f"a {change.kind} record is not at version {change.expected} any more")
