"""Taking statements: stored, logged and receipted before anything follows (spec/07, section 3).

The rules are those of `placet.policy.charter`; here is what a vault keeps of it: the
charter with its receipts, and beside it what waits and what was signed on another branch.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from placet.core.continuity import News
from placet.core.dsse import Signed, sign_record
from placet.core.encoding import b64, decode, encode
from placet.core.limits import MAX_BODY, MAX_HEADS, MAX_RECORD, MAX_WAITING
from placet.core.logentry import Draft
from placet.core.messages import CourierItem, TakeAnswer, Taken, TakeRequest
from placet.core.profile import code_id
from placet.core.statement import Promote, UntrustedStatement, open_statement
from placet.errors import (
    AncestorMissingError,
    ApprovalWaitingError,
    ConflictError,
    HandedOverError,
    KeyNotBornError,
    MalformedError,
    PlacetError,
    PolicyDeniedError,
    RateLimitedError,
    UnavailableError,
)
from placet.policy.branches import change_branch, check_child
from placet.policy.charter import Courier, TakenStatement, take, unknown
from placet.policy.key_policy import KeyPolicy, birth_of
from placet.storage.store import Put
from placet.vault.keys import KeyState, charter_of, record_name
from placet.vault.records import BesideRecord, DroppedRecord, KeyRecord, WaitingItem
from placet.vault.staging import Staging

Drafts = list[Draft]


class Taking(Staging):
    """How a vault takes statements of a key's charter."""

    def take(self, request: TakeRequest) -> TakeAnswer:
        """Take a run of statements: all of them or none; repeating changes nothing.

        A birth is taken by who serves anything, or has no key yet; what follows, by who
        stands for the key's vault set.

        One that has to wait is kept and shown, and taken when it is brought again after
        its delay; what stands before it is taken at once.
        """
        couriers, key = self._couriers(request)
        state = self._find(key)
        if state is None:
            self._standing.check_any()
        else:
            self._standing.check(state.policy.vault_set)
        return self._answered(state, key, couriers)

    def lacks(self, news: News) -> bool:
        """Say whether a key is further elsewhere than here."""
        try:
            state = self._find(news.key)
        except HandedOverError:  # its newer process does
            return False
        return state is None or state.policy.version < news.version

    def follow(self, request: TakeRequest) -> TakeAnswer:
        """Take what another vault took before, by the same rules, before this one serves.

        Raises:
            VaultStartingError: Witnesses have not said yet that this is the newest of its kind.
        """
        couriers, key = self._couriers(request)
        state = self._find(key)
        self._standing.check_writing(None if state is None else state.policy.vault_set)
        return self._answered(state, key, couriers)

    def _couriers(self, request: TakeRequest) -> tuple[list[Courier], str]:
        own = b64(self._identity.key.public_key().public_bytes_raw())
        # What this vault signed before its disk was put back is not in its record, and a start
        # could not count it: so it does not count now.
        couriers = [
            Courier(
                sent=open_statement(item.signed),
                receipts=tuple(r for r in item.receipts if r.vault_key != own),
            )
            for item in request.chain
        ]
        key = couriers[0].sent.key
        if any(c.sent.key != key for c in couriers):
            raise MalformedError("a run of statements is of one key")
        return couriers, key

    def _answered(
        self, state: KeyState | None, key: str, couriers: Sequence[Courier]
    ) -> TakeAnswer:
        try:
            state = self._taken(state, couriers)
        except PlacetError as e:
            self._refused(state, couriers, e)
            raise
        if state is None:
            raise KeyNotBornError(f"this vault has no statement of key {key}")
        policy = state.policy
        return TakeAnswer(
            head=policy.head, version=policy.version, taken=_receipts(state, couriers)
        )

    def _taken(self, state: KeyState | None, couriers: Sequence[Courier]) -> KeyState | None:
        try:
            return self._take(state, couriers)
        except ApprovalWaitingError as e:
            raise self._wait(state, couriers, e) from e
        except AncestorMissingError:
            raise
        except ConflictError:
            return self._other_branch(state, couriers)

    def _refused(
        self, state: KeyState | None, couriers: Sequence[Courier], problem: PlacetError
    ) -> None:
        """Log what was refused, and why; of keys that are known here, and no more than fits."""
        if state is None or isinstance(problem, ApprovalWaitingError):
            return
        detail: dict[str, str | int] = {"type": problem.type, "purpose": "take"}
        if isinstance(reason := problem.members.get("reason"), str):
            detail["reason"] = reason
        key, sent = state.policy.key, couriers[-1].sent
        self._log.deny(
            Draft(kind="denied", key=key, statement=sent.digest, detail=detail),
            now=self._clock.now(),
        )

    def _take(self, state: KeyState | None, couriers: Sequence[Courier]) -> KeyState | None:
        waiting: dict[str, int] = {}
        if state is not None:
            _, beside = self._beside(state.policy.key)
            waiting = {open_statement(w.signed).digest: w.since for w in beside.waiting}
        before, now = state.policy if state else None, self._clock.now()
        policy, new = take(before, couriers, now=now, waiting=waiting)
        kept = state.record.charter if state else ()
        return self._store_taken(state, policy, kept, new, now=now) if new else state

    def _other_branch(self, state: KeyState | None, couriers: Sequence[Courier]) -> KeyState:
        """Change to a branch that k vaults took; else keep what shows the fork, and refuse."""
        if state is None:
            raise MalformedError("a fork needs a charter")
        charter, now = charter_of(state.record), self._clock.now()
        try:
            kept, policy, new = change_branch(charter, couriers, now=now)
        except ConflictError:
            self._note_fork(state, charter, couriers)
            raise
        gone = state.record.charter[kept:]
        forks = [item.signed for item in gone[:1]]
        self._keep_beside(policy.key, forks=forks, kind="branch-changed", head=policy.head)
        put = self._dropped_put(policy.key, gone)
        stays = state.record.charter[:kept]
        return self._store_taken(state, policy, stays, new, now=now, puts=(put,))

    def _note_fork(
        self, state: KeyState, charter: Sequence[TakenStatement], couriers: Sequence[Courier]
    ) -> None:
        """Keep a valid statement in whose place another was taken, to show both."""
        known = {link.sent.digest for link in charter}
        child = next((c for c in couriers if c.sent.digest not in known), None)
        if child is None:
            return
        try:
            sent = check_child(charter, child, now=self._clock.now())
        except PlacetError:
            return  # Not a fork: nobody who counts signed it.
        self._keep_beside(
            state.policy.key, forks=[sent.signed()], kind="fork", head=child.sent.digest
        )

    def _wait(
        self, state: KeyState | None, couriers: Sequence[Courier], problem: ApprovalWaitingError
    ) -> PlacetError:
        """Keep a statement that has to wait, and return the problem that says until when."""
        before = state.policy if state else None
        new = list(unknown(before, couriers))
        at = next(
            (i for i, c in enumerate(new) if c.sent.digest == problem.members["statement"]), 0
        )
        if at:
            state = self._take(state, new[:at])
        delay = problem.members["delay"]
        if state is None or not isinstance(delay, int) or not delay:
            return problem
        sent = new[at].sent
        until = self._keep_waiting(state, sent, delay)
        return ApprovalWaitingError(
            f"statement {sent.digest} waits out a delay until {until}",
            problem.hint,
            statement=sent.digest,
            until=until,
            delay=delay,
        )

    def _keep_waiting(self, state: KeyState, sent: UntrustedStatement, delay: int) -> int:
        key, now = state.policy.key, self._clock.now()
        version, beside = self._beside(key)
        for item in beside.waiting:
            if open_statement(item.signed).digest == sent.digest:
                return item.since + item.delay
        # What stands on an earlier head can never be taken.
        waiting = [w for w in beside.waiting if _prev(w) == state.policy.head]
        if len(waiting) >= MAX_WAITING:
            raise RateLimitedError(
                f"{MAX_WAITING} statements of this key wait here already",
                "An owner signer ends them all: placet void.",
            )
        waiting.append(WaitingItem(signed=sent.signed(), since=now, delay=delay))
        self._put_beside(
            key,
            version,
            msgspec.structs.replace(beside, waiting=tuple(waiting)),
            Draft(
                kind="waiting",
                key=key,
                statement=sent.digest,
                subject=_clause(sent),
                detail={"delay": delay},
            ),
            now=now,
        )
        return now + delay

    def _keep_beside(
        self, key: str, *, forks: Sequence[msgspec.Struct], kind: str, head: str
    ) -> None:
        version, beside = self._beside(key)
        more = tuple(f for f in forks if f not in beside.forks)
        if not more or len(beside.forks) >= MAX_HEADS:
            return
        kept = msgspec.structs.replace(beside, forks=(*beside.forks, *more))
        draft = Draft(kind=kind, key=key, statement=head)
        self._put_beside(key, version, kept, draft, now=self._clock.now())

    def _beside(self, key: str) -> tuple[int | None, BesideRecord]:
        stored = self._store.get(f"beside/{key}")
        if stored is None:
            return None, BesideRecord(waiting=(), forks=())
        return stored.version, decode(stored.value, BesideRecord, limit=MAX_RECORD)

    def _put_beside(
        self, key: str, version: int | None, record: BesideRecord, draft: Draft, *, now: int
    ) -> None:
        put = Put(f"beside/{key}", encode(record), version)
        self._log.commit(draft, now=now, changes=(put,))

    def _dropped(self, key: str) -> tuple[int | None, tuple[CourierItem, ...]]:
        stored = self._store.get(f"dropped/{key}")
        if stored is None:
            return None, ()
        return stored.version, decode(stored.value, DroppedRecord, limit=MAX_RECORD).items

    def _dropped_put(self, key: str, gone: Sequence[CourierItem]) -> Put:
        """Keep what is left behind for another branch: what was released under it rests on it."""
        version, before = self._dropped(key)
        items = [*before, *gone]
        while len(encode(items)) > MAX_BODY // 2:  # the oldest go; an auditor then misses them
            items.pop(0)
        return Put(f"dropped/{key}", encode(DroppedRecord(items=tuple(items))), version)

    def _store_taken(
        self,
        state: KeyState | None,
        policy: KeyPolicy,
        kept: Sequence[CourierItem],
        new: Sequence[TakenStatement],
        *,
        now: int,
        puts: Sequence[Put] = (),
    ) -> KeyState:
        # The entry's time is the very one that was decided by: an auditor decides again.
        at = self._log.head()[0]
        old = state.record if state else KeyRecord(charter=())
        if state is None and self._identity.line:
            self._check_first_here(policy.key, new[0].sent)
        if state is None and self.born >= self._settings.max_keys:
            raise RateLimitedError(f"this vault keeps {self.born} keys and takes no more")
        changes = [
            *puts,
            *self._stager_puts(policy),
            *self._standing.puts(policy.vault_set),
        ]
        items, drafts = [], []
        for i, fresh in enumerate(new):
            taken = Taken(
                vault=self._identity.id,
                line=self._identity.own_line,
                key=policy.key,
                statement=fresh.sent.digest,
                version=_version(fresh),
                index=at + i,
                time=now,
            )
            own = sign_record(taken, self._identity.key)
            items.append(CourierItem(signed=fresh.sent.signed(), receipts=(own, *fresh.receipts)))
            drafts.append(_draft(policy.key, fresh))
        record = msgspec.structs.replace(old, charter=(*kept, *items))
        if policy.deleted:
            # What the owner destroyed is gone from the disk with the statement that says so.
            record = msgspec.structs.replace(record, held=(), committed=None)
        version = state.version if state else None
        changes.append(Put(record_name(policy.key), encode(record), version))
        self._log.commit(*drafts, now=now, changes=tuple(changes), at=at)
        stored = KeyState((version or 0) + 1, record, policy)
        self._keys.put(policy.key, stored)
        self._news.add(at, policy.key)
        self._standing.took(policy.vault_set)
        return stored

    def _check_first_here(self, key: str, sent: UntrustedStatement) -> None:
        """Refuse a key that the process before this one may keep: it comes by a hand-over.

        Raises:
            PolicyDeniedError: The key was not born under the release that runs here.
            UnavailableError: It is on its way.
        """
        named = map(code_id, birth_of(sent).body.vault_set.profiles)
        if self.release_code() not in named:
            raise PolicyDeniedError(
                "this process of the vault takes keys over, and new ones that name its release",
                "An older process of it may have this key.",
                reason="vault-release",
            )
        if self._store.get(f"incoming/{key}") is not None:
            raise UnavailableError(f"key {key} is being taken over", "Try again.")


def _receipts(state: KeyState, couriers: Sequence[Courier]) -> tuple[Signed, ...]:
    at = {digest: i for i, digest in enumerate(state.policy.chain)}
    # None for statements of a branch that a merge ended.
    return tuple(
        state.record.charter[at[c.sent.digest]].receipts[0] for c in couriers if c.sent.digest in at
    )


def _version(fresh: TakenStatement) -> int:
    return int(getattr(fresh.sent.statement, "base_version", 0)) + 1


def _draft(key: str, fresh: TakenStatement) -> Draft:
    """Return the log entry: a use of a clause is marked, and the provider's key is named."""
    clause = _clause(fresh.sent)
    detail: dict[str, str | int] = {f"jwk{i or ''}": jwk for i, jwk in enumerate(fresh.jwks)}
    if clause is not None:
        detail["mark"] = "auto"
    return Draft(
        kind="taken", key=key, statement=fresh.sent.digest, subject=clause, detail=detail or None
    )


def _clause(sent: UntrustedStatement) -> str | None:
    return sent.statement.body.auto if isinstance(sent.statement, Promote) else None


def _prev(item: WaitingItem) -> str | None:
    return getattr(open_statement(item.signed).statement, "prev", None)
