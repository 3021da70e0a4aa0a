"""The vault's append-only log: the entry first, then the effect (I11; spec/06, section 3)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import asdict

from placet.core import merkle
from placet.core.encoding import Int, Record, Sha256, decode, encode
from placet.core.limits import MAX_DENIALS, MAX_LOG_ENTRY, MAX_LOG_PAGE
from placet.core.logentry import SALT_SIZE, Draft, LogEntry, entry_hash, leaf_data
from placet.core.merkle import HASH_SIZE, Frontier, FrontierRecord, leaf_hash
from placet.errors import ConflictError, VerificationError
from placet.storage.store import Append, Batch, Delete, Put, Store, quarantined

STATE = "meta/log"
MINUTE = 60


class LogState(Record, kw_only=True):
    """Where the log ends; written with every entry."""

    schema: Literal[1] = 1
    frontier: FrontierRecord
    time: Int


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
        stored = store.get(STATE)
        self._version = stored.version if stored else None
        self._tree, self._time = Frontier(), 0
        if stored:
            state = decode(stored.value, LogState)
            self._tree, self._time = Frontier.from_record(state.frontier), state.time
        if store.size() != self._tree.size:
            raise quarantined(f"{store.size()} log entries, the log ended at {self._tree.size}")
        if self._tree.size:
            self.proof(self._tree.size - 1)

    @property
    def time(self) -> int:
        """The vault's time at its last entry. No decision may use an earlier one."""
        return self._time

    def head(self) -> tuple[int, bytes]:
        """Return size and root: all that is durable."""
        tree = self._tree
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
            if at not in {None, self._tree.size}:
                raise ConflictError(f"the log is at {self._tree.size}, expected {at}")
            tree, time = self._tree, max(now, self._time)
            ends = {_trail(draft.key): self._end(_trail(draft.key)) for draft in drafts}
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
                nodes = b"".join(tree.completed(one.leaf))
                appends.append(Append(tree.size, trail, end.count, one.salt + one.raw, nodes))
                ends[trail] = _follow((one,), end, draft.key), version
                tree = tree.append(one.leaf)
                logged.append(one)
            state = LogState(frontier=tree.to_record(), time=time)
            puts = [Put(trail, encode(end), version) for trail, (end, version) in ends.items()]
            puts.append(Put(STATE, encode(state), self._version))
            self._store.commit(Batch((*changes, *puts), tuple(appends)))
            self._tree, self._time, self._version = tree, time, (self._version or 0) + 1
            return tuple(one.entry for one in logged)

    def deny(self, draft: Draft, *, now: int) -> LogEntry | None:
        """Log a denial; beyond ``MAX_DENIALS`` of its key in a minute, count it (R7.5).

        Unborn keys must be denied under ``key=None``, or a caller could invent trails. The
        counts are in memory until `settle`: a crash loses those of its minute.
        """
        with self._lock:
            self.settle(now=now)
            count = self._denied.get(draft.key, 0) + 1
            entry = self.commit(draft, now=now)[0] if count <= MAX_DENIALS else None
            self._denied[draft.key] = count
            return entry

    def settle(self, *, now: int, stopping: bool = False) -> None:
        """Log how many denials were only counted, once their minute has passed.

        To be called every minute, and with ``stopping`` before the vault ends.
        """
        with self._lock:
            if now // MINUTE <= self._minute and not stopping:
                return
            drafts = [
                Draft(kind="denied", key=key, detail={"suppressed": count - MAX_DENIALS})
                for key, count in self._denied.items()
                if count > MAX_DENIALS
            ]
            if drafts:
                self.commit(*drafts, now=now)
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
            self._end(_trail(key))
            logged = tuple(map(_read, self._store.trail(_trail(key), since, limit)))
            before = logged[0].entry.key_prev if logged and since else None
            _follow(logged, TrailEnd(count=since, last=before), key)
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
                one = _read(self._store.trail(trail, middle, 1)[0])
                if one.entry.index < size:
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

    def verify(self) -> None:
        """Read every entry again: tree and every key's chain.

        Raises:
            VerificationError: The log is not what this vault wrote.
        """
        with self._lock:
            tree, ends = Frontier(), dict[str | None, TrailEnd]()
            while tree.size < self._tree.size:
                for one in self.entries(tree.size, min(tree.size + MAX_LOG_PAGE, self._tree.size)):
                    key = one.entry.key
                    ends[key] = _follow((one,), ends.get(key, TrailEnd()), key)
                    tree = tree.append(one.leaf)
            if tree != self._tree or any(self._end(_trail(k))[0] != end for k, end in ends.items()):
                raise quarantined("the log's entries do not give its root")

    def _end(self, trail: str) -> tuple[TrailEnd, int | None]:
        """Return where a trail ends, and its record's version; the last entry must agree."""
        stored = self._store.get(trail)
        end = decode(stored.value, TrailEnd) if stored else TrailEnd()
        last = self._store.trail(trail, max(end.count - 1, 0), 2)
        if [_hash(value) for value in last] != ([end.last] if end.count else []):
            raise quarantined("a key's last log entry is not the one that its record names")
        return end, stored.version if stored else None

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
