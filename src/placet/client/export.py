"""Export a key's trail from a vault, for whoever audits it elsewhere (spec/11, section 3).

One visit to one vault is a file of canonical JSON lines. Nothing is verified here: that is
the auditor's, who trusts neither vaults nor who fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from placet.client.vault_client import VaultClient
from placet.core.dsse import Signed, open_signed
from placet.core.encoding import Base64, Int, Record, Sha256, encode
from placet.core.messages import AuditAnswer, AuditItem, CourierItem, Receipts, Taken, Trail
from placet.core.statement import SignedStatement
from placet.errors import UnavailableError

Place = Literal["charter", "waiting", "fork", "dropped"]
TRIES = 5


class VisitLine(Record, tag_field="record", tag="visit", kw_only=True):
    """The first line: whose log, and how far it was."""

    schema: Literal[1] = 1
    key: Sha256
    vault: Sha256
    at: Int
    """When it was fetched, by the clock of who did: nothing rests on it."""
    checkpoint: str
    trail: Signed


class StatementLine(Record, tag_field="record", tag="statement"):
    """A statement that the vault shows, and the receipts that it shows with it."""

    place: Place
    signed: SignedStatement
    receipts: Receipts


class EntryLine(Record, tag_field="record", tag="entry"):
    """One entry of the key's trail, and the proof that it is in the checkpoint's tree."""

    index: Int
    salt: Base64
    entry: Base64
    proof: tuple[Base64, ...]


class HashesLine(Record, tag_field="record", tag="hashes"):
    """Entry hashes of all keys, from number ``since`` on, up to the checkpoint."""

    since: Int
    hashes: tuple[Sha256, ...]


class ConsistencyLine(Record, tag_field="record", tag="consistency"):
    """The proof that the log grew to this checkpoint from ``old`` entries."""

    old: Int
    proof: tuple[Base64, ...]


class EndLine(Record, tag_field="record", tag="end"):
    """The last line: how many there are, itself included."""

    lines: Int


@dataclass(slots=True)
class Fetched:
    """One visit to one vault."""

    key: str
    vault: str
    first: AuditAnswer
    entries: list[AuditItem] = field(default_factory=list)
    statements: list[StatementLine] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    proofs: list[ConsistencyLine] = field(default_factory=list)

    @property
    def trail(self) -> Trail:
        """Return where the vault signed that its trail ended."""
        return open_signed(self.first.trail, Trail, vault=self.vault)


async def fetch(
    vault: VaultClient, key: str, *, hashes: bool = True, before: Sequence[int] = ()
) -> Fetched:
    """Fetch a key's trail and charter from a vault, as they were at one size of its log.

    Args:
        vault: An attested connection.
        key: The key id.
        hashes: Whether to fetch the hashes of all keys' entries too: by them two visits
            are compared, and own entries found at their places.
        before: Sizes of the log at earlier visits, to show that it grew from there. A size
            that the log never had is left out: the auditor says what that means.

    Raises:
        UnavailableError: The charter changed all the while.
    """
    for _ in range(TRIES):
        first = await vault.audit(key, 0, 0)
        found = Fetched(key, vault.id, first, list(first.entries))
        size, page = found.trail.size, first
        while page.next is not None:
            page = await vault.audit(key, page.next, size)
            found.entries += page.entries
        charter = await vault.charter(key)
        for item in (await vault.dropped(key)).dropped:
            found.statements.append(_line("dropped", item.signed, item.receipts))
        for item in charter.charter:
            found.statements.append(_line("charter", item.signed, item.receipts))
        found.statements += [_line("waiting", w.signed) for w in charter.waiting]
        found.statements += [_line("fork", signed) for signed in charter.forks]
        # A statement that came in between is not in that trail: begin again.
        if all(_index(i, vault.id) < size for i in charter.charter):
            break
    else:
        raise UnavailableError("the key's charter changed while it was fetched", "Try again.")
    if hashes:
        found.hashes = await _hashes(vault, size)
    for old in (old for old in before if 0 < old < size):
        answer = await vault.consistency(old, size)
        found.proofs.append(ConsistencyLine(old=old, proof=answer.proof))
    return found


async def _hashes(vault: VaultClient, size: int) -> list[str]:
    found: list[str] = []
    while len(found) < size:
        found += (await vault.hashes(len(found))).hashes
    return found[:size]


def lines(found: Fetched, *, at: int) -> Iterator[bytes]:
    """Yield the lines of a visit's file, each with its line feed.

    Args:
        found: From `fetch`.
        at: Unix seconds: when it was fetched.
    """
    records: list[Record] = [
        VisitLine(
            key=found.key,
            vault=found.vault,
            at=at,
            checkpoint=found.first.checkpoint,
            trail=found.first.trail,
        ),
        *found.statements,
        *(
            EntryLine(index=e.index, salt=e.salt, entry=e.entry, proof=e.proof)
            for e in found.entries
        ),
        *_pages(found.hashes),
        *found.proofs,
    ]
    records.append(EndLine(lines=len(records) + 1))
    for record in records:
        yield encode(record) + b"\n"


def _pages(hashes: Sequence[str], size: int = 4096) -> Iterator[HashesLine]:
    for since in range(0, len(hashes), size):
        yield HashesLine(since=since, hashes=tuple(hashes[since : since + size]))


def _line(place: Place, signed: SignedStatement, receipts: Receipts = ()) -> StatementLine:
    return StatementLine(place=place, signed=signed, receipts=receipts)


def _index(item: CourierItem, vault: str) -> int:
    return open_signed(item.receipts[0], Taken, vault=vault).index
