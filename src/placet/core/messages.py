"""What client and vault say to each other over HTTP (spec/07), and what vaults sign.

Both sides know these shapes and nothing else of one another.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from placet.core.dsse import Signed
from placet.core.encoding import Base64, Int, LeanRecord, Record, Sha256, Text
from placet.core.handover import Line
from placet.core.limits import (
    MAX_CHAIN,
    MAX_CHARTER,
    MAX_HEADS,
    MAX_LOG_HASHES,
    MAX_LOG_PAGE,
    MAX_PEERS,
    MAX_VAULTS,
    MAX_WAITING,
)
from placet.core.manifest import KeyManifest
from placet.core.statement import SignedStatement

Receipts = Annotated[tuple[Signed, ...], Meta(max_length=MAX_VAULTS)]
Nonce = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]
"""Base64url of 32 bytes."""


# --- what a vault's identity key signs (inside `Signed`) ---------------------------------


class Taken(Record, kw_only=True):
    """This vault took that statement, as its log entry ``index``, at ``time``."""

    schema: Literal[1] = 1
    vault: Sha256
    key: Sha256
    statement: Sha256
    version: Int
    index: Int
    line: Line | UnsetType = UNSET
    """Which log of the vault ``index`` is of, where that is not its first (spec/12)."""
    time: Int


class Held(Record, kw_only=True):
    """This vault holds its share of that manifest, for that attempt."""

    schema: Literal[1] = 1
    vault: Sha256
    key: Sha256
    attempt: Int
    manifest: Sha256
    index: Int
    line: Line | UnsetType = UNSET
    """Which log of the vault ``index`` is of, where that is not its first (spec/12)."""
    time: Int


class Committed(Record, kw_only=True):
    """This vault committed that manifest; there will be no other of this generation."""

    schema: Literal[1] = 1
    vault: Sha256
    key: Sha256
    manifest: Sha256
    index: Int
    line: Line | UnsetType = UNSET
    """Which log of the vault ``index`` is of, where that is not its first (spec/12)."""
    time: Int


class Released(Record, kw_only=True):
    """This vault released its share, under that statement, to that code, over that channel."""

    schema: Literal[1] = 1
    vault: Sha256
    key: Sha256
    manifest: Sha256
    statement: Sha256
    """The birth or promote that lets the code in."""
    version: Int
    code: Sha256
    recipient: Sha256
    """SPKI digest of the receiving end of the channel."""
    index: Int
    line: Line | UnsetType = UNSET
    """Which log of the vault ``index`` is of, where that is not its first (spec/12)."""
    time: Int


class Trail(Record, kw_only=True):
    """Where a key's trail ends in this vault's log of ``size`` entries: nobody else can cut it."""

    schema: Literal[1] = 1
    vault: Sha256
    key: Sha256
    count: Int
    last: Sha256 | None
    """`entry_hash` of its last entry."""
    size: Int
    line: Line | UnsetType = UNSET
    time: Int


class StatusBody(Record, kw_only=True):
    """What a vault says of itself; ``nonce`` is the caller's, so that it is fresh (I6)."""

    schema: Literal[1] = 1
    vault: Sha256
    boot: Text
    boots: Int
    """How often this vault started: rises by one at each start."""
    nonce: Base64
    checkpoint: str
    """C2SP signed note over the log: origin, size, root, ``boot`` line."""
    schemas: tuple[Int, ...]
    """Statement schemas that this vault takes."""
    time: Int


# --- requests and answers ----------------------------------------------------------------


class StandingReport(Record, kw_only=True):
    """Whether a vault serves, and what it waits for (spec/10, section 3)."""

    state: Literal["standing", "starting", "quarantined"]
    """``standing``: for the keys of one vault set at least, or it has none."""
    reason: Text
    """Empty, or why not: ``starting``, ``lease``, ``clock``; ``rolled-back``, ``displaced``,
    ``forked``, ``cloned``."""
    waiting: Annotated[tuple[Sha256, ...], Meta(max_length=MAX_PEERS)]
    """Witnesses that have not answered in time."""
    size: Int
    """Of its log."""
    witnessed: Int
    """The largest size of it that a witness is known to have seen."""


class Status(LeanRecord):
    """GET /v1/status?nonce=..."""

    status: Signed
    """of a `StatusBody`"""
    standing: StandingReport | None = None
    witnessed: Annotated[tuple[Signed, ...], Meta(max_length=MAX_PEERS)] = ()
    """The newest `Witnessed` of each witness, whose signature anybody can check."""


class CourierItem(Record):
    """One statement on its way, with what vouches for its having been taken in time."""

    signed: SignedStatement
    receipts: Receipts
    """of `Taken`"""


class TakeRequest(Record):
    """POST /v1/statements: a run of statements of one key, oldest first."""

    chain: Annotated[tuple[CourierItem, ...], Meta(min_length=1, max_length=MAX_CHAIN)]


class TakeAnswer(Record):
    """One `Taken` receipt for each statement sent, whenever it was taken."""

    head: Sha256
    version: Int
    taken: Annotated[tuple[Signed, ...], Meta(max_length=MAX_CHAIN)]


class Waiting(Record):
    """A statement that takes effect after ``until``, unless an owner signer says no."""

    signed: SignedStatement
    since: Int
    until: Int


class CharterAnswer(LeanRecord):
    """GET /v1/keys/{key}/charter: everything taken, oldest first, with receipts."""

    charter: Annotated[tuple[CourierItem, ...], Meta(max_length=MAX_CHARTER)]
    """Each item's receipts: this vault's own, then those it was brought."""
    head: Sha256
    version: Int
    manifest: Sha256 | None
    """Digest of the committed key manifest, if a share was committed here."""
    waiting: Annotated[tuple[Waiting, ...], Meta(max_length=MAX_WAITING)] = ()
    forks: Annotated[tuple[SignedStatement, ...], Meta(max_length=MAX_HEADS)] = ()
    """Valid statements in whose place another was taken here."""


class StageRequest(Record):
    """POST /v1/pending: a `stage` or `revoke-pending`."""

    signed: SignedStatement


class StageAnswer(Record):
    """The digest under which it is pending."""

    stage: Sha256


class PendingAnswer(Record):
    """GET /v1/pending?scope=... (a key id or an app)."""

    pending: tuple[SignedStatement, ...]


class PromiseRequest(Record):
    """POST /v1/keys/{key}/shares/promise (role workload, purpose create)."""

    attempt: Int


class HeldAttempt(Record):
    """A share held of an attempt that was not committed here."""

    attempt: Int
    manifest: KeyManifest
    held: Signed
    """of `Held`"""


class PromiseAnswer(Record):
    """Nothing older than ``attempt`` will be held or committed here from now on."""

    attempt: Int
    held: tuple[HeldAttempt, ...]
    committed: KeyManifest | None
    certificate: Receipts
    """With ``committed``: the n `Held` that it was committed under."""


class RecoverRequest(Record):
    """POST /v1/keys/{key}/shares/recover: the share held or committed under a manifest."""

    manifest: Sha256


class HoldRequest(Record):
    """POST /v1/keys/{key}/shares/prepare."""

    attempt: Int
    manifest: KeyManifest
    share: Base64
    finishing: Receipts
    """n `Held` of the same manifest, when a creation begun in time is finished late."""


class HoldAnswer(Record):
    """The share is durable here."""

    held: Signed
    """of `Held`"""


class CommitRequest(Record):
    """POST /v1/keys/{key}/shares/commit: carries all n `Held`."""

    attempt: Int
    manifest: Sha256
    held: Receipts


class CommitAnswer(Record):
    """Committed, now or before."""

    committed: Signed
    """of `Committed`"""


class ReleaseRequest(Record):
    """POST /v1/keys/{key}/release (role workload, purpose release)."""

    nonce: Nonce
    """The same on every retry."""
    head: Sha256 | None
    """The newest charter head that the caller knows of this key, if any."""


class ReleaseAnswer(Record):
    """The share, its manifest and the receipt; ``charter`` heads show laggards."""

    nonce: Nonce
    manifest: KeyManifest
    share: Base64
    head: Sha256
    version: Int
    receipt: Signed
    """of `Released`"""


class LogItem(Record):
    """One entry of a key's trail, with what an auditor needs to place it in the tree."""

    index: Int
    salt: Base64
    entry: Base64
    """Canonical bytes of the entry."""


class LogAnswer(Record):
    """GET /v1/keys/{key}/log?since=SEQ."""

    entries: tuple[LogItem, ...]
    checkpoint: str


class AuditItem(LogItem):
    """An entry of a key's trail, and the proof that it is in the tree of the checkpoint."""

    proof: tuple[Base64, ...]


class AuditAnswer(Record):
    """GET /v1/keys/{key}/audit?since=SEQ&size=SIZE: a page of the trail as it was at that size."""

    entries: tuple[AuditItem, ...]
    checkpoint: str
    trail: Signed
    """of a `Trail`: its end at that size, whatever the page holds of it"""
    next: Int | None
    """The sequence number to go on at; ``None``: this was the end."""


class DroppedAnswer(Record):
    """GET /v1/keys/{key}/dropped: statements taken here whose branch was left for another."""

    dropped: tuple[CourierItem, ...]


class HashesAnswer(Record):
    """GET /v1/log/hashes?since=N: entry hashes of all keys, from number N on."""

    hashes: Annotated[tuple[Sha256, ...], Meta(max_length=MAX_LOG_HASHES)]
    checkpoint: str


class JournalItem(Record):
    """One entry of a vault's log: in full if it is about the vault itself, else its hash."""

    index: Int
    hash: Sha256
    salt: Base64 | None
    entry: Base64 | None


class JournalAnswer(Record):
    """GET /v1/log?since=N: a page of the whole log, from number N on."""

    items: Annotated[tuple[JournalItem, ...], Meta(max_length=MAX_LOG_PAGE)]
    checkpoint: str
