"""Public keys of identity providers (RFC 7517, 7518, 8037): three kinds, each in one spelling."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from placet.core.encoding import encode, unb64
from placet.core.signer import EcJwk, Jwk, RsaJwk
from placet.errors import ApprovalError, MalformedError
from placet.policy.points import check_ed25519

MIN_RSA, MAX_RSA = 2048, 4096
"""Bits of an RSA modulus: shorter ones fall, longer ones cost a vault too much."""

_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey
_e65537 = "AQAB"
_coordinate = 32


def check_jwk(jwk: Jwk) -> None:
    """Refuse a key that could verify nothing, or for which anybody could sign.

    Whose key it is, and that somebody holds the private part, is *not* checked.

    Raises:
        MalformedError: No ``kid``, another spelling, no point of its curve, an RSA key of
            another size or exponent.
    """
    if not jwk.kid:
        raise MalformedError("a provider's key has an empty kid, so that no token can name it")
    _public_key(jwk)


def thumbprint(jwk: Jwk) -> str:
    """Return the SHA-256 thumbprint of a key (RFC 7638): the key, whatever its ``kid``."""
    if isinstance(jwk, RsaJwk):
        members = {"kty": "RSA", "n": jwk.n, "e": jwk.e}
    elif isinstance(jwk, EcJwk):
        members = {"kty": "EC", "crv": jwk.crv, "x": jwk.x, "y": jwk.y}
    else:
        members = {"kty": "OKP", "crv": jwk.crv, "x": jwk.x}
    return "sha256:" + hashlib.sha256(encode(members)).hexdigest()


def verify_jws(jwk: Jwk, signature: bytes, message: bytes) -> None:
    """Check one JWS signature, by the one algorithm that its key is of.

    Raises:
        ApprovalError: It does not hold.
        MalformedError: The key is unfit (`check_jwk` keeps such a key out of a policy).
    """
    key = _public_key(jwk)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(_der(signature), message, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, message)
    except (InvalidSignature, ValueError) as e:
        raise ApprovalError(
            f"token's {jwk.alg} signature does not hold by the pinned key {jwk.kid!r}",
            "Sign in anew; if it stays so, compare the pinned keys with the provider's.",
            reason="signature",
        ) from e


def _der(signature: bytes) -> bytes:
    # RFC 7518, section 3.4: r and s with all their zeros. A DER signature is another spelling.
    if len(signature) != 2 * _coordinate:
        raise ValueError(f"ES256 signature is {len(signature)} bytes, not {2 * _coordinate}")
    r, s = signature[:_coordinate], signature[_coordinate:]
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


def _public_key(jwk: Jwk) -> _PublicKey:
    try:
        if isinstance(jwk, RsaJwk):
            return _rsa(jwk)
        if isinstance(jwk, EcJwk):
            return _p256(jwk)
        raw = unb64(jwk.x)
        check_ed25519(raw)
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as e:
        raise MalformedError(f"provider's key {jwk.kid!r} is unfit: {e}"[:300]) from e


def _rsa(jwk: RsaJwk) -> rsa.RSAPublicKey:
    raw = unb64(jwk.n)
    n = int.from_bytes(raw, "big")
    if raw[:1] == b"\0" or not MIN_RSA <= n.bit_length() <= MAX_RSA or n % 2 == 0:
        raise ValueError(f"modulus is no odd number of {MIN_RSA} to {MAX_RSA} bits")
    if jwk.e != _e65537:
        raise ValueError("exponent is not 65537")
    return rsa.RSAPublicNumbers(65537, n).public_key()


def _p256(jwk: EcJwk) -> ec.EllipticCurvePublicKey:
    x, y = unb64(jwk.x), unb64(jwk.y)
    if (len(x), len(y)) != (_coordinate, _coordinate):
        raise ValueError(f"coordinates are not {_coordinate} bytes each")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)
