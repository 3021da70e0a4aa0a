"""Two valid statements on one: which branch a vault is on, and when it changes (spec/03, 3.7)."""

from __future__ import annotations

from collections.abc import Sequence

from placet.core.statement import UntrustedStatement
from placet.errors import ConflictError
from placet.policy.charter import Courier, TakenStatement, fold, take
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
        ConflictError: The run leaves the charter nowhere, or fewer than k vaults vouch
            for where it goes, or k vouch for where this one went as well.
        ApprovalError, MalformedError, PolicyDeniedError: As for `take`.
    """
    chain = [link.sent.digest for link in charter]
    new = [c for c in couriers if c.sent.digest not in chain]
    prev = getattr(new[0].sent.statement, "prev", None) if new else None
    if prev not in chain[:-1]:
        raise ConflictError("run leaves this charter nowhere")
    # 3.7 A branch with k receipts wins. Honest vaults sign one child of each statement.
    kept = chain.index(prev) + 1
    base, ours = fold(charter[:kept]), charter[kept]
    for came, backed in ((new[0], True), (Courier(sent=ours.sent, receipts=ours.receipts), False)):
        vouched = vouching(base.vault_set, came.sent, came.receipts)
        if (len(vouched) >= base.vault_set.k) is not backed:
            raise ConflictError(
                f"statement {came.sent.digest} is on another branch than this vault's",
                "The owner ends a fork: placet merge.",
                head=chain[-1],
                version=base.version,
            )
    policy, taken = take(base, new, now=now)
    return kept, policy, taken


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
