"""What may happen on the way between a store and its database, statement by statement."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Self

from placet.storage.sealed_store import SealedStore


class Wire:
    """A connection of either driver; ``before`` is told each statement, and may raise."""

    def __init__(self, db: Any, before: Callable[[str], object]) -> None:
        self._db, self._before = db, before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, sql: str, *arguments: object) -> Any:
        """Run a statement."""
        self._before(sql)
        return self._db.execute(sql, *arguments)

    def executemany(self, sql: str, *arguments: object) -> Any:
        """Run a statement several times."""
        self._before(sql)
        return self._db.executemany(sql, *arguments)

    def __enter__(self) -> Self:
        self._db.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._db.__exit__(*raised)

    def cursor(self) -> Wire:
        """Return a cursor that is watched as well."""
        return Wire(self._db.cursor(), self._before)


def watch(store: SealedStore, before: Callable[[str], object]) -> None:
    """Have each statement of an open store told, until its connection is made anew."""
    backend: Any = store._backend
    backend._db = Wire(backend._db, before)


def break_at(store: SealedStore, statement: str) -> Callable[[], bool]:
    """Have the server end an open store's session just before a statement; PostgreSQL only.

    Returns:
        What says whether that came to pass.
    """
    import psycopg

    backend: Any = store._backend
    uri, process, seen = backend._uri, backend._db.info.backend_pid, []

    def before(sql: str) -> None:
        if sql.startswith(statement) and not seen:
            seen.append(sql)
            with contextlib.closing(psycopg.connect(uri, autocommit=True)) as db:
                db.execute("SELECT pg_terminate_backend(%s, 10000)", (process,))

    watch(store, before)
    return lambda: bool(seen)


@contextlib.contextmanager
def read_only(store: SealedStore) -> Iterator[None]:
    """Have the database refuse all writes for a while."""
    backend: Any = store._backend
    on, off = "PRAGMA query_only=ON", "PRAGMA query_only=OFF"
    if hasattr(backend, "_uri"):
        on, off = (f"SET default_transaction_read_only = {word}" for word in ("on", "off"))
    backend._db.execute(on)
    try:
        yield
    finally:
        if backend._db is not None:  # else made anew, as ever
            backend._db.execute(off)
