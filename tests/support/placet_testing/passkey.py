"""A software authenticator and the browser before it: passkeys with fixed keys.

Everything that an attacker could choose is an argument, so that a test can be one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.core.encoding import b64
from placet.core.signer import PasskeySignature, PasskeySigner, signer_id
from placet.core.statement import UntrustedStatement, compose

RP_ID = "approve.example"
ORIGIN = "https://approve.example"
UP, UV, BE, BS, AT, ED = 0x01, 0x04, 0x08, 0x10, 0x40, 0x80
_order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def p256_key(seed: str) -> ec.EllipticCurvePrivateKey:
    """Return a P-256 key that is the same in every run."""
    number = int.from_bytes(hashlib.sha512(seed.encode()).digest()) % (_order - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


def client_data(challenge: bytes, /, **changes: object) -> bytes:
    """Return clientDataJSON as browsers serialise it (WebAuthn Level 3, section 5.8.1.1).

    Args:
        challenge: What was to be signed.
        changes: Members that differ or are added; ``None`` leaves one out.
    """
    members = {
        "type": "webauthn.get",
        "challenge": b64(challenge),
        "origin": ORIGIN,
        "crossOrigin": False,
    } | changes
    kept = {name: value for name, value in members.items() if value is not None}
    return json.dumps(kept, separators=(",", ":")).encode()


def authenticator_data(
    *, rp_id: str = RP_ID, flags: int = UP | UV, count: int = 7, extra: bytes = b""
) -> bytes:
    """Return authenticator data of an assertion."""
    return (
        hashlib.sha256(rp_id.encode()).digest() + bytes([flags]) + count.to_bytes(4, "big") + extra
    )


@dataclass(frozen=True, kw_only=True)
class SoftwarePasskey:
    """One credential, and who it is to a policy."""

    name: str
    algorithm: Literal["es256", "eddsa"] = "es256"
    screen: Literal["own", "page"] = "own"
    rp_id: str = RP_ID
    origins: tuple[str, ...] = (ORIGIN,)
    private: ec.EllipticCurvePrivateKey | Ed25519PrivateKey = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Derive the key from the name."""
        seed = f"passkey/{self.name}"
        es256 = self.algorithm == "es256"
        private = (
            p256_key(seed)
            if es256
            else Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())
        )
        object.__setattr__(self, "private", private)

    @property
    def cose(self) -> bytes:
        """Return the COSE_Key in CTAP2 canonical form."""
        if isinstance(self.private, Ed25519PrivateKey):
            x = self.private.public_key().public_bytes_raw()
            return bytes.fromhex("a4 01 01 03 27 20 06 21 5820") + x
        at = self.private.public_key().public_numbers()
        x, y = at.x.to_bytes(32, "big"), at.y.to_bytes(32, "big")
        return bytes.fromhex("a5 01 02 03 26 20 01 21 5820") + x + bytes.fromhex("22 5820") + y

    @property
    def signer(self) -> PasskeySigner:
        """Return it as a policy names it."""
        return PasskeySigner(
            label=self.name,
            rp_id=self.rp_id,
            origins=self.origins,
            credential_id=b64(hashlib.sha256(self.name.encode()).digest()),
            public_key=b64(self.cose),
            screen=self.screen,
        )

    def raw_sign(self, message: bytes) -> bytes:
        """Sign any bytes with the credential's key."""
        if isinstance(self.private, Ed25519PrivateKey):
            return self.private.sign(message)
        return self.private.sign(message, ec.ECDSA(hashes.SHA256()))

    def assertion(
        self, challenge: bytes, *, client: bytes | None = None, authenticator: bytes | None = None
    ) -> PasskeySignature:
        """Return an assertion over these very parts; the honest ones by default."""
        client = client_data(challenge, origin=self.origins[0]) if client is None else client
        auth = authenticator_data(rp_id=self.rp_id) if authenticator is None else authenticator
        return PasskeySignature(
            signer=signer_id(self.signer),
            authenticator_data=b64(auth),
            client_data=b64(client),
            signature=b64(self.raw_sign(auth + hashlib.sha256(client).digest())),
        )

    def sign(self, sent: UntrustedStatement) -> UntrustedStatement:
        """Return the statement with this passkey's assertion added."""
        challenge = bytes.fromhex(sent.digest.removeprefix("sha256:"))
        return compose(sent.statement, (*sent.signatures, self.assertion(challenge)))
