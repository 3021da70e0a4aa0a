"""What stands in the crash matrix: operations by store, and in which ways each is struck.

The tests count nothing else, a full run misses nothing of it, and docs/crash-matrix.md is this.
"""

from __future__ import annotations

OPERATIONS = [
    "birth", "promise", "hold", "recover", "commit", "release", "deny", "stage", "promote",
    "retire", "delete",
]  # fmt: skip
FOLDED = ["birth", "commit", "release", "retire"]
"""Those in which the write-ahead log is folded into the file in between as well."""
FAILING = ["birth", "hold", "commit", "release", "stage", "retire"]
"""Those in which disks, connections and servers fail."""
SHORT = ["commit", "release"]
"""Those in which the kernel takes less than it is given."""

KILLED, LOST = frozenset({"kill"}), frozenset({"kill", "power"})
TORN = LOST | {"torn"}
DISK = frozenset({"ENOSPC", "EROFS", "EIO", "EDQUOT"})
SERVER = frozenset({"cut", "ECONNRESET", "error"})

SQLITE, POSTGRESQL, FILES = "sqlite", "postgresql", "files"
FOLDING = "sqlite, folding its write-ahead log"


def _of_operations() -> dict[tuple[str, str], frozenset[str]]:
    rows = dict[tuple[str, str], frozenset[str]]()
    for name in OPERATIONS:
        failing = name in FAILING
        short = frozenset({"short"} if name in SHORT else ())
        rows[name, SQLITE] = TORN | (DISK if failing else frozenset()) | short
        folding = (TORN if name in FOLDED else frozenset()) | (DISK if failing else frozenset())
        if folding:
            rows[name, FOLDING] = folding
        rows[name, POSTGRESQL] = frozenset({"kill", "torn"}) | (SERVER if failing else frozenset())
    return rows


ROWS = _of_operations() | {
    ("first start", SQLITE): TORN,
    ("first start", POSTGRESQL): KILLED,
    ("restart", SQLITE): TORN,
    ("restart", POSTGRESQL): KILLED,
    ("migration", SQLITE): TORN,
    ("clean stop", SQLITE): TORN,
    ("clean stop", POSTGRESQL): KILLED,
    ("create (n=3)", SQLITE): KILLED,
    ("create (n=3)", POSTGRESQL): KILLED,
    ("create, twice", SQLITE): KILLED,
    ("first boot", "volume"): LOST,
    ("owner init", FILES): TORN,
    ("owner init --spare", FILES): TORN,
    ("owner add --spare", FILES): TORN,
    ("key new", FILES): TORN,
    ("promote (owner)", FILES): LOST,
}
