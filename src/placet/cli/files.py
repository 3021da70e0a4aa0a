"""Files of this machine: read with a limit, written whole or not at all.

What is wrong with one of them is unreadable input (exit code 2), never "unavailable".
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from placet.client.signing import SigningKey
from placet.client.vaults_file import VaultsFile, read_vaults
from placet.client.whole_files import write_whole
from placet.core.limits import MAX_BODY
from placet.errors import MalformedError, NotFoundError, UnavailableError

R = TypeVar("R")


@contextlib.contextmanager
def local_files() -> Iterator[None]:
    """Turn what a file of this machine does wrong into unreadable input (exit code 2)."""
    try:
        yield
    except UnavailableError as e:
        raise NotFoundError(e.detail, e.hint) from e
    except OSError as e:
        raise NotFoundError(f"{e.filename}: {e.strerror}") from e


def read_bytes(path: Path, limit: int = MAX_BODY) -> bytes:
    """Read a file of this machine; `NotFoundError` if that cannot be."""
    try:
        if path.stat().st_size > limit:
            raise MalformedError(f"{path} is longer than {limit} bytes")
        return path.read_bytes()
    except OSError as e:
        raise NotFoundError(f"{path} cannot be read: {e.strerror}") from e


def read_json(path: Path, shape: type[R], what: str, limit: int = MAX_BODY) -> R:
    """Read a JSON file, in any layout, as a record."""
    try:
        return msgspec.json.decode(read_bytes(path, limit), type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise MalformedError(f"{path} is no {what}: {e}") from e


def write_json(path: Path, value: object) -> None:
    """Write a JSON file that people can read, whole or not at all, for this user only."""
    text = json.dumps(msgspec.to_builtins(value), indent=2) + "\n"
    with local_files():
        write_whole(path, text.encode())


def vaults_file(path: Path) -> VaultsFile:
    """Read a vaults file."""
    with local_files():
        return read_vaults(path)


def load_key(path: Path, label: str = "") -> SigningKey:
    """Read a private key; its label is for its own policy to say."""
    with local_files():
        return SigningKey.load(label, path)
