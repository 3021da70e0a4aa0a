"""What every store does, whatever it is built on (spec/06, section 1).

Its law is compare-and-swap: a record changes only from the version that its writer read.
Its unit is the `Batch`: all of it is durable, or none of it happened.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from placet.core.encoding import Int, Record
from placet.core.merkle import FrontierRecord
from placet.errors import VerificationError


class LogState(Record):
    """Where the log ends; sealed with the store's own state."""

    frontier: FrontierRecord
    time: Int


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it was read."""

    version: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Put:
    """Write a record; its version becomes ``expected + 1``, or 1."""

    name: str
    """``kind/rest``; kinds are counted and listed, the rest stays unreadable on the disk."""
    value: bytes
    expected: int | None = None
    """The version that was read; None: there must be no such record."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a record that has version ``expected``."""

    name: str
    expected: int


@dataclass(frozen=True, slots=True)
class Append:
    """Write log entry ``index``, which is number ``seq`` of its trail."""

    index: int
    trail: str
    seq: int
    value: bytes
    nodes: bytes
    """Hashes of the tree nodes that it completes, its own leaf first; not secret."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written together."""

    changes: tuple[Put | Delete, ...] = ()
    entries: tuple[Append, ...] = ()
    log: LogState | None = None
    """Where the log ends now, if entries come or time passed."""
    boots: int | None = None
    """How often the vault started, if that is what changes."""


class Store(Protocol):
    """Sealed records by name, and log entries by number, under one root (R2.2).

    Every method raises `VerificationError` for what was tampered with and
    `UnavailableError` when the device fails. What a store cannot see alone: *all* of it
    put back as it was at an earlier commit.
    """

    def bind(self, vault: str, *, boots: int | None = None) -> None:
        """Bind whatever is read or written from now on to this vault id.

        Args:
            vault: The vault id.
            boots: How often the vault started, by the record that names it; it must be what
                the state says.

        Raises:
            VerificationError: State and records do not fit one another, or what was read before
                is not under the root.
        """

    def get(self, name: str) -> Stored | None:
        """Return the record; None is proven: there is no such record under the root."""

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of all records of a kind. Reads them all: not for hot paths."""

    def count(self, kind: str) -> int:
        """Return how many records of a kind there are."""

    def log_state(self) -> LogState | None:
        """Return where the log ends, if it began."""

    def size(self) -> int:
        """Return the number after that of the last entry."""

    def entries(self, start: int, stop: int) -> tuple[bytes, ...]:
        """Return the entries from ``start`` up to ``stop``; a missing one is a refusal."""

    def trail(self, trail: str, since: int, limit: int) -> tuple[bytes, ...]:
        """Return up to ``limit`` entries of a trail from ``since`` on; gaps are *not* seen."""

    def nodes(self, index: int) -> bytes:
        """Return the nodes that entry ``index`` completed. They are *not* authenticated."""

    def commit(self, batch: Batch) -> None:
        """Write all of ``batch``; it is durable on return, or when the group around ends.

        Raises:
            ConflictError: Another writer was first. Nothing was written.
            UnavailableError: Disk full, read-only or failing. Nothing was written.
        """

    def group(self) -> AbstractContextManager[None]:
        """Make all commits inside durable together, when it ends: nothing may leave before.

        Raises:
            UnavailableError: On leaving: whether they are durable is not known, or they are
                not. Whatever was remembered of this store is void (`watch`).
        """

    def watch(self, *, kept: Callable[[], object], lost: Callable[[], object]) -> None:
        """Have ``kept`` called when a group ended well, ``lost`` when memory is void."""

    def close(self) -> None:
        """Let go of the files."""


def quarantined(detail: str) -> VerificationError:
    """Return the refusal of a store whose content cannot be what this vault wrote."""
    return VerificationError(
        detail,
        "The vault's disk was changed or damaged. It must not serve from it: replace the vault"
        " by resharing; a restored backup is refused as well.",
        quarantined=True,
    )
