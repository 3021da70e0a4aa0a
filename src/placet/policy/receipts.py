"""Receipts of vaults that took a statement: which hold, and what they show of time. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from placet.core.dsse import Signed, open_signed
from placet.core.encoding import decode, unb64
from placet.core.messages import Taken
from placet.core.profile import VaultSet
from placet.core.statement import UntrustedStatement
from placet.errors import MalformedError, VerificationError


def vouching(
    vault_set: VaultSet, sent: UntrustedStatement, receipts: Iterable[Signed]
) -> dict[str, Signed]:
    """Return the receipts of this set's vaults for this very statement, one a vault.

    Others are passed over: whoever brings a statement can add what he likes.
    """
    found: dict[str, Signed] = {}
    for receipt in receipts:
        for vault in vault_set.ids:
            try:
                taken = open_signed(receipt, Taken, vault=vault)
            except (VerificationError, MalformedError):
                continue
            if (taken.vault, taken.key, taken.statement) == (vault, sent.key, sent.digest):
                found.setdefault(vault, receipt)
    return found


def receipt_of(receipt: Signed) -> Taken:
    """Return what a receipt says whose signature was checked before."""
    return decode(unb64(receipt.payload), Taken)


def taken_at(own: int, others: Iterable[int], k: int) -> int:
    """Return from when on delays count that a statement begins.

    Where k vaults took it before, the latest of their times: at least one of k is honest,
    so that is no earlier than a true one (as good as the clocks of k vaults).

    Args:
        own: When this vault took it, in Unix seconds.
        others: When those did whose receipts came with it.
        k: Of the vault set in force before it.
    """
    times = sorted(others)
    return min(own, times[-1]) if len(times) >= k else own
