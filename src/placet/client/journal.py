"""Follow a vault's whole log, page by page, so that no entry is missed (spec/11, section 5).

What is about the vault itself comes in full, entries of keys as salted hashes: that is what
the vault shows to anyone. Each page is checked before it is handed on. That the last entries
of a page, if they come as hashes, are of keys is *not* shown: the vault's next own entry tells.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Never

from msgspec.structs import replace

from placet.client.constellation import NONCE
from placet.client.heads import Head, Proof, RollbackProof, check_prefix, compare
from placet.client.vault_client import VaultClient
from placet.core.checkpoint import origin_of
from placet.core.dsse import Signed
from placet.core.encoding import Base64, Int, Record, Sha256, decode, encode, unb64
from placet.core.limits import MAX_LOG_ENTRY
from placet.core.logentry import LogEntry, entry_hash, leaf_data
from placet.core.merkle import Frontier, FrontierRecord, leaf_hash
from placet.core.messages import JournalItem
from placet.errors import (
    ConflictError,
    MalformedError,
    NotFoundError,
    RolledBackError,
    VerificationError,
)


class OwnTrail(Record):
    """Where the vault's own trail ended: its entries are a chain (spec/06, section 3)."""

    count: Int
    last: Sha256 | None


class Place(Record, kw_only=True):
    """How far a vault's log was followed: all that is needed to go on from there."""

    schema: Literal[1] = 1
    vault: Sha256
    log: str
    """The name of its log; each process of a vault has one of its own (spec/12)."""
    next: Int
    """The index of the first entry that was not handed on."""
    tree: FrontierRecord
    """Over all entries before it."""
    own: OwnTrail | None
    """Nothing, if it was begun in the middle, and none of the vault's own came since."""
    head: Signed
    """The newest status that it signed."""


class LogLine(Record, kw_only=True):
    """One entry, as it is handed on."""

    log: str
    index: Int
    hash: Sha256
    salt: Base64 | None
    entry: LogEntry | None
    """In full if it is about the vault itself."""


@dataclass(frozen=True, slots=True)
class Page:
    """Entries that were checked, and where they leave off."""

    before: Place
    lines: tuple[LogLine, ...]
    end: Place

    def after(self, count: int) -> Place:
        """Return the place once so many of them were handed on."""
        if count == len(self.lines):
            return self.end
        return _advanced(self.before, self.lines[:count])


class Follower:
    """Reads one vault's log from a place on.

    Args:
        vault: An attested connection to a vault that was expected.
        place: Where to go on; see `begin`.
        rng: For nonces.
        keep: Keeps a proof against the vault, and says where it is now.
    """

    def __init__(
        self,
        vault: VaultClient,
        place: Place,
        rng: Callable[[int], bytes],
        keep: Callable[[Proof], object],
    ) -> None:
        self.place = place
        self._vault, self._rng, self._keep = vault, rng, keep

    @classmethod
    async def begin(
        cls,
        vault: VaultClient,
        since: int,
        rng: Callable[[int], bytes],
        keep: Callable[[Proof], object],
    ) -> Follower:
        """Return a follower from entry ``since`` on, of whatever log the vault has now.

        Of the entries before it the hashes are fetched, to know the tree under them.

        Raises:
            NotFoundError: The log is shorter.
            VerificationError: The entries before are not those that the vault signed.
        """
        head = Head.of((await vault.standing(rng(NONCE))).status, vault.id)
        if since > head.checkpoint.size:
            raise NotFoundError(
                f"the log has {head.checkpoint.size} entries, expected at least {since}",
                f"If you have seen entry {since - 1} of it, its disk was put back: show what you "
                "have to its operator.",
                size=head.checkpoint.size,
            )
        tree = Frontier()
        while tree.size < since:
            found = (await vault.hashes(tree.size)).hashes[: since - tree.size]
            if not found:
                raise VerificationError(f"the vault shows no hash of entry {tree.size}")
            for one in found:
                tree = tree.append(leaf_hash(leaf_data(one)))
        place = Place(
            vault=vault.id,
            log=origin_of(vault.id, head.line),
            next=since,
            tree=tree.to_record(),
            own=None if since else OwnTrail(count=0, last=None),
            head=head.signed,
        )
        follower = cls(vault, place, rng, keep)
        await follower._check(tree, head)
        return follower

    async def more(self) -> AsyncIterator[Page]:
        """Yield what is new, up to where the log ended when it was asked.

        The place moves only when the next page is asked for, or on return.

        Raises:
            RolledBackError: The log is shorter than it was; what proves it was kept.
            VerificationError: It forked, or a page is not what the vault signed.
            ConflictError: Another process of the vault answers.
            UnavailableError: It does not answer, or not now.
        """
        head = await self._head()
        self.place = replace(self.place, head=head.signed)
        while self.place.next < head.checkpoint.size:
            since = self.place.next
            items = (await self._vault.journal(since)).items[: head.checkpoint.size - since]
            if not items:
                raise VerificationError(
                    f"the vault shows no entry {since}; it signed a log of {head.checkpoint.size}"
                )
            lines = tuple(self._line(i, n) for n, i in enumerate(items, since))
            page = Page(self.place, lines, end=_advanced(self.place, lines))
            # 5.4 These are the entries that the vault signs.
            await self._check(Frontier.from_record(page.end.tree), head)
            yield page
            self.place = page.end

    async def _head(self) -> Head:
        """Return what the vault says now, if its log only grew since it said so last."""
        vault = self.place.vault
        now = Head.of((await self._vault.standing(self._rng(NONCE))).status, vault)
        if (log := origin_of(vault, now.line)) != self.place.log:
            raise ConflictError(
                f"another process of the vault answers: its log is {log}, expected "
                f"{self.place.log}",
                "Its log is another one: follow it from 0 with a state of its own. What is left of "
                "the older process's is where that one answers.",
                log=log,
            )
        # 5.2 It continues what the vault signed before.
        proof = await compare(Head.of(self.place.head, vault), now, self._vault.consistency)
        if proof is not None:
            self._refuse(proof, now)
        return now

    async def _check(self, tree: Frontier, head: Head) -> None:
        proof = await check_prefix(head, tree, self._vault.consistency)
        if proof is not None:
            self._refuse(proof, head)

    def _refuse(self, proof: Proof, now: Head) -> Never:
        where, was = self._keep(proof), Head.of(self.place.head, now.body.vault)
        hint = "Show the proof to its operator, and replace the vault. See docs/continuity.md"
        sizes = {"expected": was.checkpoint.size, "size": now.checkpoint.size}
        if isinstance(proof, RollbackProof):
            raise RolledBackError(
                f"the vault was put back to an older disk: its log has {now.checkpoint.size} "
                f"entries, and it signed {was.checkpoint.size} before. The proof is in {where}",
                hint, behind=[now.body.vault], proof=str(where), **sizes,
            )  # fmt: skip
        raise VerificationError(
            "the vault forked: it signed two different logs of one size. The proof is in "
            f"{where}",
            hint, vault=now.body.vault, proof=str(where), **sizes,
        )  # fmt: skip

    def _line(self, item: JournalItem, index: int) -> LogLine:
        # 5.3 No gap, and what is shown in full is what was hashed.
        if item.index != index:
            raise VerificationError(f"the vault shows entry {item.index}, expected {index}")
        entry = None
        if item.entry is not None:
            raw = unb64(item.entry)
            entry = decode(raw, LogEntry, limit=MAX_LOG_ENTRY)
            if entry_hash(unb64(item.salt or ""), raw) != item.hash:
                raise VerificationError(f"log entry {index} does not have the hash {item.hash}")
        if (item.salt is None) != (entry is None) or (entry and entry.key is not None):
            raise VerificationError(f"log entry {index} is not shown as spec/11 says")
        return LogLine(log=self.place.log, index=index, hash=item.hash, salt=item.salt, entry=entry)


def read_place(raw: bytes) -> Place:
    """Return a place that was kept as `write_place` writes it.

    Raises:
        MalformedError: It is none.
        VerificationError: Its head is not the vault's.
    """
    place = decode(raw.removesuffix(b"\n"), Place)
    Head.of(place.head, place.vault)
    if Frontier.from_record(place.tree).size != place.next:
        raise MalformedError(
            f"a tree of {place.tree.size} entries does not end before {place.next}"
        )
    return place


def write_place(place: Place) -> bytes:
    """Return a place as it is kept."""
    return encode(place) + b"\n"


def _advanced(place: Place, lines: Sequence[LogLine]) -> Place:
    """Return the place behind these lines.

    Raises:
        VerificationError: An entry of the vault's own is missing between them.
    """
    tree, own = Frontier.from_record(place.tree), place.own
    for line in lines:
        tree = tree.append(leaf_hash(leaf_data(line.hash)))
        if line.entry is not None:
            # 5.3 The vault's own are a chain.
            found = OwnTrail(count=line.entry.key_seq, last=line.entry.key_prev)
            if line.entry.index != line.index or (own is not None and found != own):
                raise VerificationError(
                    f"log entry {line.index} is number {found.count} of the vault's own and "
                    f"follows {found.last}; expected {own and own.count} and {own and own.last}",
                    "Entries were left out, or changed. Keep what the vault showed before.",
                )
            own = OwnTrail(count=found.count + 1, last=line.hash)
    return replace(place, next=place.next + len(lines), tree=tree.to_record(), own=own)
