"""A software identity provider: it signs whatever it is told, as whoever holds its key could."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from placet.core.encoding import b64
from placet.core.signer import EcJwk, Jwk, OidcSignature, OidcSigner, OkpJwk, signer_id
from placet.core.statement import UntrustedStatement, compose
from placet_testing.passkey import p256_key

ISSUER = "https://accounts.example"
AUDIENCE = "placet-approvals"


def text(value: object) -> bytes:
    """Return JSON as providers write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def changed(members: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    """Return members with others put in; ``...`` takes one out."""
    return {name: value for name, value in (members | changes).items() if value is not ...}


@dataclass(frozen=True, kw_only=True)
class SoftwareProvider:
    """One provider with one key, and one client that is registered there."""

    issuer: str = ISSUER
    audience: str = AUDIENCE
    kid: str = "k1"
    algorithm: Literal["ES256", "EdDSA"] = "ES256"
    private: ec.EllipticCurvePrivateKey | Ed25519PrivateKey = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Derive the key from issuer and kid."""
        seed = f"provider/{self.issuer}/{self.kid}"
        raw = hashlib.sha256(seed.encode()).digest()
        es256 = self.algorithm == "ES256"
        private = p256_key(seed) if es256 else Ed25519PrivateKey.from_private_bytes(raw)
        object.__setattr__(self, "private", private)

    @property
    def jwk(self) -> Jwk:
        """Return the key as a signer pins it."""
        if isinstance(self.private, Ed25519PrivateKey):
            x = self.private.public_key().public_bytes_raw()
            return OkpJwk(kid=self.kid, alg="EdDSA", crv="Ed25519", x=b64(x))
        at = self.private.public_key().public_numbers()
        x, y = at.x.to_bytes(32, "big"), at.y.to_bytes(32, "big")
        return EcJwk(kid=self.kid, alg="ES256", crv="P-256", x=b64(x), y=b64(y))

    def signer(self, sub: str = "owner") -> OidcSigner:
        """Return one of its identities as a policy names it."""
        return OidcSigner(
            label=f"{sub} at work",
            issuer=self.issuer,
            audience=self.audience,
            sub=sub,
            jwks=(self.jwk,),
        )

    def raw_sign(self, message: bytes) -> bytes:
        """Sign any bytes with the provider's key, as a JWS has it."""
        if isinstance(self.private, Ed25519PrivateKey):
            return self.private.sign(message)
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def jws(self, payload: bytes, header: bytes | None = None) -> str:
        """Return a token with these very texts."""
        if header is None:
            header = text({"alg": self.algorithm, "typ": "JWT", "kid": self.kid})
        message = f"{b64(header)}.{b64(payload)}"
        return f"{message}.{b64(self.raw_sign(message.encode()))}"

    def claims(self, nonce: bytes, at: int, /, **changes: object) -> dict[str, object]:
        """Return what an ID token of a sign-in at this time says; ``...`` leaves one out."""
        honest: dict[str, object] = {
            "iss": self.issuer,
            "sub": "owner",
            "aud": self.audience,
            "nonce": b64(nonce),
            "auth_time": at,
            "iat": at,
            "exp": at + 3600,
        }
        return changed(honest, changes)

    def token(self, nonce: bytes, at: int, /, **changes: object) -> str:
        """Return an ID token of a sign-in at this time."""
        return self.jws(text(self.claims(nonce, at, **changes)))

    def signature(
        self, sent: UntrustedStatement, sub: str = "owner", /, **changes: object
    ) -> OidcSignature:
        """Return a token for a statement, by a sign-in ten seconds after it was composed."""
        nonce = bytes.fromhex(sent.digest.removeprefix("sha256:"))
        token = self.token(nonce, sent.statement.issued_at + 10, sub=sub, **changes)
        return OidcSignature(signer=signer_id(self.signer(sub)), token=token)

    def sign(
        self, sent: UntrustedStatement, sub: str = "owner", /, **changes: object
    ) -> UntrustedStatement:
        """Return the statement with that token beside it."""
        return compose(sent.statement, (*sent.signatures, self.signature(sent, sub, **changes)))
