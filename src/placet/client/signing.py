"""Compose statements and sign them with a key file: the owner's and the stager's pen.

Whoever composes draws the nonce and shows the content: words and digests never vouch
for a statement that somebody else composed (DESIGN section 4, spec/03 section 2).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.core.body import BirthBody, PromoteBody, RetireBody, RevokePendingBody, StageBody
from placet.core.dsse import pae
from placet.core.encoding import b64
from placet.core.profile import Profile
from placet.core.signer import KeySignature, KeySigner, signer_id
from placet.core.statement import (
    STATEMENT_TYPE,
    Birth,
    Chained,
    Loose,
    Promote,
    Retire,
    RevokePending,
    Stage,
    UntrustedStatement,
    compose,
)
from placet.errors import MalformedError, UnavailableError
from placet.policy.key_policy import KeyPolicy

Rng = Callable[[int], bytes]
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
DAY = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key that approves or stages, and the signer that it is."""

    signer: KeySigner
    private: PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, label: str, algorithm: Literal["ed25519", "p256"]) -> SigningKey:
        """Make a new key."""
        if algorithm == "ed25519":
            return cls.of(label, Ed25519PrivateKey.generate())
        return cls.of(label, ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def of(cls, label: str, private: PrivateKey) -> SigningKey:
        """Return the signer of a private key."""
        algorithm: Literal["ed25519", "p256"] = "ed25519"
        if isinstance(private, Ed25519PrivateKey):
            public = private.public_key().public_bytes_raw()
        else:
            algorithm = "p256"
            public = private.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            )
        signer = KeySigner(label=label, algorithm=algorithm, public_key=b64(public))
        return cls(signer=signer, private=private)

    @classmethod
    def load(cls, label: str, path: Path) -> SigningKey:
        """Read a PKCS#8 PEM file.

        Raises:
            UnavailableError: It cannot be read.
            MalformedError: It holds no Ed25519 or P-256 key.
        """
        try:
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError as e:
            raise UnavailableError(
                f"key file {path} cannot be read: {e.strerror}", "Make one: placet owner init."
            ) from e
        except (ValueError, TypeError) as e:
            raise MalformedError(f"{path} is no unencrypted PEM private key") from e
        if isinstance(private, Ed25519PrivateKey):
            return cls.of(label, private)
        if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name == "secp256r1":
            return cls.of(label, private)
        raise MalformedError(f"{path} holds a key that is neither Ed25519 nor P-256")

    def save(self, path: Path) -> None:
        """Write a new PEM file that only this user can read; never over an old one.

        Raises:
            UnavailableError: There is one already, or it cannot be written.
        """
        pem = self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
                f.write(pem)
        except FileExistsError as e:
            raise UnavailableError(f"{path} exists", "It is not written over.") from e
        except OSError as e:
            raise UnavailableError(f"{path} cannot be written: {e.strerror}") from e

    def sign(self, sent: UntrustedStatement) -> UntrustedStatement:
        """Return the statement with this key's signature added."""
        message = pae(STATEMENT_TYPE, sent.payload)
        if isinstance(self.private, Ed25519PrivateKey):
            raw = self.private.sign(message)
        else:
            raw = self.private.sign(message, ec.ECDSA(hashes.SHA256()))
        signature = KeySignature(signer=signer_id(self.signer), signature=b64(raw))
        return compose(sent.statement, (*sent.signatures, signature))


@dataclass(frozen=True, slots=True, kw_only=True)
class Composer:
    """Writes statements as of one moment.

    Args:
        now: Unix seconds.
        rng: Randomness for nonces.
        lifetime: Seconds for which vaults may take what is composed.
    """

    now: int
    rng: Rng = os.urandom
    lifetime: int = DAY

    def birth(self, body: BirthBody) -> UntrustedStatement:
        """Compose the first statement of a new key; its digest is the key id."""
        nonce = b64(self.rng(32))
        return compose(
            Birth(
                key=None,
                prev=None,
                base_version=0,
                issued_at=self.now,
                expires_at=self.now + self.lifetime,
                nonce=nonce,
                body=body,
            )
        )

    def promote(self, policy: KeyPolicy, body: PromoteBody) -> UntrustedStatement:
        """Compose an approval that stands on the head of ``policy``."""
        return self._after(policy, Promote, body)

    def retire(self, policy: KeyPolicy, code: str, reason: str) -> UntrustedStatement:
        """Compose the end of an approval."""
        return self._after(policy, Retire, RetireBody(code=code, reason=reason))

    def stage(self, key: str | None, body: StageBody) -> UntrustedStatement:
        """Put a version forward, for one key or for every key of its app."""
        return self._beside(key, Stage, body)

    def revoke(self, key: str, stage: str, reason: str) -> UntrustedStatement:
        """Take back what was staged under ``stage``."""
        return self._beside(key, RevokePending, RevokePendingBody(stage=stage, reason=reason))

    def _after(
        self, policy: KeyPolicy, kind: Callable[..., Chained], body: object
    ) -> UntrustedStatement:
        return compose(
            kind(
                key=policy.key,
                prev=policy.head,
                base_version=policy.version,
                issued_at=self.now,
                expires_at=self.now + self.lifetime,
                nonce=b64(self.rng(32)),
                body=body,
            )
        )

    def _beside(
        self, key: str | None, kind: Callable[..., Loose], body: object
    ) -> UntrustedStatement:
        return compose(
            kind(
                key=key,
                issued_at=self.now,
                expires_at=self.now + self.lifetime,
                nonce=b64(self.rng(32)),
                body=body,
            )
        )


def promote_body(
    policy: KeyPolicy, profile: Profile, *, retire_at: int | None = None, unretire: bool = False
) -> PromoteBody:
    """Return the usual approval: earlier versions stay, or retire at a time.

    Args:
        policy: In force now; its floor stays.
        profile: What is let in.
        retire_at: Unix seconds at which those before it retire; ``None``: they are kept.
        unretire: Say plainly that retired code comes back.
    """
    return PromoteBody(
        profile=profile,
        provenance=None,
        review=None,
        earlier="keep" if retire_at is None else "retire-at",
        retire_at=retire_at,
        unretire=unretire,
        security_version_floor=policy.floor,
    )
