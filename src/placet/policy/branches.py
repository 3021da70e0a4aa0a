"""Two valid statements on one: which branch a vault is on, and when it changes (spec/03, 3.7)."""

from __future__ import annotations

from collections.abc import Sequence

from placet.core.statement import Merge, UntrustedStatement
from placet.errors import ConflictError
from placet.policy.charter import Courier, TakenStatement, fold, take, unknown
from placet.policy.key_policy import KeyPolicy
from placet.policy.receipts import vouching


def change_branch(
    charter: Sequence[TakenStatement], couriers: Sequence[Courier], *, now: int
) -> tuple[int, KeyPolicy, tuple[TakenStatement, ...]]:
    """Take a branch that k vaults vouch for, in place of one that they do not.

    Args:
        charter: What was taken here.
        couriers: A run that leaves this charter somewhere before its end.
        now: This vault's time in Unix seconds.

    Returns:
        How many statements of the charter stay, the policy that follows on them, and
        the statements that are new here.

    Raises:
        ConflictError: The run leaves the charter nowhere, or k vaults vouch for nothing
            in it that is new here, or for something here as well.
        ApprovalError, MalformedError, PolicyDeniedError: As for `take`.
    """
    chain = [link.sent.digest for link in charter]
    fresh = unknown(fold(charter), couriers)
    kept, new = _fork(chain, couriers, fresh)
    base = fold(charter[:kept])
    vault_set = base.vault_set
    # 3.7 A branch with k receipts wins. A vault signs what conflicts with what it signed
    # only behind k others, so there is one such branch.
    ours = charter[_following(charter, fresh[0].sent) :]
    came = [len(vouching(vault_set, c.sent, c.receipts)) for c in fresh]
    here = [len(vouching(vault_set, link.sent, link.receipts)) for link in ours]
    won = max(came) >= vault_set.k > max(here)
    # What a merge here ended has receipts too, and is no branch any more. Only the end of it
    # is known by name: whoever leaves a merge has to show that he comes from there.
    shown = {*chain[:kept], *(c.sent.digest for c in new)}
    merges = [link.sent for link in charter[kept:] if isinstance(link.sent.statement, Merge)]
    if not won or any(shown.isdisjoint(_before(merge)) for merge in merges):
        raise ConflictError(
            f"statement {fresh[0].sent.digest} is on another branch than this vault's",
            "The owner ends a fork: placet merge.",
            head=chain[-1],
            version=base.version,
        )
    policy, taken = take(base, new, now=now)
    return kept, policy, taken


def _fork(
    chain: Sequence[str], couriers: Sequence[Courier], fresh: Sequence[Courier]
) -> tuple[int, Sequence[Courier]]:
    """Return how much of a charter stays, and what of a run stands on that."""
    # From the last statement that both have; on one that a merge here ended, from before that.
    known = [i for i, c in enumerate(couriers) if c.sent.digest in chain]
    for new in (fresh, couriers[known[-1] + 1 :] if known else couriers):
        before = _before(new[0].sent) if fresh else ()
        spots = [i + 1 for i, digest in enumerate(chain[:-1]) if digest in before]
        if spots:
            return spots[-1], new
    raise ConflictError("run leaves this charter nowhere")


def _before(sent: UntrustedStatement) -> tuple[str | None, ...]:
    """Return the statements that this one may stand on."""
    statement = sent.statement
    if isinstance(statement, Merge):
        return statement.body.heads
    return (getattr(statement, "prev", None),)


def _following(charter: Sequence[TakenStatement], sent: UntrustedStatement) -> int:
    """Return where in a charter the statement is that took the place of another."""
    spots = set(_before(sent))
    for i, link in enumerate(charter):
        if spots & set(_before(link.sent)):
            return i
    raise ConflictError("run leaves this charter nowhere")


def check_child(
    charter: Sequence[TakenStatement], child: Courier, *, now: int
) -> UntrustedStatement:
    """Return a statement that could have been taken in this charter, had it come first.

    Raises:
        ConflictError: It stands on nothing here.
        ApprovalError, MalformedError, PolicyDeniedError: It could not.
    """
    chain = [link.sent.digest for link in charter]
    prev = getattr(child.sent.statement, "prev", None)
    if prev not in chain:
        raise ConflictError("statement stands on nothing in this charter")
    _, taken = take(fold(charter[: chain.index(prev) + 1]), [child], now=now)
    return taken[0].sent
