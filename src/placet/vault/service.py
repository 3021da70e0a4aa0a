"""What a vault does for anyone: statements, charters, logs, status (spec/07, section 2).

`Vault` is the whole service; what takes mutual evidence is in `placet.vault.shares`,
how statements are taken in `placet.vault.taking`, what is pending in `placet.vault.staging`,
what goes to a new process of the vault in `placet.vault.handover` and `placet.vault.takeover`.
"""

from __future__ import annotations

from placet.core.continuity import (
    ConsistencyAnswer,
    WitnessAnswer,
    WitnessRequest,
    checkpoint_at,
)
from placet.core.dsse import sign_record
from placet.core.encoding import b64
from placet.core.limits import MAX_BODY, MAX_LOG_HASHES, MAX_LOG_PAGE
from placet.core.manifest import manifest_digest
from placet.core.messages import (
    AuditAnswer,
    AuditItem,
    CharterAnswer,
    DroppedAnswer,
    HashesAnswer,
    JournalAnswer,
    JournalItem,
    LogAnswer,
    LogItem,
    Status,
    StatusBody,
    Trail,
    Waiting,
)
from placet.errors import NotFoundError, QuarantinedError
from placet.storage.log import Logged
from placet.vault.shares import Shares
from placet.vault.takeover import TakeOver

SCHEMAS = (1, 2)

AUDIT_PAGE = MAX_BODY - 64 * 1024
"""Bytes of one page of a trail; the rest is for its checkpoint and end."""
PROOF_ROOM = 3072
"""Bytes that a proof takes at most, with what else stands beside an entry."""


class Vault(Shares, TakeOver):
    """The service of one vault."""

    def witness(self, request: WitnessRequest) -> WitnessAnswer:
        """Remember how far another vault is, and say so; it takes no standing to do that.

        Raises:
            QuarantinedError: What this vault remembers is itself from an older disk.
            RoleDeniedError: That vault keeps no key together with this one.
        """
        report = self._standing.report()
        if report.state == "quarantined":
            raise QuarantinedError(
                f"this vault is quarantined itself: {report.reason}", reason=report.reason
            )
        return self._witnessing.answer(request)

    def consistency(self, old: int, new: int) -> ConsistencyAnswer:
        """Show that the log only grew between two sizes that it had."""
        size, _ = self._log.head()
        if not 0 < old <= new <= size:
            raise NotFoundError(
                f"this log has {size} entries: it never had {old} and then {new}",
                "If a checkpoint of it says so, its disk was put back: show that checkpoint.",
                size=size,
            )
        before, after, proof = self._log.consistency(old, new)
        own = self._identity
        return ConsistencyAnswer(
            before=checkpoint_at(own.key, own.boot, old, before, own.line),
            after=checkpoint_at(own.key, own.boot, new, after, own.line),
            proof=tuple(map(b64, proof)),
        )

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
        return Status(
            status=sign_record(body, self._identity.key),
            standing=self._standing.report(),
            witnessed=self._standing.witnessed(),
        )

    def charter(self, key: str) -> CharterAnswer:
        """Show everything taken of a key, and whether a share was committed."""
        state = self._mine(key)
        committed = state.record.committed
        _, beside = self._beside(key)
        return CharterAnswer(
            charter=state.record.charter,
            head=state.policy.head,
            version=state.policy.version,
            manifest=manifest_digest(committed.manifest) if committed else None,
            waiting=tuple(
                Waiting(signed=w.signed, since=w.since, until=w.since + w.delay)
                for w in beside.waiting
            ),
            forks=beside.forks,
        )

    def log(self, key: str, since: int) -> LogAnswer:
        """Show a key's own trail from its entry ``since`` on."""
        self._keys.get(key)
        entries = tuple(
            LogItem(index=e.entry.index, salt=b64(e.salt), entry=b64(e.raw))
            for e in self._log.of_key(key, since)
        )
        return LogAnswer(entries=entries, checkpoint=self._checkpoint())

    def audit(self, key: str, since: int, size: int) -> AuditAnswer:
        """Show a page of a key's trail, each entry with the proof that it is in the log.

        Args:
            key: A key that is known here.
            since: Sequence number to begin at.
            size: The log's size at which the trail is shown, so that pages fit together; 0
                for now.
        """
        self._keys.get(key)
        now, size = self._clock.now(), size or self._log.head()[0]
        if size > self._log.head()[0]:
            raise NotFoundError(f"this log never had {size} entries", "Ask with size=0.")
        end = self._log.trail_end(key, size)
        page, room = list[Logged](), AUDIT_PAGE
        for one in self._log.of_key(key, since)[: max(0, end.count - since)]:
            room -= 2 * len(one.raw) + PROOF_ROOM
            if room < 0:
                break
            page.append(one)
        until = since + len(page)
        trail = Trail(
            vault=self._identity.id,
            line=self._identity.own_line,
            key=key,
            count=end.count,
            last=end.last,
            size=size,
            time=now,
        )
        return AuditAnswer(
            entries=tuple(
                AuditItem(
                    index=one.entry.index,
                    salt=b64(one.salt),
                    entry=b64(one.raw),
                    proof=tuple(map(b64, proof)),
                )
                for one, proof in zip(page, self._log.proofs(page, size), strict=True)
            ),
            checkpoint=self._checkpoint(size),
            trail=sign_record(trail, self._identity.key),
            next=until if until < end.count else None,
        )

    def dropped(self, key: str) -> DroppedAnswer:
        """Show what was taken of a key on branches that were left for another."""
        self._keys.get(key)
        return DroppedAnswer(dropped=self._dropped(key)[1])

    def hashes(self, since: int) -> HashesAnswer:
        """Show the salted hashes of all entries from ``since`` on."""
        size = self._log.head()[0]
        hashes = self._log.leaf_hashes(min(since, size), min(since + MAX_LOG_HASHES, size))
        return HashesAnswer(hashes=hashes, checkpoint=self._checkpoint())

    def journal(self, since: int) -> JournalAnswer:
        """Show the log from entry ``since`` on: in full what is about this vault itself."""
        size = self._log.head()[0]
        items = tuple(
            JournalItem(
                index=one.entry.index,
                hash=one.hashed,
                salt=b64(one.salt) if one.entry.key is None else None,
                entry=b64(one.raw) if one.entry.key is None else None,
            )
            for one in self._log.entries(min(since, size), min(since + MAX_LOG_PAGE, size))
        )
        return JournalAnswer(items=items, checkpoint=self._checkpoint())

    def _checkpoint(self, size: int | None = None) -> str:
        newest, root = self._log.head()
        if size is None:
            size = newest
        elif size != newest:
            root = self._log.consistency(size, size)[0]
        own = self._identity
        return checkpoint_at(own.key, own.boot, size, root, own.line)
