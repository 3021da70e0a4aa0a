"""docs/crash-matrix.md shows what the harness strikes, no more and no less; nothing is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from placet_testing.crash_calls import Call
from placet_testing.crash_report import Table
from placet_testing.crash_rows import ROWS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "crash-matrix.md"
CALL = Call("fsync", "fsync", "vault.db")


def shown():
    """Return the page's sums: by operation and store, the ways with a number."""
    lines = [line.strip("| ").split("|") for line in PAGE.read_text().splitlines() if "|" in line]
    cells = [[cell.strip() for cell in line] for line in lines]
    head = next(at for at, line in enumerate(cells) if line[:2] == ["operation", "store"])
    ways, rows = cells[head][2:], {}
    for line in cells[head + 2 :]:
        if line[0] == "all":
            return rows, dict(zip(ways, map(int, line[2:]), strict=True))
        numbers = dict(zip(ways, [*line[2:], *[""] * len(ways)], strict=False))
        rows[line[0], line[1]] = {way: int(n) for way, n in numbers.items() if n}
    raise AssertionError("the page's table has no sums")


def test_page_shows_every_row_and_adds_up():
    """Each operation of the harness has a row, and each row an operation; and so have the ways."""
    rows, sums = shown()
    assert {row: set(ways) for row, ways in rows.items()} == {r: set(w) for r, w in ROWS.items()}
    for way, total in sums.items():
        assert total == sum(ways.get(way, 0) for ways in rows.values()), way


def test_nothing_is_counted_that_stands_nowhere():
    """A new operation gets its row, or its test fails."""
    with pytest.raises(ValueError, match="no rebirth on sqlite"):
        Table().count("rebirth", "sqlite", "kill", CALL, "before")
    with pytest.raises(ValueError, match="struck by cut"):
        Table().count("birth", "sqlite", "cut", CALL, "before")


def test_row_that_is_not_struck_is_missed():
    """A full run names it, and fails."""
    table = Table()
    for (operation, store), ways in ROWS.items():
        for way in ways - {"torn"} if operation == "key new" else ways:
            table.struck[operation, store, way, str(CALL), "before"] += 1
    assert table.missing() == ["key new on files: torn"]
