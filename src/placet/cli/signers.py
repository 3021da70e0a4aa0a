"""Public keys as people hand them over: a JSON or PEM file, or base64."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from placet.cli.files import read_bytes
from placet.core.encoding import b64
from placet.core.signer import KeySigner
from placet.errors import MalformedError
from placet.policy.signers import signer_key_check

ED25519, P256 = 32, 65
"""Bytes of a raw public key."""


def public_signer(text: str) -> KeySigner:
    """Return the signer that a file or a base64 text is.

    Raises:
        NotFoundError: It looks like a file and there is none.
        MalformedError: It is no public key that may sign.
    """
    path = Path(text)
    raw = _decoded(text)
    signer = _from_file(path) if raw is None or path.exists() else _of(raw, text[:12])
    signer_key_check(signer)
    return signer


def _from_file(path: Path) -> KeySigner:
    raw = read_bytes(path)
    try:
        if raw.lstrip().startswith(b"-----BEGIN"):
            return _from_pem(raw, path)
        return msgspec.json.decode(raw, type=KeySigner)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as e:
        found = _decoded(raw.decode("ascii", "replace").strip())
        if found is not None:
            return _of(found, path.stem)
        raise MalformedError(f"{path} holds no public key: {e}") from e


def _from_pem(raw: bytes, path: Path) -> KeySigner:
    public = serialization.load_pem_public_key(raw)
    if isinstance(public, Ed25519PublicKey):
        return _of(public.public_bytes_raw(), path.stem)
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name == "secp256r1":
        point = public.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        return _of(point, path.stem)
    raise MalformedError(f"{path} holds a key that is neither Ed25519 nor P-256")


def _of(raw: bytes, label: str) -> KeySigner:
    kind = "ed25519" if len(raw) == ED25519 else "p256"
    return msgspec.convert(
        {"kind": "key", "label": label, "algorithm": kind, "public_key": b64(raw)}, KeySigner
    )


def _decoded(text: str) -> bytes | None:
    try:
        raw = base64.urlsafe_b64decode(
            text.replace("+", "-").replace("/", "_") + "=" * (-len(text) % 4)
        )
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) in (ED25519, P256) else None
