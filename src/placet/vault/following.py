"""Take what others took, by the ordinary rules, with all receipts (spec/10, section 5)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from placet.core.continuity import News
from placet.core.dsse import Signed
from placet.core.limits import MAX_CHAIN, MAX_NEWS, MAX_VAULTS
from placet.core.messages import CharterAnswer, CourierItem, TakeRequest

Receipts = dict[str, dict[str, Signed]]
"""By statement and vault; what is no receipt, who takes them passes over."""


class Follower(Protocol):
    """A vault that may lack statements."""

    def lacks(self, news: News) -> bool:
        """Say whether a key is further elsewhere than here."""

    def follow(self, request: TakeRequest) -> object:
        """Take statements by the ordinary rules, though this vault does not serve yet."""


class Following:
    """What several vaults showed of a key, put together: their receipts count together."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._shown = OrderedDict[str, Receipts]()

    def lacks(self, news: News) -> bool:
        """Say whether a key is further elsewhere than here."""
        return self._follower.lacks(news)

    def bring(self, key: str, theirs: CharterAnswer) -> None:
        """Take another vault's charter of a key, as far as this one lacks it.

        Raises:
            VaultStartingError: It may take nothing yet.
            PlacetError: By the rules, this may not be taken (yet): more receipts may be needed.
        """
        shown = self._shown.setdefault(key, {})
        if len(self._shown) > MAX_NEWS:
            self._shown.popitem(last=False)
        items = []
        for item in theirs.charter:
            receipts = shown.setdefault(item.signed.payload, {})
            for receipt in item.receipts:
                if len(receipts) < MAX_VAULTS:
                    receipts.setdefault(receipt.vault_key, receipt)
            items.append(CourierItem(signed=item.signed, receipts=tuple(receipts.values())))
        for start in range(0, len(items), MAX_CHAIN):
            self._follower.follow(TakeRequest(chain=tuple(items[start : start + MAX_CHAIN])))
        self._shown.pop(key, None)
