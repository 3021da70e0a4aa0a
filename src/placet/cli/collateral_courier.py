"""The courier that fills a folder of collateral: once, or for as long as it is let.

It is not trusted by anybody: it verifies before it writes so that a vendor's outage, a
stale cache or a liar in between do not take away what is there.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from placet.attest.marks import Marks, check
from placet.attest.trust import TrustAnchor
from placet.cli.collateral_checks import Genuine, check_genuine
from placet.cli.collateral_files import (
    AmdItem,
    IntelItem,
    Item,
    items_in,
    no_longer_wanted,
    read_file,
    replace_file,
    wanted_in,
)
from placet.cli.files import local_files
from placet.cli.output import answer, moment, show_error
from placet.cli.vendors import Amd, Intel
from placet.errors import NotFoundError, PlacetError

FIRST_PAUSE, LONGEST_PAUSE = 30, 3600
"""Seconds until what failed is tried again: at first, and at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file."""

    item: Item
    became: str
    genuine: Genuine | None = None
    error: PlacetError | None = None

    def document(self) -> dict[str, object]:
        """Return it as JSON."""
        return {
            "file": self.item.name,
            "became": self.became,
            "ends": self.genuine.ends if self.genuine else None,
            "problem": self.error.problem() if self.error else None,
        }

    def show(self) -> None:
        """Print it for a person."""
        if self.error is not None:
            answer(f"{self.item.about}: {self.became}")
            show_error(self.error)
        elif self.genuine is not None:
            answer(f"{self.item.about}: {self.became}, counts until {moment(self.genuine.ends)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Courier:
    """Brings collateral from vendors into a folder.

    Args:
        folder: Where to.
        anchors: Roots that may have signed it.
        intel: Where from.
        amd: Where from.
        now: Unix seconds.
    """

    folder: Path
    anchors: Sequence[TrustAnchor]
    intel: Intel
    amd: Amd
    now: Callable[[], float] = time.time

    def fetch(self, items: Iterable[Item]) -> tuple[Outcome, ...]:
        """Fetch, verify and write; an error of one file keeps no other from coming."""
        self.intel.web.forget()
        self.amd.web.forget()
        outcomes = [self._one(item) for item in items]
        # A report that names no product is of one of several, and the others fail.
        chips = {o.item.chip for o in outcomes if isinstance(o.item, AmdItem) and o.genuine}
        wrong = [
            o
            for o in outcomes
            if isinstance(o.item, AmdItem) and o.item.chip in chips and not o.genuine
        ]
        for outcome in wrong:
            no_longer_wanted(self.folder, outcome.item)
        return tuple(outcome for outcome in outcomes if outcome not in wrong)

    def _one(self, item: Item) -> Outcome:
        try:
            became, genuine = self._bring(item)
        except NotFoundError as e:
            # Nobody has it: whoever asked for it may ask again, and takes no place till then.
            no_longer_wanted(self.folder, item)
            return Outcome(item=item, became="not found", error=e)
        except PlacetError as e:
            return Outcome(item=item, became="failed", error=e)
        no_longer_wanted(self.folder, item)
        return Outcome(item=item, became=became, genuine=genuine)

    def _bring(self, item: Item) -> tuple[str, Genuine]:
        path, now = self.folder / item.name, int(self.now())
        old = self.kept(item)
        if isinstance(item, IntelItem):
            members = self.intel.members(item.tee, item.fmspc, item.ca)
        else:
            # A chip's certificate for a version does not change, and KDS gives out few.
            has = old.members.get("vcek") if old is not None and old.ends > now else None
            product = item.product
            vcek = bytes.fromhex(has) if has else self.amd.vcek(product, item.chip, item.tcb)
            ask, ark = self.amd.above(product)
            ders = {"vcek": vcek, "ask": ask, "ark": ark, "crl": self.amd.crl(product)}
            members = {name: der.hex() for name, der in ders.items()}
        text = json.dumps(members, separators=(",", ":")).encode()
        new = check_genuine(item, text, self.anchors, now=now)
        if old is not None:
            # What a vendor signed last is here already; older is somebody's cache, or worse.
            check(check(Marks(), old.members, anchor=old.anchor), new.members, anchor=new.anchor)
            if old.members == new.members:
                with local_files():
                    os.utime(path)  # half of its time is counted from now
                return "unchanged", new
        replace_file(path, text)
        return "written", new

    def kept(self, item: Item) -> Genuine | None:
        """Return what is in the folder, ended or not, if a vendor signed it."""
        try:
            text = read_file(self.folder / item.name)
            return check_genuine(item, text, self.anchors, now=None) if text is not None else None
        except PlacetError:
            return None


# --- going on -----------------------------------------------------------------------------


@dataclass(kw_only=True)
class Schedule:
    """When each file is fetched again.

    Args:
        rng: 0 to 1: so that many couriers do not come at once.
    """

    rng: Callable[[], float] = random.random
    _due: dict[str, float] = field(default_factory=dict)
    _failures: dict[str, int] = field(default_factory=dict)

    def due(self, name: str) -> float | None:
        """Return when, in Unix seconds, if that is known."""
        return self._due.get(name)

    def fetched(self, name: str, at: float, ends: float) -> None:
        """Note that a file was fetched: again when half of what is left is over."""
        self._failures.pop(name, None)
        self._due[name] = at + max(FIRST_PAUSE, (ends - at) / 2)

    def failed(self, name: str, at: float, error: PlacetError) -> None:
        """Note that it was not: again soon, then less and less often, or when they said."""
        failures = self._failures.get(name, 0)
        self._failures[name] = failures + 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 16)) * (0.5 + self.rng() / 2)
        asked = error.members.get("retry_after")
        if isinstance(asked, int):
            pause = asked + self.rng() * FIRST_PAUSE
        self._due[name] = at + pause


def watch_folder(
    courier: Courier,
    named: Sequence[Item],
    every: int,
    *,
    schedule: Schedule | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Keep a folder fresh until the process is told to stop.

    Args:
        courier: What fetches.
        named: What to fetch besides what is in the folder and what vaults want.
        every: Seconds after which the folder is looked at again.
        schedule: When what is fetched.
        sleep: Waits for seconds.
    """
    schedule = schedule or Schedule()
    while True:
        _look(courier, named, schedule)
        sleep(every)


def _look(courier: Courier, named: Sequence[Item], schedule: Schedule) -> None:
    folder = courier.folder
    items = dict.fromkeys((*named, *wanted_in(folder), *items_in(folder)))
    for item in items:
        if schedule.due(item.name) is None:
            _first(courier, item, schedule)
    now = courier.now()
    late = [item for item in items if (schedule.due(item.name) or 0) <= now]
    for item in items:
        if item not in late and (folder / item.name).exists():
            no_longer_wanted(folder, item)
    for outcome in courier.fetch(late):
        outcome.show()
        if outcome.genuine is not None:
            schedule.fetched(outcome.item.name, now, outcome.genuine.ends)
        elif outcome.error is not None:
            schedule.failed(outcome.item.name, now, outcome.error)


def _first(courier: Courier, item: Item, schedule: Schedule) -> None:
    """Count half of a file's time from when it was fetched, not from when this started."""
    kept = courier.kept(item)
    if kept is not None:
        at = (courier.folder / item.name).stat().st_mtime
        schedule.fetched(item.name, min(at, courier.now()), kept.ends)
