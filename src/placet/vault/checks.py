"""Verifying peers' evidence under load: a few at one time, beside the loop (spec/07, section 5)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from placet.attest.trust import TrustAnchor
from placet.attest.verify import verify_evidence
from placet.core.attestation import Evidence, VerifiedEvidence
from placet.core.encoding import encode
from placet.core.limits import MAX_CHECKS, MAX_FAILED, MAX_GRACE
from placet.errors import EvidenceError
from placet.vault.collateral import MarkedVerifier
from placet.vault.lane import Lane


class Failed:
    """Evidence that was refused lately, by digest: the same again is refused unread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, EvidenceError] = OrderedDict()

    def check(self, evidence: Evidence) -> bytes:
        """Return the digest of what was not refused yet.

        Raises:
            EvidenceError: It was, for what it says.
        """
        digest = hashlib.sha256(encode(evidence)).digest()
        if (why := self._kept.get(digest)) is not None:
            raise type(why)(why.detail, why.hint, **why.members)
        return digest

    def note(self, digest: bytes, why: EvidenceError) -> None:
        """Remember a refusal."""
        self._kept[digest] = why
        if len(self._kept) > MAX_FAILED:
            self._kept.popitem(last=False)


class Checks:
    """Verify peers' evidence: what was refused before stays refused, the rest waits its turn.

    Args:
        marked: Completes evidence, and keeps the marks of collateral; on this thread only.
    """

    def __init__(self, marked: MarkedVerifier) -> None:
        self._marked = marked
        self._failed, self._lane = Failed(), Lane(MAX_CHECKS)

    async def __call__(
        self, evidence: Evidence, network: str, *, trust: Sequence[TrustAnchor], now: int
    ) -> VerifiedEvidence:
        """Return what genuine evidence shows; marks that it raised are durable by then."""
        # 5.6 What was refused before is refused again.
        digest = self._failed.check(evidence)
        # 5.7 A few at one time, from each network in turn; the loop goes on meanwhile.
        async with self._lane.turn(network):
            try:
                whole = self._marked.complete(evidence)
                # 5.8 Signatures, chains and dates.
                shown = await asyncio.to_thread(
                    verify_evidence, whole, trust=trust, now=now, grace=MAX_GRACE
                )
                self._marked.settle(evidence, whole, shown)
            except EvidenceError as e:
                self._failed.note(digest, e)
                raise
        return shown
