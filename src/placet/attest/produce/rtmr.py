"""TDX: RTMR3 extended by the image and by what was started after it, with the log of that.

Each event is a text. Its SHA-384 is what the register is extended by; the log keeps the
texts, one a line, so that a verifier can replay them (`rtmr3_of`).

An event is logged, synced, and only then extended, so the log is never behind the register.
A crash in between leaves it ahead. Whoever reads it therefore takes the prefix that the
register confirms, and whoever extends cuts the rest away first. A log of an earlier boot
goes the same way: nothing of it is confirmed by a register that is zero again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from placet.attest.produce.device import Machine, reported
from placet.core.limits import MAX_EVENTS
from placet.core.profile import rtmr3_of
from placet.errors import BindingError, ConflictError, MalformedError, VerificationError

SYSFS = Path("/sys/class/misc/tdx_guest/measurements")
"""Since Linux 6.16."""
LOG = Path("/run/placet/rtmr3.log")
REGISTER = "rtmr3:sha384"
SIZE = 48
MAX_EVENT = 200
"""Characters of one event."""
MAX_LOG = MAX_EVENTS * (4 * MAX_EVENT + 1)
"""Bytes of a log."""
IMAGE = "sha256:"


def extend_rtmr3(
    image: str, *, sysfs: Path = SYSFS, log: Path = LOG, machine: Machine | None = None
) -> None:
    """Extend RTMR3 by the image, first of all and once in a machine's life.

    Args:
        image: Digest of the image, ``sha256:<hex>``.
        sysfs: The folder of the measurement registers.
        log: The event log; its folder is made.
        machine: The kernel that has the register; this one's when left out.

    Raises:
        ConflictError: The register is not zero any more.
        MalformedError: This is no digest of an image.
        VerificationError: The register came elsewhere: something else extends it too.
        UnavailableError: The kernel has no such register, or refused.
    """
    if not re.fullmatch(IMAGE + "[0-9a-f]{64}", image):
        raise MalformedError(f"{image!r} is no digest of an image")
    _extend(image, sysfs / REGISTER, log, machine or Machine(), first=True)


def extend_by_event(
    event: str, *, sysfs: Path = SYSFS, log: Path = LOG, machine: Machine | None = None
) -> None:
    """Extend RTMR3 by one more event, after the image.

    Args:
        event: 1 to 200 printable characters that do not look like an image's digest.
        sysfs: The folder of the measurement registers.
        log: The event log.
        machine: The kernel that has the register; this one's when left out.

    Raises:
        ConflictError: The image was not measured yet, or the log is full.
        MalformedError: This text cannot be logged.
        VerificationError: The log is not that of the register, or it came elsewhere.
        UnavailableError: The kernel has no such register, or refused.
    """
    if event.startswith(IMAGE):
        raise MalformedError(f"{event!r} looks like an image: only the first event is one")
    _extend(event, sysfs / REGISTER, log, machine or Machine(), first=False)


def read_log(log: Path) -> tuple[str, ...]:
    """Return the events of a log; none if there is no log. A torn last line is left out.

    Raises:
        MalformedError: The log holds what no event is.
        UnavailableError: It cannot be read.
    """
    with reported("event log could not be read"):
        try:
            raw = Machine().read(log, MAX_LOG)
        except FileNotFoundError:
            return ()
    try:
        events = raw.decode().split("\n")[:-1]
    except UnicodeDecodeError as e:
        raise MalformedError(f"{log} is no text") from e
    for event in events:
        _check(event)
    return tuple(events)


def confirmed(events: tuple[str, ...], register: str) -> tuple[str, ...]:
    """Return the first of ``events`` by which the register came to where it is.

    Args:
        events: What was logged.
        register: RTMR3 in lower-case hex, from the register or from a quote.

    Raises:
        BindingError: No beginning of the log leads to this register.
    """
    for count in range(len(events) + 1):
        if rtmr3_of(events[:count]) == register:
            return events[:count]
    raise BindingError(
        f"RTMR3 is {register}, which no beginning of the event log extends it to",
        "Something else extended it: start the machine again, and only this software in it.",
        check="image",
    )


def _extend(event: str, register: Path, log: Path, machine: Machine, *, first: bool) -> None:
    _check(event)
    with _locked(log) as fd, reported("RTMR3 could not be extended"):
        before = machine.read(register, SIZE).hex()
        events = () if first else confirmed(read_log(log), before)
        if first and int(before, 16):
            raise ConflictError(
                f"RTMR3 is {before} and not zero: something was measured before the image",
                "An image is measured once, at the start of the machine.",
            )
        if not first and not events:
            raise ConflictError("RTMR3 is zero: the image is the first event")
        if len(events) == MAX_EVENTS:
            raise ConflictError(f"event log has {MAX_EVENTS} events, and takes no more")
        # What the register does not confirm was never extended: a crash or an earlier boot.
        kept = "".join(f"{e}\n" for e in events).encode()
        os.ftruncate(fd, len(kept))
        os.pwrite(fd, f"{event}\n".encode(), len(kept))
        os.fsync(fd)
        machine.write(register, hashlib.sha384(event.encode()).digest())
        after = machine.read(register, SIZE).hex()
    if after != rtmr3_of((*events, event)):
        raise VerificationError(f"RTMR3 is {after}, not what {event!r} extends it to")


@contextmanager
def _locked(log: Path) -> Iterator[int]:
    with reported("event log could not be opened"):
        log.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(log, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        with reported("event log could not be locked"):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _check(event: str) -> None:
    if not 0 < len(event) <= MAX_EVENT or not event.isprintable():
        raise MalformedError(f"an event has 1 to {MAX_EVENT} printable characters")
