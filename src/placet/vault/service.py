"""What a vault does for anyone: statements, charters, logs, status (spec/07, section 2).

`Vault` is the whole service; what takes mutual evidence is in `placet.vault.shares`,
how statements are taken in `placet.vault.taking`, what is pending in `placet.vault.staging`.
"""

from __future__ import annotations

from placet.core.checkpoint import Checkpoint, sign_note
from placet.core.dsse import sign_record
from placet.core.encoding import b64
from placet.core.manifest import manifest_digest
from placet.core.messages import (
    CharterAnswer,
    LogAnswer,
    LogItem,
    Status,
    StatusBody,
    Waiting,
)
from placet.vault.shares import Shares
from placet.vault.taking import Taking

SCHEMAS = (1, 2)


class Vault(Shares, Taking):
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

    def charter(self, key: str) -> CharterAnswer:
        """Show everything taken of a key, and whether a share was committed."""
        state = self._keys.get(key)
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

    def _checkpoint(self) -> str:
        name = "placet/" + self._identity.id.removeprefix("sha256:")
        size, root = self._log.head()
        checkpoint = Checkpoint(name, size, root, (f"boot {self._identity.boot}",))
        return sign_note(checkpoint.text(), name, self._identity.key)
