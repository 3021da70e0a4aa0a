"""How a TEE's devices are reached: a few system calls, and what their errors mean here."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from placet.errors import TooLargeError, UnavailableError


class Files(Protocol):
    """The system calls that are made. The module `os` has them; tests bring a kernel's stand-in.

    All of them raise ``OSError``, and may transfer less than they were asked to.
    """

    def stat(self, path: Path, /) -> object:
        """Raise unless there is such a file."""
        ...

    def mkdir(self, path: Path, /) -> None:
        """Make a folder."""
        ...

    def rmdir(self, path: Path, /) -> None:
        """Remove a folder."""
        ...

    def open(self, path: Path, flags: int, /) -> int:
        """Return a descriptor."""
        ...

    def read(self, fd: int, size: int, /) -> bytes:
        """Return some bytes; none at the end."""
        ...

    def write(self, fd: int, data: bytes, /) -> int:
        """Return how many bytes were taken."""
        ...

    def close(self, fd: int, /) -> None:
        """Give the descriptor back."""
        ...


Ioctl = Callable[[int, int, ctypes.Structure], None]
"""Takes a descriptor, a request number and a struct that is read and written in place."""


def device_ioctl(fd: int, request: int, argument: ctypes.Structure) -> None:
    """Ask a device of this machine.

    Raises:
        OSError: The kernel refused.
    """
    fcntl.ioctl(fd, request, argument, True)  # noqa: FBT003 - it has no name there


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine's kernel, or a stand-in of one."""

    files: Files = os
    ioctl: Ioctl = device_ioctl

    def has(self, path: Path) -> bool:
        """Return whether there is such a file."""
        try:
            self.files.stat(path)
        except OSError:
            return False
        return True

    def read(self, path: Path, limit: int) -> bytes:
        """Return all of a file, however few bytes each read gives.

        Raises:
            OSError: The kernel refused.
            TooLargeError: It holds more than ``limit`` bytes.
        """
        fd = self.files.open(path, os.O_RDONLY | os.O_CLOEXEC)
        found = b""
        try:
            while len(found) <= limit and (part := self.files.read(fd, limit + 1 - len(found))):
                found += part
        finally:
            self.files.close(fd)
        if len(found) > limit:
            raise TooLargeError(f"{path} holds more than the {limit} bytes that are read")
        return found

    def write(self, path: Path, data: bytes) -> None:
        """Write a value by one call: to these files half a value is another value.

        Raises:
            OSError: The kernel refused, or took only a part.
        """
        fd = self.files.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            taken = self.files.write(fd, data)
        finally:
            self.files.close(fd)
        if taken != len(data):
            raise OSError(errno.EIO, f"took {taken} of {len(data)} bytes", str(path))

    def ask(self, path: Path, request: int, argument: ctypes.Structure) -> None:
        """Open a device, make one request and close it.

        Raises:
            OSError: The kernel refused.
        """
        fd = self.files.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.ioctl(fd, request, argument)
        finally:
            self.files.close(fd)


HINTS = {
    errno.ENOENT: "Is this that kind of machine? See docs/producers.md for what it needs.",
    errno.EACCES: "Run this as a user who may open the device.",
    errno.EPERM: "Run this as a user who may open the device.",
    errno.ENXIO: "The kernel has no provider of reports: load tdx_guest or sev-guest.",
    errno.EBUSY: "An earlier request is still under way: try again in a minute.",
    errno.EAGAIN: "The report was not made yet: try again.",
    errno.EIO: "The host's quoting service failed: ask the host's operator.",
    errno.ETIMEDOUT: "The host's quoting service did not answer: ask the host's operator.",
    errno.ENOTTY: "The kernel gave up its channel to the firmware: restart the machine.",
    errno.EINVAL: "The kernel takes no such value: is the privilege level one of this guest's?",
}
"""By errno. ``EWOULDBLOCK`` is ``EAGAIN``."""


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Turn a system call's error into one of ours.

    Raises:
        UnavailableError: ``what`` could not be done.
    """
    try:
        yield
    except OSError as e:
        name = errno.errorcode.get(e.errno or 0, "error")
        raise UnavailableError(f"{what}: {e}", HINTS.get(e.errno or 0, ""), errno=name) from e
