"""Stop a process at any of its system calls: kill it there, tear the call, or have it fail.

This side of `crash_filter`: what is held is told here, and goes on as a `Fault` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import re
import select
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from placet_testing.crash_calls import (
    BY_FD,
    CALLS,
    MACHINES,
    OF_A_DATABASE,
    PATH_AT,
    SECTOR,
    TEARABLE,
    Call,
    Fault,
    Part,
)
from placet_testing.crash_power import Disk

SQL = re.compile(
    rb"\b(BEGIN|COMMIT|ROLLBACK|SELECT|SHOW|CREATE|(?:INSERT INTO|UPDATE|DELETE FROM) [a-z_]+)\b"
)

_LIBC = ctypes.CDLL(None, use_errno=True)
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_CONTINUE = 1
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_REPLY = struct.Struct("=QqiI")


@dataclass
class Trace:
    """One process whose calls are held, from `arm` until `disarm`.

    Args:
        pid: Its process id.
        listener: The descriptor that `hand_over` sent.
    """

    pid: int
    listener: int
    calls: list[Call] = field(default_factory=list)
    """Those since `arm` that counted."""
    hit: Call | None = None
    """Where the fault struck."""
    disk: Disk | None = None
    """Told of all calls; `arm` with ``power`` needs it."""
    sent: bool = False
    """Since `arm`, something left by a socket: a byte at least."""
    on_gone: Callable[[], object] = int
    """Called once the process is dead and has let go of its files."""
    told_to_end: bool = False
    """Send SIGTERM with the first call that counts, while a request is under way."""
    pidfd: int = -1
    fault: Fault | None = None
    _armed: bool = False
    _statement: str = ""
    _databases: dict[str, bool] = field(default_factory=dict)

    def start(self) -> None:
        """Hold its calls from now on; a running event loop must stay running."""
        loop, self.pidfd = asyncio.get_running_loop(), os.pidfd_open(self.pid)
        loop.add_reader(self.listener, self._turn)
        loop.add_reader(self.pidfd, self._gone)

    def arm(self, fault: Fault | None = None) -> None:
        """Count calls from here; let ``fault`` strike at its own."""
        self.calls, self.hit, self.sent = [], None, False
        self.fault, self._armed = fault, True

    def disarm(self) -> None:
        """Let everything pass."""
        self._armed = False

    def _gone(self) -> None:
        loop = asyncio.get_running_loop()
        for fd in (self.listener, self.pidfd):
            loop.remove_reader(fd)
            os.close(fd)
        self.on_gone()

    def _turn(self) -> None:
        poll, buffer = select.poll(), bytearray(_NOTIFICATION.size)
        poll.register(self.listener, select.POLLIN)
        ((_, event),) = poll.poll(0) or [(0, 0)]
        if not event & select.POLLIN:
            if event:  # Nobody is left whose calls could be held.
                asyncio.get_running_loop().remove_reader(self.listener)
            return
        try:
            fcntl.ioctl(self.listener, _RECEIVE, buffer)
        except OSError as e:
            if e.errno == errno.ENOENT:  # It was killed while it was held.
                return
            raise
        ticket, pid, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            self._decide(ticket, pid, number, arguments)

    def _decide(self, ticket: int, pid: int, number: int, arguments: list[int]) -> None:
        # What it started is held as well, and is not what the test is about.
        ours = pid == self.pid or Path(f"/proc/{self.pid}/task/{pid}").exists()
        call = self._described(pid, number, arguments) if self._armed and ours else None
        fault = self.fault
        if call is None or not _counts(call, arguments, fault):
            self._reply(ticket, flags=_CONTINUE)
            return
        if self.disk is not None:
            self.disk.before(Path(call.path), sync=call.kind == "fsync")
        at = len(self.calls)
        self.calls.append(call)
        struck = fault is not None and (at == fault.at or (fault.lasting and at > fault.at))
        if not struck or fault is None:
            self.sent = self.sent or call.kind == "send"
            self._reply(ticket, flags=_CONTINUE)
            if self.told_to_end and not at:
                # Not before the reply: a signal would have the call begin anew, and count twice.
                os.kill(self.pid, signal.SIGTERM)
            return
        self.hit = self.hit or call
        if isinstance(fault.how, int):
            self._reply(ticket, error=fault.how)
            return
        if fault.how == "cut":
            with socket.socket(fileno=_taken(self.pid, arguments[0])) as own:
                own.shutdown(socket.SHUT_RDWR)
            self._reply(ticket, flags=_CONTINUE)
            return
        done = (
            0 if fault.how in {"kill", "power"} else _begun(self.pid, call, arguments, fault.part)
        )
        self.sent = self.sent or (call.kind == "send" and done > 0)
        if fault.how == "short":
            self._reply(ticket, value=done)
        else:
            os.kill(self.pid, signal.SIGKILL)

    def _described(self, pid: int, number: int, arguments: list[int]) -> Call | None:
        """Return the call of one of its threads; nothing if it waits for a peer, not a database."""
        column = MACHINES[platform.machine()][1]
        name, row = next((n, r) for n, r in CALLS.items() if r[column] == number)
        kind = row[2]
        if kind not in BY_FD and name not in {"ftruncate", "fallocate"}:
            raw = _read(pid, arguments[PATH_AT.get(name, 0)], 4096)
            return Call(name, kind, Path(os.fsdecode(raw.split(b"\0")[0])).name)
        path = Path(f"/proc/{pid}/fd/{arguments[0]}").readlink()
        if not path.name.startswith("socket:"):
            return Call(name, kind, path.name, str(path))
        if self._is_database(arguments[0], str(path)) and kind in OF_A_DATABASE:
            if kind == "send":
                found = SQL.search(_read(pid, arguments[1], min(arguments[2], 4096)))
                self._statement = found[1].decode() if found else "prepared"
            return Call(name, OF_A_DATABASE[kind], f"database: {self._statement}")
        return None if kind == "recv" else Call(name, kind, "socket", str(path))

    def _is_database(self, fd: int, inode: str) -> bool:
        """Say whether a socket leads to a server's name on this machine; a peer's has a port."""
        if inode not in self._databases:
            with socket.socket(fileno=_taken(self.pid, fd)) as own:
                named = own.family == socket.AF_UNIX and bool(own.getpeername())
            self._databases[inode] = named
        return self._databases[inode]

    def _reply(self, ticket: int, *, value: int = 0, error: int = 0, flags: int = 0) -> None:
        try:
            fcntl.ioctl(self.listener, _ANSWER, _REPLY.pack(ticket, value, -error, flags))
        except OSError as e:
            if e.errno != errno.ENOENT:  # It died meanwhile.
                raise


def _counts(call: Call, arguments: list[int], fault: Fault | None) -> bool:
    # An event loop wakes itself by one byte over a socket pair of its own.
    if call.what == "socket" and call.name in {"sendto", "write"} and arguments[2] == 1:
        return False
    if fault is None or (fault.kinds is None and fault.what is None):
        return True
    return (fault.kinds is None or call.kind in fault.kinds) and fault.what in {None, str(call)}


def _read(pid: int, address: int, size: int) -> bytes:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        found = b""
        with contextlib.suppress(OSError):
            # Page by page: what lies behind the end of a path may not be there.
            while len(found) < size:
                step = min(size - len(found), 4096 - (address + len(found)) % 4096)
                memory.seek(address + len(found))
                found += memory.read(step)
        return found


def _begun(pid: int, call: Call, arguments: list[int], part: Part) -> int:
    """Do the beginning of a call ourselves; return how many bytes that was."""
    if call.name not in TEARABLE:
        raise ValueError(f"{call} has no parts")
    fd, address, size, offset = arguments[:4]
    sectors = (size - 1) // SECTOR * SECTOR or size // 2
    sizes = {"first": 1, "sector": sectors, "half": size // 2, "last": size - 1, "all": size}
    data = _read(pid, address, size)[: max(sizes[part], 1)]
    own = _taken(pid, fd)
    try:
        if call.name == "sendto":
            return os.write(own, data)
        return os.pwrite(own, data, offset) if call.name == "pwrite64" else os.write(own, data)
    finally:
        os.close(own)


def _taken(pid: int, fd: int) -> int:
    """Return a descriptor of our own for another process's open file or socket."""
    pidfd = os.pidfd_open(pid)
    try:
        own: int = _LIBC.syscall(438, pidfd, fd, 0)  # pidfd_getfd
        if own < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        return own
    finally:
        os.close(pidfd)
