"""The vault sets of the keys here: for whom this vault must stand, and whom it asks (spec/10).

One small record a different set, so that a start reads no keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from placet.core.encoding import decode, digest, encode
from placet.core.limits import MAX_CIRCLES, MAX_PEERS
from placet.core.profile import Profile, VaultSet
from placet.errors import RateLimitedError
from placet.policy.continuity import Circle
from placet.storage.store import Put, Store
from placet.vault.records import CircleRecord


@dataclass(frozen=True, slots=True)
class Peer:
    """Another vault, or an outside witness, and where it may be."""

    id: str
    endpoints: tuple[str, ...]
    profiles: tuple[Profile, ...]
    """Code that it must run; none for an outside witness, which runs anywhere."""
    outside: bool


class Circles:
    """What is known of others, from charters only. It only grows.

    Args:
        own: This vault's id.
        store: Where the records are.
    """

    def __init__(self, own: str, store: Store) -> None:
        self._own, self._store, self._records = own, store, set[str]()
        self.all = dict[Circle, None]()
        self.peers = dict[str, Peer]()
        self._read()
        store.watch(kept=lambda: None, lost=self._forget)

    def puts(self, vault_set: VaultSet) -> tuple[Put, ...]:
        """Return the record of a vault set that is new here.

        Raises:
            RateLimitedError: There are too many different ones.
        """
        if self._forgot:
            self._read()
        name = _name(vault_set)
        if name in self._records:
            return ()
        ids = {*vault_set.ids, *(w.id for w in vault_set.witnesses), *self.peers}
        if len(self._records) >= MAX_CIRCLES or len(ids) > MAX_PEERS:
            raise RateLimitedError(
                f"this vault keeps keys of {len(self._records)} vault sets and asks "
                f"{len(self.peers)} others, and takes no more"
            )
        return (Put(name, encode(CircleRecord(vault_set=vault_set))),)

    def learn(self, vault_set: VaultSet) -> bool:
        """Hear that the record of a vault set is durable; say whether it was new."""
        name = _name(vault_set)
        if name in self._records:
            return False
        self._add(name, vault_set)
        return True

    def _read(self) -> None:
        self._forgot = False
        for name in self._store.names("circle"):
            stored = self._store.get(name)
            if stored is not None:
                self._add(name, decode(stored.value, CircleRecord).vault_set)

    def _forget(self) -> None:
        # Which of them are durable; that a set is known too many only makes this vault stricter.
        self._records, self._forgot = set(), True

    def _add(self, name: str, vault_set: VaultSet) -> None:
        self._records.add(name)
        self.all.setdefault(Circle.of(vault_set))
        for member in vault_set.vaults:
            if member.id != self._own:
                self._know(Peer(member.id, (member.endpoint,), vault_set.profiles, outside=False))
        for witness in vault_set.witnesses:
            self._know(Peer(witness.id, (witness.endpoint,), (), outside=True))

    def _know(self, peer: Peer) -> None:
        # Sets may name other places and other code of one vault: any of them may be right.
        old = self.peers.get(peer.id, peer)
        more = tuple(p for p in peer.profiles if p not in old.profiles)
        self.peers[peer.id] = Peer(
            peer.id,
            tuple(dict.fromkeys((*old.endpoints, *peer.endpoints))),
            (*old.profiles, *more),
            outside=old.outside and peer.outside,
        )


@lru_cache(maxsize=64)
def _name(vault_set: VaultSet) -> str:
    return "circle/" + digest("placet-circle/1", encode(vault_set))
