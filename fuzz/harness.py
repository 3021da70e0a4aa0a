"""What every target shares: how it is registered, how an input is cut, and whom it trusts.

A genuine seed verifies in full, under the roots in ``roots/`` and at `placet_testing`'s time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from placet_testing import charters
from placet_testing.amd import software_anchor
from placet_testing.contexts import connection

from placet.attest.trust import TrustAnchor
from placet.attest.verify.quote import pem_chain
from placet.core.profile import TcbRules
from placet.errors import PlacetError
from placet_dev.tee.pki import TCB_SIGNER

Target = Callable[[bytes], None]

ROOTS = Path(__file__).parent / "roots"
"""Certificates of the development PKIs that signed the seeds; `seeds.py` writes them."""
TARGETS: dict[str, Target] = {}


def target(function: Target) -> Target:
    """Register a target; an error of ours is what hostile bytes are meant to end in."""

    @functools.wraps(function)
    def quiet(data: bytes) -> None:
        attempt(lambda: function(data))

    TARGETS[function.__name__.replace("_", "-")] = quiet
    return quiet


def attempt(*calls: Callable[[], object]) -> None:
    """Make each call; errors of ours pass, all others leave."""
    for call in calls:
        try:
            call()
        except PlacetError:
            continue


def parts(data: bytes, count: int) -> list[bytes]:
    """Cut an input: each part but the last has two bytes of length before it."""
    found = []
    for _ in range(count - 1):
        end = 2 + int.from_bytes(data[:2], "big")
        found.append(data[2:end])
        data = data[end:]
    return [*found, data]


def join(*pieces: bytes) -> bytes:
    """Return the input that `parts` cuts into these."""
    *early, last = pieces
    return b"".join(len(p).to_bytes(2, "big") + p for p in early) + last


@functools.cache
def pck_chain() -> tuple[bytes, ...]:
    """Return the PCK chain of the saved quotes."""
    return pem_chain((ROOTS / "intel.pem").read_bytes(), 3, "chain")


@functools.cache
def trust() -> tuple[TrustAnchor, ...]:
    """Return the roots of the saved seeds."""
    intel = replace(software_anchor(pck_chain()[-1]), tcb_signer=TCB_SIGNER)
    others = [software_anchor((ROOTS / f"{name}.der").read_bytes()) for name in ("amd", "aws")]
    return (intel, *others)


PROFILE = charters.profile(1)
RULES = TcbRules(
    statuses=("UpToDate", "Unrated"),
    allowed_advisories=(),
    denied_advisories=("INTEL-SA-1",),
    denied_families=("turin", "00de7e57de7e"),
    hardware_ids=("m1",),
    min_evaluation=1,
    min_tcb="04010000000017d3",
    features=("ecc",),
)
CONTEXT = connection(image=PROFILE.image, config=PROFILE.config)
"""The connection that the seeds were made for."""
