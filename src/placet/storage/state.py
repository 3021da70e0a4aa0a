"""What a sealed store remembers: the state that is durable, and what a group adds to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from placet.core.encoding import Hex32, Int, Record, Text, encode
from placet.core.state_tree import StateTree, record_digest
from placet.errors import ConflictError
from placet.storage.backend import Change, Row
from placet.storage.sealed import Seal
from placet.storage.store import Append, Delete, LogState, Put, Stored

Mark = tuple[int, bytes]
"""Version and digest of the state's row: what tells one commit from every other."""

STATE = "meta/state"
VERSIONS = 16384
"""Records whose version is remembered."""


class State(Record, kw_only=True):
    """What all records and the log of a vault hang on."""

    schema: Literal[2] = 2
    vault: Text
    boots: Int = 0
    """How often the vault started."""
    root: Hex32
    """Of the state tree: over every record but this one."""
    counts: dict[Text, Int]
    """Records of each kind."""
    log: LogState | None = None

    def over(self, version: int, seal: Seal) -> Change:
        """Return the write of this state over that of ``version``; 0: there is none."""
        tag = seal.tag(STATE)
        row = Row(tag, version + 1, seal.seal(STATE, version + 1, encode(self)))
        return Change(tag, kind_of(STATE), version or None, row)


@dataclass(slots=True)
class Pending:
    """A record that a group changed."""

    name: str
    base: int | None
    """The version that is durable."""
    version: int | None
    value: bytes


@dataclass(slots=True)
class Group:
    """What was committed and is not durable yet."""

    state: State
    records: dict[bytes, Pending] = field(default_factory=dict)
    entries: list[Append] = field(default_factory=list)
    dirty: bool = False
    lost: bool = False
    """The store was lost while it was gathered: nothing of it will be written."""


@dataclass(slots=True)
class Durable:
    """What is known to lie in the backend."""

    state: State
    version: int
    size: int
    tree: StateTree
    versions: dict[bytes, int] = field(default_factory=dict)

    def remember(self, tag: bytes, version: int) -> None:
        """Remember a record's version; the first remembered is forgotten for it."""
        self.versions[tag] = version
        if len(self.versions) > VERSIONS:
            del self.versions[next(iter(self.versions))]


def after(change: Put | Delete, known: Pending) -> Pending:
    """Return the record after a change of it.

    Raises:
        ConflictError: Another writer was first.
    """
    if change.expected != known.version:
        kind = kind_of(change.name)
        raise ConflictError(f"a {kind} record is not at version {change.expected} any more")
    if isinstance(change, Delete):
        return Pending(change.name, known.base, None, b"")
    return Pending(change.name, known.base, (change.expected or 0) + 1, change.value)


def opened(seal: Seal, row: Row) -> Stored:
    """Return what a row holds. That it is the newest is *not* checked."""
    return Stored(row.version, seal.open(row.tag, row.version, row.sealed)[1])


def mark(row: Row | None) -> Mark | None:
    """Return what tells a state's row from every other."""
    return (row.version, record_digest(row.version, row.sealed)) if row else None


def kind_of(name: str) -> str:
    """Return the kind of a record, the part of its name that is not secret."""
    return name.partition("/")[0]
