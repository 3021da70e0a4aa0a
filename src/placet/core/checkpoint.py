"""Checkpoints: a log's size and root as a C2SP signed note (spec/06, section 5).

Formats: c2sp.org/tlog-checkpoint and c2sp.org/signed-note, Ed25519 only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from placet.core.limits import MAX_NOTE, MAX_NOTE_SIGNATURES
from placet.core.merkle import HASH_SIZE
from placet.errors import MalformedError, TooLargeError, VerificationError

ED25519 = b"\1"
_signature_line = re.compile(r"— ([^\s+]{1,200}) ([A-Za-z0-9+/]+={0,2})")
_line = re.compile(r"[0-9a-f]{16}")
_size_line = re.compile(r"0|[1-9][0-9]{0,14}")
_lines = 3
_key_hash_size = 4


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: under ``origin``, ``size`` leaves have the root ``root``."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()
    """Further lines, e.g. ``boot <id>``; a reader ignores those it does not know."""

    def text(self) -> str:
        """Return the note text that is signed.

        Raises:
            ValueError: A line is empty or holds a control character: the caller is wrong.
        """
        root = base64.b64encode(self.root).decode()
        lines = (self.origin, str(self.size), root, *self.extensions)
        if not all(lines) or any(ord(c) < ord(" ") for line in lines for c in line):
            raise ValueError("a checkpoint's line is empty or holds a control character")
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def from_text(cls, text: str) -> Checkpoint:
        """Return the checkpoint that has this very text.

        Raises:
            MalformedError: There is none: the grammar is strict, nothing is normalised.
        """
        lines = text.split("\n")
        if len(lines) <= _lines or not _size_line.fullmatch(lines[1]):
            raise MalformedError("note text is no checkpoint: origin, size, root, extensions")
        try:
            root = base64.b64decode(lines[2], validate=True)
            checkpoint = cls(lines[0], int(lines[1]), root, tuple(lines[3:-1]))
            again = checkpoint.text()
        except ValueError as e:
            raise MalformedError("note text is no checkpoint") from e
        if again != text or len(root) != HASH_SIZE:
            raise MalformedError("note text is no canonical checkpoint")
        return checkpoint


def key_hash(name: str, public_key: bytes) -> bytes:
    """Return the four bytes that name an Ed25519 key in a note."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:_key_hash_size]


def origin_of(vault: str, line: str = "") -> str:
    """Return the name of a vault's log: of its first process, or of one that took over.

    Args:
        vault: The vault id.
        line: The line of a process that took over (spec/12, section 5); else empty.
    """
    name = "placet/" + vault.removeprefix("sha256:")
    return f"{name}/{line}" if line else name


def line_of(note: str, vault: str) -> str:
    """Return the line that a vault's note says it is of; empty for its first log.

    Nothing of the note is checked: open it under `origin_of` with what is returned.
    """
    first = origin_of(vault)
    name = note.partition("\n")[0]
    line = name.removeprefix(f"{first}/")
    return line if name != line and _line.fullmatch(line) else ""


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> str:
    """Return the note: ``text``, a blank line and one signature line.

    Args:
        text: Ends in a line feed; see `Checkpoint.text`.
        name: The signer's name: no space, no plus sign.
        key: The signer's key.

    Raises:
        ValueError: Text or name could not be read back: the caller is wrong.
    """
    blob = key_hash(name, key.public_key().public_bytes_raw()) + key.sign(text.encode())
    line = f"— {name} {base64.b64encode(blob).decode()}"
    if not text.endswith("\n") or not _signature_line.fullmatch(line):
        raise ValueError("a note's text ends in a line feed; its signer's name has no space or +")
    return f"{text}\n{line}\n"


def verify_note(note: str, name: str, public_key: bytes) -> str:
    """Return the text that ``name`` signed with ``public_key``.

    Signatures of others (witnesses) are *not* checked; their lines must have the form.

    Raises:
        TooLargeError: More than ``MAX_NOTE`` characters.
        MalformedError: It is no signed note.
        VerificationError: ``name`` did not sign it, or not this text.
    """
    if len(note) > MAX_NOTE:
        raise TooLargeError(f"note is {len(note)} characters, at most {MAX_NOTE} are read")
    text, blank, tail = note.rpartition("\n\n")
    lines = [_signature_line.fullmatch(line) for line in tail.split("\n")[:-1]]
    if not blank or not tail.endswith("\n") or not 0 < len(lines) <= MAX_NOTE_SIGNATURES:
        raise MalformedError("note has no text, blank line and signature lines")
    signer = name, key_hash(name, public_key)
    mine = [
        blob[_key_hash_size:]
        for who, blob in map(_signature, lines)
        if (who, blob[:_key_hash_size]) == signer
    ]
    if len(mine) != 1:
        raise VerificationError(f"note has {len(mine)} signatures of {name}, expected one")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(mine[0], f"{text}\n".encode())
    except (InvalidSignature, ValueError) as e:
        raise VerificationError(f"signature of {name} under the note does not hold") from e
    return f"{text}\n"


def open_note(note: str, name: str, public_key: bytes) -> Checkpoint:
    """Return the checkpoint that ``name`` signed. Its origin is the caller's to check.

    Raises:
        MalformedError: It is no signed checkpoint (`TooLargeError`: by its length).
        VerificationError: See `verify_note`.
    """
    return Checkpoint.from_text(verify_note(note, name, public_key))


def _signature(line: re.Match[str] | None) -> tuple[str, bytes]:
    """Return a signature line's name, and key hash with signature."""
    try:
        blob = base64.b64decode(line[2], validate=True) if line else b""
    except binascii.Error:
        blob = b""
    if line is None or base64.b64encode(blob).decode() != line[2]:
        raise MalformedError("note has a line below its text that is no signature")
    return line[1], blob
