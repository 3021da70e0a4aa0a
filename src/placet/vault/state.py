"""What every part of a vault's service stands on: who it is, its store, its log, its clock."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import UNSET, UnsetType

from placet.core.checkpoint import origin_of
from placet.core.config import VaultSettings
from placet.core.continuity import News
from placet.core.dsse import vault_id
from placet.core.encoding import encode
from placet.core.logentry import Draft
from placet.errors import HandedOverError, KeyNotBornError, UnavailableError
from placet.ratls.exchange import Clock
from placet.storage.log import Log
from placet.storage.store import Batch, Put, Store
from placet.vault.keys import Keys, KeyState, record_name
from placet.vault.news import NewsRing
from placet.vault.records import Handed, KeyRecord
from placet.vault.standing_rule import StandingRule
from placet.vault.witnessing import Witnessing


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultIdentity:
    """Who this vault is, and which start of it this is."""

    key: Ed25519PrivateKey
    boot: str
    boots: int
    line: str = ""
    """Of a process that took over from another one: the name of its own log (spec/12)."""

    @property
    def own_line(self) -> str | UnsetType:
        """Return what receipts say of the log that they name an entry of."""
        return self.line or UNSET

    @property
    def origin(self) -> str:
        """Return the name of this process's log, under which its checkpoints are signed."""
        return origin_of(self.id, self.line)

    @property
    def id(self) -> str:
        """Return the vault id: the digest of the identity key."""
        return vault_id(self.key.public_key().public_bytes_raw())


class VaultCore:
    """One vault over its log and store. Not for use by several threads.

    Args:
        identity: Its key and boot.
        settings: Measured settings.
        store: Sealed records.
        log: The log, in that store.
        clock: This vault's time, which never goes back.
        standing: Whether it may serve (I6).
        release: Returns the code id of what runs here; unknown, nothing is handed over.
    """

    def __init__(
        self,
        *,
        identity: VaultIdentity,
        settings: VaultSettings,
        store: Store,
        log: Log,
        clock: Clock,
        standing: StandingRule,
        release: Callable[[], str] | None = None,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._store, self._log = store, log
        self._clock, self._standing = clock, standing
        self._release = release
        self._keys = Keys(store)
        self._news = NewsRing(log, self._shown)
        self._witnessing = Witnessing(
            store, identity.key, clock.now, standing.knows, self._news.since
        )

    @property
    def standing(self) -> StandingRule:
        """Return what says whether it may serve."""
        return self._standing

    @property
    def born(self) -> int:
        """Return how many keys were born here."""
        return self._store.count("key")

    def group(self) -> AbstractContextManager[None]:
        """Make what is decided inside durable together, when it ends (`Store.group`)."""
        return self._store.group()

    def find_circles(self) -> None:
        """Learn the vault sets of keys that an earlier release stored without them; once."""
        if not self.born or not self._standing.knows_nobody():
            return
        for name in self._store.names("key"):
            vault_set = self._keys.get(name.removeprefix("key/")).policy.vault_set
            if puts := self._standing.puts(vault_set):
                self._store.commit(Batch(puts))
                self._standing.took(vault_set)

    def release_code(self) -> str:
        """Return the code id of the release that runs here.

        Raises:
            UnavailableError: It cannot be known now: its own evidence does not verify.
        """
        if self._release is None:
            raise UnavailableError("this vault does not know its own release")
        return self._release()

    def _mine(self, key: str) -> KeyState:
        """Return the state of a key that this process keeps.

        Raises:
            KeyNotBornError: It took no birth statement of it.
            HandedOverError: It let go of it.
        """
        state = self._keys.get(key)
        if isinstance(state.record.handed, Handed):
            raise handed_over(key, state.record.handed)
        return state

    def _find(self, key: str) -> KeyState | None:
        try:
            return self._mine(key)
        except KeyNotBornError:
            return None

    def _shown(self, key: str, vault: str) -> News | None:
        """Return how far a key is, if that vault keeps it too."""
        try:
            state = self._find(key)
        except HandedOverError:  # its newer process tells
            return None
        if state is None or vault not in state.policy.vault_set.ids:
            return None
        return News(key=key, version=state.policy.version, head=state.policy.head)

    def _replace(self, state: KeyState, record: KeyRecord, *drafts: Draft, now: int) -> None:
        put = Put(record_name(state.policy.key), encode(record), state.version)
        self._log.commit(*drafts, now=now, changes=(put,))
        self._keys.put(state.policy.key, KeyState(state.version + 1, record, state.policy))


def handed_over(key: str, handed: Handed) -> HandedOverError:
    """Return the problem that says who has a key now."""
    return HandedOverError(
        f"a newer process of this vault has key {key}",
        f"Ask at {handed.endpoint}. If nobody answers there, its operator brings it back.",
        key=key,
        endpoint=handed.endpoint,
        line=handed.line,
        code=handed.code,
    )
