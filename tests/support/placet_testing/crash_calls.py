"""Stop a process at any of its system calls: kill it there, tear the call, or have it fail.

The kernel holds the traced process at every call that changes something outside of it
(seccomp user notification, Linux 5.9 or later) until this side says how it goes on. So C code
like SQLite's is stopped as surely as our own, nothing is preloaded or patched, and no
tool has to be installed. ADR 0029 says what else was tried.

A call that is killed did not happen; one that is torn happened to its first half.
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
from typing import Literal

from placet_testing.crash_power import Disk

Kind = Literal["write", "fsync", "rename", "send", "file", "recv", "db-send", "db-recv"]
"""What is called on a socket that leads to a database is another kind than what a peer hears."""
How = Literal["kill", "torn", "power", "short", "cut"] | int
"""``power``: killed, and what was not synchronised is lost (`crash_power`). ``cut``: the connection
ends before the call. An int is an error number that the call fails with."""

Part = Literal["first", "sector", "half", "last"]
"""One byte; whole sectors of a disk; half; all but one byte."""
PARTS: tuple[Part, ...] = ("first", "sector", "half", "last")
SECTOR = 512

CREATE = os.O_CREAT

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
SQL = re.compile(
    rb"\b(BEGIN|COMMIT|ROLLBACK|SELECT|SHOW|CREATE|(?:INSERT INTO|UPDATE|DELETE FROM) [a-z_]+)\b"
)
PATH_AT = {"openat": 1, "renameat": 1, "renameat2": 1, "linkat": 1, "unlinkat": 1, "mkdirat": 1}
TEARABLE = {"write", "pwrite64", "sendto"}

_MACHINES = {"x86_64": (0xC000003E, 0, 317), "aarch64": (0xC00000B7, 1, 277)}
_LIBC = ctypes.CDLL(None, use_errno=True)

_ALLOW, _NOTIFY, _KILL = 0x7FFF0000, 0x7FC00000, 0x80000000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NR, _ARCH, _ARG = 0, 4, 16
_NEW_LISTENER = 8
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_CONTINUE = 1
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_REPLY = struct.Struct("=QqiI")


def available() -> str | None:
    """Return why processes cannot be stopped here; nothing if they can."""
    if platform.system() != "Linux" or platform.machine() not in _MACHINES:
        return f"no table of system calls for {platform.system()} on {platform.machine()}"
    release = tuple(int(n) for n in platform.release().split("-")[0].split(".")[:2])
    if release < (5, 9):
        return f"Linux {platform.release()} has no seccomp user notification worth using"
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if not actions.exists() or "user_notif" not in actions.read_text():
        return "this kernel has no seccomp user notification"
    return None


# --- in the process that is stopped --------------------------------------------------------


def hand_over(control: socket.socket, *, receives: bool = False) -> None:
    """Have every call of this process reported, to whoever holds ``control``'s other end.

    Output (descriptors 1 and 2) and ``control`` itself are not reported; what is received is
    if ``receives`` says so. There is no way back.
    """
    arch, column, number = _MACHINES[platform.machine()]
    held = {name: row for name, row in CALLS.items() if receives or row[2] != "recv"}
    numbers = {name: row[column] for name, row in held.items()}
    program = _program(
        arch, {n: i for n, i in numbers.items() if i is not None and i >= 0}, control
    )
    if _LIBC.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "prctl")
    code = ctypes.create_string_buffer(program)
    spec = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    listener = _LIBC.syscall(number, 1, _NEW_LISTENER, ctypes.create_string_buffer(spec))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    socket.send_fds(control, [b"%d" % os.getpid()], [listener])
    os.close(listener)


def _program(arch: int, numbers: dict[str, int], control: socket.socket) -> bytes:
    """Return the filter: of our calls, all but those that only speak to the tests."""
    flags_at = {numbers["openat"]: 2} | ({numbers["open"]: 1} if "open" in numbers else {})
    by_fd = [i for n, i in numbers.items() if CALLS[n][2] in BY_FD]
    others = [i for n, i in numbers.items() if i not in by_fd and i not in flags_at]

    def op(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, k)

    lines = [op(_LOAD, _ARCH), op(_EQUAL, arch, 1, 0), op(_RETURN, _KILL), op(_LOAD, _NR)]
    for number, at in flags_at.items():
        lines += [
            op(_EQUAL, number, 0, 4), op(_LOAD, _ARG + 8 * at), op(_ANY_BIT, CREATE, 0, 1),
            op(_RETURN, _NOTIFY), op(_RETURN, _ALLOW),
        ]  # fmt: skip
    for number in others:
        lines += [op(_EQUAL, number, 0, 1), op(_RETURN, _NOTIFY)]
    for number in by_fd:
        lines += [
            op(_EQUAL, number, 0, 6), op(_LOAD, _ARG), op(_EQUAL, 1, 3, 0), op(_EQUAL, 2, 2, 0),
            op(_EQUAL, control.fileno(), 1, 0), op(_RETURN, _NOTIFY), op(_RETURN, _ALLOW),
        ]  # fmt: skip
    return b"".join([*lines, op(_RETURN, _ALLOW)])


# --- in the process that stops it ----------------------------------------------------------


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
        column = _MACHINES[platform.machine()][1]
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
    sizes = {"first": 1, "sector": sectors, "half": size // 2, "last": size - 1}
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
