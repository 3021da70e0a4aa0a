"""One value, one encoding: RFC 8785 (JCS) without floats, and base64url without padding.

Whatever is signed or hashed is written by `encode` and read by `decode`. Reading is
strict: length first, then parse, then *re-encode and compare*, so an unknown or
duplicate field, a space, a float or another order of keys is a refusal and never
normalised (spec/01, sections 1 to 4).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Annotated, TypeVar, dataclass_transform

import msgspec
from msgspec import Meta

from placet.core.limits import MAX_BODY
from placet.errors import MalformedError, TooLargeError

MAX_INT = 2**53 - 1
"""The largest integer that every JSON reader takes exactly (RFC 8785, section 3.2.2.3)."""

Int = Annotated[int, Meta(ge=0, le=MAX_INT)]
Text = Annotated[str, Meta(max_length=200)]
Sha256 = Annotated[str, Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
Sha384 = Annotated[str, Meta(pattern=r"\Asha384:[0-9a-f]{96}\Z")]
Hex32 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Hex48 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{96}\Z")]
Hex8 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]
Base64 = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]*\Z", max_length=2 * MAX_BODY)]
"""Base64url without padding; `unb64` also refuses stray trailing bits."""


# Type checkers do not inherit class keywords; this tells them what every Record is.
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every object that is signed, hashed, stored or sent."""


class LeanRecord(Record, omit_defaults=True):
    """The base of those with fields that came later, left out where they have their default.

    msgspec leaves out what *is* the default, not what equals it, so each field that equals
    it becomes it: nothing writes it out, and no reader takes it written out (spec/01, section 1).
    """

    def __post_init__(self) -> None:
        """Put the default itself where a value equals it."""
        kind = type(self)
        fields = zip(kind.__struct_fields__[::-1], kind.__struct_defaults__[::-1], strict=False)
        for name, default in fields:
            if default is not msgspec.NODEFAULT and getattr(self, name) == default:
                msgspec.structs.force_setattr(self, name, default)


R = TypeVar("R")

# How msgspec names a value that is none of those that are allowed, and a field.
_at = r"( - at `\$[][.a-z0-9_]*`)?"
_quoted = re.compile(rf"(?s)(Invalid (?:enum )?value|Object contains unknown field) .*?{_at}")
_named = re.compile(rf"Object contains unknown field `[a-z_]{{1,24}}`{_at}")


def encode(value: object) -> bytes:
    """Return the canonical bytes of a `Record` or of plain JSON values (RFC 8785).

    Raises:
        ValueError: The value holds a float, an integer beyond 2**53 - 1, a key that is
            no string or beyond U+FFFF, or text that is no Unicode: the caller is wrong.
    """
    plain = msgspec.to_builtins(value)
    _check(plain)
    # On what passes the check this is RFC 8785, byte for byte (tests/property).
    return msgspec.json.encode(plain, order="sorted")


def decode(raw: bytes, shape: type[R], *, limit: int = MAX_BODY) -> R:
    """Return the object whose canonical encoding is ``raw``.

    Signatures and meaning are *not* checked here.

    Args:
        raw: At most ``limit`` bytes.
        shape: A `Record` type or a union of them.
        limit: Bytes; checked before anything is parsed.

    Raises:
        TooLargeError: ``raw`` is longer than ``limit``.
        MalformedError: It does not parse, does not fit ``shape`` or is not canonical.
    """
    what = getattr(shape, "__name__", "object")
    if len(raw) > limit:
        raise TooLargeError(f"{what} is {len(raw)} bytes, at most {limit} are read")
    try:
        value = msgspec.json.decode(raw, type=shape)
        again = encode(value)
    except (msgspec.DecodeError, ValueError, RecursionError) as e:
        raise MalformedError(f"{what} does not parse: {_unquoted(str(e))}"[:300]) from None
    if again != raw:
        raise MalformedError(
            f"{what} is not in canonical form",
            "Send the exact RFC 8785 bytes: every field once, keys sorted, no spaces.",
        )
    return value


def _unquoted(said: str) -> str:
    """Return what the parser said without what it read, which may be anybody's secret (I13)."""
    found = None if _named.fullmatch(said) else _quoted.fullmatch(said)
    return f"{found[1]}{found[2] or ''}" if found else said


def b64(data: bytes) -> str:
    """Return base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Return the bytes of canonical base64url without padding.

    Raises:
        MalformedError: Padding, another alphabet or stray trailing bits.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as e:
        raise MalformedError("text is not base64url without padding") from e
    if b64(data) != text:
        raise MalformedError("text is not canonical base64url without padding")
    return data


def digest(label: str, data: bytes) -> str:
    """Return ``sha256:`` and the hex of SHA-256(label, a zero byte, data).

    Args:
        label: What kind of thing is hashed, e.g. ``placet-statement/1``.
        data: The bytes; no label is a prefix of another with its zero byte.
    """
    return "sha256:" + hashlib.sha256(label.encode() + b"\0" + data).hexdigest()


def _check(plain: object) -> None:
    if isinstance(plain, str):  # first, since most values are text
        return
    if isinstance(plain, dict):
        for key, value in plain.items():
            _check_key(key)
            _check(value)
    elif isinstance(plain, list | tuple):
        for value in plain:
            _check(value)
    elif isinstance(plain, float):
        raise ValueError("a float cannot be encoded: use an integer or a string")
    elif isinstance(plain, int) and not -MAX_INT <= plain <= MAX_INT:
        raise ValueError(f"an integer beyond {MAX_INT} cannot be encoded")


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise ValueError(f"an object's key is {type(key).__name__}, not a string")
    if not key.isascii() and max(key) > "\uffff":
        raise ValueError("an object's key is beyond U+FFFF, where UTF-16 sorts otherwise")
