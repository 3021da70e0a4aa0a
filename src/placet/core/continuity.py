"""What vaults and outside witnesses say to each other, so that no stale vault serves (spec/10).

A vault's `Beat` says: this is my newest start, and my log is so long. What comes back is
`Witnessed`: what the receiver knows of that vault by now. Both are signed and carry a
nonce, so the way between them is trusted in nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import UNSET, Meta, UnsetType

from placet.core.checkpoint import Checkpoint, line_of, open_note, origin_of, sign_note
from placet.core.dsse import Signed, open_signed, vault_id
from placet.core.encoding import Base64, Hex32, Int, Record, Sha256, Text, unb64
from placet.core.handover import Line
from placet.core.limits import MAX_NEWS, MAX_NOTE, MAX_PROOF
from placet.errors import VerificationError

Nonce = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]
"""Base64url of 32 bytes."""

Note = Annotated[str, Meta(max_length=MAX_NOTE)]
"""A checkpoint, signed by the vault whose log it is about (spec/06, section 5)."""

Proof = Annotated[
    tuple[Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")], ...], Meta(max_length=MAX_PROOF)
]
"""Hashes of a consistency proof."""


class Beat(Record, kw_only=True):
    """Signed by a vault: this start is my newest, and my log has this head."""

    schema: Literal[1] = 1
    vault: Sha256
    line: Line | UnsetType = UNSET
    """Which of its processes this is, where it is not the first (spec/12): each has its own log."""
    to: Sha256
    """Who is asked: a beat that somebody carries elsewhere is answered by nobody."""
    boot: Text
    boots: Int
    nonce: Nonce
    checkpoint: Note
    time: Int


class Witnessed(Record, kw_only=True):
    """Signed by another vault or an outside witness: what it knows of a vault by now."""

    schema: Literal[1] = 1
    witness: Sha256
    vault: Sha256
    nonce: Nonce
    """Of the beat that is answered."""
    boot: Text
    boots: Int
    """The newest start that the witness was told of."""
    size: Int
    root: Hex32
    """The largest head that it saw; it never goes back."""
    time: Int


class WitnessRequest(Record):
    """POST /v1/witness."""

    beat: Signed
    """of a `Beat`"""
    old: Int
    """A size of the log that the receiver may have seen before."""
    before: Note
    """The vault's own checkpoint at that size; empty for 0."""
    proof: Proof
    """That the head of the beat grew out of it."""
    since: Int
    """Where the receiver's news ended that the sender has seen."""


class News(Record):
    """A key that both keep, and how far its charter is at the receiver."""

    key: Sha256
    version: Int
    head: Sha256


class WitnessAnswer(Record):
    """What a beat is answered with, whether it was accepted or not."""

    witnessed: Signed
    """of a `Witnessed`"""
    newest: Signed | None
    """The vault's own `Beat` that is newer than the one sent, or of another history."""
    news: Annotated[tuple[News, ...], Meta(max_length=MAX_NEWS)]
    cursor: Int
    """Where the news ended."""


class ConsistencyAnswer(Record):
    """GET /v1/log/consistency?old=...&new=...: that the log only grew between two sizes."""

    before: Note
    after: Note
    """The vault's checkpoints at both sizes: whoever kept another one has a proof of a fork."""
    proof: Proof


class Seen(Record, kw_only=True):
    """What a witness remembers of one vault; it only goes forward."""

    schema: Literal[1] = 1
    boots: Int
    boot: Text
    size: Int
    root: Hex32
    beat: Signed
    """The `Beat` that said so."""


class ForkProof(Record, kw_only=True):
    """Two checkpoints that one vault signed: of one size, with different roots.

    No log that only grows has both. Whoever has this file needs nobody's word.
    """

    schema: Literal[1] = 1
    vault: Sha256
    vault_key: Base64
    """Its raw Ed25519 key, whose digest is the vault id."""
    first: Note
    second: Note


def open_checkpoint(note: str, public_key: bytes, vault: str, line: str = "") -> Checkpoint:
    """Return the checkpoint that a process of a vault signed of its own log.

    That the key is the vault's is *not* checked.

    Raises:
        VerificationError: It did not sign it, or the log is another one.
        MalformedError: It is no signed checkpoint.
    """
    name = origin_of(vault, line)
    checkpoint = open_note(note, name, public_key)
    if checkpoint.origin != name:
        raise VerificationError(f"checkpoint is of the log {checkpoint.origin}, not {name}")
    return checkpoint


def checkpoint_at(key: Ed25519PrivateKey, boot: str, size: int, root: bytes, line: str = "") -> str:
    """Return a vault's signed checkpoint of its own log at a size."""
    name = origin_of(vault_id(key.public_key().public_bytes_raw()), line)
    return sign_note(Checkpoint(name, size, root, (f"boot {boot}",)).text(), name, key)


def open_beat(signed: Signed, to: str) -> tuple[Beat, Checkpoint]:
    """Return the beat that a vault signed for ``to``, and the head that it names.

    Raises:
        VerificationError: Another vault signed it, or it is for somebody else.
        MalformedError: It is none.
    """
    public_key = unb64(signed.vault_key)
    beat = open_signed(signed, Beat, vault=vault_id(public_key))
    if (beat.vault, beat.to) != (vault_id(public_key), to):
        raise VerificationError(f"beat is of vault {beat.vault} for {beat.to}, not for {to}")
    return beat, open_checkpoint(beat.checkpoint, public_key, beat.vault, beat.line or "")


def check_fork_proof(proof: ForkProof) -> tuple[Checkpoint, Checkpoint]:
    """Return the two checkpoints, if they prove that the vault's log forked.

    Raises:
        VerificationError: They do not: another vault signed, or one log has both.
        MalformedError: They are no checkpoints.
    """
    public_key = unb64(proof.vault_key)
    if vault_id(public_key) != proof.vault:
        raise VerificationError("the key is not the one that the vault id names")
    line = line_of(proof.first, proof.vault)
    first = open_checkpoint(proof.first, public_key, proof.vault, line)
    second = open_checkpoint(proof.second, public_key, proof.vault, line)
    if first.size != second.size or first.root == second.root:
        raise VerificationError("the checkpoints are not two different ones of one size")
    return first, second
