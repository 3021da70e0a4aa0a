"""A new process of a vault begins: who it is to be (spec/12, section 4)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from placet.attest.produce import Description, Producer
from placet.attest.trust import trust_from_config
from placet.attest.verify import EvidenceVerifier
from placet.core.config import VaultConfig
from placet.core.dsse import vault_id
from placet.core.encoding import b64, decode, encode
from placet.core.limits import MAX_EVIDENCE_AGE
from placet.errors import ConflictError, UnavailableError
from placet.storage.store import Batch, Put, Store
from placet.vault.predecessor import POLL, Adoption, Predecessor, introduce
from placet.vault.records import IdentityRecord
from placet.vault.release import OwnRelease
from placet.vault.state import VaultIdentity
from placet.vault.takeover import TakeOver

IDENTITY = "identity/vault"
LINE = 8
"""Random bytes of a line's name."""


class _HostClock:
    """Time before there is a vault that keeps its own."""

    def now(self) -> int:
        return int(time.time())

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class Adopting:
    """Where the old process is, and where this one will be. Neither is measured, nor decides."""

    old: str | None
    """``None``: there is none to take over from."""
    endpoint: str
    pause: float = POLL
    """Seconds between two looks."""

    async def begin(self, store: Store, producer: Producer, verify: EvidenceVerifier) -> None:
        """Wait until a key's owner lets this release in, then store whose successor this is.

        Raises:
            ConflictError: The store is that of a vault which took nothing over.
        """
        if self.old is None:
            return
        stored = store.get(IDENTITY)
        if stored is not None:
            if not decode(stored.value, IdentityRecord).line:
                raise ConflictError(
                    "--data holds a vault that took nothing over, and keeps keys of its own",
                    "Give --adopt a new folder.",
                )
            return
        about = producer.describe()
        line = os.urandom(LINE).hex()
        old = self._predecessor(self.old, None, producer, verify)
        try:
            key = await introduce(old, line, self.endpoint, self.pause)
        finally:
            old.close()
        record = IdentityRecord(
            private_key=b64(key.private_bytes_raw()), boots=0, boot=about.boot, line=line
        )
        store.bind(vault_id(key.public_key().public_bytes_raw()), boots=0)
        store.commit(Batch((Put(IDENTITY, encode(record)),), boots=0))

    @contextlib.asynccontextmanager
    async def going_on(
        self,
        vault: TakeOver,
        identity: VaultIdentity,
        producer: Producer,
        verify: EvidenceVerifier,
    ) -> AsyncIterator[Adoption | None]:
        """Take over what may be had, for as long as the context lasts."""
        if self.old is None:
            yield None
            return
        old = self._predecessor(self.old, identity.id, producer, verify)
        adoption = Adoption(vault, old, identity.line, self.endpoint)
        taking = asyncio.create_task(adoption.run(self.pause))
        try:
            yield adoption
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            old.close()

    @staticmethod
    def _predecessor(
        endpoint: str, vault: str | None, producer: Producer, verify: EvidenceVerifier
    ) -> Predecessor:
        clock = _HostClock()
        trust = trust_from_config(measured_config(producer.describe()).trust_roots)
        return Predecessor(
            endpoint,
            vault=vault,
            producer=producer,
            release=OwnRelease(producer, trust, verify, clock.now),
            trust=trust,
            verify=verify,
            clock=clock,
            rng=os.urandom,
        )


def measured_config(about: Description) -> VaultConfig:
    """Return the measured config, if it is one that a vault may run with.

    Raises:
        UnavailableError: It is a workload's, or lets evidence grow too old.
    """
    config = about.measured_config
    if not isinstance(config, VaultConfig):
        raise UnavailableError("this TEE was started as a workload, not as a vault")
    if not 0 < config.settings.evidence_age <= MAX_EVIDENCE_AGE:
        raise UnavailableError(
            f"measured evidence age is {config.settings.evidence_age} s, "
            f"1 to {MAX_EVIDENCE_AGE} are allowed"
        )
    return config
