"""How many points were struck: counted in each test, added up and shown by whoever runs them.

A run writes ``build/crash-matrix.json``: a row for each operation, store, way and call.
"""

from __future__ import annotations

import errno
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from placet_testing.crash_calls import Call, How

REPORT = Path(__file__).resolve().parents[3] / "build" / "crash-matrix.json"
PROPERTY = "crash"


@dataclass
class Table:
    """How many points were struck, by operation, store and call."""

    struck: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)

    def count(self, operation: str, store: str, how: How, call: Call) -> None:
        """Count one."""
        named = how if isinstance(how, str) else errno.errorcode[how]
        self.struck[operation, store, named, str(call)] += 1

    def of(self, operation: str, store: str, how: str) -> int:
        """Return how many points of an operation were struck in one way."""
        row = (operation, store, how)
        return sum(count for struck, count in self.struck.items() if struck[:3] == row)

    def add(self, rows: list[dict[str, object]]) -> None:
        """Add what another process counted."""
        for row in rows:
            *names, count = row.values()
            self.struck[tuple(names)] += count

    def rows(self) -> list[dict[str, object]]:
        """Return it for a file."""
        names = ("operation", "store", "how", "call")
        return [
            {**dict(zip(names, row, strict=True)), "points": count}
            for row, count in sorted(self.struck.items())
        ]

    def __str__(self) -> str:
        """Return it for a person: a line for each operation and store, a column for each way."""
        ways = sorted({row[2] for row in self.struck})
        lines = [("operation", "store", *ways)]
        for operation, store in sorted({row[:2] for row in self.struck}):
            points = [self._sum(operation, store, way) for way in ways]
            lines.append((operation, store, *(str(n or "") for n in points)))
        lines.append(("all", "", *(str(self._sum("", "", way)) for way in ways)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def _sum(self, operation: str, store: str, way: str) -> int:
        return sum(
            count
            for row, count in self.struck.items()
            if row[2] == way and (not operation or row[:2] == (operation, store))
        )


class CrashReport:
    """The pytest plugin that adds up; a test's table travels with its report."""

    def __init__(self, *, worker: bool) -> None:
        self._table, self._worker = Table(), worker

    def pytest_runtest_logreport(self, report):
        """Add what a test struck."""
        if report.when == "teardown":
            for name, rows in report.user_properties:
                if name == PROPERTY:
                    self._table.add(json.loads(rows))

    def pytest_terminal_summary(self, terminalreporter):
        """Write the table, and show it."""
        if self._table.struck and not self._worker:
            REPORT.parent.mkdir(exist_ok=True)
            REPORT.write_text(json.dumps(self._table.rows(), indent=1) + "\n")
            terminalreporter.section("crash matrix")
            terminalreporter.write_line(str(self._table))
