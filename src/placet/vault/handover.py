"""How a vault lets go of a key to a new process of itself (spec/12, section 3).

First the log entry and the record that is served no more, in one durable step; then the
package, again for as long as nobody confirmed that it is durable elsewhere; then it is
erased. What was handed over is never served here again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from placet.core.continuity import Seen
from placet.core.encoding import Record, b64, decode, digest, encode
from placet.core.handover import (
    HandOverAnswer,
    HandOverConfirm,
    HandOverConfirmed,
    HandOverList,
    HandOverRequest,
)
from placet.core.limits import HAND_OVER_PART, MAX_LOG_PAGE, MAX_PACKAGE, MAX_RECORD
from placet.core.logentry import Draft
from placet.core.profile import Profile, code_id
from placet.core.statement import Birth, UpdatePolicy, open_statement
from placet.errors import (
    ConflictError,
    NotFoundError,
    PlacetError,
    RoleDeniedError,
    UnavailableError,
)
from placet.policy.handover import decide_hand_over
from placet.ratls.exchange import VerifiedPeer
from placet.storage.store import Delete, Put, Stored
from placet.vault.keys import KeyState, record_name
from placet.vault.records import (
    BesideRecord,
    DroppedRecord,
    Handed,
    KeyRecord,
    LinesRecord,
    Package,
    PendingRecord,
    SeenItem,
)
from placet.vault.state import handed_over
from placet.vault.taking import Taking
from placet.vault.witnessing import lines_name, seen_name

R = TypeVar("R", bound=Record)
LABEL = "placet-hand-over/1"


class HandOver(Taking):
    """What a new process of this vault may ask of the old one."""

    def hand_over_list(self, peer: VerifiedPeer, since: int) -> HandOverList:
        """Show which keys of a page of the log the peer may have, or had."""
        self._standing.check_any()
        size = self._log.head()[0]
        start, stop = min(since, size), min(since + MAX_LOG_PAGE, size)
        entries = (one.entry for one in self._log.entries(start, stop))
        keys = dict.fromkeys(e.key for e in entries if e.key is not None)
        found = []
        for key in keys:
            try:
                self._may_have(peer, self._keys.get(key))
            except RoleDeniedError:
                raise
            except PlacetError:
                continue
            found.append(key)
        kept = self._store.count("key") - self._store.count("let-go")
        return HandOverList(keys=tuple(found), next=stop, end=stop == size, kept=kept)

    def hand_over(self, peer: VerifiedPeer, key: str, request: HandOverRequest) -> HandOverAnswer:
        """Let go of a key, durably, and then let its record go."""
        state, profile = self._decide_hand_over(peer, key)
        handed, vault_set = state.record.handed, state.policy.vault_set
        if isinstance(handed, Handed) and handed.confirmed:
            if handed.line != request.line:
                raise handed_over(key, handed)
            self._standing.check_witnessed(vault_set, handed.index)
            return self._answer(handed, b"", request.offset, confirmed=True)
        now = self._clock.now()
        if not isinstance(handed, Handed):
            package = self._package(state, now)
            handed = self._let_go(peer, state, profile, request, package, now=now)
        else:
            package = self._kept(key).value
            # To another process, too, only what the log says first.
            if handed.line != request.line:
                handed = self._let_go(peer, state, profile, request, package, now=now)
        # 3.4 Others saw that it let go: put back to before that, it would not serve it again.
        self._standing.check_witnessed(vault_set, handed.index)
        return self._answer(handed, package, request.offset, confirmed=False)

    def confirm_hand_over(
        self, peer: VerifiedPeer, key: str, request: HandOverConfirm
    ) -> HandOverConfirmed:
        """Erase what is durable in the new process now; repeating it changes nothing."""
        state, _ = self._decide_hand_over(peer, key)
        handed = state.record.handed
        if not isinstance(handed, Handed):
            raise NotFoundError(f"key {key} was not handed over", "Ask for it first.")
        # 3.5 Only who asked last may confirm, and only once somebody did.
        if handed.line != request.line:
            raise handed_over(key, handed)
        if handed.digest != request.digest:
            raise ConflictError("another package of this key was handed over", "Ask for it again.")
        if not handed.confirmed:
            # 3.6 The share is gone from this process before the other one may serve it.
            kept = self._kept(key)
            beside = ((n, self._store.get(n)) for n in (f"beside/{key}", f"pending/{key}"))
            changes = [Delete(name, stored.version) for name, stored in beside if stored]
            handed = msgspec.structs.replace(handed, confirmed=True, index=self._log.head()[0])
            self._store_handed(
                state,
                handed,
                Draft(kind="hand-over-confirmed", key=key, detail={"line": handed.line}),
                Delete(_package_name(key), kept.version),
                Put(f"let-go/{key}", b"{}"),
                *changes,
                now=self._clock.now(),
                at=handed.index,
            )
        # 3.7 And that it did.
        self._standing.check_witnessed(state.policy.vault_set, handed.index)
        return HandOverConfirmed(digest=handed.digest)

    # --- inside ------------------------------------------------------------------------

    def _decide_hand_over(self, peer: VerifiedPeer, key: str) -> tuple[KeyState, Profile]:
        state, now = self._keys.get(key), self._clock.now()
        # Who is stale decides nothing and logs nothing (spec/10, section 3).
        self._standing.check(state.policy.vault_set)
        try:
            # 3.1 The owner's word at this moment, and a no is logged.
            return state, self._may_have(peer, state)
        except PlacetError as e:
            detail: dict[str, str | int] = {"type": e.type, "purpose": "reshare"}
            self._log.deny(Draft(kind="denied", key=key, subject=peer.spki, detail=detail), now=now)
            raise

    def _may_have(self, peer: VerifiedPeer, state: KeyState) -> Profile:
        if peer.identity is None:
            raise RoleDeniedError("a visitor takes nothing over", "Start: placet vault serve.")
        return decide_hand_over(
            state.policy,
            peer.identity,
            vault=self._identity.id,
            release=self.release_code(),
            age=self._clock.monotonic() - peer.attested_at,
            max_age=self._settings.evidence_age,
        )

    def _package(self, state: KeyState, now: int) -> bytes:
        key = state.policy.key
        package = Package(
            vault=self._identity.id,
            key=key,
            line=self._identity.line,
            index=self._log.head()[0],
            time=now,
            record=state.record,
            beside=self._read(f"beside/{key}", BesideRecord),
            pending=self._read(f"pending/{key}", PendingRecord),
            dropped=self._read(f"dropped/{key}", DroppedRecord),
            seen=tuple(self._seen_of(state.policy.vault_set.ids)),
        )
        raw = encode(package)
        if len(raw) > MAX_PACKAGE:
            raise UnavailableError(f"key {key} is too large to hand over: {len(raw)} bytes")
        return raw

    def _let_go(
        self,
        peer: VerifiedPeer,
        state: KeyState,
        profile: Profile,
        request: HandOverRequest,
        package: bytes,
        *,
        now: int,
    ) -> Handed:
        key, code, index = state.policy.key, code_id(profile), self._log.head()[0]
        first = not isinstance(state.record.handed, Handed)
        handed = Handed(
            line=request.line,
            endpoint=request.endpoint,
            code=code,
            index=index,
            digest=digest(LABEL, package),
            confirmed=False,
        )
        draft = Draft(
            kind="handed-over",
            key=key,
            statement=_naming(state.record, profile),
            subject=code,
            detail={
                "line": request.line,
                "recipient": peer.spki,
                "version": state.policy.version,
            },
        )
        # 3.2 In one step: the entry, no share in the record, the package under its own name.
        # 3.3 It is kept until it was confirmed: nothing is lost if the answer is.
        changes = [Put(_package_name(key), package)] if first else []
        self._store_handed(state, handed, draft, *changes, now=now, at=index)
        return handed

    def _store_handed(
        self,
        state: KeyState,
        handed: Handed,
        draft: Draft,
        *changes: Put | Delete,
        now: int,
        at: int | None = None,
    ) -> None:
        key = state.policy.key
        record = msgspec.structs.replace(state.record, held=(), committed=None, handed=handed)
        put = Put(record_name(key), encode(record), state.version)
        self._log.commit(draft, now=now, changes=(put, *changes), at=at)
        self._keys.put(key, KeyState(state.version + 1, record, state.policy))
        self._standing.took(state.policy.vault_set)

    def _seen_of(self, vaults: Iterable[str]) -> Iterator[SeenItem]:
        for vault in vaults:
            lines = self._read(lines_name(vault), LinesRecord)
            for line in ("", *(lines.lines if lines else ())):
                if (seen := self._read(seen_name(vault, line), Seen)) is not None:
                    yield SeenItem(vault=vault, line=line, seen=seen)

    def _kept(self, key: str) -> Stored:
        stored = self._store.get(_package_name(key))
        if stored is None:
            raise UnavailableError(f"what was to be handed over of key {key} is not there")
        return stored

    def _answer(
        self, handed: Handed, package: bytes, offset: int, *, confirmed: bool
    ) -> HandOverAnswer:
        return HandOverAnswer(
            identity=b64(self._identity.key.private_bytes_raw()),
            size=len(package),
            digest=handed.digest,
            part=b64(package[offset : offset + HAND_OVER_PART]),
            confirmed=confirmed,
        )

    def _read(self, name: str, shape: type[R]) -> R | None:
        stored = self._store.get(name)
        return None if stored is None else decode(stored.value, shape, limit=MAX_RECORD)


def _package_name(key: str) -> str:
    return f"handed/{key}"


def _naming(record: KeyRecord, profile: Profile) -> str | None:
    """Return the statement that named a release, for auditors."""
    for item in record.charter:
        sent = open_statement(item.signed)
        named: tuple[Profile, ...] = ()
        if isinstance(sent.statement, Birth):
            named = sent.statement.body.vault_set.profiles
        elif isinstance(sent.statement, UpdatePolicy):
            named = sent.statement.body.vault_profiles
        if profile in named:
            return sent.digest
    return None
