"""What must hold of a vault's store after any instant at which it ended (I11, I14, I16)."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from placet.core.dsse import Signed, open_signed
from placet.core.encoding import decode
from placet.core.limits import MAX_RECORD
from placet.core.logentry import LogEntry
from placet.core.manifest import manifest_digest
from placet.core.messages import Committed, Held, Released, Taken
from placet.core.statement import open_statement
from placet.errors import MalformedError, VerificationError
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.storage.store import Store
from placet.vault.main import open_vault
from placet.vault.records import BesideRecord, KeyRecord, PendingRecord
from placet_testing.backends import open_store
from placet_testing.standing import AlwaysStanding
from placet_testing.tee import Tee, vault_config

Entry = tuple[str, str | None, str | None, str | None, tuple[tuple[str, str | int], ...]]

RECEIPTS = {
    Taken: {"taken"}, Held: {"held"}, Committed: {"committed"}, Released: {"release", "recover"},
}  # fmt: skip
"""What a vault signs, and the entries that it may stand for."""


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a store says of one key, without times, salts and signatures."""

    vault: str
    charter: tuple[str, ...]
    promised: int
    held: frozenset[str]
    committed: str | None
    beside: tuple[tuple[str, ...], tuple[str, ...]]
    pending: tuple[str, ...]
    log: tuple[Entry, ...]
    """All entries but those of starts."""

    @property
    def records(self) -> tuple[object, ...]:
        """Return what the log is only the story of."""
        return (
            self.vault, self.charter, self.promised, self.held, self.committed, self.beside,
            self.pending,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Restarted:
    """One vault's store, opened again and found to be whole."""

    state: State
    entries: tuple[LogEntry, ...]
    boots: int


@contextlib.contextmanager
def opened(path: Path, sealing_key: bytes = b"") -> Iterator[tuple[Store, Log, str, int]]:
    """Start a vault from its store as its main program does; serve nobody."""
    tee = Tee(vault_config(), boot=f"boot-{os.urandom(4).hex()}")
    seal = Seal(sealing_key or tee.sealing_key(), "", os.urandom)
    with contextlib.closing(open_store(path, seal)) as store:
        alone = partial(AlwaysStanding, ring=str(path.parent))
        _, identity, _, log, _ = open_vault(tee, store, int(time.time()), alone)
        yield store, log, identity.id, identity.boots


def restart(path: Path, key: str) -> Restarted:
    """Open a vault's store as at a start and check all that can be checked of it alone.

    Raises:
        PlacetError: It does not open, or its log does not verify.
        AssertionError: Record and log tell different stories.
    """
    with opened(path) as (store, log, vault, boots):
        log.verify()
        size, _ = log.head()
        entries = tuple(one.entry for one in log.entries(0, size))
        record = _read(store, f"key/{key}", KeyRecord) or KeyRecord(charter=())
        beside = _read(store, f"beside/{key}", BesideRecord) or BesideRecord(waiting=(), forks=())
        pending = _read(store, f"pending/{key}", PendingRecord) or PendingRecord(items=())
    state = State(
        vault=vault,
        charter=tuple(open_statement(item.signed).digest for item in record.charter),
        promised=record.promised,
        held=frozenset(manifest_digest(h.manifest) for h in record.held),
        committed=manifest_digest(record.committed.manifest) if record.committed else None,
        beside=(
            tuple(open_statement(w.signed).digest for w in beside.waiting),
            tuple(open_statement(f).digest for f in beside.forks),
        ),
        pending=tuple(item.stage for item in pending.items),
        log=tuple(_told(e) for e in entries if e.kind != "boot"),
    )
    started = [e.detail and e.detail["boots"] for e in entries if e.kind == "boot"]
    assert started == sorted(set(started)), "a start is told twice"
    assert not started or started[-1] == boots
    own = [entry for entry in entries if entry.key == key]
    _check_told(state, own)
    for item in record.charter:
        check_receipt(item.receipts[0], entries, vault)
    for share in record.held:
        check_receipt(share.held, entries, vault)
    if record.committed:
        check_receipt(record.committed.committed, entries, vault)
    return Restarted(state, entries, boots)


def _check_told(state: State, own: list[LogEntry]) -> None:
    """Check that the records are what the log's entries made of nothing: no half statement."""
    other = "the log tells of another"
    taken = [e.statement for e in own if e.kind == "taken"]
    assert list(state.charter) == taken, f"{other} charter"
    promises = [e.detail["attempt"] for e in own if e.kind == "promised"]
    assert state.promised == max(promises, default=0), f"{other} promise"
    staged = [e.subject for e in own if e.kind == "staged"]
    assert list(state.pending) == staged, f"{other} stage"
    committed = [e.subject for e in own if e.kind == "committed"]
    assert len(committed) <= 1, "a key was made twice"
    if state.committed:
        assert [state.committed] == committed, f"{other} share"
        assert not state.held, "a share is held beside the committed one"
    elif not committed:
        held = {e.subject for e in own if e.kind == "held"}
        assert state.held == held, f"{other} share"


def check_receipt(signed: Signed, entries: tuple[LogEntry, ...], vault: str) -> int:
    """Check that a receipt of this vault stands in its log as it says; return its index."""
    for shape in RECEIPTS:
        with contextlib.suppress(VerificationError, MalformedError):
            body: Any = open_signed(signed, shape, vault=vault)
            break
    else:
        raise AssertionError("no receipt of this vault")
    entry = entries[body.index]
    assert entry.kind in RECEIPTS[shape], (entry, body)
    assert (entry.key, entry.time) == (body.key, body.time)
    if shape in {Taken, Released}:
        assert entry.statement == body.statement
    if shape in {Held, Committed}:
        assert entry.subject == body.manifest
    if shape is Released:
        assert entry.subject == body.code
        assert entry.detail == {"recipient": body.recipient, "version": body.version}
    return int(body.index)


def receipts(answer: bytes) -> list[Signed]:
    """Return every receipt in an answer, however deep."""
    found: list[Signed] = []

    def look(value: object) -> None:
        if isinstance(value, dict):
            if value.keys() == {"payload", "vault_key", "signature"}:
                found.append(Signed(**value))
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    look(json.loads(answer))
    return found


def meaning(status: int, answer: bytes) -> object:
    """Return what an answer says apart from signatures: share, head, problem, what was taken."""
    said = json.loads(answer)
    if status != 200:
        return status, said["type"].rpartition("/")[2], said.get("attempt")

    def bare(value: object) -> object:
        if isinstance(value, dict):
            if value.keys() == {"payload", "vault_key", "signature"}:
                return "signed"
            return {name: bare(inner) for name, inner in value.items()}
        return [bare(inner) for inner in value] if isinstance(value, list) else value

    return status, bare(said)


def _read(store: Store, name: str, shape: type[Any]) -> Any:
    stored = store.get(name)
    return decode(stored.value, shape, limit=MAX_RECORD) if stored else None


def _told(entry: LogEntry) -> Entry:
    detail = tuple(sorted((entry.detail or {}).items()))
    return entry.kind, entry.key, entry.statement, entry.subject, detail
