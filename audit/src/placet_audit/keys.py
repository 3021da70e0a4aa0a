"""Signatures of owners: plain keys and passkeys, each verified again (spec/03, section 2)."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from placet_audit.canonical import Json, b64, pae, unb64
from placet_audit.problems import Refused
from placet_audit.shapes import refuse

STATEMENT_TYPE = "application/vnd.placet.statement.v1+json"
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ES256 = bytes.fromhex("a5010203262001215820"), bytes.fromhex("225820")
EDDSA = bytes.fromhex("a4010103272006215820")
PRESENT, VERIFIED, ELIGIBLE, BACKED_UP = 0x01, 0x04, 0x08, 0x10
ORIGIN = re.compile(
    r"(?:https://([a-z0-9-]+(?:\.[a-z0-9-]+)*)|http://(localhost))(?::[1-9][0-9]{0,4})?"
)


def unsigned(detail: str) -> Refused:
    """Return a refusal of a signature."""
    return Refused("statement-unsigned", detail)


def check_point(algorithm: str, raw: bytes) -> None:
    """Refuse a public key that is no point, or one for which anybody could sign."""
    if algorithm == "p256":
        try:
            if raw[:1] != b"\x04":
                raise ValueError("a compressed point")
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
        except ValueError as e:
            raise refuse(f"a P-256 key is unfit: {e}"[:200]) from e
        return
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    y2 = y * y
    if len(raw) != 32 or y >= P:  # noqa: PLR2004 - RFC 8032
        raise refuse("an Ed25519 key is not 32 bytes of a canonical point")
    if pow((y2 - 1) * (D * y2 + 1), (P - 1) // 2, P) == P - 1:
        raise refuse("an Ed25519 key is not on the curve")
    if y * (y2 - 1) * (D * y2 * y2 + 2 * y2 - 1) % P == 0:
        raise refuse("an Ed25519 key is of small order")


def raw_key(signer: Json) -> tuple[str, bytes]:
    """Return algorithm and raw public key of a plain key or a passkey."""
    raw = unb64(signer["public_key"])
    if signer["kind"] == "key":
        return signer["algorithm"], raw
    x, y = raw[10:42], raw[45:]
    if raw == ES256[0] + x + ES256[1] + y and len(y) == 32:  # noqa: PLR2004 - a coordinate
        return "p256", b"\x04" + x + y
    if raw == EDDSA + x and len(x) == 32:  # noqa: PLR2004 - RFC 8032
        return "ed25519", x
    raise refuse("a passkey's key is no COSE_Key in CTAP2 canonical form")


def check_signer(signer: Json) -> None:
    """Refuse a plain key or passkey that could never sign, or for whom anybody could."""
    check_point(*raw_key(signer))
    if signer["kind"] == "passkey":
        if not 1 <= len(unb64(signer["credential_id"])) <= 1023:  # noqa: PLR2004 - WebAuthn
            raise refuse("a credential id has no possible length")
        for origin in signer["origins"]:
            found = ORIGIN.fullmatch(origin)
            host = (found[1] or found[2]) if found else ""
            if not f".{host}".endswith(f".{signer['rp_id']}"):
                raise refuse(f"origin {origin} is no secure one of {signer['rp_id']}")


def verify(signer: Json, signature: Json, statement: str, payload: bytes) -> None:
    """Check that a plain key or passkey signed this very statement.

    Args:
        signer: As the policy names it.
        signature: Of the same kind.
        statement: The statement's digest, which a passkey takes as its challenge.
        payload: The statement's canonical bytes, which a plain key signs.
    """
    if signer["kind"] != signature["kind"]:
        raise unsigned(f"the signature of {signer['label']!r} is not of that signer's kind")
    message = pae(STATEMENT_TYPE, payload)
    if signer["kind"] == "passkey":
        client, data = unb64(signature["client_data"]), unb64(signature["authenticator_data"])
        _check_client(signer, client, bytes.fromhex(statement[7:]))
        _check_authenticator(signer, data)
        message = data + hashlib.sha256(client).digest()
    algorithm, public = raw_key(signer)
    try:
        if algorithm == "ed25519":
            Ed25519PublicKey.from_public_bytes(public).verify(
                unb64(signature["signature"]), message
            )
        else:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
            point.verify(unb64(signature["signature"]), message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as e:
        raise unsigned(f"the signature of {signer['label']!r} does not hold") from e


def _check_client(signer: Json, raw: bytes, challenge: bytes) -> None:
    """2.1: a browser asked this passkey, on an origin of the owner's, about this statement."""
    try:
        data = json.loads(raw[:2049].decode(), object_pairs_hook=_flat)
    except (ValueError, RecursionError) as e:
        raise refuse(f"clientDataJSON does not parse: {e}"[:200]) from e
    want = {"type": "webauthn.get", "challenge": b64(challenge), "crossOrigin": False}
    if not isinstance(data, dict) or any(data.get(k) != v for k, v in want.items()):
        raise unsigned(f"the assertion of {signer['label']!r} is about something else")
    if data.get("origin") not in signer["origins"] or "topOrigin" in data:
        raise unsigned(f"the assertion of {signer['label']!r} was made on another page")


def _check_authenticator(signer: Json, data: bytes) -> None:
    """2.2: it answered for this relying party, and saw and verified a person."""
    flags = data[32] if len(data) == 37 else 0  # noqa: PLR2004 - no extensions, no credential
    known = PRESENT | VERIFIED | ELIGIBLE | BACKED_UP
    if data[:32] != hashlib.sha256(signer["rp_id"].encode()).digest():
        raise unsigned(f"the assertion of {signer['label']!r} is for another relying party")
    seen = flags & PRESENT and flags & VERIFIED
    if not seen or flags & ~known or (flags & BACKED_UP and not flags & ELIGIBLE):
        raise unsigned(f"the authenticator of {signer['label']!r} has flags {flags:#04x}")


def _flat(pairs: list[tuple[str, Any]]) -> Json:
    members = dict(pairs)
    if len(members) != len(pairs) or any(isinstance(v, dict | list) for v in members.values()):
        raise ValueError("a member is nested or appears twice")
    return members
