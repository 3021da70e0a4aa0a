"""DSSE: what key signers and vaults sign (secure-systems-lab/dsse, protocol.md v1.0).

Also home of the small signed envelope that vaults answer with (`Signed`).
"""

from __future__ import annotations

from typing import Literal, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from placet.core.encoding import Base64, Record, b64, decode, digest, encode, unb64
from placet.core.limits import MAX_STATEMENT
from placet.errors import VerificationError

T = TypeVar("T", bound=Record)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding: type and payload, each with its length."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def verify_signature(
    algorithm: Literal["ed25519", "p256"], public_key: bytes, signature: bytes, message: bytes
) -> None:
    """Check one signature over ``message``.

    Args:
        algorithm: ``ed25519`` (RFC 8032) or ``p256`` (ECDSA, SHA-256, DER signature).
        public_key: 32 raw bytes, or the 65-byte uncompressed point.
        signature: As the algorithm has it.
        message: The exact bytes.

    Raises:
        VerificationError: The signature does not hold, or the key is none.
    """
    try:
        if algorithm == "ed25519":
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
        else:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
            point.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as e:
        raise VerificationError(f"{algorithm} signature does not hold") from e


class Signed(Record):
    """A record signed by a vault's identity key."""

    payload: Base64
    vault_key: Base64
    """The vault's raw Ed25519 public key; its digest is the vault id."""
    signature: Base64


def vault_id(public_key: bytes) -> str:
    """Return the fingerprint of a vault's identity key."""
    return digest("placet-vault/1", public_key)


def _type(shape: type[Record]) -> str:
    return f"application/vnd.placet.{shape.__name__.lower()}.v1+json"


def sign_record(record: Record, key: Ed25519PrivateKey) -> Signed:
    """Sign a record with a vault's identity key; the type of the record is signed too."""
    payload = encode(record)
    return Signed(
        payload=b64(payload),
        vault_key=b64(key.public_key().public_bytes_raw()),
        signature=b64(key.sign(pae(_type(type(record)), payload))),
    )


def open_signed(signed: Signed, shape: type[T], *, vault: str) -> T:
    """Return the record that the vault ``vault`` signed.

    What the record says is *not* checked, nor that it is of this key or time.

    Raises:
        VerificationError: Another vault's key, or the signature does not hold.
        MalformedError: What was signed is no canonical ``shape``.
    """
    public_key = unb64(signed.vault_key)
    signer = vault_id(public_key)
    if signer != vault:
        raise VerificationError(f"{shape.__name__} is signed by vault {signer}, not {vault}")
    payload = unb64(signed.payload)
    verify_signature("ed25519", public_key, unb64(signed.signature), pae(_type(shape), payload))
    return decode(payload, shape, limit=MAX_STATEMENT)
