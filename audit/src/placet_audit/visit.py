"""One vault's word, by itself: signatures, tree, and the key's trail without a gap (spec/06).

What the entries decided is replayed by `placet_audit.replay`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from placet_audit.canonical import Json, digest, open_signed, read, unb64, vault_id
from placet_audit.export import Visit
from placet_audit.problems import Refused
from placet_audit.shapes import ENTRY, TRAIL
from placet_audit.tree import (
    Checkpoint,
    leaf_hash,
    open_checkpoint,
    root_of,
    verify_inclusion,
)

Found = Callable[[str, str, int | None, str | None], None]
"""Takes a finding: its kind, detail, entry and statement."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the key's trail, in the order in which the vault wrote it."""

    said: Json
    hashed: str

    @property
    def index(self) -> int:
        """Return its leaf in the tree."""
        return int(self.said["index"])

    @property
    def kind(self) -> str:
        """Return what was decided."""
        return str(self.said["kind"])

    @property
    def time(self) -> int:
        """Return the vault's time, in Unix seconds."""
        return int(self.said["time"])


@dataclass(frozen=True, slots=True)
class Trail:
    """What one visit shows of a key, with a signed checkpoint that holds it."""

    visit: Visit
    checkpoint: Checkpoint | None
    """``None``: the vault did not sign one."""
    entries: tuple[Entry, ...]
    line: str = ""
    """Of a process that took over from an older one: the name of its own log."""


def read_trail(visit: Visit, found: Found) -> Trail:
    """Check a visit as far as one log can be checked by itself; report what is wrong.

    That the vault showed all there is at the end is *not* shown by this: it signed the
    length (so nobody else cut it), and receipts of apps and other vaults tell on it.
    """
    log = line_of(visit)
    checkpoint = _checkpoint(visit, log, found)
    entries: list[Entry] = []
    last: str | None = None
    for line in visit.entries:
        try:
            entry = _entry(visit, line)
        except Refused as e:
            found("trail-broken", e.detail, line["index"], None)
            continue
        try:
            _check_next(entry, len(entries), last, entries[-1] if entries else None)
        except Refused as e:
            found(e.kind, e.detail, entry.index, None)
        if checkpoint is not None:
            _place(visit, checkpoint, entry, line, found)
        last = entry.hashed
        entries.append(entry)
    _check_end(visit, checkpoint, entries, found)
    return Trail(visit, checkpoint, tuple(entries), log)


def line_of(visit: Visit) -> str:
    """Return which log of the vault a visit is of: the vault signed that (spec/12)."""
    try:
        said = open_signed(visit.trail, "trail", visit.vault, "")
        TRAIL(said)
    except Refused:
        return ""
    return str(said.get("line", ""))


def _checkpoint(visit: Visit, line: str, found: Found) -> Checkpoint | None:
    try:
        if vault_id(visit.public) != visit.vault:
            raise Refused("log-not-signed", f"it is signed by {vault_id(visit.public)}")
        name = f"placet/{visit.vault.removeprefix('sha256:')}" + (f"/{line}" if line else "")
        checkpoint = open_checkpoint(visit.checkpoint, name, visit.public)
    except Refused as e:
        found(e.kind, e.detail, None, None)
        return None
    if visit.hashes:
        leaves = [leaf_hash(h) for h in visit.hashes]
        if len(leaves) != checkpoint.size or root_of(leaves) != checkpoint.root:
            found("entry-not-in-log", "the log's hashes do not give its signed root", None, None)
    return checkpoint


def _entry(visit: Visit, line: Json) -> Entry:
    raw, salt = unb64(line["entry"]), unb64(line["salt"])
    said = read(raw, 4096)
    ENTRY(said)
    entry = Entry(said, digest("placet-log-entry/1", salt + raw))
    if len(salt) != 16 or (said["key"], entry.index) != (visit.key, line["index"]):  # noqa: PLR2004
        raise Refused("trail-broken", "an entry is not the one as which it is shown")
    return entry


def _check_next(entry: Entry, number: int, last: str | None, before: Entry | None) -> None:
    """Check that an entry follows the one before it; it is read all the same."""
    said = entry.said
    if (said["key_seq"], said["key_prev"]) != (number, last):
        raise Refused(
            "trail-broken",
            f"an entry says that it is number {said['key_seq']} of the key; it is shown as "
            f"{number}, or does not follow the one before it",
        )
    if before and (entry.index <= before.index or entry.time < before.time):
        raise Refused("trail-broken", "an entry goes back in order or time")


def _place(visit: Visit, checkpoint: Checkpoint, entry: Entry, line: Json, found: Found) -> None:
    try:
        proof = [unb64(p) for p in line["proof"]]
        verify_inclusion(leaf_hash(entry.hashed), entry.index, checkpoint, proof)
        if visit.hashes and visit.hashes[entry.index : entry.index + 1] != [entry.hashed]:
            raise Refused("entry-not-in-log", "the log's hashes have another entry there")
    except Refused as e:
        found("entry-not-in-log", e.detail, entry.index, None)


def _check_end(
    visit: Visit, checkpoint: Checkpoint | None, entries: list[Entry], found: Found
) -> None:
    try:
        said = open_signed(visit.trail, "trail", visit.vault, "log-not-signed")
        TRAIL(said)
    except Refused as e:
        found("log-not-signed", f"the trail's end: {e.detail}", None, None)
        return
    size = checkpoint.size if checkpoint else said["size"]
    if (said["vault"], said["key"], said["size"]) != (visit.vault, visit.key, size):
        found("log-not-signed", "the trail's end is of another key, or checkpoint", None, None)
    last = entries[-1].hashed if entries else None
    if (said["count"], said["last"]) != (len(entries), last):
        found(
            "trail-cut",
            f"the vault signed {said['count']} entries of this key, {len(entries)} are shown",
            None,
            None,
        )
