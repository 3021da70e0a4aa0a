"""Two processes of one vault without sockets: the old one, the new one, and what goes between."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.attest.verify import verify_evidence
from placet.core.attestation import AttestedIdentity, Claims
from placet.core.dsse import vault_id
from placet.core.encoding import b64, encode, unb64
from placet.core.handover import HandOverConfirm, HandOverRequest
from placet.core.profile import code_id
from placet.errors import PlacetError
from placet.ratls.exchange import VerifiedPeer
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.storage.sealed_store import SealedStore
from placet.storage.store import Batch, Put
from placet.vault.main import open_vault
from placet.vault.records import IdentityRecord
from placet.vault.service import Vault
from placet.vault.succession import IDENTITY
from placet.vault.takeover import check_package
from placet_testing.backends import exists, open_store
from placet_testing.serving import trust
from placet_testing.standing import AlwaysStanding
from placet_testing.tee import Tee, vault_config

ENDPOINT = "127.0.0.1:7999"


@dataclass
class Process:
    """One process of a vault, over the store in its file."""

    path: Path
    release: int
    line: str = ""

    def __post_init__(self) -> None:
        """Start it."""
        self.tee = Tee(vault_config(), version=self.release, boot=f"boot-{os.urandom(4).hex()}")
        self.store: SealedStore
        self.vault: Vault
        self.log: Log
        self.id: str
        if not self.line or exists(self.path):
            self.open()

    def open(self) -> None:
        """Open the store, as a start does."""
        self.store = open_store(self.path, Seal(self.tee.sealing_key(), "", os.urandom))
        rule = partial(AlwaysStanding, ring=str(self.path.parent))
        found = open_vault(self.tee, self.store, int(time.time()), rule)
        self.vault, identity, _, self.log, _ = found
        self.id = identity.id

    def become(self, private_key: bytes) -> None:
        """Take the identity that came along, and start as that vault."""
        store = open_store(self.path, Seal(self.tee.sealing_key(), "", os.urandom))
        record = IdentityRecord(
            private_key=b64(private_key), boots=0, boot=self.tee.boot, line=self.line
        )
        key = Ed25519PrivateKey.from_private_bytes(private_key)
        store.bind(vault_id(key.public_key().public_bytes_raw()), boots=0)
        store.commit(Batch((Put(IDENTITY, encode(record)),), boots=0))
        store.close()
        self.open()

    def close(self) -> None:
        """End it, if it was ever started."""
        if hasattr(self, "store"):
            self.store.close()

    def crash(self) -> None:
        """Lose all that is not durable, and start again."""
        self.store.close()
        self.tee = Tee(vault_config(), version=self.release, boot=f"boot-{os.urandom(4).hex()}")
        self.open()

    def identity(self, vault: str) -> AttestedIdentity:
        """Return what attestation proves of this process, when it takes over."""
        now = int(time.time())
        shown = verify_evidence(self.tee.app_report(b"any"), trust=trust(), now=now)
        about = self.tee.describe()
        claims = Claims(
            instance=vault,
            app=about.app,
            image=about.image,
            config=about.config,
            purpose="reshare",
            keys=None,
            boot=about.boot,
        )
        return AttestedIdentity(evidence=shown, role="resharer", claims=claims)

    def as_peer(self, vault: str) -> VerifiedPeer:
        """Return this process as the old one's other end."""
        return VerifiedPeer(
            role="resharer",
            spki="sha256:" + f"{self.release:02x}" * 32,
            identity=self.identity(vault),
            keys=(),
            attested_at=time.monotonic(),
        )

    def as_sender(self) -> AttestedIdentity:
        """Return this process as what a new one knows of its other end."""
        return replace(self.identity(self.id), role="vault")

    def serves(self, key: str) -> bool:
        """Say whether it would let a share of a key go, if the gate said yes."""
        if not exists(self.path):
            return False
        try:
            return self.vault.charter(key).manifest is not None
        except PlacetError:
            return False


class HandOvers:
    """The steps of one hand-over, each of which may be repeated."""

    def __init__(self, old: Process, new: Process, key: str) -> None:
        self.old, self.new, self.key = old, new, key
        self.raw, self.identity, self.digest, self.confirmed = b"", b"", "", False

    def ask(self) -> None:
        """Have the old process let go, and fetch the package in parts."""
        self.raw, size = b"", 1
        while len(self.raw) < size:
            request = HandOverRequest(line=self.new.line, endpoint=ENDPOINT, offset=len(self.raw))
            answer = self.old.vault.hand_over(self.new.as_peer(self.old.id), self.key, request)
            self.raw += unb64(answer.part)
            self.digest, size, self.confirmed = answer.digest, answer.size, answer.confirmed
            self.identity = unb64(answer.identity)

    def receive(self) -> None:
        """Check what came and store it."""
        if self.confirmed:
            return
        release = self.new.tee.profile()
        checked = check_package(self.raw, self.key, self.old.as_sender(), release=code_id(release))
        if not exists(self.new.path):
            self.new.become(self.identity)
        self.new.vault.receive(checked)

    def confirm(self) -> None:
        """Have the old process erase it."""
        if not self.confirmed:
            request = HandOverConfirm(line=self.new.line, digest=self.digest)
            self.old.vault.confirm_hand_over(self.new.as_peer(self.old.id), self.key, request)

    def activate(self) -> None:
        """Serve it from now on."""
        if not self.confirmed or self.new.vault.incoming(self.key) is not None:
            self.new.vault.activate(self.key)

    def run(self) -> None:
        """Do all of it."""
        for step in (self.ask, self.receive, self.confirm, self.activate):
            step()
