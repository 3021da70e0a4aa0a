"""What a vault said of its log before, against what it says now (R2.4; spec/10, section 6).

An owner's tool remembers each vault's last signed status. A vault that was put back or
forked contradicts it, and then the contradiction itself is signed: a file that shows it to
anyone, checked by ``tools/check_fork_proof.py`` with nothing of this project.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from placet.core.checkpoint import Checkpoint, line_of
from placet.core.continuity import (
    ConsistencyAnswer,
    ForkProof,
    check_fork_proof,
    open_checkpoint,
)
from placet.core.dsse import Signed, open_signed, vault_id
from placet.core.encoding import Base64, Record, Sha256, unb64
from placet.core.merkle import Frontier, verify_consistency
from placet.core.messages import StatusBody
from placet.errors import VerificationError

Consistency = Callable[[int, int], Awaitable[ConsistencyAnswer]]


class RollbackProof(Record, kw_only=True):
    """Two statuses that one vault signed: the later one has the shorter log."""

    schema: Literal[1] = 1
    vault: Sha256
    vault_key: Base64
    earlier: Signed
    later: Signed
    """of a `StatusBody`"""


Proof = ForkProof | RollbackProof
"""What a vault signed against itself."""


def what_it_shows(proof: Proof) -> str:
    """Return what a proof says that happened to the vault."""
    return "was put back to an older disk" if isinstance(proof, RollbackProof) else "forked"


@dataclass(frozen=True, slots=True)
class Head:
    """A signed status, opened."""

    signed: Signed
    body: StatusBody
    checkpoint: Checkpoint

    @classmethod
    def of(cls, signed: Signed, vault: str) -> Head:
        """Return what a vault signed.

        Raises:
            VerificationError, MalformedError: It is not that vault's.
        """
        body = open_signed(signed, StatusBody, vault=vault)
        key, line = unb64(signed.vault_key), line_of(body.checkpoint, vault)
        return cls(signed, body, open_checkpoint(body.checkpoint, key, vault, line))

    @property
    def line(self) -> str:
        """Return which process of the vault said it: each has a log of its own (spec/12)."""
        return line_of(self.checkpoint.origin, self.body.vault)


async def compare(before: Head, now: Head, ask: Consistency) -> Proof | None:
    """Return what proves that a vault's log did not just grow; ``None`` if it did.

    Args:
        before: What it said last time.
        now: What it says now, over a fresh nonce.
        ask: Asks it for a consistency proof.

    Raises:
        VerificationError: It shows nothing that proves either: it is not to be trusted, and
            that is all that can be said.
    """
    vault, key = now.body.vault, now.signed.vault_key
    if (before.body.vault, before.line) != (vault, now.line):
        raise ValueError("before: another vault's, or another process's")
    old, new = before.checkpoint, now.checkpoint
    if new.size < old.size:
        proof = RollbackProof(vault=vault, vault_key=key, earlier=before.signed, later=now.signed)
        check_rollback_proof(proof)
        return proof
    if old.size == 0:
        return None
    fork = _fork(now, before.body.checkpoint, now.body.checkpoint)
    if fork is not None or new == old:
        return fork
    shown = await ask(old.size, new.size)
    fork = _fork(now, before.body.checkpoint, shown.before) or _fork(
        now, now.body.checkpoint, shown.after
    )
    if fork is None:
        proof_of = [unb64(one) for one in shown.proof]
        verify_consistency(old.size, new.size, old.root, new.root, proof_of)
    return fork


async def check_prefix(now: Head, tree: Frontier, ask: Consistency) -> ForkProof | None:
    """Check that entries that a vault showed are the first ones of the log that it signed.

    Args:
        now: What it says of its log.
        tree: Over the entries, from the first one on; no more of them than the log has.
        ask: Asks it for a consistency proof.

    Returns:
        What proves that the vault forked, where its answer does.

    Raises:
        VerificationError: The entries are not those: one is missing, or was edited.
        MalformedError: The answer is none.
    """
    size, root, head = tree.size, tree.root(), now.checkpoint
    if size and size < head.size:
        shown = await ask(size, head.size)
        if (fork := _fork(now, now.body.checkpoint, shown.after)) is not None:
            return fork
        key = unb64(now.signed.vault_key)
        before = open_checkpoint(shown.before, key, now.body.vault, now.line)
        signed, proof = (before.size, before.root), [unb64(one) for one in shown.proof]
        verify_consistency(before.size, head.size, before.root, head.root, proof)
    else:
        signed = (head.size, head.root) if size else (0, root)
    if signed != (size, root):
        raise VerificationError(
            f"the entries that the vault shows, up to {size}, have the root {root.hex()}; it "
            f"signed {signed[1].hex()} for a log of {signed[0]}",
            "It left entries out, or changed them. Keep what it showed before.",
            vault=now.body.vault,
        )
    return None


def check_rollback_proof(proof: RollbackProof) -> tuple[Head, Head]:
    """Return the two statuses, if they prove that the vault was put back.

    Raises:
        VerificationError: They do not.
        MalformedError: They are no statuses.
    """
    if vault_id(unb64(proof.vault_key)) != proof.vault:
        raise VerificationError("the key is not the one that the vault id names")
    earlier, later = Head.of(proof.earlier, proof.vault), Head.of(proof.later, proof.vault)
    if earlier.line != later.line:
        raise VerificationError("the statuses are of two processes, each of which has its own log")
    was, now = earlier.body, later.body
    # Or two starts of one number, which no vault has that was left alone.
    twice = was.boots == now.boots and was.boot != now.boot
    after = (was.time, was.boots) < (now.time, now.boots) or twice
    if not after or later.checkpoint.size >= earlier.checkpoint.size:
        raise VerificationError("the statuses are not a longer log and, later, a shorter one")
    return earlier, later


def _fork(now: Head, first: str, second: str) -> ForkProof | None:
    proof = ForkProof(
        vault=now.body.vault, vault_key=now.signed.vault_key, first=first, second=second
    )
    try:
        check_fork_proof(proof)
    except VerificationError:
        return None
    return proof
