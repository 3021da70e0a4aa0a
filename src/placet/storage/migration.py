"""From schema 1, which had no state tree: verified as it is, then put under a root (spec/06, 1.9).

What schema 1 could not show cannot be made up for: a record that was put back, or taken out,
before this day is taken as it lies there. Trails and log are verified in full.
"""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace

from placet.core.encoding import Int, Record, decode
from placet.core.merkle import FrontierRecord
from placet.core.state_tree import EMPTY, StateTree, record_digest
from placet.errors import ConflictError, PlacetError
from placet.storage.backend import Backend, Change, Changes, Row
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.storage.sealed_store import UNBOUND, SealedStore
from placet.storage.state import Durable, State, kind_of
from placet.storage.store import LogState, Stored, quarantined

LOG_STATE = "meta/log"


class LogStateV1(Record, kw_only=True):
    """Where the log ended, in schema 1."""

    schema: Literal[1] = 1
    frontier: FrontierRecord
    time: Int


def migrate(backend: Backend, seal: Seal, boots: int) -> None:
    """Make a store of schema 1 one of schema 2, in one transaction.

    Args:
        backend: Holds tables of schema 1.
        seal: The vault's.
        boots: How often the vault started, by its identity record.

    Raises:
        VerificationError: It is not what a vault of schema 1 wrote. Nothing was changed.
    """
    unbound = seal.bound("")
    earlier = _Schema1(backend, unbound, seal)
    Log(earlier, boot="", rng=bytes).verify()
    digests, counts, gone = dict[bytes, bytes | None](), dict[str, int](), list[Change]()
    for row in backend.records():
        kind = _checked_kind(row, seal, unbound)
        if kind == "meta":
            gone.append(Change(row.tag, kind, row.version, None))
            continue
        digests[row.tag] = record_digest(row.version, row.sealed)
        counts[kind] = counts.get(kind, 0) + 1
    root, nodes = StateTree(EMPTY, lambda _: None).changed(digests)
    state = State(
        vault=seal.vault, boots=boots, root=root.hex(), counts=counts, log=earlier.log_state()
    )
    try:
        changes = Changes((state.over(0, seal), *gone), (), nodes)
        backend.commit(changes, migrate=True)
    except ConflictError as e:
        raise quarantined(f"the store changed while it was migrated: {e.detail}") from e


def _checked_kind(row: Row, seal: Seal, unbound: Seal) -> str:
    """Return the kind of a record by its sealed name; only the identity is sealed for no vault."""
    try:
        name, _ = seal.open(row.tag, row.version, row.sealed)
        own = seal
    except PlacetError:
        name, _ = unbound.open(row.tag, row.version, row.sealed)
        own = unbound
    kind = kind_of(name)
    if (kind == UNBOUND) != (own is unbound) or row.tag != own.tag(name):
        raise quarantined("a record lies where another belongs")
    if kind == "meta" and name != LOG_STATE:
        raise quarantined("the store holds a state that schema 1 does not know")
    return kind


class _Schema1(SealedStore):
    """A store of schema 1, to be read by `Log`: no root, and the log's end in a record."""

    def __init__(self, backend: Backend, unbound: Seal, seal: Seal) -> None:
        super().__init__(backend, unbound, upgrade=migrate)
        self._seal = seal

    def _load(self) -> Durable:
        state = State(vault=self._seal.vault, root=EMPTY.hex(), counts={})
        row = self._backend.record(self._seal.tag(LOG_STATE))
        if row is not None:
            _, value = self._seal.open(row.tag, row.version, row.sealed)
            was = decode(value, LogStateV1)
            state = replace(state, log=LogState(frontier=was.frontier, time=was.time))
        return Durable(state, 0, self._backend.size(), StateTree(EMPTY, self._backend.node))

    def _read(self, durable: Durable, name: str, tag: bytes) -> Stored | None:  # noqa: ARG002
        row = self._backend.record(tag)
        if row is None:
            return None
        return Stored(row.version, self._sealer(name).open(tag, row.version, row.sealed)[1])
