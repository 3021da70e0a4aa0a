"""What starts workloads: a TEE of some kind, chosen by name when the platform starts.

Kinds come from the entry-point group ``placet.starters``; an entry is called with the
address that the operator gave and returns a `Starter`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

from placet.core.encoding import Int, Record, Sha256, Sha384, Text
from placet.core.profile import Profile
from placet.errors import NotFoundError

GROUP = "placet.starters"


class Workload(Record):
    """A started workload, as its TEE measured it."""

    id: Text
    app: Text
    image: Sha256
    config: Sha384
    pid: Int
    exit: int | None
    """Exit code, negative for a signal; ``None`` while it runs."""


class Starter(Protocol):
    """A TEE. Calls block, come from any thread, and raise `PlacetError`."""

    def start(self, bundle: Path, params: Mapping[str, str], log: Path) -> Workload:
        """Start a bundle; ``params`` fill its unmeasured placeholders."""

    def stop(self, id: str) -> Workload:  # noqa: A002 - its name
        """Ask a workload to end, wait for that, and force it if need be."""

    def list(self) -> tuple[Workload, ...]:
        """Return all workloads, ended ones too."""

    def profile(self, bundle: Path, security_version: int) -> Profile:
        """Return the profile that would let a bundle in, for staging."""


def load_starter(kind: str, address: str) -> Starter:
    """Return the starter of that name.

    Raises:
        NotFoundError: No installed distribution brings it.
    """
    found = {e.name: e for e in entry_points(group=GROUP)}
    if kind not in found:
        raise NotFoundError(
            f"no starter {kind!r} is installed; there are: {', '.join(sorted(found)) or 'none'}",
            "For the software TEE: pip install placet-dev.",
        )
    return cast("Starter", found[kind].load()(address))
