"""A backend in memory, which its host may edit as it likes; and what is seen of a store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from placet.core.encoding import decode, digest
from placet.core.merkle import Frontier
from placet.errors import ConflictError, UnavailableError
from placet.storage.backend import SCHEMA, Changes, EntryRow, Row
from placet.storage.log import Log
from placet.storage.migration import migrate
from placet.storage.sealed import Seal
from placet.storage.sealed_store import SealedStore
from placet.storage.store import Store, Stored
from placet.vault.records import KeyRecord

VAULT = digest("vault", b"1")


@dataclass
class Rows:
    """Everything that lies in a backend."""

    records: dict[bytes, Row] = field(default_factory=dict)
    entries: dict[int, EntryRow] = field(default_factory=dict)
    tree: dict[str, bytes] = field(default_factory=dict)
    kinds: dict[bytes, str] = field(default_factory=dict)

    def copy(self) -> Rows:
        """Return a snapshot."""
        return Rows(dict(self.records), dict(self.entries), dict(self.tree), dict(self.kinds))


class MemoryBackend:
    """A `Backend` over `Rows`; ``failing`` makes the next commit fail, before or after it."""

    def __init__(self, rows: Rows | None = None) -> None:
        self.rows, self.failing, self.commits = rows or Rows(), "", 0

    def open(self) -> int:
        """Return the newest schema."""
        return SCHEMA

    def record(self, tag: bytes) -> Row | None:
        """Return a record."""
        return self.rows.records.get(tag)

    def records(self, kind: str | None = None) -> Iterator[Row]:
        """Yield all records, or those of a kind."""
        for tag, row in self.rows.records.items():
            if kind in (None, self.rows.kinds[tag]):
                yield row

    def empty(self) -> bool:
        """Return whether there is nothing."""
        return not self.rows.records and not self.rows.entries

    def node(self, path: str) -> bytes | None:
        """Return a node of the state tree."""
        return self.rows.tree.get(path)

    def size(self) -> int:
        """Return the number after the last one."""
        return max(self.rows.entries, default=-1) + 1

    def entries(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """Return some of the log."""
        found = (e for n, e in sorted(self.rows.entries.items()) if start <= n < stop)
        return [(e.number, e.sealed) for e in found]

    def trail(self, trail: bytes, since: int, limit: int) -> list[tuple[int, bytes]]:
        """Return some of a trail."""
        own = [e for e in self.rows.entries.values() if e.trail == trail and e.seq >= since]
        return [(e.number, e.sealed) for e in sorted(own, key=lambda e: e.seq)][:limit]

    def nodes(self, number: int) -> bytes:
        """Return what lies beside an entry."""
        entry = self.rows.entries.get(number)
        return entry.nodes if entry else b""

    def commit(self, changes: Changes, *, migrate: bool = False) -> None:
        """Write all or nothing."""
        failing, self.failing = self.failing, ""
        if failing == "before" or migrate:
            raise UnavailableError("the disk failed")
        rows = self.rows.copy()
        for change in changes.records:
            old = rows.records.get(change.tag)
            if (old.version if old else None) != change.expected:
                raise ConflictError("another version lies there")
            if change.row is None:
                del rows.records[change.tag]
            else:
                rows.records[change.tag] = change.row
                rows.kinds[change.tag] = change.kind
        for entry in changes.entries:
            if entry.number in rows.entries:
                raise ConflictError("an entry lies there")
            rows.entries[entry.number] = entry
        rows.tree |= changes.tree
        self.rows, self.commits = rows, self.commits + 1
        if failing == "after":
            raise UnavailableError("the connection was lost")

    def close(self) -> None:
        """Do nothing."""


def memory_store(backend: MemoryBackend, vault: str = VAULT) -> SealedStore:
    """Open a store in memory."""
    return SealedStore(backend, Seal(bytes(32), vault, os.urandom), upgrade=migrate)


@dataclass(frozen=True)
class Seen:
    """All that a reader was told."""

    records: tuple[tuple[str, Stored | None], ...]
    head: tuple[int, bytes]
    entries: tuple[str, ...]


def read_all(store: SealedStore, names: Iterable[str]) -> Seen:
    """Read every one of these records and the whole log."""
    log = Log(store, boot="reader", rng=os.urandom)
    log.verify()
    size, root = log.head()
    entries = tuple(one.hashed for one in log.entries(0, size))
    for key in {one.entry.key for one in log.entries(0, size)}:
        log.of_key(key, limit=size)
    if not size and root != Frontier().root():
        raise ValueError("an empty log has another root")
    return Seen(tuple((n, store.get(n)) for n in sorted(names)), (size, root), entries)


OF_A_START = {"identity/vault", "trail/"}
"""What a start writes: who counts it, and the log that is no key's."""


def check_contents(store: Store, was: dict[str, Any], *, started: bool = False) -> Log:
    """Check that all is there that was, by the ``contents.json`` of vectors/releases.

    With ``started``, what a start writes may be there besides.
    """
    log = Log(store, boot="after", rng=os.urandom)
    log.verify()
    if not started:
        assert (log.head(), log.time) == ((was["size"], bytes.fromhex(was["root"])), was["time"])
    assert [one.hashed for one in log.entries(0, was["size"])] == was["entries"]
    for name, before in was["records"].items():
        if name == "meta/log":  # of schema 1: later ones keep it in the state
            assert store.get(name) is None
            continue
        stored = store.get(name)
        assert stored is not None, name
        if started and name in OF_A_START:
            continue
        value = hashlib.sha256(stored.value).hexdigest()
        assert {"version": stored.version, "value": value} == before, name
    assert store.count("key") == len(was["keys"]) > 0
    assert store.names("key") == tuple(f"key/{key}" for key in was["keys"])
    for key in was["keys"]:
        record = store.get(f"key/{key}")
        assert record is not None
        assert decode(record.value, KeyRecord).charter
    return log
