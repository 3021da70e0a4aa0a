"""What a vault does for anyone: statements, charters, logs, status (spec/07, section 2).

`Vault` is the whole service; what takes mutual evidence is in `placet.vault.shares`,
what is only pending in `placet.vault.staging`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from placet.core.checkpoint import Checkpoint, sign_note
from placet.core.dsse import Signed, sign_record
from placet.core.encoding import b64, encode
from placet.core.logentry import Draft
from placet.core.manifest import manifest_digest
from placet.core.messages import (
    CharterAnswer,
    CourierItem,
    LogAnswer,
    LogItem,
    Status,
    StatusBody,
    TakeAnswer,
    Taken,
    TakeRequest,
)
from placet.core.statement import open_statement
from placet.errors import (
    KeyNotBornError,
    MalformedError,
    RateLimitedError,
)
from placet.policy.charter import Courier, TakenStatement, take
from placet.policy.key_policy import KeyPolicy
from placet.storage.store import Put
from placet.vault.keys import KeyState, record_name
from placet.vault.records import KeyRecord
from placet.vault.shares import Shares
from placet.vault.staging import Staging

SCHEMAS = (1,)


class Vault(Shares, Staging):
    """The service of one vault."""

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
            state = self._store_taken(state, policy, new)
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

    def log(self, key: str, since: int) -> LogAnswer:
        """Show a key's own trail from its entry ``since`` on."""
        self._keys.get(key)
        entries = tuple(
            LogItem(index=e.entry.index, salt=b64(e.salt), entry=b64(e.raw))
            for e in self._log.of_key(key, since)
        )
        return LogAnswer(entries=entries, checkpoint=self._checkpoint())

    def _store_taken(
        self, state: KeyState | None, policy: KeyPolicy, new: Sequence[TakenStatement]
    ) -> KeyState:
        now, at = self._clock.now(), self._log.head()[0]
        puts: list[Put] = []
        old = state.record if state else KeyRecord(charter=())
        if state is None:
            if self._born >= self._settings.max_keys:
                raise RateLimitedError(f"this vault keeps {self._born} keys and takes no more")
            puts = self._stager_puts(policy)
        first = policy.version - len(new)
        items, drafts = [], []
        for i, fresh in enumerate(new):
            taken = Taken(
                vault=self._identity.id,
                key=policy.key,
                statement=fresh.sent.digest,
                version=first + i + 1,
                index=at + i,
                time=now,
            )
            own = sign_record(taken, self._identity.key)
            others = tuple(r for r in fresh.receipts if r.vault_key != own.vault_key)
            items.append(CourierItem(signed=fresh.sent.signed(), receipts=(own, *others)))
            drafts.append(Draft(kind="taken", key=policy.key, statement=fresh.sent.digest))
        record = msgspec.structs.replace(old, charter=(*old.charter, *items))
        version = state.version if state else None
        puts.append(Put(record_name(policy.key), encode(record), version))
        self._log.commit(*drafts, now=now, changes=tuple(puts), at=at)
        self._born += state is None
        stored = KeyState((version or 0) + 1, record, policy)
        self._keys.put(policy.key, stored)
        return stored

    def _receipts(self, state: KeyState | None, couriers: Sequence[Courier]) -> tuple[Signed, ...]:
        if state is None:
            return ()
        at = {digest: i for i, digest in enumerate(state.policy.chain)}
        return tuple(state.record.charter[at[c.sent.digest]].receipts[0] for c in couriers)

    def _checkpoint(self) -> str:
        name = "placet/" + self._identity.id.removeprefix("sha256:")
        size, root = self._log.head()
        checkpoint = Checkpoint(name, size, root, (f"boot {self._identity.boot}",))
        return sign_note(checkpoint.text(), name, self._identity.key)
