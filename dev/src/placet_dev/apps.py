"""A notes app that was started: it serves, or its agent refused to start it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

from placet.core.encoding import encode
from placet.errors import UnavailableError
from placet_dev.local_http import ask
from placet_dev.vaults import HOST
from placet_dev.waiting import TOLD, wait_for

REFUSED = re.compile(
    r"^placet run: (?P<type>[a-z-]+): (?P<detail>.*)$(?:\nplacet run: next: (?P<hint>.*)$)?",
    re.MULTILINE,
)
READY = re.compile(
    rf"^notes (?P<version>\S+) ready on (?P<address>{re.escape(HOST)}:\d+)$", re.MULTILINE
)
ANYWHERE: Mapping[str, str] = MappingProxyType({"listen": f"{HOST}:0"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """How the agent refused to start an app."""

    code: int
    type: str
    """Of the problem that it printed."""
    said: str
    hint: str


@dataclass(frozen=True, slots=True)
class Serving:
    """A notes app that runs."""

    address: str
    workload: str
    version: str

    def add(self, text: str) -> None:
        """Add a note."""
        ask(self.address, "POST", "/notes", encode({"text": text}))

    def texts(self, query: str = "") -> list[str]:
        """Return all notes, or those that hold ``query``, as far as this version can."""
        return [n["text"] for n in ask(self.address, "GET", f"/notes?q={query}")["notes"]]


def settled(
    workload: str, exit_of: Callable[[], int | None], log_of: Callable[[], str]
) -> Serving | Refusal:
    """Return what became of a start, as soon as its log says so.

    Raises:
        UnavailableError: It ended otherwise, or says nothing for too long.
    """

    def look() -> Serving | Refusal | None:
        # In this order: what it printed before it ended counts.
        code = exit_of()
        text = log_of()
        if ready := READY.search(text):
            return Serving(ready["address"], workload, ready["version"])
        if code is None:
            return None
        # The last one: with --wait there may be others before.
        said = next(reversed(list(REFUSED.finditer(text))), None)
        if said is None:
            raise UnavailableError(f"{workload} ended with {code}:\n{text[-TOLD:]}")
        return Refusal(code, said["type"], said["detail"], said["hint"] or "")

    found: object = wait_for(look, f"{workload} to serve or to be refused")
    return cast("Serving | Refusal", found)
