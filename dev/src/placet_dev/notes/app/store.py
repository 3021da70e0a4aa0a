"""Keep notes in an encrypted database under a key of its own, which is kept wrapped.

    notes.key   the database's random key, wrapped by the key that we are given
    notes.db    SQLCipher

Whoever has the folder and not the key that we are given has nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import sqlcipher3  # type: ignore[import-untyped]  # it has no stubs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_SIZE = 32
NONCE_SIZE = 12
LABEL = b"notes/database-key/1"
SCHEMA = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)"


class StoreError(Exception):
    """The folder cannot be used with this key."""


@dataclass(frozen=True, slots=True)
class Note:
    """One note."""

    id: int
    text: str


class NoteStore:
    """All notes, in one folder; for one thread.

    Args:
        folder: Where ``notes.key`` and ``notes.db`` lie, or will.
        key: 32 bytes that unwrap the database's key.

    Raises:
        StoreError: The folder belongs to another key, or was damaged.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        database_key = _database_key(folder, key)
        self._database = sqlcipher3.connect(folder / "notes.db", isolation_level=None)
        # A raw key: 64 hex digits, so nothing can be injected. PRAGMA takes no parameter.
        self._database.execute(f"PRAGMA key = \"x'{database_key.hex()}'\"")
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute(SCHEMA)
        except sqlcipher3.DatabaseError as e:
            raise StoreError("notes.db does not open with the key in notes.key") from e

    def add(self, text: str) -> Note:
        """Keep a note; it is on the disk when this returns."""
        cursor = self._database.execute("INSERT INTO notes (text) VALUES (?)", (text,))
        return Note(int(cursor.lastrowid), text)

    def find(self, wanted: str = "") -> tuple[Note, ...]:
        """Return the notes that hold ``wanted``, upper case or lower, oldest first."""
        rows = self._database.execute("SELECT id, text FROM notes ORDER BY id")
        return tuple(Note(i, text) for i, text in rows if wanted.casefold() in text.casefold())

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def _database_key(folder: Path, key: bytes) -> bytes:
    """Unwrap the database's key; draw it if there is no database yet."""
    file = folder / "notes.key"
    if not file.exists():
        if (folder / "notes.db").exists():
            raise StoreError("notes.key is missing, and notes.db is there: nothing is made anew")
        _write_whole(file, _wrap(key, os.urandom(KEY_SIZE)))
    try:
        kept = json.loads(file.read_bytes())
        nonce, wrapped = bytes.fromhex(kept["nonce"]), bytes.fromhex(kept["wrapped"])
        return AESGCM(key).decrypt(nonce, wrapped, LABEL)
    except InvalidTag as e:
        raise StoreError("notes.key was wrapped by another key, or changed") from e
    except (ValueError, KeyError, TypeError) as e:
        raise StoreError("notes.key is damaged") from e


def _wrap(key: bytes, database_key: bytes) -> bytes:
    nonce = os.urandom(NONCE_SIZE)
    wrapped = AESGCM(key).encrypt(nonce, database_key, LABEL)
    return json.dumps({"nonce": nonce.hex(), "wrapped": wrapped.hex()}).encode()


def _write_whole(file: Path, content: bytes) -> None:
    """Write a file durably and in one rename: a crash leaves all of it, or none."""
    fresh = file.with_suffix(".new")
    with fresh.open("wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    fresh.rename(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
