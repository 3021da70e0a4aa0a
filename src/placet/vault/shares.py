"""Shares: released to approved code, and held and committed when a key is made (spec/07, 08).

Every method runs to its end without waiting for anything, so that nothing comes between
a decision and its log entry (R1.10); every effect is durable before it is returned (I11).
"""

from __future__ import annotations

from placet.core.attestation import Purpose
from placet.core.dsse import Signed, sign_record
from placet.core.encoding import b64, unb64
from placet.core.logentry import Draft
from placet.core.manifest import manifest_digest
from placet.core.messages import (
    CommitAnswer,
    CommitRequest,
    Committed,
    Held,
    HeldAttempt,
    HoldAnswer,
    HoldRequest,
    PromiseAnswer,
    PromiseRequest,
    RecoverRequest,
    ReleaseAnswer,
    Released,
    ReleaseRequest,
)
from placet.errors import (
    AncestorMissingError,
    PlacetError,
    RoleDeniedError,
    ShareMissingError,
)
from placet.policy.gate import decide_release
from placet.policy.key_policy import Approval
from placet.ratls.exchange import VerifiedPeer
from placet.vault import creation
from placet.vault.keys import KeyState
from placet.vault.records import (
    CommittedShare,
    HeldShare,
)
from placet.vault.state import VaultCore


class Shares(VaultCore):
    """What a workload may ask, once its evidence was verified."""

    def release(self, peer: VerifiedPeer, key: str, request: ReleaseRequest) -> ReleaseAnswer:
        """Let the share of a key go to an approved caller."""
        state, approval, now = self._decide(peer, key, "release")
        policy, record = state.policy, state.record
        if request.head is not None and not policy.knows(request.head):
            raise AncestorMissingError(
                f"caller knows statement {request.head} of this key, this vault does not",
                "Bring this vault the statements that it lacks.",
                head=policy.head,
                version=policy.version,
            )
        if record.committed is None:
            raise ShareMissingError(
                f"no share of key {key} was committed here",
                head=policy.head,
                version=policy.version,
            )
        decided = state, approval, now
        receipt = self._release_receipt(peer, decided, record.committed, "release")
        return ReleaseAnswer(
            nonce=request.nonce,
            manifest=record.committed.manifest,
            share=record.committed.share,
            head=policy.head,
            version=policy.version,
            receipt=receipt,
        )

    def promise(self, peer: VerifiedPeer, key: str, request: PromiseRequest) -> PromiseAnswer:
        """Promise to hold nothing older than this attempt, and show what there is."""
        state, approval, now = self._decide(peer, key, "create")
        record = creation.promise(state.record, request.attempt)
        self._replace(
            state,
            record,
            Draft(
                kind="promised",
                key=key,
                statement=approval.statement,
                detail={"attempt": request.attempt},
            ),
            now=now,
        )
        committed = record.committed
        return PromiseAnswer(
            attempt=record.promised,
            held=tuple(
                HeldAttempt(attempt=h.attempt, manifest=h.manifest, held=h.held)
                for h in record.held
            ),
            committed=committed.manifest if committed else None,
            certificate=committed.certificate if committed else (),
        )

    def recover(self, peer: VerifiedPeer, key: str, request: RecoverRequest) -> ReleaseAnswer:
        """Let a share go to the workload that finishes a creation another one began."""
        state, approval, now = self._decide(peer, key, "create")
        kept = creation.find_share(state.record, request.manifest)
        receipt = self._release_receipt(peer, (state, approval, now), kept, "recover")
        return ReleaseAnswer(
            nonce=b64(bytes(32)),
            manifest=kept.manifest,
            share=kept.share,
            head=state.policy.head,
            version=state.policy.version,
            receipt=receipt,
        )

    def hold(self, peer: VerifiedPeer, key: str, request: HoldRequest) -> HoldAnswer:
        """Hold a share of an attempt, durably, and say so."""
        state, approval, now = self._decide(peer, key, "create")
        creation.check_hold(
            state.record,
            state.policy,
            vault=self._identity.id,
            attempt=request.attempt,
            manifest=request.manifest,
            share=unb64(request.share),
            finishing=request.finishing,
            now=now,
        )
        digest = manifest_digest(request.manifest)
        held = sign_record(
            Held(
                vault=self._identity.id,
                line=self._identity.own_line,
                key=key,
                attempt=request.attempt,
                manifest=digest,
                index=self._log.head()[0],
                time=now,
            ),
            self._identity.key,
        )
        record = state.record
        if record.committed is None:
            share = HeldShare(
                manifest=request.manifest, attempt=request.attempt, share=request.share, held=held
            )
            record = creation.hold(record, share)
        self._replace(
            state,
            record,
            Draft(kind="held", key=key, statement=approval.statement, subject=digest),
            now=now,
        )
        return HoldAnswer(held=held)

    def commit(self, peer: VerifiedPeer, key: str, request: CommitRequest) -> CommitAnswer:
        """Commit a held share, once and for all."""
        state, approval, now = self._decide(peer, key, "create")
        kept = creation.check_commit(
            state.record,
            state.policy,
            attempt=request.attempt,
            manifest=request.manifest,
            certificate=request.held,
        )
        if isinstance(kept, CommittedShare):
            return CommitAnswer(committed=kept.committed)
        committed = sign_record(
            Committed(
                vault=self._identity.id,
                line=self._identity.own_line,
                key=key,
                manifest=request.manifest,
                index=self._log.head()[0],
                time=now,
            ),
            self._identity.key,
        )
        share = CommittedShare(
            manifest=kept.manifest, share=kept.share, certificate=request.held, committed=committed
        )
        self._replace(
            state,
            creation.commit(state.record, share),
            Draft(
                kind="committed", key=key, statement=approval.statement, subject=request.manifest
            ),
            now=now,
        )
        return CommitAnswer(committed=committed)

    def _decide(
        self, peer: VerifiedPeer, key: str, purpose: Purpose
    ) -> tuple[KeyState, Approval, int]:
        """Ask the gate, at the policy in force now; a no is logged as well.

        Returns:
            Key and approval, and the time that it was decided by, which the entry must have.
        """
        if peer.identity is None:
            raise RoleDeniedError("a visitor gets no share", "Attest as a workload.")
        state, now = self._mine(key), self._clock.now()
        # Who is stale decides nothing and logs nothing (spec/10, section 3).
        self._standing.check(state.policy.vault_set)
        try:
            approval = decide_release(
                state.policy,
                peer.identity,
                purpose=purpose,
                keys=peer.keys,
                age=self._clock.monotonic() - peer.attested_at,
                max_age=self._settings.evidence_age,
                now=now,
            )
        except PlacetError as e:
            detail: dict[str, str | int] = {"type": e.type, "purpose": purpose}
            self._log.deny(Draft(kind="denied", key=key, subject=peer.spki, detail=detail), now=now)
            raise
        return state, approval, now

    def _release_receipt(
        self,
        peer: VerifiedPeer,
        decided: tuple[KeyState, Approval, int],
        kept: HeldShare | CommittedShare,
        kind: str,
    ) -> Signed:
        state, approval, now = decided
        key, manifest = state.policy.key, manifest_digest(kept.manifest)
        receipt = Released(
            vault=self._identity.id,
            line=self._identity.own_line,
            key=key,
            manifest=manifest,
            statement=approval.statement,
            version=state.policy.version,
            code=approval.code,
            recipient=peer.spki,
            index=self._log.head()[0],
            time=now,
        )
        detail: dict[str, str | int] = {"recipient": peer.spki, "version": state.policy.version}
        draft = Draft(
            kind=kind, key=key, statement=approval.statement, subject=approval.code, detail=detail
        )
        self._log.commit(draft, now=receipt.time, at=receipt.index)
        return sign_record(receipt, self._identity.key)
