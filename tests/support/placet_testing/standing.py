"""A vault that stands whatever happens: for tests of everything but standing.

It exists here only. What ships has no way to switch the witness rule off (I17).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.core.continuity import Witnessed
from placet.core.dsse import Signed, sign_record, vault_id
from placet.core.encoding import b64
from placet.core.messages import StandingReport
from placet.core.profile import VaultSet
from placet.storage.log import Log
from placet.storage.store import Put

RINGS = dict[str, dict[str, Ed25519PrivateKey]]()
"""By test folder: identity keys of the vaults that were ever opened in it."""


class AlwaysStanding:
    """Serves always, and is vouched for by all other vaults of its folder, up or down."""

    def __init__(
        self,
        *,
        ring: str,
        key: Ed25519PrivateKey,
        boot: str,
        boots: int,
        log: Log,
        begin: Callable[[], object] = lambda: None,
        **_: Any,
    ) -> None:
        self.id = vault_id(key.public_key().public_bytes_raw())
        self._boot, self._boots, self._log, self._begin = boot, boots, log, begin
        self._ring = RINGS.setdefault(ring, {})
        self._ring[self.id] = key

    def check(self, vault_set: VaultSet) -> None:
        """Stand."""

    def check_any(self) -> None:
        """Stand."""

    def check_writing(self, vault_set: VaultSet | None) -> None:
        """Stand."""

    def puts(self, vault_set: VaultSet) -> tuple[Put, ...]:  # noqa: ARG002 - as the rule has it
        """Remember nothing."""
        return ()

    def took(self, vault_set: VaultSet) -> None:
        """Tell nobody."""

    def begin_alone(self) -> None:
        """Begin at once."""
        self._begin()

    def knows_nobody(self) -> bool:
        """Know enough."""
        return False

    def check_witnessed(self, vault_set: VaultSet, index: int) -> None:
        """Be believed."""

    def report(self) -> StandingReport:
        """Stand."""
        size, _ = self._log.head()
        return StandingReport(state="standing", reason="", waiting=(), size=size, witnessed=size)

    def witnessed(self) -> tuple[Signed, ...]:
        """Return what the others would say."""
        size, root = self._log.head()
        return tuple(
            sign_record(
                Witnessed(
                    witness=other,
                    vault=self.id,
                    nonce=b64(os.urandom(32)),
                    boot=self._boot,
                    boots=self._boots,
                    size=size,
                    root=root.hex(),
                    time=int(time.time()),
                ),
                key,
            )
            for other, key in self._ring.items()
            if other != self.id
        )

    def knows(self, vault: str) -> bool:
        """Know the others of the folder."""
        return vault in self._ring
