"""What an app remembers of its key's vaults, in its own volume (spec/08, section 5).

Witnesses cannot catch vaults that were all put back together. The app can: it saw them
later. Its memory is under a MAC of the data key, is compared before the child starts, and
only rises.
"""

from __future__ import annotations

import fcntl
import hmac
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from placet.client.heads import Proof
from placet.client.whole_files import write_whole
from placet.core.dsse import Signed
from placet.core.encoding import Base64, Int, Record, Sha256, b64, decode, encode, unb64
from placet.core.handover import Line
from placet.core.limits import KIB
from placet.errors import PlacetError, UnavailableError, VerificationError

MEMORY = "placet-memory.json"
LOCK = ".placet-memory.lock"
MOST_LOGS = 64
"""Logs that are remembered; those that were seen longest ago are dropped first."""
STATUS_LIMIT = 4 * KIB
"""Bytes of a status that is remembered: nobody makes the memory too long to be read again."""
MEMORY_LIMIT = MOST_LOGS * STATUS_LIMIT + 16 * KIB


class SeenLog(Record, kw_only=True):
    """The newest that one process of a vault said of its log."""

    vault: Sha256
    line: Line | UnsetType = UNSET
    status: Signed
    """of a `StatusBody`: if the vault contradicts it later, that proves it to anyone."""


class Memory(Record, kw_only=True):
    """What vaults showed at earlier starts; nothing in it is believed before its MAC is."""

    schema: Literal[1] = 1
    key: Sha256
    version: Int = 0
    head: Sha256 | None = None
    """The newest head that k vaults had at one start; ``None`` before the first."""
    logs: tuple[SeenLog, ...] = ()
    """Oldest first: the last of a vault is of the newest process of it."""
    mac: Base64 = ""
    """HMAC-SHA256 over the memory with no ``mac``."""

    def with_seen(self, seen: Mapping[str, Seen], *, k: int) -> Memory:
        """Return the memory with what was compared against it added.

        A head is remembered once k vaults have it: that of fewer may be on a branch that loses.
        """
        heads = Counter((one.version, one.head) for one in seen.values())
        agreed = max((head for head, count in heads.items() if count >= k), default=None)
        version, head = self.version, self.head
        if agreed is not None and agreed[0] >= version:
            version, head = agreed
        new = [one.log for one in seen.values()]
        again = {(log.vault, log.line) for log in new}
        logs = [log for log in self.logs if (log.vault, log.line) not in again] + new
        return Memory(key=self.key, version=version, head=head, logs=tuple(logs[-MOST_LOGS:]))


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one vault showed at this start: under which head it released, and its log since."""

    version: int
    head: str
    log: SeenLog


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
    # 5.1 Nothing in it is believed before its MAC is.
    if not hmac.compare_digest(_mac(memory, mac_key), mac) or memory.key != key:
        raise _tampered(f"{path} does not fit the data key: it was changed, or is another's")
    return memory


def write_memory(folder: Path, memory: Memory, mac_key: bytes) -> None:
    """Write a memory, whole and durably. Not for two writers at a time: see `remembered`.

    Raises:
        OSError: It cannot be written; what was there is there.
    """
    sealed = msgspec.structs.replace(memory, mac=b64(_mac(memory, mac_key)))
    write_whole(folder / MEMORY, encode(sealed))


def remembered(folder: Path, memory: Memory, new: Memory, mac_key: bytes) -> bool:
    """Put a memory in place of the one that it was made from, durably.

    Returns:
        Whether that one still was there. If not, another instance of the app was faster, and
        what this one saw is to be compared with what that one did.

    Args:
        folder: The volume; other instances may write there as well.
        memory: What was compared: from `open_memory`.
        new: What is remembered from now on.
        mac_key: As for `open_memory`.

    Raises:
        VerificationError: Somebody changed the file meanwhile.
        UnavailableError: It cannot be written.
    """
    try:
        # 5.6 Only in place of what it was compared with.
        with _alone(folder):
            if open_memory(folder, memory.key, mac_key, expected=bool(memory.mac)) != memory:
                return False
            write_memory(folder, new, mac_key)
    except OSError as e:
        raise UnavailableError(
            f"{folder / MEMORY} cannot be written: {e.strerror}",
            "Make room, or make it writable: until then a rollback of all vaults is seen from "
            "what was remembered before.",
        ) from e
    return True


def keep_proof(folder: Path, proof: Proof) -> Path:
    """Write what a vault signed against itself into the volume; return where.

    Raises:
        UnavailableError: It cannot be written.
    """
    path = folder / f"placet-proof-{proof.vault.removeprefix('sha256:')[:12]}.json"
    try:
        write_whole(path, encode(proof))
    except OSError as e:
        raise UnavailableError(f"a proof cannot be kept in {path}: {e.strerror}") from e
    return path


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
