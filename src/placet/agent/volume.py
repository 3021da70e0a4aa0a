"""Volumes: where an app keeps its data, under what the data key unlocks (spec/08, section 4).

A driver turns a data key into something that a child process can use. The embedded
driver needs no root and no kernel module: it keeps a header whose MAC covers the key id,
and hands the child a derived key; the child encrypts. Drivers that mount (LUKS2,
gocryptfs) fit the same protocol: their ``unlock`` mounts and their ``lock`` unmounts.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import UNSET, UnsetType

from placet.agent.memory import LOCK, MEMORY, Memory, write_memory
from placet.client.whole_files import write_whole
from placet.core.encoding import Base64, Int, Record, Sha256, b64, decode, encode, unb64
from placet.core.limits import KIB
from placet.errors import PolicyDeniedError, UnavailableError, VerificationError
from placet.storage.folders import make_folder

HEADER = "placet-volume.json"
CHARTER = "placet-charter.json"
"""Where a platform may leave the key's statements; nobody's data, and nothing is believed of it."""
HEADER_LIMIT = 4 * KIB
KEY_SIZE = 32

VolumeState = Literal["empty", "formatted"]


class Header(Record, kw_only=True):
    """What a volume says of itself; nothing in it is believed before its MAC is."""

    schema: Literal[1] = 1
    driver: Literal["embedded"] = "embedded"
    key: Sha256
    generation: Int
    salt: Base64
    remembers: Literal[True] | UnsetType = UNSET
    """The agent keeps its memory there; volumes that were formatted before it did say nothing."""
    mac: Base64
    """HMAC-SHA256 under a key derived from the data key, over the header with no ``mac``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlocked:
    """What the child of an unlocked volume gets. Keep it short."""

    path: Path
    secret: bytes = field(repr=False)
    """Derived from the data key for this volume; never the data key itself."""
    memory_key: bytes = field(repr=False)
    """For the MAC of the agent's memory; the child does not get it."""
    remembers: bool
    """Whether a memory must be there."""


class VolumeDriver(Protocol):
    """How one kind of volume is formatted, unlocked and locked."""

    def state(self) -> VolumeState:
        """Say whether the volume is empty or formatted, without any key.

        Raises:
            PolicyDeniedError: It holds something and is no volume of this kind.
        """
        ...

    def format(self, data_key: bytes | bytearray, *, key: str, generation: int) -> None:
        """Make an empty volume this key's. Only after the key was committed (I16)."""
        ...

    def unlock(self, data_key: bytes | bytearray, *, key: str) -> Unlocked:
        """Open it.

        Raises:
            VerificationError: It is another key's, or its header was changed.
        """
        ...

    def lock(self) -> None:
        """Undo `unlock`; safe to repeat."""
        ...


class EmbeddedVolume:
    """A folder whose owner, the child, encrypts what it keeps there.

    Args:
        path: The folder; made if it is missing.
        rng: Randomness for the salt.
    """

    def __init__(self, path: Path, rng: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._path, self._rng = path, rng

    def state(self) -> VolumeState:
        """Say whether the folder is empty or holds a header."""
        try:
            make_folder(self._path)
            names = {entry.name for entry in self._path.iterdir()}
        except OSError as e:
            raise UnavailableError(f"volume {self._path} cannot be read: {e.strerror}") from e
        # What a crash left of `format` (or of a release before 0.1) is nobody's data.
        names -= {f".{HEADER}.part", f"{HEADER}.new", f".{MEMORY}.part", MEMORY, LOCK, CHARTER}
        if not names:
            return "empty"
        if HEADER not in names:
            raise PolicyDeniedError(
                f"volume {self._path} holds data and no {HEADER}",
                "Point --volume at the volume of this key, or at an empty folder.",
                reason="volume-foreign",
            )
        return "formatted"

    def format(self, data_key: bytes | bytearray, *, key: str, generation: int) -> None:
        """Write the header, durably, in one rename."""
        if self.state() != "empty":
            raise PolicyDeniedError(
                f"volume {self._path} holds data: it is not formatted again",
                reason="volume-not-empty",
            )
        salt = self._rng(KEY_SIZE)
        bare = Header(key=key, generation=generation, salt=b64(salt), remembers=True, mac="")
        header = msgspec.structs.replace(bare, mac=b64(_mac(data_key, bare)))
        try:
            # Before the header that says it is there: a kill in between leaves an empty volume.
            write_memory(self._path, Memory(key=key), _memory_key(data_key, salt, key))
            write_whole(self._path / HEADER, encode(header), mode=0o644)
        except OSError as e:
            raise UnavailableError(f"volume {self._path} cannot be written: {e.strerror}") from e

    def unlock(self, data_key: bytes | bytearray, *, key: str) -> Unlocked:
        """Check the header and derive the child's key."""
        try:
            header = decode((self._path / HEADER).read_bytes(), Header, limit=HEADER_LIMIT)
        except OSError as e:
            raise UnavailableError(f"volume {self._path} cannot be read: {e.strerror}") from e
        if header.key != key:
            raise VerificationError(f"volume belongs to key {header.key}, not {key}")
        bare = msgspec.structs.replace(header, mac="")
        if not hmac.compare_digest(_mac(data_key, bare), unb64(header.mac)):
            raise VerificationError(
                "volume's header does not fit the data key: it was changed, or is another's",
                "Put back the volume that belongs to this key.",
            )
        salt = unb64(header.salt)
        if header.remembers is UNSET and (self._path / MEMORY).exists():
            # Formatted before there were memories. From now on this one is missed if it is gone.
            bare = msgspec.structs.replace(bare, remembers=True)
            header = msgspec.structs.replace(bare, mac=b64(_mac(data_key, bare)))
            with contextlib.suppress(OSError):
                write_whole(self._path / HEADER, encode(header), mode=0o644)
        return Unlocked(
            path=self._path,
            secret=_derive(data_key, salt, b"placet-volume/1\0" + key.encode()),
            memory_key=_memory_key(data_key, salt, key),
            remembers=header.remembers is True,
        )

    def lock(self) -> None:
        """Nothing is mounted."""


def _derive(data_key: bytes | bytearray, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), KEY_SIZE, salt=salt, info=info).derive(bytes(data_key))


def _memory_key(data_key: bytes | bytearray, salt: bytes, key: str) -> bytes:
    return _derive(data_key, salt, b"placet-volume-memory/1\0" + key.encode())


def _mac(data_key: bytes | bytearray, header: Header) -> bytes:
    mac_key = _derive(data_key, b"", b"placet-volume-header/1\0" + header.key.encode())
    return hmac.digest(mac_key, encode(header), "sha256")
