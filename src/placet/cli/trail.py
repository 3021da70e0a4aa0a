"""One vault's trail of a key: fetched whole, and checked entry by entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placet.client.vault_client import VaultClient
from placet.core.checkpoint import Checkpoint, open_note, origin_of
from placet.core.dsse import vault_id
from placet.core.encoding import decode, unb64
from placet.core.limits import MAX_LOG_ENTRY, MAX_LOG_PAGE
from placet.core.logentry import LogEntry, entry_hash
from placet.core.messages import CharterAnswer, LogItem
from placet.errors import VerificationError

BEFORE = ("waiting", "denied", "fork", "branch-changed")
"""Entries about a statement that was not taken: it waits, it was refused, it is of a fork."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """A key's entries in one vault's log, in order and without a gap."""

    entries: tuple[LogEntry, ...]
    checkpoint: Checkpoint


async def read_trail(vault: VaultClient, key: str) -> Trail:
    """Fetch a key's trail from a vault and verify it.

    Each entry follows the one before it by its salted digest, none is missing in between,
    every release and every promise names a statement that was taken earlier in the same
    trail (I1), and the vault signed a checkpoint that is long enough to hold them all.
    That the entries are in the checkpoint's tree, and that none is missing at the end, is
    *not* shown by this.

    Raises:
        VerificationError: The vault's trail is not one.
    """
    # The vault's key comes with what it signed; its digest is the id that was attested.
    charter = await vault.charter(key)
    public = _public_key(charter, vault.id)
    items: list[LogItem] = []
    while True:
        page = await vault.log(key, len(items))
        items += page.entries
        if len(page.entries) < MAX_LOG_PAGE:
            break
    first = origin_of(vault.id)
    said = page.checkpoint.partition("\n")[0]
    # A process that took over has a log of its own (spec/12, section 5).
    name = said if said.startswith(f"{first}/") else first
    checkpoint = open_note(page.checkpoint, name, public)
    if checkpoint.origin != name:
        raise VerificationError(f"checkpoint is of log {checkpoint.origin}, not {name}")
    entries = check_trail(items, key)
    if entries and entries[-1].index >= checkpoint.size:
        raise VerificationError("checkpoint is of a log that ends before the key's last entry")
    return Trail(entries=entries, checkpoint=checkpoint)


def check_trail(items: Sequence[LogItem], key: str) -> tuple[LogEntry, ...]:
    """Return the entries of a key's trail, whole from its start.

    Raises:
        VerificationError: An entry is of another key, missing, out of order, or acts under
            a statement that was not taken before it.
    """
    entries: list[LogEntry] = []
    taken: set[str | None] = set()
    last: str | None = None
    for number, item in enumerate(items):
        raw = unb64(item.entry)
        entry = decode(raw, LogEntry, limit=MAX_LOG_ENTRY)
        if (entry.key, entry.index) != (key, item.index):
            raise VerificationError(f"log entry {item.index} is not what it is shown as")
        if (entry.key_seq, entry.key_prev) != (number, last):
            raise VerificationError(
                f"log entry {entry.index} does not follow the key's entry before it"
            )
        if entries and (entry.index <= entries[-1].index or entry.time < entries[-1].time):
            raise VerificationError(f"log entry {entry.index} goes back in order or time")
        if entry.kind in ("taken", "carried"):
            taken.add(entry.statement)
        elif entry.kind not in BEFORE and entry.statement not in (None, *taken):
            raise VerificationError(
                f"log entry {entry.index} ({entry.kind}) rests on statement {entry.statement}, "
                "which was not taken before it"
            )
        entries.append(entry)
        last = entry_hash(unb64(item.salt), raw)
    return tuple(entries)


def _public_key(charter: CharterAnswer, vault: str) -> bytes:
    for item in charter.charter:
        for receipt in item.receipts:
            public = unb64(receipt.vault_key)
            if vault_id(public) == vault:
                return public
    raise VerificationError("vault shows no receipt of its own, so its checkpoint has no key")
