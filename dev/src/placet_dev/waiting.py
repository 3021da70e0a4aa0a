"""Wait for what other processes do: by looking until it is so, with an end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from placet.errors import UnavailableError
from placet_dev.tee.control import Launcher

T = TypeVar("T")
TIMEOUT = 60.0
POLL = 0.02
TOLD = 1500
"""Characters of a log's end that an error quotes."""


def wait_for(condition: Callable[[], T | None], what: str, timeout: float = TIMEOUT) -> T:
    """Return the first answer that is not ``None``.

    Raises:
        UnavailableError: There was none for ``timeout`` seconds.
    """
    end = time.monotonic() + timeout
    while (answer := condition()) is None:
        if time.monotonic() >= end:
            raise UnavailableError(f"waited {timeout:.0f} seconds for {what}")
        time.sleep(POLL)
    return answer


def wait_for_line(
    launcher: Launcher, process: str, log: Path, wanted: re.Pattern[str], skip: int = 0
) -> re.Match[str]:
    """Return the first match in what a process of the launcher writes to its log.

    Args:
        launcher: That started it.
        process: Its name there.
        log: The file.
        wanted: What to look for; nobody else writes it.
        skip: Bytes that the log held before.

    Raises:
        UnavailableError: It ended without, or took too long; the end of the log is told.
    """

    def said() -> re.Match[str] | None:
        # In this order: what it wrote before it ended counts.
        code = launcher.status(process).exit
        text = written(log, skip)
        found = wanted.search(text)
        if found is None and code is not None:
            raise UnavailableError(f"{process} ended with {code}:\n{text[-TOLD:]}", f"See {log}.")
        return found

    return wait_for(said, f"{process} to write {wanted.pattern!r} (see {log})")


def written(log: Path, skip: int = 0) -> str:
    """Return what a log holds from byte ``skip`` on; nothing if there is no log."""
    try:
        return log.read_bytes()[skip:].decode(errors="replace")
    except FileNotFoundError:
        return ""


def size(log: Path) -> int:
    """Return the bytes that a log holds."""
    return log.stat().st_size if log.exists() else 0
