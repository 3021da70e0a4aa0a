"""One entry of a vault's log, as vault and auditor read it (spec/06, section 3)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from placet.core.encoding import Int, Record, Sha256, Text, digest

ENTRY_LABEL = "placet-log-entry/1"
SALT_SIZE = 16


class Draft(Record, kw_only=True):
    """A decision, not yet in the log."""

    kind: Text
    """What was decided, e.g. ``release``, ``taken``, ``denied``, ``boot``."""
    key: Sha256 | None = None
    """The key it is about; none: the vault itself, which has a trail of its own."""
    statement: Sha256 | None = None
    """The owner's statement that justifies it."""
    subject: Sha256 | None = None
    """Whom or what it is about, e.g. the digest of a code identity."""
    detail: Annotated[dict[Text, Text | Int], Meta(max_length=32)] | None = None


class LogEntry(Draft, kw_only=True):
    """A decision in its place, chained to the one before it of the same key."""

    schema: Literal[1] = 1
    index: Int
    """Its leaf in the vault's tree."""
    key_seq: Int
    """Its place in that key's trail, from 0 without a gap."""
    key_prev: Sha256 | None
    """`entry_hash` of the entry before it in that trail."""
    boot: Text
    time: Int
    """The vault's time, which never goes back."""


def entry_hash(salt: bytes, entry: bytes) -> str:
    """Return the salted digest whose 32 bytes are the entry's leaf in the tree.

    Salted, because an entry can be guessed: a digest alone tells others nothing.

    Args:
        salt: ``SALT_SIZE`` random bytes of this entry alone.
        entry: The canonical bytes of the `LogEntry`.
    """
    return digest(ENTRY_LABEL, salt + entry)


def leaf_data(hashed: str) -> bytes:
    """Return the 32 bytes of an `entry_hash`: what `placet.core.merkle.leaf_hash` is taken of."""
    return bytes.fromhex(hashed.removeprefix("sha256:"))
