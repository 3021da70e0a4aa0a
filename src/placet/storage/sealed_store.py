"""A vault's store over any backend: sealed, counted, under one root (spec/06, sections 1, 6).

Commits are gathered in memory and written by one transaction when the group around them ends;
a commit by itself is a group of one. What is remembered between them is void after a failure:
then it is read again, and must be what was durable last or what was on its way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from msgspec.structs import replace

from placet.core.encoding import decode
from placet.core.state_tree import EMPTY, StateTree, record_digest
from placet.errors import ConflictError, UnavailableError, VerificationError
from placet.storage.backend import SCHEMA, Backend, Change, Changes, EntryRow, Row
from placet.storage.sealed import Seal
from placet.storage.state import STATE, Durable, Group, Pending, State, after, kind_of, mark, opened
from placet.storage.store import Append, Batch, LogState, Stored, quarantined

T = TypeVar("T")
Upgrade = Callable[[Backend, Seal, int], None]

UNBOUND = "identity"
"""The kind that is sealed for no vault, since it says which vault this is."""


class SealedStore:
    """A `Store` in ``backend``; it may be used by several threads, one at a time.

    Args:
        backend: Where the rows lie.
        seal: What seals them. Without a vault id only `get` of the identity, and `size`, are
            possible until `bind`.
        upgrade: Makes the newest schema of an earlier one (`placet.storage.migration`).

    Raises:
        UnavailableError: Another process has it open, or the device fails.
        VerificationError: It is no store of this kind, or was changed.
    """

    def __init__(self, backend: Backend, seal: Seal, *, upgrade: Upgrade) -> None:
        self._backend, self._seal, self._unbound = backend, seal, seal.bound("")
        self._upgrade, self._lock = upgrade, threading.RLock()
        self._durable: Durable | None = None
        self._group: Group | None = None
        self._marks: tuple[
            tuple[int, bytes] | None, ...
        ] = ()  # what may lie there; () before the first load
        self._peeked = dict[str, Stored | None]()
        self._watchers = list[tuple[Callable[[], object], Callable[[], object]]]()
        self._schema = backend.open()
        if seal.vault:
            try:
                self.bind(seal.vault)
            except BaseException:
                backend.close()
                raise

    def bind(self, vault: str, *, boots: int | None = None) -> None:
        """Bind whatever is read or written from now on to this vault id."""
        with self._lock:
            self._seal, self._durable, self._marks = self._unbound.bound(vault), None, ()
            if self._schema not in {None, SCHEMA}:
                self._upgrade(self._backend, self._seal, boots or 0)
                self._schema = SCHEMA
            state = self._ready().state
            if boots not in {None, state.boots}:
                raise quarantined(f"the state is of start {state.boots}, the identity of {boots}")
            # What was read before there was a root is held against it now.
            peeked, self._peeked = self._peeked, {}
            if any(self.get(name) != found for name, found in peeked.items()):
                raise quarantined("what names this vault is not what its root holds")

    def get(self, name: str) -> Stored | None:
        """Return the record; None is proven: there is no such record under the root."""
        with self._lock:
            seal = self._sealer(name)
            tag = seal.tag(name)
            if not self._seal.vault:
                row = self._reading(lambda: self._backend.record(tag))
                self._peeked[name] = opened(seal, row) if row else None
                return self._peeked[name]
            durable = self._ready()
            if self._group and (pending := self._group.records.get(tag)):
                return Stored(pending.version, pending.value) if pending.version else None
            return self._read(durable, name, tag)

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of all records of a kind: no more and no fewer than are counted."""
        with self._lock:
            durable, names = self._ready(), set[str]()
            for row in self._reading(lambda: list(self._backend.records(kind))):
                if record_digest(row.version, row.sealed) != self._expected(durable, row.tag):
                    self._mismatch(f"a {kind} record is not the one under the root")
                names.add(self._sealer(kind).open(row.tag, row.version, row.sealed)[0])
            if {kind_of(name) for name in names} - {kind} or len(names) != durable.state.counts.get(
                kind, 0
            ):
                self._mismatch(f"{len(names)} records are listed as {kind}, there are others")
            pending = self._group.records.values() if self._group else ()
            gone = {one.name for one in pending if one.version is None}
            more = {one.name for one in pending if one.version and kind_of(one.name) == kind}
            return tuple(sorted(names - gone | more))

    def count(self, kind: str) -> int:
        """Return how many records of a kind there are."""
        with self._lock:
            return self._now().counts.get(kind, 0)

    @property
    def boots(self) -> int:
        """How often the vault started, as its state says."""
        with self._lock:
            return self._now().boots

    def log_state(self) -> LogState | None:
        """Return where the log ends, if it began."""
        with self._lock:
            return self._now().log

    def size(self) -> int:
        """Return the number after that of the last entry."""
        with self._lock:
            if not self._seal.vault:
                return self._reading(self._backend.size)
            return self._ready().size + (len(self._group.entries) if self._group else 0)

    def entries(self, start: int, stop: int) -> tuple[bytes, ...]:
        """Return the entries from ``start`` up to ``stop``."""
        with self._lock:
            size = self._ready().size
            rows = self._reading(lambda: self._backend.entries(start, min(stop, size)))
            found = self._entries(rows)
            if self._group:
                found += tuple(e.value for e in self._group.entries if start <= e.index < stop)
            if len(found) != max(stop - start, 0):
                self._mismatch(f"{len(found)} of the log entries {start} to {stop - 1} are there")
            return found

    def trail(self, trail: str, since: int, limit: int) -> tuple[bytes, ...]:
        """Return up to ``limit`` entries of a trail from ``since`` on."""
        with self._lock:
            self._ready()
            tag = self._seal.tag(trail)
            found = self._entries(self._reading(lambda: self._backend.trail(tag, since, limit)))
            if self._group:
                more = (e for e in self._group.entries if e.trail == trail and e.seq >= since)
                found += tuple(e.value for e in more)
            return found[:limit]

    def nodes(self, index: int) -> bytes:
        """Return the nodes that entry ``index`` completed."""
        with self._lock:
            size = self._ready().size
            if self._group and index >= size:
                return next((e.nodes for e in self._group.entries if e.index == index), b"")
            return self._reading(lambda: self._backend.nodes(index))

    def commit(self, batch: Batch) -> None:
        """Write all of ``batch``; it is durable on return, or when the group around ends."""
        with self._grouped() as group:
            self._take(group, batch)

    @contextmanager
    def group(self) -> Iterator[None]:
        """Make all commits inside durable together, when it ends: nothing may leave before."""
        with self._grouped():
            yield

    @contextmanager
    def _grouped(self) -> Iterator[Group]:
        with self._lock:
            if self._group is not None:
                yield self._group
                return
            durable = self._ready()
            group = self._group = Group(durable.state)
            try:
                yield group
                if group.dirty:
                    self._write(durable, group)
            except BaseException:
                if group.dirty:
                    self._lose()
                raise
            finally:
                self._group = None
            for kept, _ in self._watchers:
                kept()

    def watch(self, *, kept: Callable[[], object], lost: Callable[[], object]) -> None:
        """Have ``kept`` called when a group ended well, ``lost`` when memory is void."""
        self._watchers.append((kept, lost))

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            self._backend.close()

    # --- taking a batch ---------------------------------------------------------------------

    def _take(self, group: Group, batch: Batch) -> None:
        """Take all of a batch into the group, or nothing."""
        durable, taken = self._ready(), dict[bytes, Pending]()
        counts = dict(group.state.counts)
        for change in batch.changes:
            kind, name = kind_of(change.name), change.name
            if "\0" in name:
                raise ValueError("a record's name holds no zero byte")
            tag = self._sealer(name).tag(name)
            known = taken.get(tag) or group.records.get(tag) or self._base(durable, name, tag)
            taken[tag] = new = after(change, known)
            counts[kind] = counts.get(kind, 0) + bool(new.version) - bool(known.version)
        at = durable.size + len(group.entries)
        for number, entry in enumerate(batch.entries, at):
            if entry.index != number:
                raise ConflictError(f"the log is at {number}, not at {entry.index}")
        boots = group.state.boots if batch.boots is None else batch.boots
        counts = {kind: count for kind, count in counts.items() if count}
        group.state = replace(
            group.state, boots=boots, counts=counts, log=batch.log or group.state.log
        )
        group.records |= taken
        group.entries += batch.entries
        group.dirty = True

    def _base(self, durable: Durable, name: str, tag: bytes) -> Pending:
        version = durable.versions.get(tag)
        if version is None and self._expected(durable, tag) is not None:
            stored = self._read(durable, name, tag)
            version = stored.version if stored else None
        return Pending(name, version, version, b"")

    # --- writing and reading ----------------------------------------------------------------

    def _write(self, durable: Durable, group: Group) -> None:
        """Write a group by one transaction."""
        digests, records = dict[bytes, bytes | None](), list[Change]()
        for tag, one in group.records.items():
            if one.version is None:
                if one.base is None:
                    continue
                row, digests[tag] = None, None
            else:
                sealed = self._sealer(one.name).seal(one.name, one.version, one.value)
                row = Row(tag, one.version, sealed)
                digests[tag] = record_digest(one.version, sealed)
            records.append(Change(tag, kind_of(one.name), one.base, row))
        try:
            root, nodes = durable.tree.changed(digests)
        except VerificationError as e:
            self._mismatch(e.detail)
        state = replace(group.state, root=root.hex())
        first = state.over(durable.version, self._seal)
        rows = tuple(self._entry_row(entry) for entry in group.entries)
        self._marks = (*self._marks[:1], mark(first.row))
        try:
            self._backend.commit(Changes((first, *records), rows, nodes))
        except ConflictError as e:
            self._mismatch(f"what lies there is not what was read: {e.detail}")
        self._marks = (mark(first.row),)
        durable.tree.adopt(root, nodes)
        durable.state, durable.version = state, durable.version + 1
        durable.size += len(group.entries)
        for tag, one in group.records.items():
            if one.version is None:
                durable.versions.pop(tag, None)
            else:
                durable.remember(tag, one.version)

    def _entry_row(self, entry: Append) -> EntryRow:
        sealed = self._seal.seal(f"log/{entry.index}", 1, entry.value)
        return EntryRow(entry.index, self._seal.tag(entry.trail), entry.seq, entry.nodes, sealed)

    def _expected(self, durable: Durable, tag: bytes) -> bytes | None:
        try:
            return self._reading(lambda: durable.tree.get(tag))
        except VerificationError as e:
            self._mismatch(e.detail)

    def _read(self, durable: Durable, name: str, tag: bytes) -> Stored | None:
        expected = self._expected(durable, tag)
        row = self._reading(lambda: self._backend.record(tag))
        if (row and record_digest(row.version, row.sealed)) != expected:
            self._mismatch(f"a {kind_of(name)} record is not the one under the root")
        if row is None:
            return None
        stored = opened(self._sealer(name), row)
        durable.remember(tag, stored.version)
        return stored

    def _entries(self, rows: list[tuple[int, bytes]]) -> tuple[bytes, ...]:
        seal = self._seal
        return tuple(seal.open(seal.tag(f"log/{n}"), 1, sealed)[1] for n, sealed in rows)

    # --- memory -----------------------------------------------------------------------------

    def _now(self) -> State:
        return self._group.state if self._group else self._ready().state

    def _ready(self) -> Durable:
        """Return what is durable; read it if nothing is known, or nothing is any more."""
        if self._group and self._group.lost:
            raise UnavailableError("the store failed while this was under way", "Ask again.")
        if self._durable is None:
            if not self._seal.vault:
                raise ValueError("the store is not bound to a vault yet")
            if self._marks:
                self._reading(self._backend.open)
            self._durable = self._reading(self._load)
        return self._durable

    def _load(self) -> Durable:
        row = self._backend.record(self._seal.tag(STATE))
        if self._marks and mark(row) not in self._marks:
            self._usurped(row)
        self._marks = (mark(row),)
        state = State(vault=self._seal.vault, root=EMPTY.hex(), counts={})
        if row is not None:
            state = decode(opened(self._seal, row).value, State)
        elif not self._backend.empty():
            raise quarantined("the store holds records or a log, and no state: it is missing")
        if state.vault != self._seal.vault:
            raise quarantined("the state is another vault's")
        tree = StateTree(bytes.fromhex(state.root), self._backend.node)
        return Durable(state, row.version if row else 0, self._backend.size(), tree)

    def _reading(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except UnavailableError:
            self._lose()
            raise

    def _mismatch(self, detail: str) -> NoReturn:
        """Refuse what does not fit the root; or what fits another writer's, and say so."""
        row = self._backend.record(self._seal.tag(STATE))
        if mark(row) not in self._marks:
            self._usurped(row)
        raise quarantined(detail)

    def _usurped(self, row: Row | None) -> NoReturn:
        """Refuse a state that this process did not write."""
        self._lose()
        known = min(version for version, _ in filter(None, self._marks)) if any(self._marks) else 0
        if row is None or row.version < known:
            raise quarantined("the store went back while it was open")
        opened(self._seal, row)
        raise UnavailableError(
            "somebody else wrote this store while it was open here",
            "Let one process serve it, and start that one again.",
        )

    def _lose(self) -> None:
        self._durable = None
        if self._group:
            self._group.lost = True
        for _, lost in self._watchers:
            lost()

    def _sealer(self, name: str) -> Seal:
        return self._unbound if kind_of(name) == UNBOUND else self._seal
