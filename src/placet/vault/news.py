"""Which keys changed here lately: told to vaults that keep them too (spec/10, section 5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from placet.core.continuity import News
from placet.core.limits import MAX_LOG_PAGE, MAX_NEWS
from placet.storage.log import Log

KEPT = 1024
"""Statements of which others are told; whoever was away for more needs a courier."""


class NewsRing:
    """The statements taken last, by their index in the log. A restart reads them there again.

    Args:
        log: This vault's.
        shown: Returns how far a key is, if that vault keeps it too.
    """

    def __init__(self, log: Log, shown: Callable[[str, str], News | None]) -> None:
        self._shown = shown
        self._ring = deque[tuple[int, str]](maxlen=KEPT)
        size, _ = log.head()
        for start in range(max(0, size - KEPT), size, MAX_LOG_PAGE):
            for one in log.entries(start, min(start + MAX_LOG_PAGE, size)):
                if one.entry.kind == "taken" and one.entry.key is not None:
                    self._ring.append((one.entry.index, one.entry.key))

    def add(self, index: int, key: str) -> None:
        """Remember that a statement of a key was taken as entry ``index``."""
        self._ring.append((index, key))

    def since(self, vault: str, cursor: int) -> tuple[tuple[News, ...], int]:
        """Return the keys that changed at or after ``cursor`` and that ``vault`` keeps too."""
        found = dict[str, News]()
        for looked, (index, key) in enumerate(e for e in self._ring if e[0] >= cursor):
            # Looking a key up may read the disk: a beat costs so much and no more.
            if looked == MAX_NEWS:
                break
            news = self._shown(key, vault) if key not in found else None
            if news is not None:
                found[key] = news
            cursor = index + 1
        return tuple(found.values()), cursor
