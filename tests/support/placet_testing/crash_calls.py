"""The calls that a process is stopped at, and what can befall it there (ADR 0029).

A call that is killed did not happen; one that is torn happened to a part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["write", "fsync", "rename", "send", "file", "recv", "db-send", "db-recv"]
"""What is called on a socket that leads to a database is another kind than what a peer hears."""
How = Literal["kill", "torn", "power", "short", "cut"] | int
"""``power``: killed, and what was not synchronised is lost (`crash_power`). ``cut``: the connection
ends before the call. An int is an error number that the call fails with."""

Part = Literal["first", "sector", "half", "last", "all"]
"""One byte; whole sectors of a disk; half; all but one byte; all, and nobody hears of it."""
PARTS: tuple[Part, ...] = ("first", "sector", "half", "last")
SECTOR = 512

# name: (number on x86-64, number on AArch64, kind, position of what it is told by)
CALLS: dict[str, tuple[int | None, int, Kind]] = {
    "write": (1, 64, "write"),
    "pwrite64": (18, 68, "write"),
    "writev": (20, 66, "write"),
    "pwritev": (296, 70, "write"),
    "pwritev2": (328, 287, "write"),
    "fsync": (74, 82, "fsync"),
    "fdatasync": (75, 83, "fsync"),
    "sync_file_range": (277, 84, "fsync"),
    "msync": (26, 227, "fsync"),
    "rename": (82, -1, "rename"),
    "renameat": (264, 38, "rename"),
    "renameat2": (316, 276, "rename"),
    "link": (86, -1, "rename"),
    "linkat": (265, 37, "rename"),
    "sendto": (44, 206, "send"),
    "sendmsg": (46, 211, "send"),
    "sendfile": (40, 71, "send"),
    "recvfrom": (45, 207, "recv"),
    "open": (2, -1, "file"),
    "openat": (257, 56, "file"),
    "ftruncate": (77, 46, "file"),
    "fallocate": (285, 47, "file"),
    "unlink": (87, -1, "file"),
    "unlinkat": (263, 35, "file"),
    "mkdir": (83, -1, "file"),
    "mkdirat": (258, 34, "file"),
}
BY_FD = {"write", "fsync", "send", "recv"}
OF_A_DATABASE: dict[Kind, Kind] = {"send": "db-send", "recv": "db-recv"}
PATH_AT = {"openat": 1, "renameat": 1, "renameat2": 1, "linkat": 1, "unlinkat": 1, "mkdirat": 1}
TEARABLE = {"write", "pwrite64", "sendto"}

MACHINES = {"x86_64": (0xC000003E, 0, 317), "aarch64": (0xC00000B7, 1, 277)}
"""Of each: its name in a filter, the column of its numbers, and the number of seccomp(2)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was held: before it happens."""

    name: str
    kind: Kind
    what: str
    """File name, or ``socket``; of a database the statement that is sent, or answered."""
    path: str = ""
    """Of the file or folder, where it is a call on a descriptor."""

    def __str__(self) -> str:
        """Return it for a table."""
        return f"{self.name} {self.what}"


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls a process, and at which of its calls (from 0)."""

    at: int
    how: How = "kill"
    lasting: bool = False
    """All later calls of these kinds fail as well: a disk that stays full."""
    kinds: frozenset[Kind] | None = None
    """Which calls are counted; ``None``: all."""
    what: str | None = None
    """Only calls that are told so in a table are counted."""
    part: Part = "half"
    """How much of a torn call is done."""


AFTERWARDS = Fault(10**9, "power")
"""Strikes no call: the power goes when all is done and told."""
