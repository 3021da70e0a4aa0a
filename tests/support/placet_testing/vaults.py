"""Vault services over real sealed stores, in this process, without sockets."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from placet.core.attestation import AttestedIdentity
from placet.core.config import VaultSettings
from placet.ratls.exchange import VerifiedPeer
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.storage.sealed_store import SealedStore
from placet.vault.service import Vault
from placet.vault.state import VaultIdentity
from placet_testing.backends import open_store
from placet_testing.charters import NOW, vault_key
from placet_testing.standing import AlwaysStanding


@dataclass
class TestClock:
    """A clock that stands until it is told otherwise."""

    time: int = NOW
    ticks: float = 1000.0
    __test__ = False

    def now(self) -> int:
        """Return the time that was set."""
        return self.time

    def monotonic(self) -> float:
        """Return the ticks that were set."""
        return self.ticks


@dataclass
class Bench:
    """One vault and all that it rests on."""

    vault: Vault
    store: SealedStore
    log: Log
    clock: TestClock = field(default_factory=TestClock)


def open_bench(
    folder: Path, number: int = 1, *, clock: TestClock | None = None, boots: int = 1
) -> Bench:
    """Open test vault ``number`` in a folder; again, for a restart."""
    clock = clock or TestClock()
    identity = VaultIdentity(key=vault_key(number), boot=f"boot-{boots}", boots=boots)
    store = open_store(folder / f"vault{number}.db", Seal(b"s" * 32, identity.id, os.urandom))
    log = Log(store, boot=identity.boot, rng=os.urandom)
    settings = VaultSettings(evidence_age=60, max_keys=1000)
    standing = AlwaysStanding(
        ring=str(folder), key=identity.key, boot=identity.boot, boots=boots, log=log
    )
    vault = Vault(
        identity=identity,
        settings=settings,
        store=store,
        log=log,
        clock=clock,
        standing=standing,
    )
    return Bench(vault=vault, store=store, log=log, clock=clock)


def peer(
    identity: AttestedIdentity | None, keys: tuple[str, ...] = (), *, at: float = 1000.0
) -> VerifiedPeer:
    """Return what the exchange would have made of a caller: a visitor without an identity."""
    return VerifiedPeer(
        role="visitor" if identity is None else "workload",
        spki="sha256:" + "5c" * 32,
        identity=identity,
        keys=keys,
        attested_at=at,
    )
