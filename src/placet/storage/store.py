"""What every store does, whatever it is built on (spec/06, section 1).

Its law is compare-and-swap: a record changes only from the version that its writer read.
Its unit is the `Batch`: all of it is durable, or none of it happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from placet.errors import VerificationError


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it was read."""

    version: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Put:
    """Write a record; its version becomes ``expected + 1``, or 1."""

    name: str
    """``kind/rest``; the kind can be listed, the rest stays unreadable on the disk."""
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


class Store(Protocol):
    """Sealed records by name, and log entries by number.

    Every method raises `VerificationError` for what was tampered with and
    `UnavailableError` when the device fails. What a store cannot see alone: *all* of it
    rolled back, or a record replaced by its own older self, version included.
    """

    def bind(self, vault: str) -> None:
        """Bind whatever is read or written from now on to this vault id."""

    def get(self, name: str) -> Stored | None:
        """Return the record, if there is one."""

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of all records of a kind. Reads them all: not for hot paths."""

    def size(self) -> int:
        """Return the number after that of the last entry."""

    def entries(self, start: int, stop: int) -> tuple[bytes, ...]:
        """Return the entries from ``start`` up to ``stop``; a missing one is a refusal."""

    def trail(self, trail: str, since: int, limit: int) -> tuple[bytes, ...]:
        """Return up to ``limit`` entries of a trail from ``since`` on; gaps are *not* seen."""

    def nodes(self, index: int) -> bytes:
        """Return the nodes that entry ``index`` completed. They are *not* authenticated."""

    def commit(self, batch: Batch) -> None:
        """Write all of ``batch``; it is durable on return.

        Raises:
            ConflictError: Another writer was first. Nothing was written.
            UnavailableError: Disk full, read-only or failing. Nothing was written.
        """

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
