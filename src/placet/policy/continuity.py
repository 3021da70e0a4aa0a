"""When a vault may serve, and what a witness answers (I6; spec/10). Pure.

A vault that was put back to an older disk, or copied, cannot see it by itself: every byte
it has is genuine. Others saw how far it was. So it serves a key only while enough of that
key's other vaults and outside witnesses say that it is the newest start of this vault and
that its log is at least as long as any that they saw.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from placet.core.checkpoint import Checkpoint
from placet.core.continuity import (
    Beat,
    ForkProof,
    Seen,
    WitnessAnswer,
    Witnessed,
    WitnessRequest,
    check_fork_proof,
    open_beat,
    open_checkpoint,
)
from placet.core.dsse import open_signed
from placet.core.encoding import decode, unb64
from placet.core.limits import MAX_SKEW
from placet.core.merkle import verify_consistency
from placet.core.profile import VaultSet
from placet.errors import (
    MalformedError,
    QuarantinedError,
    VaultStartingError,
    VerificationError,
)


def quorum(n: int, k: int, m: int) -> int:
    """Return how many others must answer a vault of a set of n, with m outside witnesses.

    k of them, so that no k-1 liars make one stand; a majority of all, so that of two
    clones one at most finds enough; never more than there are, and never none.
    """
    others = n - 1 + m
    return max(1, min(max(k, others // 2 + 1), others))


@dataclass(frozen=True, slots=True)
class Circle:
    """Who answers for a vault, as far as the keys of one vault set go."""

    k: int
    vaults: tuple[str, ...]
    witnesses: tuple[str, ...]

    @classmethod
    def of(cls, vault_set: VaultSet) -> Circle:
        """Return the circle of a vault set; endpoints and profiles make no other one."""
        return cls(vault_set.k, vault_set.ids, tuple(w.id for w in vault_set.witnesses))

    @property
    def needed(self) -> int:
        """Return how many of the others must answer."""
        return quorum(len(self.vaults), self.k, len(self.witnesses))

    def others(self, own: str) -> tuple[str, ...]:
        """Return who answers for vault ``own``."""
        return (*(v for v in self.vaults if v != own), *self.witnesses)

    def stands(self, own: str, answered: Collection[str]) -> bool:
        """Say whether those who answered are enough."""
        count = sum(one in answered for one in self.others(own))
        # Vaults alone could all be put back together (R2.5): one voice comes from outside.
        outside = not self.witnesses or any(w in answered for w in self.witnesses)
        return count >= self.needed and outside


def check_standing(
    circle: Circle, own: str, skews: Mapping[str, int], *, reason: Literal["starting", "lease"]
) -> None:
    """Check that a vault may serve the keys of a circle now.

    That the answers are fresh, and about this start of this vault, is *not* checked here.

    Args:
        circle: Of the key's vault set.
        own: This vault.
        skews: By witness whose answer counts: its time less this vault's, in seconds.
        reason: What to say when they are too few.

    Raises:
        VaultStartingError: Too few answered, or the clocks of k of them say another time.
    """
    # 3.6 Enough of them, one of them from outside where there is an outside.
    if not circle.stands(own, skews):
        waiting = tuple(one for one in circle.others(own) if one not in skews)
        answered = len(circle.others(own)) - len(waiting)
        raise VaultStartingError(
            f"{answered} of {len(circle.others(own))} witnesses answered this vault, "
            f"{circle.needed} are needed"
            + (", one of them from outside" if circle.witnesses else ""),
            "It goes on by itself when they do. Bring back those that are named.",
            reason=reason,
            answered=answered,
            needed=circle.needed,
            waiting=list(waiting),
        )
    # 3.7 Its clock is not ahead of k clocks, nor behind k: as good as k clocks, no better.
    ordered = sorted(skews[one] for one in circle.others(own) if one in skews)
    k = min(circle.k, len(ordered))
    if ordered[-k] > MAX_SKEW or ordered[k - 1] < -MAX_SKEW:
        skew = ordered[-k] if ordered[-k] > MAX_SKEW else ordered[k - 1]
        where = "behind" if skew > 0 else "ahead of"
        raise VaultStartingError(
            f"this vault's clock is {abs(skew)} s {where} those of {k} witnesses, "
            f"at most {MAX_SKEW} s are allowed",
            "Set the clock of its host; it looks again within a minute.",
            reason="clock",
            skew=skew,
        )


@dataclass(frozen=True, slots=True)
class Heard:
    """What a witness knows after a beat. It **must** be durable before it is told."""

    seen: Seen
    accepted: bool
    """Whether the beat is what is known now."""
    fork: ForkProof | None
    """What the beat proves against its vault, if anything."""


def receive(seen: Seen | None, request: WitnessRequest, *, own: str) -> Heard:
    """Return what is known of a vault after its beat: never less than before.

    That the receiver has reason to know this vault is *not* checked here.

    Raises:
        VerificationError, MalformedError: It is no beat for ``own``: nothing is answered.
    """
    # 2.1 The vault signed it, for this receiver.
    beat, head = open_beat(request.beat, own)
    heard = Seen(
        boots=beat.boots, boot=beat.boot, size=head.size, root=head.root.hex(), beat=request.beat
    )
    # 2.2 Who was never heard of starts here.
    if seen is None:
        return Heard(heard, accepted=True, fork=None)
    # 2.3 Two histories of one size are kept as proof, whoever tells them.
    fork = _fork(seen, request)
    # 2.4 An earlier start, or another one of the same number, is not the newest; nor is a
    #     log that is shorter, or did not grow out of the one that was seen.
    older = beat.boots < seen.boots or (beat.boots == seen.boots and beat.boot != seen.boot)
    if fork is not None or older or not _grew(seen, head, request):
        return Heard(seen, accepted=False, fork=fork)
    # 2.5 Otherwise it is, and whatever was known before is displaced.
    return Heard(heard, accepted=True, fork=None)


def _grew(seen: Seen, head: Checkpoint, request: WitnessRequest) -> bool:
    if head.size == seen.size:
        return head.root.hex() == seen.root
    if head.size < seen.size or request.old != seen.size:
        return False
    proof = [unb64(one) for one in request.proof]
    try:
        verify_consistency(seen.size, head.size, bytes.fromhex(seen.root), head.root, proof)
    except VerificationError:
        return False
    return True


def _fork(seen: Seen, request: WitnessRequest) -> ForkProof | None:
    first = _beat_of(seen).checkpoint
    for second in (_newest(request), request.before):
        proof = ForkProof(
            vault=_beat_of(seen).vault,
            vault_key=request.beat.vault_key,
            first=first,
            second=second,
        )
        try:
            check_fork_proof(proof)
        except (VerificationError, MalformedError):
            continue
        return proof
    return None


def _newest(request: WitnessRequest) -> str:
    return _decoded(request.beat.payload).checkpoint


def _beat_of(seen: Seen) -> Beat:
    return _decoded(seen.beat.payload)


def _decoded(payload: str) -> Beat:
    """Return a beat whose signature was checked before."""
    return decode(unb64(payload), Beat)


@dataclass(frozen=True, slots=True)
class Counts:
    """The answer vouches for this start and this head."""

    witnessed: Witnessed


@dataclass(frozen=True, slots=True)
class Again:
    """The witness knows an earlier head of this history: show it how the log grew from there."""

    old: int


def judge(
    sent: Beat,
    answer: WitnessAnswer,
    *,
    witness: str,
    public_key: bytes,
    size: int,
    root_at: Callable[[int], bytes],
) -> Counts | Again:
    """Return what an answer to a beat is worth.

    A witness is not believed when it says that this vault is behind: it shows the vault's
    own signature for it, or its answer counts for nothing.

    Args:
        sent: The beat that was answered.
        answer: What came.
        witness: Who was asked.
        public_key: This vault's own.
        size: Of this vault's log, now.
        root_at: Returns the root that this log had at a size up to ``size``.

    Raises:
        QuarantinedError: This vault's own signature proves that it is not the newest.
        VerificationError, MalformedError: The answer is not to be believed.
    """
    # 3.1 It is signed by who was asked, about this vault, for this nonce.
    said = open_signed(answer.witnessed, Witnessed, vault=witness)
    if (said.witness, said.vault, said.nonce) != (witness, sent.vault, sent.nonce):
        raise VerificationError(f"witness {witness} answered another beat")
    head = open_checkpoint(sent.checkpoint, public_key, sent.vault, sent.line or "")
    # 3.2 It knows just what it was told: that counts.
    told = (sent.boots, sent.boot, head.size, head.root.hex())
    if (said.boots, said.boot, said.size, said.root) == told:
        return Counts(said)
    # 3.3 It knows something else: this vault's own signature shows it.
    known, seen = _shown(answer, said, public_key)
    if known.line != sent.line:
        raise VerificationError(f"witness {witness} shows another process of this vault")
    # 3.4 A longer log, another start, another history: this is not the newest of its kind.
    _check_newest(sent, known, seen, size, root_at)
    # 3.5 An earlier head of this very history.
    return Again(seen.size)


def _shown(answer: WitnessAnswer, said: Witnessed, public_key: bytes) -> tuple[Beat, Checkpoint]:
    if answer.newest is None or unb64(answer.newest.vault_key) != public_key:
        raise VerificationError(f"witness {said.witness} shows no signature for what it says")
    known, seen = open_beat(answer.newest, said.witness)
    shown = (known.boots, known.boot, seen.size, seen.root.hex())
    if shown != (said.boots, said.boot, said.size, said.root):
        raise VerificationError(f"witness {said.witness} shows a signature for something else")
    return known, seen


def _check_newest(
    sent: Beat, known: Beat, seen: Checkpoint, size: int, root_at: Callable[[int], bytes]
) -> None:
    reason, detail = "", ""
    if seen.size > size:
        reason = "rolled-back"
        detail = f"its log has {size} entries, {seen.size} were witnessed"
    elif known.boots > sent.boots:
        reason = "displaced"
        detail = f"start {known.boots} of it was witnessed, this is start {sent.boots}"
    elif root_at(seen.size) != seen.root:
        reason = "forked"
        detail = f"another log of {seen.size} entries, signed by this vault, was witnessed"
    elif known.boots == sent.boots and known.boot != sent.boot:
        reason = "cloned"
        detail = f"start {known.boots} of it was witnessed as {known.boot}, this is {sent.boot}"
    if reason:
        raise QuarantinedError(
            f"this vault is not the newest of its kind: {detail}",
            "Its disk was put back or copied. If another instance of it runs, stop this one; "
            "else replace this vault. It releases nothing.",
            reason=reason,
            witness=known.to,
            size=size,
            witnessed=seen.size,
            boots=sent.boots,
            witnessed_boots=known.boots,
        )
