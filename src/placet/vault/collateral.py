"""How a vault verifies its peers' evidence: by its folder, under its marks (spec/02, section 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from placet.attest.collateral_folder import CollateralFolder
from placet.attest.marks import Marks, check
from placet.attest.trust import TrustAnchor
from placet.attest.verify import verify_evidence
from placet.attest.verify.collateral import read_object
from placet.core.attestation import Evidence, VerifiedEvidence
from placet.core.encoding import decode, encode, unb64
from placet.storage.store import Batch, Put, Store

RECORD = "marks/collateral"
MAX_KNOWN = 256
"""Documents that are known to stand under the marks in force."""


class MarkedVerifier:
    """An `EvidenceVerifier` that completes evidence and refuses collateral older than it saw.

    Args:
        store: The vault's own; the marks are sealed in it.
        folder: Where collateral lies that peers did not staple.
    """

    def __init__(self, store: Store, folder: CollateralFolder) -> None:
        self._store, self._folder = store, folder
        self._known: set[tuple[bytes, str, bool]] = set()
        self._marks: tuple[int | None, Marks] | None = None
        self._read()
        store.watch(kept=lambda: None, lost=self._forget)

    def __call__(
        self, evidence: Evidence, *, trust: Sequence[TrustAnchor], now: int, grace: int = 0
    ) -> VerifiedEvidence:
        """Return what genuine evidence shows; marks that it raised are durable by then."""
        whole = self.complete(evidence)
        shown = verify_evidence(whole, trust=trust, now=now, grace=grace)
        self.settle(evidence, whole, shown)
        return shown

    def complete(self, evidence: Evidence) -> Evidence:
        """Put to evidence what it came without; nothing is verified."""
        return self._folder.complete(evidence)

    def settle(self, evidence: Evidence, whole: Evidence, shown: VerifiedEvidence) -> None:
        """Refuse collateral older than what was seen; raised marks are durable by then."""
        if whole.collateral is not None:
            self._mark(whole.collateral, shown.anchor, chosen=evidence.collateral is None)

    def _mark(self, collateral: str, anchor: str, *, chosen: bool) -> None:
        """Refuse older collateral; what stood under these marks before needs no reading."""
        document = hashlib.sha256(collateral.encode()).digest(), anchor, chosen
        if document in self._known:
            return
        version, marks = self._marks or self._read()
        members = read_object(unb64(collateral))
        risen = check(marks, members, anchor=anchor, chosen=chosen)
        if risen != marks:
            self._store.commit(Batch((Put(RECORD, encode(risen), version),)))
            self._marks, self._known = ((version or 0) + 1, risen), set()
        if len(self._known) < MAX_KNOWN:
            self._known.add(document)

    def _read(self) -> tuple[int | None, Marks]:
        stored = self._store.get(RECORD)
        marks = decode(stored.value, Marks) if stored else Marks()
        self._marks = stored.version if stored else None, marks
        return self._marks

    def _forget(self) -> None:
        self._marks, self._known = None, set()
