"""A vault's keys in memory: records read through the store, with the policy they fold to."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from placet.core.encoding import decode
from placet.core.limits import MAX_RECORD
from placet.core.messages import CourierItem
from placet.core.statement import open_statement
from placet.errors import KeyNotBornError
from placet.policy.charter import TakenStatement, fold
from placet.policy.key_policy import KeyPolicy, birth_of
from placet.policy.receipts import receipt_of, taken_at
from placet.storage.store import Store
from placet.vault.records import KeyRecord

CACHED = 4096
"""Keys whose record and policy are kept at hand."""


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key's record as stored, its version for compare-and-swap, and its policy in force."""

    version: int
    record: KeyRecord
    policy: KeyPolicy


def record_name(key: str) -> str:
    """Return the name under which a key's record is stored."""
    return f"key/{key}"


def charter_of(record: KeyRecord) -> tuple[TakenStatement, ...]:
    """Return the statements that a record holds.

    Taken here before, so signatures are *not* checked again: the record is sealed.
    """
    if not record.charter:
        return ()
    k = birth_of(open_statement(record.charter[0].signed)).body.vault_set.k
    return tuple(_taken(item, k) for item in record.charter)


def _taken(item: CourierItem, k: int) -> TakenStatement:
    own, *others = (receipt_of(r).time for r in item.receipts)
    return TakenStatement(
        sent=open_statement(item.signed),
        receipts=item.receipts,
        at=taken_at(own, others, k),
    )


class Keys:
    """Look keys up; the newest `CACHED` stay in memory.

    The store is the truth: `put` is told what was committed, and all is forgotten when that
    did not become durable.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: OrderedDict[str, KeyState] = OrderedDict()
        store.watch(kept=lambda: None, lost=self._cache.clear)

    def get(self, key: str) -> KeyState:
        """Return a key's state.

        Raises:
            KeyNotBornError: This vault took no birth statement of that key.
            VerificationError: The record does not open: this vault's disk was changed.
        """
        state = self._cache.get(key)
        if state is None:
            stored = self._store.get(record_name(key))
            if stored is None:
                raise KeyNotBornError(
                    f"this vault has no statement of key {key}",
                    "Send it the charter, from the birth statement on.",
                )
            record = decode(stored.value, KeyRecord, limit=MAX_RECORD)
            state = KeyState(stored.version, record, fold(charter_of(record)))
        self.put(key, state)
        return state

    def put(self, key: str, state: KeyState) -> None:
        """Remember what was committed."""
        self._cache[key] = state
        self._cache.move_to_end(key)
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)
