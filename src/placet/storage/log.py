"""The vault's append-only log: the entry first, then the effect (I11; spec/06, section 3)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import asdict

from placet.core import merkle
from placet.core.encoding import Int, Record, Sha256, decode, encode
from placet.core.limits import MAX_DENIALS, MAX_LOG_ENTRY, MAX_LOG_PAGE
from placet.core.logentry import SALT_SIZE, Draft, LogEntry, entry_hash, leaf_data
from placet.core.merkle import HASH_SIZE, Frontier, leaf_hash
from placet.errors import ConflictError, VerificationError
from placet.storage.store import Append, Batch, Delete, LogState, Put, Store, quarantined

MINUTE = 60
ENDS = 4096
"""Trails whose end is remembered."""


class TrailEnd(Record, kw_only=True):
    """Where one key's trail ends; written with every entry of it."""

    schema: Literal[1] = 1
    count: Int = 0
    last: Sha256 | None = None


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry as it was written, with what an auditor needs to place it in the tree."""

    salt: bytes
    raw: bytes
    entry: LogEntry
    hashed: str
    """See `entry_hash`."""

    @property
    def leaf(self) -> bytes:
        """Its hash in the tree."""
        return leaf_hash(leaf_data(self.hashed))


class Log:
    """The log in ``store``, and the only writer of it.

    Opening reads a few records, whatever the size; `verify` reads everything.

    Args:
        store: Already bound to the vault's id.
        boot: This start's id; it stands in every entry.
        rng: Returns so many random bytes.

    Raises:
        VerificationError: Entries and state do not fit one another: *quarantined*.
    """

    def __init__(self, store: Store, *, boot: str, rng: Callable[[int], bytes]) -> None:
        self._store, self._boot, self._rng = store, boot, rng
        self._lock = threading.RLock()
        self._minute, self._denied = 0, dict[str | None, int]()
        self._settled: tuple[int, dict[str | None, int]] | None = None
        self._known: _Known | None = None
        store.watch(kept=self._kept, lost=self._lost)
        self._read_end()

    @property
    def time(self) -> int:
        """The vault's time at its last entry. No decision may use an earlier one."""
        return self._read_end().time

    def head(self) -> tuple[int, bytes]:
        """Return size and root: all that is durable, or will be when the group around ends."""
        tree = self._read_end().tree
        return tree.size, tree.root()

    def commit(
        self,
        *drafts: Draft,
        now: int,
        changes: tuple[Put | Delete, ...] = (),
        at: int | None = None,
    ) -> tuple[LogEntry, ...]:
        """Write entries and records in one durable step; only on return may the effect leave.

        Args:
            drafts: The decisions, in order.
            now: Unix seconds; an earlier time than the last entry's counts as that one.
            changes: The records that change with them.
            at: The index that the first draft must get, if ``changes`` name it.

        Raises:
            ConflictError: Another writer was first, or the log is not at ``at`` any more.
            UnavailableError: The store cannot write. Nothing was written.
            MalformedError: A draft does not fit `LogEntry`. Nothing was written.
        """
        with self._lock:
            known = self._read_end()
            if at not in {None, known.tree.size}:
                raise ConflictError(f"the log is at {known.tree.size}, expected {at}")
            tree, time = known.tree, max(now, known.time)
            ends = {trail: self._end(trail) for trail in (_trail(d.key) for d in drafts)}
            logged, appends = list[Logged](), list[Append]()
            for draft in drafts:
                trail = _trail(draft.key)
                end, version = ends[trail]
                entry = LogEntry(
                    **asdict(draft),
                    index=tree.size,
                    key_seq=end.count,
                    key_prev=end.last,
                    boot=self._boot,
                    time=time,
                )
                one = _read(self._rng(SALT_SIZE) + encode(entry))
                nodes = tree.completed(one.leaf)
                appends.append(
                    Append(tree.size, trail, end.count, one.salt + one.raw, b"".join(nodes))
                )
                ends[trail] = _follow((one,), end, draft.key), version
                tree = tree.append(one.leaf)
                logged.append(one)
            state = LogState(frontier=tree.to_record(), time=time)
            puts = (Put(trail, encode(end), version) for trail, (end, version) in ends.items())
            self._store.commit(Batch((*changes, *puts), tuple(appends), log=state))
            known.tree, known.time = tree, time
            for trail, (end, version) in ends.items():
                known.remember(trail, end, (version or 0) + 1)
            return tuple(one.entry for one in logged)

    def deny(self, draft: Draft, *, now: int) -> LogEntry | None:
        """Log a denial; beyond ``MAX_DENIALS`` of its key in a minute, count it (R7.5).

        Unborn keys must be denied under ``key=None``, or a caller could invent trails. The
        counts are in memory until `settle`: a crash loses those of its minute.
        """
        with self._lock, self._store.group():
            self.settle(now=now)
            self._counting()
            count = self._denied.get(draft.key, 0) + 1
            entry = self.commit(draft, now=now)[0] if count <= MAX_DENIALS else None
            self._denied[draft.key] = count
            return entry

    def settle(self, *, now: int, stopping: bool = False) -> None:
        """Log how many denials were only counted, once their minute has passed.

        To be called every minute, and with ``stopping`` before the vault ends.
        """
        with self._lock, self._store.group():
            if now // MINUTE <= self._minute and not stopping:
                return
            drafts = [
                Draft(kind="denied", key=key, detail={"suppressed": count - MAX_DENIALS})
                for key, count in self._denied.items()
                if count > MAX_DENIALS
            ]
            if drafts:
                self.commit(*drafts, now=now)
            self._counting()
            self._minute, self._denied = now // MINUTE, {}

    def entries(self, start: int, stop: int) -> tuple[Logged, ...]:
        """Return the entries from ``start`` up to ``stop``, of all keys."""
        return tuple(map(_read, self._store.entries(start, stop)))

    def of_key(
        self, key: str | None, since: int = 0, limit: int = MAX_LOG_PAGE
    ) -> tuple[Logged, ...]:
        """Return up to ``limit`` entries of a key's trail, from number ``since`` on.

        Raises:
            VerificationError: One is missing, does not follow the one before it or is not in
                the tree.
        """
        with self._lock:
            end, _ = self._end(_trail(key))
            logged = tuple(map(_read, self._store.trail(_trail(key), since, limit)))
            before = logged[0].entry.key_prev if logged and since else None
            read = _follow(logged, TrailEnd(count=since, last=before), key)
            if len(logged) != max(min(limit, end.count - since), 0):
                raise quarantined(f"{len(logged)} entries of a key's log are there, not all")
            if logged and read.count == end.count and read != end:
                raise quarantined("a key's last log entry is not the one that its record names")
            if logged:  # The chain leads back from here, so this places them all.
                self._place(logged[-1])
            return logged

    def proof(self, index: int) -> tuple[bytes, ...]:
        """Return the inclusion proof of entry ``index`` in the tree of `head`.

        Raises:
            VerificationError: The stored nodes do not give one: *quarantined*.
            ValueError: There is no such entry: the caller is wrong.
        """
        with self._lock:
            if not 0 <= index < self._read_end().tree.size:
                raise ValueError(f"there is no log entry {index}")
            return self._place(self.entries(index, index + 1)[0])

    def proofs(self, logged: Sequence[Logged], size: int) -> tuple[tuple[bytes, ...], ...]:
        """Return the inclusion proofs of entries in the tree as it was at ``size``.

        Raises:
            VerificationError: The stored nodes do not give them: *quarantined*.
            ValueError: The log never had that size, or an entry came later.
        """
        with self._lock:
            root, _, _ = self.consistency(size, size)
            return tuple(self._place(one, size, root) for one in logged)

    def trail_end(self, key: str | None, size: int) -> TrailEnd:
        """Return where a key's trail ended when the log had ``size`` entries."""
        with self._lock:
            trail = _trail(key)
            low, high = 0, self._end(trail)[0].count
            last = None
            while low < high:
                middle = (low + high) // 2
                found = self._store.trail(trail, middle, 1)
                if not found:
                    raise quarantined("an entry of a key's log is missing")
                if (one := _read(found[0])).entry.index < size:
                    low, last = middle + 1, one
                else:
                    high = middle
            return TrailEnd(count=low, last=last.hashed if last else None)

    def leaf_hashes(self, start: int, stop: int) -> tuple[str, ...]:
        """Return the entry hashes from ``start`` up to ``stop``, of all keys."""
        return tuple(map(_hash, self._store.entries(start, stop)))

    def consistency(self, old: int, new: int) -> tuple[bytes, bytes, tuple[bytes, ...]]:
        """Return the roots of both sizes, and the proof that the one grew into the other.

        Raises:
            VerificationError: The stored nodes do not give one: *quarantined*.
            ValueError: The log never had these sizes: the caller is wrong.
        """
        with self._lock:
            size, root = self.head()
            if not 0 <= old <= new <= size:
                raise ValueError(f"sizes {old} and {new} are not of a log of {size}")
            before, after = self._root(old), self._root(new)
            proof = merkle.consistency_proof(self._node, old, new)
            try:
                merkle.verify_consistency(old, new, before, after, proof)
                grown = merkle.consistency_proof(self._node, new, size)
                merkle.verify_consistency(new, size, after, root, grown)
            except VerificationError as e:
                raise quarantined(f"the log of {size} did not grow out of that of {old}") from e
            return before, after, proof

    def verify(self) -> None:
        """Read every entry again: tree and every key's chain.

        Raises:
            VerificationError: The log is not what this vault wrote.
        """
        with self._lock:
            tree, ends = Frontier(), dict[str | None, TrailEnd]()
            size = self._read_end().tree.size
            while tree.size < size:
                for one in self.entries(tree.size, min(tree.size + MAX_LOG_PAGE, size)):
                    key = one.entry.key
                    ends[key] = _follow((one,), ends.get(key, TrailEnd()), key)
                    tree = tree.append(one.leaf)
            kept = all(self._end(_trail(key), anew=True)[0] == end for key, end in ends.items())
            if tree != self._read_end().tree or not kept:
                raise quarantined("the log's entries do not give its root")

    # --- what is remembered of the store ------------------------------------------------------

    def _read_end(self) -> _Known:
        """Return where the log ends; read it if nothing is known, or nothing is any more."""
        if self._known is None:
            state, known = self._store.log_state(), _Known()
            if state is not None:
                known.tree, known.time = Frontier.from_record(state.frontier), state.time
            size = self._store.size()
            if size != known.tree.size:
                raise quarantined(f"{size} log entries, the log ended at {known.tree.size}")
            self._known = known
            if size:
                try:
                    self.proof(size - 1)
                except BaseException:
                    self._known = None
                    raise
        return self._known

    def _end(self, trail: str, *, anew: bool = False) -> tuple[TrailEnd, int | None]:
        """Return where a trail ends, and its record's version; the last entry must agree."""
        known = self._read_end()
        if not anew and (found := known.ends.get(trail)):
            return found
        stored = self._store.get(trail)
        end = decode(stored.value, TrailEnd) if stored else TrailEnd()
        last = self._store.trail(trail, max(end.count - 1, 0), 2)
        if [_hash(value) for value in last] != ([end.last] if end.count else []):
            raise quarantined("a key's last log entry is not the one that its record names")
        if stored:
            known.remember(trail, end, stored.version)
        return end, stored.version if stored else None

    def _counting(self) -> None:
        """Keep the counts of denials as they are durable, until what changes them is as well."""
        if self._settled is None:
            self._settled = self._minute, dict(self._denied)

    def _kept(self) -> None:
        self._settled = None

    def _lost(self) -> None:
        self._known = None
        if self._settled is not None:
            (self._minute, self._denied), self._settled = self._settled, None

    # --- the tree -------------------------------------------------------------------------------

    def _root(self, size: int) -> bytes:
        """Return the root that the log had at a size: of nodes that are *not* authenticated."""
        hashes, start = list[bytes](), 0
        for level in reversed(range(size.bit_length())):
            if size >> level & 1:
                hashes.append(self._node(level, start >> level))
                start += 1 << level
        return Frontier(size, tuple(hashes)).root()

    def _node(self, level: int, position: int) -> bytes:
        nodes = self._store.nodes((position + 1 << level) - 1)
        return nodes[level * HASH_SIZE : (level + 1) * HASH_SIZE]

    def _place(
        self, one: Logged, size: int | None = None, root: bytes | None = None
    ) -> tuple[bytes, ...]:
        """Return the proof that an entry is in the tree, at its index."""
        if size is None or root is None:
            size, root = self.head()
        proof = merkle.inclusion_proof(self._node, one.entry.index, size)
        try:
            merkle.verify_inclusion(one.leaf, one.entry.index, size, proof, root)
        except VerificationError as e:
            raise quarantined(f"log entry {one.entry.index} is not in the log's tree") from e
        return proof


@dataclass(slots=True)
class _Known:
    """What is remembered of the log; void with the store's own memory."""

    tree: Frontier = field(default_factory=Frontier)
    time: int = 0
    ends: dict[str, tuple[TrailEnd, int]] = field(default_factory=dict)

    def remember(self, trail: str, end: TrailEnd, version: int) -> None:
        """Remember where a trail ends; the first remembered is forgotten for it."""
        self.ends[trail] = end, version
        if len(self.ends) > ENDS:
            del self.ends[next(iter(self.ends))]


def _trail(key: str | None) -> str:
    return f"trail/{key or ''}"


def _hash(value: bytes) -> str:
    return entry_hash(value[:SALT_SIZE], value[SALT_SIZE:])


def _read(value: bytes) -> Logged:
    salt, raw = value[:SALT_SIZE], value[SALT_SIZE:]
    return Logged(salt, raw, decode(raw, LogEntry, limit=MAX_LOG_ENTRY), _hash(value))


def _follow(logged: tuple[Logged, ...], end: TrailEnd, key: str | None) -> TrailEnd:
    """Return where a trail ends after ``logged``; each must follow the one before it."""
    for one in logged:
        entry = one.entry
        if (entry.key, entry.key_seq, entry.key_prev) != (key, end.count, end.last):
            raise quarantined(f"log entry {entry.index} does not follow the one before it")
        end = TrailEnd(count=end.count + 1, last=one.hashed)
    return end
