"""What a database does for a store: opaque rows, and one writer (spec/06, section 1).

A backend sees tags, sealed bytes and hashes. It is believed in nothing: whatever it returns is
checked by `placet.storage.sealed_store` before anybody uses it. That a commit is durable is
the one thing that only it can know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

SCHEMA = 2
"""Of the tables and of what stands in them; 1 had no state tree."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it lies there."""

    tag: bytes
    version: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """A record to write, or with no ``row`` to delete."""

    tag: bytes
    kind: str
    expected: int | None
    """The version that lies there; None: there must be none."""
    row: Row | None


@dataclass(frozen=True, slots=True)
class EntryRow:
    """A log entry to write."""

    number: int
    trail: bytes
    seq: int
    nodes: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Changes:
    """What one transaction writes."""

    records: tuple[Change, ...]
    """The first decides who writes: a second writer must fail there."""
    entries: tuple[EntryRow, ...] = ()
    tree: Mapping[str, bytes] = field(default_factory=dict)
    """Nodes of the state tree by path, to write or to write over."""


class Backend(Protocol):
    """Rows in a database.

    Every method raises `UnavailableError` when the device or connection fails, and
    `VerificationError` for what can be no database of ours.
    """

    def open(self) -> int | None:
        """Open what is there, or make empty tables; return its schema.

        Called again after a failure: then what is there is read anew, as after a restart.

        Raises:
            UnavailableError: Somebody else has it, or its schema is a later one.
        """

    def record(self, tag: bytes) -> Row | None:
        """Return the record of that tag."""

    def records(self, kind: str | None = None) -> Iterator[Row]:
        """Yield all records, or all of a kind. Not for hot paths."""

    def empty(self) -> bool:
        """Return whether there is not a single row."""

    def node(self, path: str) -> bytes | None:
        """Return the node of the state tree at a path."""

    def size(self) -> int:
        """Return the number after that of the last entry."""

    def entries(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """Return numbers and sealed entries from ``start`` up to ``stop``, in order."""

    def trail(self, trail: bytes, since: int, limit: int) -> list[tuple[int, bytes]]:
        """Return up to ``limit`` numbers and sealed entries of a trail, from ``since`` on."""

    def nodes(self, number: int) -> bytes:
        """Return the log tree's nodes beside an entry; nothing if it is not there."""

    def commit(self, changes: Changes, *, migrate: bool = False) -> None:
        """Write all of it in one transaction; it is durable on return.

        Args:
            changes: What to write.
            migrate: Make the tables of `SCHEMA` out of the earlier ones, in the same transaction.

        Raises:
            ConflictError: A row is not at the version that was expected. Nothing was written.
            UnavailableError: It may be written or not: only reading anew tells.
        """

    def close(self) -> None:
        """Let go of files and connections."""
