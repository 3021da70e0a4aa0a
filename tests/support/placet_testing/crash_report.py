"""How many points were struck: counted in each test, added up and shown by whoever runs them.

A run writes ``build/crash-matrix.json``, a row for each operation, store, way, call and what
stood after, and ``build/crash-matrix.md``, the same to be read.
"""

from __future__ import annotations

import errno
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from placet_testing.crash_calls import Call, How
from placet_testing.crash_rows import ROWS

BUILD = Path(__file__).resolve().parents[3] / "build"
PROPERTY = "crash"
NAMES = ("operation", "store", "how", "call", "stood")
WAYS = ("kill", "power", "torn", "short", "cut", "error")
"""In this order; what else befell a call is an error that it answered with."""

Stood = Literal["before", "after", "logged"]
"""What the next start found: nothing of the operation, all of it, or (of one that is logged
each time) an entry for each answer."""


@dataclass
class Table:
    """How many points were struck: by operation, store, way, call and what stood after."""

    struck: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def count(self, operation: str, store: str, how: How, call: Call, stood: Stood) -> None:
        """Count one."""
        named = how if isinstance(how, str) else errno.errorcode[how]
        if named not in ROWS.get((operation, store), ()):
            raise ValueError(f"crash_rows has no {operation} on {store} that is struck by {named}")
        self.struck[operation, store, named, str(call), stood] += 1

    def of(self, operation: str, store: str, how: str) -> int:
        """Return how many points of an operation were struck in one way."""
        row = (operation, store, how)
        return sum(count for struck, count in self.struck.items() if struck[:3] == row)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add what another process counted."""
        for row in rows:
            self.struck[tuple(row[name] for name in NAMES)] += row["points"]

    def missing(self) -> list[str]:
        """Return what was to be struck, and was not."""
        there = {row[:3] for row in self.struck}
        return [
            f"{operation} on {store}: {way}"
            for (operation, store), ways in sorted(ROWS.items())
            for way in sorted(ways)
            if (operation, store, way) not in there
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Return it for a file."""
        return [
            {**dict(zip(NAMES, row, strict=True)), "points": count}
            for row, count in sorted(self.struck.items())
        ]

    def sums(self) -> list[tuple[str, ...]]:
        """Return a line for each operation and store, and a column for each way."""
        ways = sorted({row[2] for row in self.struck}, key=_place)
        lines = [("operation", "store", *ways)]
        for operation, store in sorted({row[:2] for row in self.struck}):
            points = [self.of(operation, store, way) for way in ways]
            lines.append((operation, store, *(str(n or "") for n in points)))
        totals = [sum(n for row, n in self.struck.items() if row[2] == way) for way in ways]
        lines.append(("all", "", *map(str, totals)))
        return lines

    def points(self) -> list[tuple[str, ...]]:
        """Return a line for each call at which something was struck: how, and what stood after."""
        lines = [("operation", "store", "call", "struck", "stood after")]
        for place in sorted({(*row[:2], row[3]) for row in self.struck}):
            ways: Counter[str] = Counter()
            stood: Counter[str] = Counter()
            for row, count in self.struck.items():
                if (*row[:2], row[3]) == place:
                    ways[row[2]] += count
                    stood[row[4]] += count
            struck = ", ".join(f"{way} {ways[way]}" for way in sorted(ways, key=_place))
            left = ", ".join(f"{state} {count}" for state, count in sorted(stood.items()))
            lines.append((*place, struck, left))
        return lines

    def __str__(self) -> str:
        """Return the sums for a person."""
        lines = self.sums()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def page(self) -> str:
        """Return both tables as they stand in docs/crash-matrix.md."""
        return "\n\n".join("\n".join(_marked(lines)) for lines in (self.sums(), self.points()))


def _place(way: str) -> tuple[int, str]:
    return (WAYS.index(way) if way in WAYS else len(WAYS), way)


def _marked(lines: list[tuple[str, ...]]) -> list[str]:
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return [rows[0], "|---" * len(lines[0]) + "|", *rows[1:]]


class CrashReport:
    """The pytest plugin that adds up; a test's table travels with its report."""

    def __init__(self, *, worker: bool, whole: bool) -> None:
        self._table, self._worker, self._whole = Table(), worker, whole

    def pytest_runtest_logreport(self, report):
        """Add what a test struck."""
        if report.when == "teardown":
            for name, rows in report.user_properties:
                if name == PROPERTY:
                    self._table.add(json.loads(rows))

    def pytest_sessionfinish(self, session):
        """Fail a whole run that left out what stands in the matrix."""
        left_out = self._whole and self._table.struck and self._table.missing()
        if left_out and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        """Write the table, and show it."""
        if self._table.struck and not self._worker:
            BUILD.mkdir(exist_ok=True)
            rows = json.dumps(self._table.rows(), indent=1)
            (BUILD / "crash-matrix.json").write_text(rows + "\n")
            (BUILD / "crash-matrix.md").write_text(self._table.page() + "\n")
            terminalreporter.section("crash matrix")
            terminalreporter.write_line(str(self._table))
            for one in self._table.missing() if self._whole else ():
                terminalreporter.write_line(f"not struck: {one}", red=True)
            terminalreporter.write_line("every point: build/crash-matrix.md, and .json")
