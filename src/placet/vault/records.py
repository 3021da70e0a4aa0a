"""What a vault stores, sealed, one record a key (spec/06, section 2)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from placet.core.continuity import Seen
from placet.core.dsse import Signed
from placet.core.encoding import Base64, Int, Record, Sha256, Text
from placet.core.handover import Endpoint, Line
from placet.core.limits import (
    MAX_ATTEMPTS,
    MAX_CHARTER,
    MAX_HEADS,
    MAX_LINES,
    MAX_VAULTS,
    MAX_WAITING,
)
from placet.core.manifest import KeyManifest
from placet.core.messages import CourierItem
from placet.core.profile import VaultSet
from placet.core.statement import SignedStatement


class HeldShare(Record):
    """A share of an attempt that was not committed here (yet)."""

    manifest: KeyManifest
    attempt: Int
    """The attempt it was last held for; the manifest's own may be older."""
    share: Base64
    held: Signed


class CommittedShare(Record):
    """The share that is released, and the n `Held` it was committed under."""

    manifest: KeyManifest
    share: Base64
    certificate: tuple[Signed, ...]
    committed: Signed


class Handed(Record, kw_only=True):
    """To whom this process of the vault let a key go. It does not serve it any more."""

    line: Line
    """Who asked last, or, once it was confirmed, who has it."""
    endpoint: Endpoint
    code: Sha256
    """The release that it runs."""
    index: Int
    """Of the log entry that says so."""
    digest: Sha256
    """Of the package."""
    confirmed: bool


class KeyRecord(Record, kw_only=True):
    """Everything that a vault knows of one key."""

    schema: Literal[1] = 1
    charter: Annotated[tuple[CourierItem, ...], Meta(max_length=MAX_CHARTER)]
    promised: Int = 0
    held: Annotated[tuple[HeldShare, ...], Meta(max_length=MAX_ATTEMPTS)] = ()
    committed: CommittedShare | None = None
    handed: Handed | UnsetType = UNSET
    """Not written where a key was never handed over."""


class WaitingItem(Record):
    """A statement that is well signed and waits out its delay."""

    signed: SignedStatement
    since: Int
    """Unix seconds, by this vault's time."""
    delay: Int


class BesideRecord(Record, kw_only=True):
    """What this vault knows beside a key's charter. Never read by the gate."""

    schema: Literal[1] = 1
    waiting: Annotated[tuple[WaitingItem, ...], Meta(max_length=MAX_WAITING)]
    forks: Annotated[tuple[SignedStatement, ...], Meta(max_length=MAX_HEADS)]
    """Valid statements in whose place another was taken here."""


class DroppedRecord(Record, kw_only=True):
    """What was taken here on branches that were left for another, for auditors alone."""

    schema: Literal[1] = 1
    items: tuple[CourierItem, ...]
    """In the order in which they went; receipts as in a charter, this vault's own first."""


class PendingItem(Record):
    """A stage, and who put it forward."""

    stage: Sha256
    staged_by: Sha256
    signed: SignedStatement


class PendingRecord(Record, kw_only=True):
    """What is staged for one key or one app. Never read by the gate."""

    schema: Literal[1] = 1
    items: tuple[PendingItem, ...]


class StagerRecord(Record, kw_only=True):
    """A key by whose policy a signer may stage for an app."""

    schema: Literal[1] = 1
    key: Sha256


class IdentityRecord(Record, kw_only=True):
    """Who this vault is: a key made here that never leaves, and how often it started."""

    schema: Literal[1] = 1
    private_key: Base64
    boots: Int
    boot: Text
    line: Line | UnsetType = UNSET
    """Of a process that took over: the name of its own log."""


class CircleRecord(Record, kw_only=True):
    """A vault set of keys that live here: whom to ask, and where they are (spec/10)."""

    schema: Literal[1] = 1
    vault_set: VaultSet


class LinesRecord(Record, kw_only=True):
    """The further processes of another vault whose logs were witnessed here (spec/12)."""

    schema: Literal[1] = 1
    lines: Annotated[tuple[Line, ...], Meta(max_length=MAX_LINES)]


class SeenItem(Record):
    """What was witnessed of one process of another vault."""

    vault: Sha256
    line: str
    seen: Seen


class Package(Record, kw_only=True):
    """What one process of a vault hands to the next: all that it knows of one key."""

    schema: Literal[1] = 1
    vault: Sha256
    key: Sha256
    line: str
    """The line of the process that lets go; empty for the first."""
    index: Int
    """Of its log entry."""
    time: Int
    record: KeyRecord
    beside: BesideRecord | None
    pending: PendingRecord | None
    dropped: DroppedRecord | None
    seen: Annotated[tuple[SeenItem, ...], Meta(max_length=MAX_VAULTS * (MAX_LINES + 1))]
    """What was witnessed of the key's other vaults: the new process forgets none of it."""
