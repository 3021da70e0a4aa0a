"""Look for secrets in whatever came out of a run, in every spelling that could hold one."""

from __future__ import annotations

import base64
import binascii
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

PREFIX = 8
"""Bytes of a secret of which none may be seen."""

_coded = re.compile(rb"[A-Za-z0-9+/_-]{24,}")
DEPTH = 3
"""How often what is found is decoded and looked at again: base64 in JSON in base64."""


@dataclass
class Secrets:
    """What must not come out, by name."""

    known: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, secret: bytes | bytearray | str) -> None:
        """Remember one; several of one name are numbered."""
        raw = secret.encode() if isinstance(secret, str) else bytes(secret)
        if raw in self.known.values():
            return
        if len(raw) < PREFIX or not any(raw):
            raise ValueError(f"{name} is {len(raw)} bytes: that would be found anywhere")
        number = sum(n.partition(" #")[0] == name for n in self.known)
        self.known[f"{name} #{number + 1}"] = raw

    def names(self) -> set[str]:
        """Return the kinds of what is known."""
        return {name.partition(" #")[0] for name in self.known}

    def needles(self) -> Iterator[tuple[str, str, bytes]]:
        """Yield each secret's name, a spelling, and what that looks like."""
        for name, secret in self.known.items():
            for spelling, needle in spelled(secret[:PREFIX]).items():
                yield name, spelling, needle


def spelled(piece: bytes) -> dict[str, bytes]:
    """Return a piece of a secret as it might be written, by spelling.

    Whatever holds the whole secret in that spelling holds this.
    """
    found = {
        "raw": piece,
        "hex": piece.hex().encode(),
        "HEX": piece.hex().upper().encode(),
        "hex with colons": piece.hex(":").encode(),
        "repr": repr(piece)[2:-1].encode(),
        "list": ", ".join(map(str, piece)).encode(),
        "compact list": ",".join(map(str, piece)).encode(),
        "percent": quote(piece, safe="").encode(),
    }
    for shift in range(3):
        # As base64 has it that begins up to two bytes earlier; the last digit depends on more.
        first, digits = -(-shift * 8 // 6), (shift + len(piece)) * 8 // 6
        for name, code in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            found[f"{name} +{shift}"] = code(bytes(shift) + piece)[first:digits]
    return found


def found_in(secrets: Secrets, haystacks: Mapping[str, bytes]) -> set[tuple[str, str, str]]:
    """Return which secret is in which haystack, and how it is spelled there."""
    needles = list(secrets.needles())
    return {
        (where, name, spelling)
        for where, hay in haystacks.items()
        for layer in _layers(hay, DEPTH)
        for name, spelling, needle in needles
        if needle in layer
    }


def _layers(hay: bytes, depth: int) -> Iterator[bytes]:
    """Yield what it says, and what is written in base64 in it."""
    yield hay
    if depth == 0:
        return
    inner = []
    for match in _coded.finditer(hay):
        text = match[0].translate(bytes.maketrans(b"-_", b"+/"))
        try:
            inner.append(base64.b64decode(text + b"=" * (-len(text) % 4)))
        except binascii.Error:
            continue
    if inner:
        yield from _layers(b"\n".join(inner), depth - 1)


def told(error: BaseException) -> bytes:
    """Return all that an exception says of itself and of what led to it."""
    text = "".join(traceback.format_exception(error))
    members = getattr(error, "problem", dict)()
    return f"{text}\n{error!r}\n{error.args!r}\n{members!r}".encode()
