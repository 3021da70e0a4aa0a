"""How a new process of a vault takes a key over from the old one (spec/12, section 4).

What came is checked, stored, confirmed to the old process, and served only then. Between
these steps the power may go: each is repeated until the old process said that it erased
its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from placet.core.attestation import AttestedIdentity
from placet.core.continuity import Seen
from placet.core.encoding import decode, digest, encode, unb64
from placet.core.limits import MAX_LINES, MAX_PACKAGE
from placet.core.logentry import Draft
from placet.core.manifest import manifest_digest
from placet.core.statement import open_statement
from placet.errors import ConflictError, KeyNotBornError, NotFoundError, VerificationError
from placet.policy.charter import fold, replay
from placet.policy.handover import check_predecessor
from placet.policy.key_policy import KeyPolicy
from placet.sharing.key import verify_share
from placet.storage.store import Delete, Put
from placet.vault.handover import LABEL, HandOver
from placet.vault.keys import KeyState, charter_of, record_name
from placet.vault.records import Handed, KeyRecord, LinesRecord, Package, SeenItem
from placet.vault.witnessing import lines_name, seen_name


@dataclass(frozen=True, slots=True)
class CheckedPackage:
    """A package that may be taken from who sent it. Made by `check_package` only."""

    raw: bytes
    package: Package
    policy: KeyPolicy

    @property
    def digest(self) -> str:
        """Return what is confirmed."""
        return digest(LABEL, self.raw)


def check_package(
    raw: bytes, key: str, sender: AttestedIdentity, *, release: str
) -> CheckedPackage:
    """Check that a package is one of this key, from a process that its owner let keep it.

    Args:
        raw: As it came.
        key: What was asked for.
        sender: The other end, as the exchange proved it.
        release: Code id of the release that takes over.

    Raises:
        MalformedError, VerificationError, PolicyDeniedError: It is not: the sender is wrong.
    """
    package = decode(raw, Package, limit=MAX_PACKAGE)
    vault, record = sender.claims.instance, package.record
    # 4.1 It is about this key and the vault that sent it, and was not handed on before.
    if (package.key, package.vault) != (key, vault) or isinstance(record.handed, Handed):
        raise VerificationError(f"package is not what vault {vault} keeps of key {key}")
    # 4.2 Its charter is the key's: every signature is checked again, from the birth on.
    sents = [open_statement(item.signed) for item in record.charter]
    read = replay(sents) if sents else None
    if read is None or read.key != key:
        raise VerificationError(f"package holds no charter of key {key}")
    # 4.3 By that charter the sender may have it, and this release may have it after that.
    check_predecessor(read, sender, vault=vault, release=release)
    # 4.4 Each share is this vault's, and fits its manifest.
    for kept in (*record.held, *((record.committed,) if record.committed else ())):
        if kept.manifest.key != key:
            raise VerificationError("package holds a share of another key")
        verify_share(kept.manifest, vault, unb64(kept.share))
    return CheckedPackage(raw, package, fold(charter_of(record)))


class TakeOver(HandOver):
    """What a new process of this vault keeps of what it takes over."""

    def has(self, key: str) -> bool:
        """Say whether a key is served, or was handed on, by this process."""
        state = self._mine_before(key)
        if state is None:
            return False
        return state.record.committed is not None or isinstance(state.record.handed, Handed)

    def knows(self, key: str) -> bool:
        """Say whether a key was taken, or taken over, by this process."""
        return self._mine_before(key) is not None

    def incoming(self, key: str) -> str | None:
        """Return the digest of the package of a key that is stored and not served yet."""
        stored = self._store.get(_incoming(key))
        return None if stored is None else digest(LABEL, stored.value)

    def receive(self, checked: CheckedPackage) -> None:
        """Store a package, durably. The key is not served."""
        # 4.5 Stored first, and under a name that no request reads.
        name = _incoming(checked.package.key)
        stored = self._store.get(name)
        if stored is None or stored.value != checked.raw:
            put = Put(name, checked.raw, stored.version if stored else None)
            self._log.commit(now=self._clock.now(), changes=(put,))

    def activate(self, key: str) -> None:
        """Serve a key from now on: the old process confirmed that it erased its own.

        Raises:
            NotFoundError: Nothing of that key was received.
            ConflictError: Another share of it was committed here.
        """
        stored = self._store.get(_incoming(key))
        if stored is None:
            raise NotFoundError(f"nothing of key {key} was taken over")
        package = decode(stored.value, Package, limit=MAX_PACKAGE)
        mine = self._mine_before(key)
        record = _merged(mine.record if mine else None, package.record)
        policy = fold(charter_of(record))
        # 4.6 In one step with the entry: from here on this process serves it.
        changes: list[Put | Delete] = [
            Put(record_name(key), encode(record), mine.version if mine else None)
        ]
        changes += [*self._stager_puts(policy), *self._standing.puts(policy.vault_set)]
        changes += self._seen_puts(package.seen)
        for kind, beside in (
            ("beside", package.beside),
            ("pending", package.pending),
            ("dropped", package.dropped),
        ):
            if beside is not None and self._store.get(f"{kind}/{key}") is None:
                changes.append(Put(f"{kind}/{key}", encode(beside)))
        came = Draft(
            kind="taken-over",
            key=key,
            subject=digest(LABEL, stored.value),
            detail={"line": package.line, "index": package.index, "version": policy.version},
        )
        # What is decided here from now on rests on statements that were taken over there.
        carried = (Draft(kind="carried", key=key, statement=one) for one in policy.chain)
        changes.append(Delete(_incoming(key), stored.version))
        now = max(self._clock.now(), package.time)
        self._log.commit(came, *carried, now=now, changes=tuple(changes))
        self._keys.put(key, KeyState((mine.version if mine else 0) + 1, record, policy))
        self._standing.took(policy.vault_set)

    def _seen_puts(self, items: Iterable[SeenItem]) -> Iterator[Put]:
        """Remember what the old process had witnessed, where that is more than here."""
        lines = dict[str, list[str]]()
        for item in items:
            name = seen_name(item.vault, item.line)
            stored = self._store.get(name)
            mine = decode(stored.value, Seen) if stored else None
            if mine is None or (mine.boots, mine.size) < (item.seen.boots, item.seen.size):
                yield Put(name, encode(item.seen), stored.version if stored else None)
            if item.line and mine is None:
                lines.setdefault(item.vault, []).append(item.line)
        for vault, more in lines.items():
            stored = self._store.get(lines_name(vault))
            known = decode(stored.value, LinesRecord).lines if stored else ()
            record = LinesRecord(lines=tuple(dict.fromkeys((*known, *more)))[-MAX_LINES:])
            yield Put(lines_name(vault), encode(record), stored.version if stored else None)

    def _mine_before(self, key: str) -> KeyState | None:
        try:
            return self._keys.get(key)
        except KeyNotBornError:
            return None


def _merged(mine: KeyRecord | None, theirs: KeyRecord) -> KeyRecord:
    """Return the record to go on with; here there may be a charter that couriers brought."""
    if mine is None:
        return theirs
    if isinstance(mine.handed, Handed):
        raise ConflictError("this process had that key before, and handed it on")
    commits = [c for c in (mine.committed, theirs.committed) if c is not None]
    if len({manifest_digest(c.manifest) for c in commits}) > 1:
        raise ConflictError("another manifest of this key was committed here")
    longer = max(mine, theirs, key=lambda r: len(r.charter))
    return msgspec.structs.replace(
        longer,
        promised=max(mine.promised, theirs.promised),
        held=() if commits else (*theirs.held, *mine.held),
        committed=commits[0] if commits else None,
    )


def _incoming(key: str) -> str:
    return f"incoming/{key}"
