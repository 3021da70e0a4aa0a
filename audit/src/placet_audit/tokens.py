"""ID tokens beside a signature: verified by the keys that the owner pinned (docs/oidc.md)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from placet_audit.canonical import Json, b64, unb64, write
from placet_audit.keys import check_point, unsigned
from placet_audit.problems import Refused
from placet_audit.shapes import refuse

SKEW = 60
"""Seconds by which the clocks of owner and provider may differ."""
LIFE = 24 * 3600
"""Seconds from a token's ``iat`` to its ``exp``, at most."""
ISSUER = re.compile(
    r"(?:https://[a-z0-9-]+(?:\.[a-z0-9-]+)*|http://localhost|http://127\.0\.0\.1)"
    r"(?::[1-9][0-9]{0,4})?(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?"
)
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey


def thumbprint(jwk: Json) -> str:
    """Return the RFC 7638 thumbprint, by which a vault's log names a key."""
    names = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
    members = {name: jwk[name] for name in names[jwk["kty"]]}
    return "sha256:" + hashlib.sha256(write(members)).hexdigest()


def check_identity(signer: Json) -> None:
    """Refuse an identity that no token could prove, or anybody's could."""
    if not ISSUER.fullmatch(signer["issuer"]):
        raise refuse(f"issuer {signer['issuer']!r} is no plain https URL")
    for name in ("audience", "sub"):
        if not signer[name] or not signer[name].isprintable():
            raise refuse(f"an OIDC signer's {name} is no printable text")
    kids = [jwk["kid"] for jwk in signer["jwks"]]
    if len(set(kids)) != len(kids) or not all(kids):
        raise refuse("two keys of a provider have one kid, or one has none")
    for jwk in signer["jwks"]:
        _key(jwk)


def verify_token(signer: Json, signature: Json, statement: str, body: Json) -> tuple[int, str]:
    """Check that this identity signed in for this very statement.

    Args:
        signer: The identity, with the keys that the owner pinned.
        signature: A whole ID token.
        statement: Digest of the statement: the token's nonce.
        body: The statement.

    Returns:
        The token's end in Unix seconds, and the thumbprint of the key that verified it.
    """
    if signature["kind"] != "oidc":
        raise unsigned(f"the signature of {signer['label']!r} is not of that signer's kind")
    parts = signature["token"].split(".")
    if len(parts) != 3:  # noqa: PLR2004 - a compact JWS
        raise refuse("a token is no compact JWS")
    header, signed = _object(unb64(parts[0])), f"{parts[0]}.{parts[1]}".encode()
    jwk = next((k for k in signer["jwks"] if k["kid"] == header.get("kid")), None)
    if jwk is None or header.keys() - {"alg", "kid", "typ"} or header.get("alg") != jwk["alg"]:
        raise unsigned("a token names no key, or another algorithm, than the owner pinned")
    if header.get("typ", "JWT") != "JWT":
        raise unsigned("a token is of another type")
    _verify(_key(jwk), unb64(parts[2]), signed)
    return _check_claims(signer, _object(unb64(parts[1])), statement, body), thumbprint(jwk)


def _check_claims(signer: Json, claims: Mapping[str, Any], statement: str, body: Json) -> int:
    audience, nonce = signer["audience"], b64(bytes.fromhex(statement[7:]))
    want = {"sub": signer["sub"], "iss": signer["issuer"], "nonce": nonce}
    for name, value in want.items():
        if claims.get(name) != value:
            raise unsigned(f"a token's {name} is not the one that the policy names")
    if claims.get("aud") not in (audience, [audience]) or claims.get("azp", audience) != audience:
        raise unsigned("a token is for another audience")
    issued, ends = body["issued_at"], body["expires_at"]
    at, iat, exp = (_seconds(claims.get(name)) for name in ("auth_time", "iat", "exp"))
    fresh = issued - SKEW <= at <= min(ends, iat + SKEW) and issued - SKEW <= iat <= ends
    if not fresh or not iat < exp <= iat + LIFE:
        raise unsigned("a token's sign-in was not made for this statement")
    if "nbf" in claims and (type(claims["nbf"]) is not int or claims["nbf"] > iat + SKEW):
        raise unsigned("a token counts later than it was issued")
    return exp


def _seconds(value: object) -> int:
    if type(value) is not int or not 10**9 <= value < 10**11:
        raise unsigned("a token's time is no number of seconds since 1970")
    return value


def _object(raw: bytes) -> Mapping[str, Any]:
    def members(pairs: list[tuple[str, Any]]) -> Json:
        if len({name for name, _ in pairs}) != len(pairs):
            raise ValueError("a member appears twice")
        return dict(pairs)

    def no(text: str) -> None:
        raise ValueError(f"{text[:20]} is no integer")

    try:
        value = json.loads(
            raw.decode(), object_pairs_hook=members, parse_float=no, parse_constant=no
        )
    except (ValueError, RecursionError) as e:
        raise refuse(f"a part of a token does not parse: {e}"[:200]) from e
    if not isinstance(value, dict):
        raise refuse("a part of a token is no object")
    return value


def _verify(key: PublicKey, signature: bytes, message: bytes) -> None:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            if len(signature) != 64:  # noqa: PLR2004 - RFC 7518, section 3.4
                raise ValueError("no 64 bytes")
            r, s = (int.from_bytes(signature[i : i + 32], "big") for i in (0, 32))
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, message)
    except (InvalidSignature, ValueError) as e:
        raise unsigned("a token's signature does not hold by the pinned key") from e


def _key(jwk: Json) -> PublicKey:
    try:
        if jwk["kty"] == "RSA":
            raw = unb64(jwk["n"])
            n = int.from_bytes(raw, "big")
            if raw[:1] == b"\0" or not 2048 <= n.bit_length() <= 4096 or n % 2 == 0:  # noqa: PLR2004
                raise ValueError("modulus of another size")
            if jwk["e"] != "AQAB":
                raise ValueError("exponent is not 65537")
            return rsa.RSAPublicNumbers(65537, n).public_key()
        if jwk["kty"] == "EC":
            point = b"\x04" + unb64(jwk["x"]) + unb64(jwk["y"])
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        check_point("ed25519", unb64(jwk["x"]))
        return Ed25519PublicKey.from_public_bytes(unb64(jwk["x"]))
    except (ValueError, Refused) as e:
        raise refuse(f"a provider's key is unfit: {e}"[:200]) from e
