"""A vault's store that holds many keys: filled by the vault's own code, in groups.

Every so many keys there is a *whole* one: its birth was taken, its share promised, held and
committed by the vault's own service, so that it can be released. Those between are written by
`Log.commit` and `SealedStore` with the bytes of a whole one under a name of their own, and as
many log entries: the store cannot tell them apart. Making 1,000,000 whole ones would take hours
of signing.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from placet_testing import backends
from placet_testing.charters import (
    birth_body,
    composer,
    identity,
    profile,
    signed,
    vault_key,
    vault_name,
)
from placet_testing.constellations import run_of
from placet_testing.standing import AlwaysStanding
from placet_testing.tee import Tee, vault_config
from placet_testing.vaults import peer

from placet.client.signing import Composer
from placet.core.attestation import Purpose
from placet.core.config import VaultSettings
from placet.core.dsse import sign_record
from placet.core.encoding import b64
from placet.core.logentry import Draft
from placet.core.manifest import KeyManifest, manifest_digest
from placet.core.messages import CommitRequest, Held, HoldRequest, PromiseRequest, ReleaseRequest
from placet.core.profile import VaultMember, VaultSet
from placet.ratls.exchange import VerifiedPeer
from placet.sharing.key import deal
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.storage.store import Put, Store
from placet.vault.keys import record_name
from placet.vault.main import open_vault
from placet.vault.service import Vault
from placet.vault.standing import Standing
from placet.vault.state import VaultIdentity

K, OTHERS = 3, (2, 3, 4, 5)
WHOLE = 500
"""Keys of each store that can be released."""
STORE = "vault.db"
WHOLE_ONES = "whole.json"
"""Their names, beside the store; written when it is filled."""
GROUP = 250
"""Keys that are made durable together."""
AGE = 3600
SHOWN = profile(1)


@dataclass(frozen=True, slots=True)
class Open:
    """A vault over such a store."""

    vault: Vault
    identity: VaultIdentity
    store: Store
    log: Log

    def peer(self, key: str, purpose: Purpose) -> VerifiedPeer:
        """Return an approved workload that asks about a key."""
        return peer(identity(SHOWN, (key,), purpose=purpose), (key,), at=time.monotonic())

    def release(self, key: str) -> None:
        """Let the share of a whole key go."""
        request = ReleaseRequest(nonce=b64(bytes(32)), head=None)
        self.vault.release(self.peer(key, "release"), key, request)


def open_at(folder: Path, *, serves: bool = True) -> Open:
    """Open the vault in a folder, as `placet vault serve` does; it is made if there is none.

    Args:
        folder: Of its store.
        serves: Without asking others first; False is the rule of what ships.
    """
    settings = VaultSettings(evidence_age=60, max_keys=10_000_000)
    tee = Tee(msgspec.structs.replace(vault_config(), settings=settings), boot=os.urandom(8).hex())
    folder.mkdir(exist_ok=True)
    store = backends.open_store(folder / STORE, Seal(b"s" * 32, "", os.urandom))
    rule: Any = partial(AlwaysStanding, ring=str(folder)) if serves else Standing
    vault, own, _, log, _ = open_vault(tee, store, int(time.time()), rule)
    return Open(vault, own, store, log)


def is_filled(folder: Path) -> bool:
    """Tell whether a store was filled to its end."""
    return (folder / WHOLE_ONES).exists()


def fill(folder: Path, size: int) -> tuple[str, ...]:
    """Make a store of ``size`` keys, if it is not there yet, and return the whole ones."""
    if is_filled(folder):
        return tuple(msgspec.json.decode((folder / WHOLE_ONES).read_bytes(), type=list[str]))
    if folder.exists():  # somebody stopped filling it
        backends.remove(folder / STORE)
    opened = open_at(folder)
    births = composer(int(time.time()))
    every, whole = max(1, size // WHOLE), list[str]()
    template = None
    for start in range(0, size, GROUP):
        with opened.store.group():
            for number in range(start, min(start + GROUP, size)):
                if number % every == 0 and len(whole) < WHOLE:
                    whole.append(_bear(opened, births, number))
                    template = opened.store.get(record_name(whole[-1]))
                elif template is not None:
                    _copy(opened.log, template.value, number)
    opened.store.close()
    (folder / WHOLE_ONES).write_bytes(msgspec.json.encode(whole))
    return tuple(whole)


def written(folder: Path) -> int:
    """Return the bytes that a closed store takes on the disk."""
    if backends.chosen().name == "sqlite":
        return sum(path.stat().st_size for path in folder.glob(f"{STORE}*"))
    sizes = (f"SELECT pg_total_relation_size('{table}')" for table in backends.TABLES)
    with backends.hand(folder / STORE) as db:
        return sum(db.execute(sql).fetchone()[0] for sql in sizes)


def settle(folder: Path) -> bool:
    """Let what filling left be done: else it is measured too. Of files the kernel forgets all.

    Returns:
        Whether what is read next comes from the disk.
    """
    if backends.chosen().name == "sqlite":
        with (folder / STORE).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return True
    with backends.hand(folder / STORE) as db:
        db.execute("VACUUM ANALYZE")
        db.execute("CHECKPOINT")
    return False


def _copy(log: Log, record: bytes, number: int) -> None:
    key = "sha256:" + hashlib.sha256(b"%d" % number).hexdigest()
    drafts = (Draft(kind=kind, key=key, statement=key, subject=key) for kind in _KINDS)
    log.commit(*drafts, now=int(time.time()), changes=(Put(record_name(key), record),))


_KINDS = ("taken", "promised", "held", "committed")


def _bear(opened: Open, births: Composer, number: int) -> str:
    """Have a key born and created, as far as this vault sees it."""
    vault, own = opened.vault, opened.identity.id
    ids = (own, *(vault_name(other) for other in OTHERS))
    members = tuple(_members(ids))
    vaults = VaultSet(k=K, vaults=members, profiles=(profile(0, app="placet-vault"),))
    birth = signed(births.birth(birth_body(vaults=vaults, label=f"notes/users/{number}")))
    key = birth.digest
    vault.take(run_of(birth))
    dealt = deal(
        os.urandom(32),
        key=key,
        generation=1,
        attempt=1,
        k=K,
        vaults=vaults.ids,
        prev=None,
        rng=os.urandom,
    )
    who = opened.peer(key, "create")
    vault.promise(who, key, PromiseRequest(attempt=1))
    share = b64(dealt.shares[own])
    asked = HoldRequest(attempt=1, manifest=dealt.manifest, share=share, finishing=())
    held = {own: vault.hold(who, key, asked).held}
    for other in OTHERS:
        held[vault_name(other)] = sign_record(_held(key, dealt.manifest, other), vault_key(other))
    certificate = tuple(held[vault_id] for vault_id in vaults.ids)
    digest = manifest_digest(dealt.manifest)
    vault.commit(who, key, CommitRequest(attempt=1, manifest=digest, held=certificate))
    return key


def _members(ids: tuple[str, ...]) -> Iterator[VaultMember]:
    for number, vault in enumerate(ids, 1):
        yield VaultMember(id=vault, endpoint=f"127.0.0.1:{9000 + number}", domain=None)


def _held(key: str, manifest: KeyManifest, number: int) -> Held:
    return Held(
        vault=vault_name(number),
        key=key,
        attempt=1,
        manifest=manifest_digest(manifest),
        index=1,
        time=int(time.time()),
    )
