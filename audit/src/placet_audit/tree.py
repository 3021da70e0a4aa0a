"""The log's tree and its signed checkpoints: RFC 6962, C2SP notes (spec/06, sections 4 and 5)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from placet_audit.canonical import verify_ed25519
from placet_audit.problems import Refused

SIGNATURE_LINE = re.compile(r"— ([^\s+]{1,200}) ([A-Za-z0-9+/]+={0,2})")
SIZE_LINE = re.compile(r"0|[1-9][0-9]{0,14}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """So many leaves have this root: a vault signed it."""

    size: int
    root: bytes


def open_checkpoint(note: str, name: str, public: bytes) -> Checkpoint:
    """Return the checkpoint that a log of this name signed with this key.

    Raises:
        Refused: It is no strict C2SP note, of another log, or the signature does not hold.
    """
    text, blank, tail = note.rpartition("\n\n")
    lines = [SIGNATURE_LINE.fullmatch(line) for line in tail.split("\n")[:-1]]
    if len(note) > 16384 or not blank or not tail.endswith("\n") or not 0 < len(lines) <= 64:  # noqa: PLR2004
        raise _unsigned("a checkpoint is no signed note")
    key_hash = hashlib.sha256(name.encode() + b"\n\1" + public).digest()[:4]
    mine = []
    for line in lines:
        if line is None:
            raise _unsigned("a checkpoint has a line that is no signature")
        blob = _base64(line[2])
        if line[1] == name and blob[:4] == key_hash:
            mine.append(blob[4:])
    if len(mine) != 1:
        raise _unsigned(f"a checkpoint has {len(mine)} signatures of its vault")
    verify_ed25519(public, mine[0], f"{text}\n".encode(), "log-not-signed")
    origin, size, root, *extensions = text.split("\n")
    strict = all(extensions) and not any(ord(c) < ord(" ") for c in text.replace("\n", ""))
    if origin != name or not SIZE_LINE.fullmatch(size) or not strict:
        raise _unsigned("a checkpoint is of another log, or of another form")
    found = _base64(root)
    if len(found) != 32:  # noqa: PLR2004 - SHA-256
        raise _unsigned("a checkpoint's root is no hash")
    return Checkpoint(int(size), found)


def leaf_hash(hashed: str) -> bytes:
    """Return the leaf of an entry hash (spec/06, 4.1)."""
    return hashlib.sha256(b"\0" + bytes.fromhex(hashed.removeprefix("sha256:"))).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes (RFC 6962, section 2.1)."""
    if not leaves:
        return hashlib.sha256().digest()
    level = list(leaves)
    while len(level) > 1:
        pairs = [_node(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def verify_inclusion(leaf: bytes, index: int, tree: Checkpoint, proof: Sequence[bytes]) -> None:
    """Check that a leaf is number ``index`` of a tree (RFC 9162, section 2.1.3.2)."""
    at, last, found, good = index, tree.size - 1, leaf, 0 <= index < tree.size
    for sibling in proof:
        good = good and last > 0 and len(sibling) == 32  # noqa: PLR2004 - SHA-256
        if at & 1 or at == last:
            found = _node(sibling, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = _node(found, sibling)
        at, last = at >> 1, last >> 1
    if not good or last or found != tree.root:
        raise Refused("entry-not-in-log", f"no proof places entry {index} in a tree of {tree.size}")


def verify_consistency(old: Checkpoint, new: Checkpoint, proof: Sequence[bytes]) -> None:
    """Check that one tree grew out of another (RFC 9162, section 2.1.4.2)."""
    failed = Refused("log-forked", f"the log of {new.size} did not grow out of that of {old.size}")
    if old.size in {0, new.size}:
        if proof or (old.size and old.root != new.root):
            raise failed
        return
    path = list(proof) if old.size & (old.size - 1) else [old.root, *proof]
    good = 0 < old.size < new.size and path and all(len(p) == 32 for p in path)  # noqa: PLR2004
    if not good or _climb(old.size - 1, new.size - 1, path) != (old.root, new.root):
        raise failed


def _climb(at: int, last: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Return both roots that a consistency path leads to, if it ends where it must."""
    while at & 1:
        at, last = at >> 1, last >> 1
    was = now = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if at & 1 or at == last:
            was, now = _node(sibling, was), _node(sibling, now)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            now = _node(now, sibling)
        at, last = at >> 1, last >> 1
    return None if last else (was, now)


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def _base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        data = b""
    if base64.b64encode(data).decode() != text:
        raise _unsigned("a checkpoint has a text that is no canonical base64")
    return data


def _unsigned(detail: str) -> Refused:
    return Refused("log-not-signed", detail)
