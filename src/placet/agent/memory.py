"""What an app remembers of its key's vaults, in its own volume (spec/08, section 5).

Witnesses cannot catch vaults that were all put back together. The app can: it saw them
later. Its memory is under a MAC of the data key, is compared before the child starts, and
only rises.
"""

from __future__ import annotations

import fcntl
import hmac
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from placet.client.whole_files import write_whole
from placet.core.dsse import Signed
from placet.core.encoding import Base64, Int, Record, Sha256, b64, decode, encode, unb64
from placet.core.handover import Line
from placet.core.limits import KIB
from placet.core.messages import Released
from placet.errors import PlacetError, UnavailableError, VerificationError

MEMORY = "placet-memory.json"
LOCK = ".placet-memory.lock"
MEMORY_LIMIT = 64 * KIB
MOST_LOGS = 128
"""Logs that are remembered; those that were seen first are dropped first."""


class SeenLog(Record, kw_only=True):
    """The longest log that a vault showed: its entry ``index`` is a release to this app."""

    vault: Sha256
    line: Line | UnsetType = UNSET
    index: Int


class Memory(Record, kw_only=True):
    """What vaults showed at earlier starts; nothing in it is believed before its MAC is."""

    schema: Literal[1] = 1
    key: Sha256
    version: Int = 0
    head: Sha256 | None = None
    """The newest head that k vaults had at one start; ``None`` before the first."""
    logs: tuple[SeenLog, ...] = ()
    mac: Base64 = ""
    """HMAC-SHA256 over the memory with no ``mac``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What one vault showed with a release of this start."""

    version: int
    head: str
    log: SeenLog

    @classmethod
    def of(cls, version: int, head: str, receipt: Signed) -> Shown:
        """Return what is in a release whose receipt was verified: by `VaultClient.release`."""
        released = decode(unb64(receipt.payload), Released)
        log = SeenLog(vault=released.vault, line=released.line, index=released.index)
        return cls(version=version, head=head, log=log)


def open_memory(folder: Path, key: str, mac_key: bytes, *, expected: bool) -> Memory:
    """Return what is remembered in a volume; an empty memory if nothing is.

    Not noticed: a file that was put back as it was at an earlier start, with the volume or alone.

    Args:
        folder: The volume.
        key: The key id.
        mac_key: `Unlocked.memory_key`.
        expected: Whether the volume's header says that there is one.

    Raises:
        VerificationError: Somebody changed it or took it away.
        UnavailableError: It cannot be read.
    """
    path = folder / MEMORY
    try:
        with path.open("rb") as file:
            raw = file.read(MEMORY_LIMIT + 1)
    except FileNotFoundError:
        if expected:
            raise _tampered(f"{path} is missing, and this volume had one") from None
        return Memory(key=key)
    except OSError as e:
        raise UnavailableError(f"{path} cannot be read: {e.strerror}") from e
    try:
        memory = decode(raw, Memory, limit=MEMORY_LIMIT)
        mac = unb64(memory.mac)
    except PlacetError as e:
        raise _tampered(f"{path} is no memory: {e.detail}") from e
    if not hmac.compare_digest(_mac(memory, mac_key), mac) or memory.key != key:
        raise _tampered(f"{path} does not fit the data key: it was changed, or is another's")
    return memory


def write_memory(folder: Path, memory: Memory, mac_key: bytes) -> None:
    """Write a memory, whole and durably. Not for two writers at a time: see `remember`.

    Raises:
        OSError: It cannot be written; what was there is there.
    """
    sealed = msgspec.structs.replace(memory, mac=b64(_mac(memory, mac_key)))
    write_whole(folder / MEMORY, encode(sealed))


def shorter(memory: Memory, shown: Mapping[str, Shown]) -> tuple[str, ...]:
    """Return the vaults whose log has not grown since it was seen.

    For releases that were asked for after the memory was read: each is a new entry.
    """
    seen = {(log.vault, log.line): log.index for log in memory.logs}
    logs = {vault: one.log for vault, one in shown.items()}
    return tuple(v for v, log in logs.items() if log.index <= seen.get((log.vault, log.line), -1))


def remember(
    folder: Path, memory: Memory, shown: Mapping[str, Shown], mac_key: bytes, *, k: int
) -> None:
    """Add what was shown in this start to what is in the volume by now, durably.

    A head is remembered once k vaults have it: that of fewer may be on a branch that loses.

    Args:
        folder: The volume; other instances may write there as well.
        memory: What was compared.
        shown: By vault, after it was compared.
        mac_key: As for `open_memory`.
        k: Of the vault set.

    Raises:
        VerificationError: Somebody changed the file meanwhile.
        UnavailableError: It cannot be written.
    """
    heads = [(one.version, one.head) for one in shown.values()]
    agreed = max((h for h in heads if heads.count(h) >= k), default=None)
    try:
        with _alone(folder):
            there = open_memory(folder, memory.key, mac_key, expected=bool(memory.mac))
            version, head = there.version, there.head
            if agreed is not None and agreed[0] >= version:
                version, head = agreed
            logs = _longest([*memory.logs, *there.logs, *(one.log for one in shown.values())])
            new = Memory(key=memory.key, version=version, head=head, logs=logs)
            write_memory(folder, new, mac_key)
    except OSError as e:
        raise UnavailableError(
            f"{folder / MEMORY} cannot be written: {e.strerror}",
            "Make room, or make it writable: until then a rollback of all vaults is seen from "
            "what was remembered before.",
        ) from e


def _longest(logs: Iterable[SeenLog]) -> tuple[SeenLog, ...]:
    longest: dict[tuple[str, object], SeenLog] = {}
    for log in logs:
        known = longest.pop((log.vault, log.line), log)
        longest[log.vault, log.line] = max(known, log, key=lambda one: one.index)
    return tuple(longest.values())[-MOST_LOGS:]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other instances of the app from writing what this one is about to."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _mac(memory: Memory, mac_key: bytes) -> bytes:
    return hmac.digest(mac_key, encode(msgspec.structs.replace(memory, mac="")), "sha256")


def _tampered(detail: str) -> VerificationError:
    return VerificationError(
        detail,
        "Put back the newest copy of this volume: without its memory, nobody tells the app that "
        "its vaults were put back (docs/continuity.md).",
        reason="memory",
    )
