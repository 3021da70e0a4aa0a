"""What a vault does on each request: decide, log, and only then answer.

Every method runs to its end without waiting for anything, so that nothing comes between
a decision and its log entry (R1.10); every effect is durable before it is returned
(I11). Who may call what: spec/07, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.core.attestation import Purpose
from placet.core.checkpoint import Checkpoint, sign_note
from placet.core.config import VaultSettings
from placet.core.dsse import Signed, sign_record, vault_id
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.limits import MAX_PENDING, MAX_RECORD
from placet.core.logentry import Draft
from placet.core.manifest import manifest_digest
from placet.core.messages import (
    CharterAnswer,
    CommitAnswer,
    CommitRequest,
    Committed,
    CourierItem,
    Held,
    HeldAttempt,
    HoldAnswer,
    HoldRequest,
    LogAnswer,
    LogItem,
    PendingAnswer,
    PromiseAnswer,
    PromiseRequest,
    RecoverRequest,
    ReleaseAnswer,
    Released,
    ReleaseRequest,
    StageAnswer,
    StageRequest,
    Status,
    StatusBody,
    TakeAnswer,
    Taken,
    TakeRequest,
)
from placet.core.statement import (
    RevokePending,
    Stage,
    UntrustedStatement,
    open_statement,
    signer_id,
)
from placet.errors import (
    AncestorMissingError,
    KeyNotBornError,
    MalformedError,
    NotFoundError,
    PlacetError,
    RateLimitedError,
    RoleDeniedError,
    ShareMissingError,
)
from placet.policy.charter import Courier, take
from placet.policy.gate import decide_release
from placet.policy.key_policy import Approval, KeyPolicy
from placet.policy.pending import check_revoke_pending, check_stage
from placet.ratls.exchange import Clock, VerifiedPeer
from placet.storage.log import Log
from placet.storage.store import Put, Store
from placet.vault import creation
from placet.vault.keys import Keys, KeyState, record_name
from placet.vault.records import (
    CommittedShare,
    HeldShare,
    KeyRecord,
    PendingItem,
    PendingRecord,
    StagerRecord,
)

SCHEMAS = (1,)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultIdentity:
    """Who this vault is, and which start of it this is."""

    key: Ed25519PrivateKey
    boot: str
    boots: int

    @property
    def id(self) -> str:
        """Return the vault id: the digest of the identity key."""
        return vault_id(self.key.public_key().public_bytes_raw())


class Vault:
    """One vault's service over its log and store. Not for use by several threads.

    Args:
        identity: Its key and boot.
        settings: Measured settings.
        store: Sealed records.
        log: The log, in that store.
        clock: This vault's time, which never goes back.
    """

    def __init__(
        self,
        *,
        identity: VaultIdentity,
        settings: VaultSettings,
        store: Store,
        log: Log,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._store, self._log = store, log
        self._clock = clock
        self._keys = Keys(store)
        self._born = len(store.names("key"))

    # --- anyone ---------------------------------------------------------------------------

    def status(self, nonce: str) -> Status:
        """Say who and how far this vault is, freshly signed over the caller's nonce."""
        body = StatusBody(
            vault=self._identity.id,
            boot=self._identity.boot,
            boots=self._identity.boots,
            nonce=nonce,
            checkpoint=self._checkpoint(),
            schemas=SCHEMAS,
            time=self._clock.now(),
        )
        return Status(status=sign_record(body, self._identity.key))

    def take(self, request: TakeRequest) -> TakeAnswer:
        """Take a run of statements: all of them or none; repeating changes nothing."""
        couriers = [
            Courier(sent=open_statement(item.signed), receipts=item.receipts)
            for item in request.chain
        ]
        key = couriers[0].sent.key
        if any(c.sent.key != key for c in couriers):
            raise MalformedError("a run of statements is of one key")
        state = self._find(key)
        policy, new = take(state.policy if state else None, couriers, now=self._clock.now())
        if not new and state is None:
            raise KeyNotBornError(f"this vault has no statement of key {key}")
        if new:
            fresh = {t.sent.digest for t in new}
            items = [c for c in couriers if c.sent.digest in fresh]
            state = self._store_taken(state, policy, items)
        return TakeAnswer(
            head=policy.head, version=policy.version, taken=self._receipts(state, couriers)
        )

    def charter(self, key: str) -> CharterAnswer:
        """Show everything taken of a key, and whether a share was committed."""
        state = self._keys.get(key)
        committed = state.record.committed
        return CharterAnswer(
            charter=state.record.charter,
            head=state.policy.head,
            version=state.policy.version,
            manifest=manifest_digest(committed.manifest) if committed else None,
        )

    def stage(self, request: StageRequest) -> StageAnswer:
        """Keep a stage, or take one back. No release decision reads what is kept here (I4)."""
        sent, now = open_statement(request.signed), self._clock.now()
        if isinstance(sent.statement, RevokePending):
            return self._revoke_pending(sent)
        if not isinstance(sent.statement, Stage):
            raise MalformedError(
                "only stage and revoke-pending are kept as pending",
                "Send others to /v1/statements.",
            )
        app = sent.statement.body.profile.app
        policy = self._stage_policy(sent, app)
        stager = check_stage(policy, sent, now=now)
        scope = sent.statement.key or app
        version, items = self._pending(scope)
        # What ended is let go, so that a quota is never used up for good.
        items = [i for i in items if open_statement(i.signed).statement.expires_at > now]
        if any(i.stage == sent.digest for i in items):
            return StageAnswer(stage=sent.digest)
        if sum(i.staged_by == stager for i in items) >= MAX_PENDING:
            raise RateLimitedError(
                f"this stager has {MAX_PENDING} stages pending here", "Revoke some: placet revoke."
            )
        items.append(PendingItem(stage=sent.digest, staged_by=stager, signed=request.signed))
        self._store_pending(
            scope, version, items, Draft(kind="staged", key=sent.statement.key, subject=sent.digest)
        )
        return StageAnswer(stage=sent.digest)

    def pending(self, scope: str) -> PendingAnswer:
        """Show what is staged for a key (and its apps), or for an app."""
        scopes = [scope]
        state = self._find(scope)
        if state is not None:
            scopes += sorted({a.profile.app for a in state.policy.approvals})
        return PendingAnswer(pending=tuple(i.signed for s in scopes for i in self._pending(s)[1]))

    def log(self, key: str, since: int) -> LogAnswer:
        """Show a key's own trail from its entry ``since`` on."""
        self._keys.get(key)
        entries = tuple(
            LogItem(index=e.entry.index, salt=b64(e.salt), entry=b64(e.raw))
            for e in self._log.of_key(key, since)
        )
        return LogAnswer(entries=entries, checkpoint=self._checkpoint())

    # --- workloads whose evidence was verified ----------------------------------------------

    def release(self, peer: VerifiedPeer, key: str, request: ReleaseRequest) -> ReleaseAnswer:
        """Let the share of a key go to an approved caller."""
        state, approval = self._decide(peer, key, "release")
        policy, record = state.policy, state.record
        if request.head is not None and request.head not in policy.chain:
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
        receipt = self._release_receipt(peer, state, approval, record.committed, "release")
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
        state, approval = self._decide(peer, key, "create")
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
        state, approval = self._decide(peer, key, "create")
        kept = creation.find_share(state.record, request.manifest)
        receipt = self._release_receipt(peer, state, approval, kept, "recover")
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
        state, approval = self._decide(peer, key, "create")
        creation.check_hold(
            state.record,
            state.policy,
            vault=self._identity.id,
            attempt=request.attempt,
            manifest=request.manifest,
            share=unb64(request.share),
            finishing=request.finishing,
            now=self._clock.now(),
        )
        digest = manifest_digest(request.manifest)
        held = sign_record(
            Held(
                vault=self._identity.id,
                key=key,
                attempt=request.attempt,
                manifest=digest,
                index=self._log.head()[0],
                time=self._clock.now(),
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
            state, record, Draft(kind="held", key=key, statement=approval.statement, subject=digest)
        )
        return HoldAnswer(held=held)

    def commit(self, peer: VerifiedPeer, key: str, request: CommitRequest) -> CommitAnswer:
        """Commit a held share, once and for all."""
        state, approval = self._decide(peer, key, "create")
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
                key=key,
                manifest=request.manifest,
                index=self._log.head()[0],
                time=self._clock.now(),
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
        )
        return CommitAnswer(committed=committed)

    # --- inside -----------------------------------------------------------------------------

    def _decide(self, peer: VerifiedPeer, key: str, purpose: Purpose) -> tuple[KeyState, Approval]:
        """Ask the gate, at the policy in force now; a no is logged as well."""
        if peer.identity is None:
            raise RoleDeniedError("a visitor gets no share", "Attest as a workload.")
        state = self._keys.get(key)
        try:
            approval = decide_release(
                state.policy,
                peer.identity,
                purpose=purpose,
                keys=peer.keys,
                age=self._clock.monotonic() - peer.attested_at,
                max_age=self._settings.evidence_age,
                now=self._clock.now(),
            )
        except PlacetError as e:
            detail: dict[str, str | int] = {"type": e.type, "purpose": purpose}
            self._log.deny(
                Draft(kind="denied", key=key, subject=peer.spki, detail=detail),
                now=self._clock.now(),
            )
            raise
        return state, approval

    def _release_receipt(
        self,
        peer: VerifiedPeer,
        state: KeyState,
        approval: Approval,
        kept: HeldShare | CommittedShare,
        kind: str,
    ) -> Signed:
        key, manifest = state.policy.key, manifest_digest(kept.manifest)
        receipt = Released(
            vault=self._identity.id,
            key=key,
            manifest=manifest,
            statement=approval.statement,
            version=state.policy.version,
            code=approval.code,
            recipient=peer.spki,
            index=self._log.head()[0],
            time=self._clock.now(),
        )
        detail: dict[str, str | int] = {"recipient": peer.spki, "version": state.policy.version}
        draft = Draft(
            kind=kind, key=key, statement=approval.statement, subject=approval.code, detail=detail
        )
        self._log.commit(draft, now=receipt.time, at=receipt.index)
        return sign_record(receipt, self._identity.key)

    def _replace(self, state: KeyState, record: KeyRecord, *drafts: Draft) -> None:
        put = Put(record_name(state.policy.key), encode(record), state.version)
        self._log.commit(*drafts, now=self._clock.now(), changes=(put,))
        self._keys.put(state.policy.key, KeyState(state.version + 1, record, state.policy))

    def _store_taken(
        self, state: KeyState | None, policy: KeyPolicy, couriers: Sequence[Courier]
    ) -> KeyState:
        now, at = self._clock.now(), self._log.head()[0]
        puts: list[Put] = []
        old = state.record if state else KeyRecord(charter=())
        if state is None:
            if self._born >= self._settings.max_keys:
                raise RateLimitedError(f"this vault keeps {self._born} keys and takes no more")
            puts = self._stager_puts(policy)
        first = policy.version - len(couriers)
        items, drafts = [], []
        for i, courier in enumerate(couriers):
            taken = Taken(
                vault=self._identity.id,
                key=policy.key,
                statement=courier.sent.digest,
                version=first + i + 1,
                index=at + i,
                time=now,
            )
            own = sign_record(taken, self._identity.key)
            others = tuple(r for r in courier.receipts if r.vault_key != own.vault_key)
            items.append(CourierItem(signed=courier.sent.signed(), receipts=(own, *others)))
            drafts.append(Draft(kind="taken", key=policy.key, statement=courier.sent.digest))
        record = msgspec.structs.replace(old, charter=(*old.charter, *items))
        version = state.version if state else None
        puts.append(Put(record_name(policy.key), encode(record), version))
        self._log.commit(*drafts, now=now, changes=tuple(puts), at=at)
        self._born += state is None
        new = KeyState((version or 0) + 1, record, policy)
        self._keys.put(policy.key, new)
        return new

    def _receipts(self, state: KeyState | None, couriers: Sequence[Courier]) -> tuple[Signed, ...]:
        if state is None:
            return ()
        at = {digest: i for i, digest in enumerate(state.policy.chain)}
        return tuple(state.record.charter[at[c.sent.digest]].receipts[0] for c in couriers)

    def _find(self, key: str) -> KeyState | None:
        try:
            return self._keys.get(key)
        except KeyNotBornError:
            return None

    def _checkpoint(self) -> str:
        name = "placet/" + self._identity.id.removeprefix("sha256:")
        size, root = self._log.head()
        checkpoint = Checkpoint(name, size, root, (f"boot {self._identity.boot}",))
        return sign_note(checkpoint.text(), name, self._identity.key)

    # --- pending ----------------------------------------------------------------------------

    def _stager_puts(self, policy: KeyPolicy) -> list[Put]:
        record = encode(StagerRecord(key=policy.key))
        names = {
            f"stager/{signer_id(stager)}/{approval.profile.app}"
            for stager in policy.stagers
            for approval in policy.approvals
        }
        return [Put(n, record) for n in sorted(names) if self._store.get(n) is None]

    def _stage_policy(self, sent: UntrustedStatement, app: str) -> KeyPolicy:
        if sent.statement.key is not None:
            return self._keys.get(sent.statement.key).policy
        for signature in sent.signatures:
            stored = self._store.get(f"stager/{signature.signer}/{app}")
            if stored is not None:
                return self._keys.get(decode(stored.value, StagerRecord).key).policy
        raise RoleDeniedError(f"no key here lets any of these signers stage for app {app}")

    def _pending(self, scope: str) -> tuple[int | None, list[PendingItem]]:
        stored = self._store.get(f"pending/{scope}")
        if stored is None:
            return None, []
        return stored.version, list(decode(stored.value, PendingRecord, limit=MAX_RECORD).items)

    def _store_pending(
        self, scope: str, version: int | None, items: Sequence[PendingItem], draft: Draft
    ) -> None:
        record = encode(PendingRecord(items=tuple(items)))
        put = Put(f"pending/{scope}", record, version)
        self._log.commit(draft, now=self._clock.now(), changes=(put,))

    def _revoke_pending(self, sent: UntrustedStatement) -> StageAnswer:
        statement = sent.statement
        if not isinstance(statement, RevokePending):
            raise TypeError("sent: not a revoke-pending")
        if statement.key is None:
            raise MalformedError("revoke-pending names the key, or the app's key, it is about")
        state, stage = self._keys.get(statement.key), statement.body.stage
        scopes = [statement.key, *sorted({a.profile.app for a in state.policy.approvals})]
        for scope in scopes:
            version, items = self._pending(scope)
            for item in items:
                if item.stage != stage:
                    continue
                check_revoke_pending(
                    state.policy, sent, staged_by=item.staged_by, now=self._clock.now()
                )
                items.remove(item)
                draft = Draft(kind="revoked", key=statement.key, subject=stage)
                self._store_pending(scope, version, items, draft)
                return StageAnswer(stage=stage)
        raise NotFoundError(f"nothing is staged here under {stage}", "See: placet pending.")
