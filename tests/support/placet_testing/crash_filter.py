"""A filter of system calls: the kernel holds each until another process says how it goes on.

Seccomp user notification, Linux 5.9 or later. C code like SQLite's is stopped as surely as our own,
nothing is preloaded or patched, and no tool has to be installed. ADR 0029 says what else was tried.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
from pathlib import Path

from placet_testing.crash_calls import BY_FD, CALLS, MACHINES

_LIBC = ctypes.CDLL(None, use_errno=True)
_CREATE = os.O_CREAT

_ALLOW, _NOTIFY, _KILL = 0x7FFF0000, 0x7FC00000, 0x80000000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NR, _ARCH, _ARG = 0, 4, 16
_NEW_LISTENER = 8


def available() -> str | None:
    """Return why processes cannot be stopped here; nothing if they can."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        return f"no table of system calls for {platform.system()} on {platform.machine()}"
    release = tuple(int(n) for n in platform.release().split("-")[0].split(".")[:2])
    if release < (5, 9):
        return f"Linux {platform.release()} has no seccomp user notification worth using"
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if not actions.exists() or "user_notif" not in actions.read_text():
        return "this kernel has no seccomp user notification"
    return None


def hand_over(control: socket.socket, *, receives: bool = False) -> None:
    """Have every call of this process reported, to whoever holds ``control``'s other end.

    Output (descriptors 1 and 2) and ``control`` itself are not reported; what is received is
    if ``receives`` says so. There is no way back.
    """
    arch, column, number = MACHINES[platform.machine()]
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
            op(_EQUAL, number, 0, 4), op(_LOAD, _ARG + 8 * at), op(_ANY_BIT, _CREATE, 0, 1),
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
