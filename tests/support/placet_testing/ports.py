"""Ports that stay a test's own while nobody listens on them.

A vault that a test stops and starts again comes back on its port. The kernel's own free ports
(`bind` to 0) may go to somebody else in between: another test, or the near end of any connection.
So each process claims a block below those, by a lock that ends with it, and takes from it in turn.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
from functools import cache
from pathlib import Path

FIRST, BLOCK, BLOCKS = 20_000, 300, 40
"""Up to 32,000: Linux takes those of connections from 32,768 on."""


def free_port() -> int:
    """Return a port that nobody else will be given while this process runs."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Return the first of so many ports in a row."""
    first, turn = _claimed(os.getpid())
    for _ in range(BLOCK):
        at = next(turn) % BLOCK
        for _ in range(count - 1):
            next(turn)
        ports = range(first + at, first + at + count)
        if at + count <= BLOCK and all(map(_is_free, ports)):
            return ports[0]
    raise AssertionError(f"no {count} free ports in a row from {first} on")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are winding down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@cache
def _claimed(process: int) -> tuple[int, itertools.count[int]]:
    """Claim a block for as long as this process lives; a fork of it claims its own."""
    folder = Path(tempfile.gettempdir()) / f"placet-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for number in range(BLOCKS):
        file = os.open(folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        return FIRST + number * BLOCK, itertools.count()  # the file stays open
    raise AssertionError(f"all {BLOCKS} blocks of ports are taken: see {folder}")
