"""``placet run``: attest, gather, check, unlock, run the app.

Key id, volume and charter are not measured and decide nothing: each is checked against
what was measured. The command is part of the measured argv.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from placet.agent.child import run_child
from placet.agent.unlock import Agent
from placet.agent.volume import CHARTER, EmbeddedVolume, Unlocked
from placet.attest.collateral_folder import CollateralFolder, completed_by
from placet.attest.produce import open_producer
from placet.attest.verify import verify_evidence
from placet.client.clock import HostClock
from placet.errors import NotApprovedError, PlacetError, UnavailableError, raised_at
from placet.ratls.context import self_test

DENIED, UNAVAILABLE, BROKEN = 77, 75, 70
"""Exit codes before the child starts (sysexits.h: EX_NOPERM, EX_TEMPFAIL, EX_SOFTWARE)."""

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0


def main(argv: Sequence[str]) -> int:
    """Run ``placet run`` and return its exit code, or the child's."""
    parser = argparse.ArgumentParser(prog="placet run", description=__doc__)
    parser.add_argument("--key", required=True, help="key id")
    parser.add_argument("--volume", type=Path, required=True, help="folder of the data")
    parser.add_argument(
        "--charter",
        type=Path,
        help=f"file of the key's statements (default: {CHARTER} in the volume)",
    )
    parser.add_argument(
        "--collateral",
        type=Path,
        help="folder of collateral for vaults whose quotes come without (default: none)",
    )
    parser.add_argument("--wait", action="store_true", help="try again until the owner approves")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    options = parser.parse_args(argv)
    folder = options.collateral
    # No core dump may hold the key (I13).
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        agent = Agent(
            producer=open_producer(),
            clock=HostClock(),
            rng=secrets.token_bytes,
            instance=f"workload-{secrets.token_hex(8)}",
            tell=_tell,
            verify=completed_by(CollateralFolder(folder)) if folder else verify_evidence,
        )
        self_test(now=int(time.time()))

        def attempt() -> Unlocked:
            volume = EmbeddedVolume(options.volume)
            charter = options.charter or options.volume / CHARTER
            return asyncio.run(agent.unlock(options.key, charter, volume))

        unlocked = _until_approved(attempt) if options.wait else attempt()
    except PlacetError as e:
        _explain(e)
        return UNAVAILABLE if isinstance(e, UnavailableError) else DENIED
    except Exception as e:  # noqa: BLE001 - a traceback would show its text, to the platform (I13)
        _tell(f"failed inside: {type(e).__name__} at {raised_at(e)}")
        return BROKEN
    try:
        return run_child(options.command, unlocked, os.environ)
    except UnavailableError as e:
        _explain(e)
        return UNAVAILABLE


def _until_approved(attempt: Callable[[], Unlocked]) -> Unlocked:
    """Try again while the answer is "not approved" or "not now", ever more slowly."""
    wait, said = FIRST_WAIT, ""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(UNAVAILABLE))
    while True:
        try:
            unlocked = attempt()
        except (NotApprovedError, UnavailableError) as e:
            if isinstance(e, NotApprovedError) and e.members.get("retired"):
                raise
            if e.type != said:
                _explain(e)
                _tell("waiting")
            said = e.type
            # Jitter, so that many instances do not ask in step.
            time.sleep(wait * (0.5 + secrets.randbelow(1000) / 1000))
            wait = min(2 * wait, LONGEST_WAIT)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return unlocked


def _tell(line: str) -> None:
    print(f"placet run: {line}", file=sys.stderr, flush=True)  # noqa: T201 - its output


def _explain(error: PlacetError) -> None:
    _tell(f"{error.type}: {error.detail}")
    if error.hint:
        _tell(f"next: {error.hint}")
