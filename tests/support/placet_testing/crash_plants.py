"""Bugs that the crash matrix is for, each small, and each invisible as long as nobody dies.

`plant` puts one into this process: a fork that lives once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from placet.client import whole_files
from placet.storage import folders, postgresql, sqlite
from placet.storage.backend import Changes
from placet.storage.log import Log
from placet.storage.store import Batch
from placet.vault.turn import Turn

LATER = 60
"""Seconds, which no vault lives here."""


def forgetful() -> None:
    """Have SQLite synchronise nothing."""
    sqlite.OPENING = sqlite.OPENING.replace("synchronous=FULL", "synchronous=OFF")


def hasty() -> None:
    """Answer first, commit then. To be planted in a vault that serves: its start would fail."""
    for backend in (sqlite.SqliteBackend, postgresql.PostgresqlBackend):
        _put_off(backend)


def _put_off(backend: Any) -> None:
    commit = backend.commit

    def later(self: Any, changes: Changes, *, migrate: bool = False) -> None:
        do = partial(commit, self, changes, migrate=migrate)
        asyncio.get_running_loop().call_later(LATER, do)

    backend.commit = later


def in_pieces() -> None:
    """Have PostgreSQL make each statement durable by itself."""
    own = postgresql.PostgresqlBackend._opened
    postgresql.PostgresqlBackend._opened = lambda self: _Pieces(own(self))  # type: ignore[assignment,method-assign,return-value]


class _Pieces:
    def __init__(self, db: Any) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, sql: str, *arguments: Any) -> Any:
        """Run a statement, but none that begins or ends anything."""
        return self._db.execute("SELECT" if sql in {"BEGIN", "COMMIT"} else sql, *arguments)


def two_steps() -> None:
    """Write the records in one transaction and their log entries in the next."""
    began, commit = Turn.__init__, Log.commit

    def alone(self: Turn, _group: object, *more: Any) -> None:
        began(self, contextlib.nullcontext, *more)

    def in_two(self: Log, *drafts: Any, changes: Any = (), **more: Any) -> Any:
        if changes:
            self._store.commit(Batch(changes))
        return commit(self, *drafts, **more)

    Turn.__init__ = alone  # type: ignore[method-assign]
    Log.commit = in_two  # type: ignore[method-assign]


def nameless() -> None:
    """Synchronise no folder: files are there, their names are not."""

    def nothing(folder: Path) -> None: ...

    folders.sync_folder = nothing
    whole_files.sync_folder = nothing


def hollow() -> None:
    """Give a file its name before its bytes are on the disk."""
    whole_files.os = _WithoutFsync(whole_files.os)  # type: ignore[assignment]


class _WithoutFsync:
    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def fsync(self, descriptor: int) -> None:
        """Do nothing."""


PLANTS: dict[str, Callable[[], None]] = {
    plant.__name__: plant for plant in (forgetful, hasty, in_pieces, two_steps, nameless, hollow)
}
