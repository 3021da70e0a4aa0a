"""What a vault tells whoever runs it: what was asked and how it ended, never what it keeps.

Nothing here decides anything, and nothing here can hold a share, a key's label or a whole
key id: what comes in is of a few words that this code chose, and numbers (I13).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger("placet.vault.request")

PREFIX = 12
"""Hex digits of a key id that a log shows, as people compare them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request and what became of it."""

    request: str
    """Random; the peer was told it as well."""
    method: str
    route: str
    """As the table has it: ``{key}`` and not the key."""
    status: int
    problem: str | None
    """The problem's type, if it was one."""
    seconds: float
    role: str
    key: str


Watch = Callable[[Answered], object]


def unwatched(answered: Answered) -> None:
    """Watch nothing."""
    del answered


def write(answered: Answered) -> None:
    """Write one line about a request to the log."""
    facts: dict[str, object] = {
        "request": answered.request,
        "method": answered.method if answered.method in {"GET", "POST"} else "other",
        "route": answered.route,
        "status": answered.status,
        "problem": answered.problem,
        "ms": round(answered.seconds * 1000, 1),
        "role": answered.role,
        "key": answered.key.removeprefix("sha256:")[:PREFIX] or None,
    }
    log.info("answered", extra={"facts": {k: v for k, v in facts.items() if v is not None}})
