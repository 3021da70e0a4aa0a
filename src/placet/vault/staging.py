"""What is staged: kept and shown, and read by no release decision (I4; spec/03, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from placet.core.encoding import decode, encode
from placet.core.limits import MAX_BODY, MAX_RECORD
from placet.core.logentry import Draft
from placet.core.messages import (
    PendingAnswer,
    StageAnswer,
    StageRequest,
)
from placet.core.signer import signer_id
from placet.core.statement import RevokePending, Stage, UntrustedStatement, open_statement
from placet.errors import (
    MalformedError,
    NotFoundError,
    RateLimitedError,
    RoleDeniedError,
)
from placet.policy.key_policy import KeyPolicy
from placet.policy.pending import check_revoke_pending, check_stage
from placet.policy.principal import leaves
from placet.storage.store import Put
from placet.vault.records import (
    PendingItem,
    PendingRecord,
    StagerRecord,
)
from placet.vault.state import VaultCore


class Staging(VaultCore):
    """Pending stages, by key or by app, with a quota for each stager."""

    def stage(self, request: StageRequest) -> StageAnswer:
        """Keep a stage, or take one back. No release decision reads what is kept here (I4)."""
        sent, now = open_statement(request.signed), self._clock.now()
        if isinstance(sent.statement, RevokePending):
            return self._revoke_pending(sent, sent.statement)
        if not isinstance(sent.statement, Stage):
            raise MalformedError(
                "only stage and revoke-pending are kept as pending",
                "Send others to /v1/statements.",
            )
        app = sent.statement.body.profile.app
        policy = self._stage_policy(sent, app)
        self._standing.check(policy.vault_set)
        stager = check_stage(policy, sent, now=now)
        scope = sent.statement.key or app
        version, items = self._pending(scope)
        # What ended is let go, so that a quota is never used up for good.
        items = [i for i in items if open_statement(i.signed).statement.expires_at > now]
        if any(i.stage == sent.digest for i in items):
            return StageAnswer(stage=sent.digest)
        quota = policy.rules.stager_quota
        if sum(i.staged_by == stager for i in items) >= quota:
            raise RateLimitedError(
                f"this stager has {quota} stages pending here, the owner lets it have no more",
                "Revoke some: placet revoke.",
            )
        # What strangers signed is not kept: nobody verified it.
        own = next(s for s in sent.signatures if s.signer == stager)
        signed = replace(sent, signatures=(own,)).signed()
        items.append(PendingItem(stage=sent.digest, staged_by=stager, signed=signed))
        self._store_pending(
            scope, version, items, Draft(kind="staged", key=sent.statement.key, subject=sent.digest)
        )
        return StageAnswer(stage=sent.digest)

    def pending(self, scope: str) -> PendingAnswer:
        """Show what is staged for a key (and its apps), or for an app."""
        found = [i.signed for i in self._pending(scope)[1]]
        state = self._find(scope)
        if state is not None:
            # For an app anybody may stage who has a key of it: only this key's own count here.
            policy = state.policy
            may = {signer_id(s) for s in policy.stagers + leaves(policy.owner)}
            for app in sorted({a.profile.app for a in policy.approvals}):
                found += [i.signed for i in self._pending(app)[1] if i.staged_by in may]
        return PendingAnswer(pending=tuple(found))

    def _revoke_pending(self, sent: UntrustedStatement, statement: RevokePending) -> StageAnswer:
        if statement.key is None:
            raise MalformedError("revoke-pending names the key, or the app's key, it is about")
        state, stage = self._mine(statement.key), statement.body.stage
        self._standing.check(state.policy.vault_set)
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

    def _stage_policy(self, sent: UntrustedStatement, app: str) -> KeyPolicy:
        if sent.statement.key is not None:
            return self._mine(sent.statement.key).policy
        for signature in sent.signatures:
            stored = self._store.get(f"stager/{signature.signer}/{app}")
            if stored is not None:
                return self._mine(decode(stored.value, StagerRecord).key).policy
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
        if draft.kind == "staged" and len(record) > MAX_BODY // 2:
            raise RateLimitedError(
                f"what is staged here for {scope} would not fit into one answer",
                "Revoke some: placet revoke.",
            )
        put = Put(f"pending/{scope}", record, version)
        self._log.commit(draft, now=self._clock.now(), changes=(put,))

    def _stager_puts(self, policy: KeyPolicy) -> list[Put]:
        record = encode(StagerRecord(key=policy.key))
        names = {
            f"stager/{signer_id(stager)}/{approval.profile.app}"
            for stager in policy.stagers
            for approval in policy.approvals
        }
        return [Put(n, record) for n in sorted(names) if self._store.get(n) is None]
