"""One value, one encoding: how everything that is signed or hashed is read (spec/01).

Written anew from the specification; nothing of placet is imported anywhere in here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from placet_audit.problems import Refused

Json = dict[str, Any]
MAX_INT = 2**53 - 1


def read(raw: bytes, limit: int) -> Json:
    """Return the object whose canonical encoding (RFC 8785) these very bytes are.

    Raises:
        Refused: Too long, no JSON object, or another spelling of one.
    """
    if len(raw) > limit:
        raise _malformed(f"{len(raw)} bytes, at most {limit} are read")
    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=_members, parse_float=_no, parse_constant=_no
        )
        again = write(value)
    except (ValueError, RecursionError) as e:
        raise _malformed(f"no canonical JSON: {e}"[:200]) from e
    if not isinstance(value, dict) or again != raw:
        raise _malformed("another spelling than RFC 8785 has")
    return value


def write(value: object) -> bytes:
    """Return the canonical bytes of JSON without floats."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def b64(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Return the bytes of canonical base64url without padding."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as e:
        raise _malformed("a text is not base64url") from e
    if b64(data) != text:
        raise _malformed("a text is not canonical base64url")
    return data


def digest(label: str, data: bytes) -> str:
    """Return SHA-256 over label, a zero byte and data (spec/01, section 4)."""
    return "sha256:" + hashlib.sha256(label.encode() + b"\0" + data).hexdigest()


def digest_of(label: str, value: object) -> str:
    """Return `digest` over the canonical bytes of a value."""
    return digest(label, write(value))


def pae(kind: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding, which keys and vaults sign."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)


def verify_ed25519(public: bytes, signature: bytes, message: bytes, kind: str) -> None:
    """Check one Ed25519 signature; `Refused` of this kind if it does not hold."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError) as e:
        raise Refused(kind, "the Ed25519 signature does not hold") from e


def vault_id(public: bytes) -> str:
    """Return the id that is the digest of a vault's identity key."""
    return digest("placet-vault/1", public)


def open_signed(signed: Mapping[str, Any], record: str, vault: str, kind: str) -> Json:
    """Return what a vault signed as this kind of record.

    Args:
        signed: ``payload``, ``vault_key``, ``signature``, in the shape `shapes.SIGNED`.
        record: Name of the record, e.g. ``taken``; it is signed too.
        vault: The id that must have signed it.
        kind: The finding's kind if it did not.
    """
    public, payload = unb64(signed["vault_key"]), unb64(signed["payload"])
    if vault_id(public) != vault:
        raise Refused(kind, f"a {record} record is signed by {vault_id(public)}, not {vault}")
    message = pae(f"application/vnd.placet.{record}.v1+json", payload)
    verify_ed25519(public, unb64(signed["signature"]), message, kind)
    return read(payload, 65536)


def _members(pairs: list[tuple[str, Any]]) -> Json:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member appears twice")
    if any(not key.isascii() and max(key) > "\uffff" for key in members):
        raise ValueError("a member's name is beyond U+FFFF")
    if any(isinstance(v, int) and abs(v) > MAX_INT for v in members.values()):
        raise ValueError("a number is beyond 2**53 - 1")
    return members


def _no(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no integer")


def _malformed(detail: str) -> Refused:
    return Refused("statement-malformed", detail)
