"""Signers and principals: who may sign a statement, and what a signature looks like."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from placet.core.encoding import Base64, Record, Sha256, Text, digest, encode
from placet.core.limits import MAX_ID_TOKEN, MAX_JWKS, MAX_SIGNERS


class KeySigner(Record, tag_field="kind", tag="key"):
    """A plain key: automation, smart card, HSM."""

    label: Text
    algorithm: Literal["ed25519", "p256"]
    public_key: Base64
    """32 raw bytes (Ed25519) or the 65-byte uncompressed point (P-256, SEC 1)."""


class PasskeySigner(Record, tag_field="kind", tag="passkey"):
    """A WebAuthn credential that approves and does nothing else."""

    label: Text
    rp_id: Text
    origins: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=8)]
    credential_id: Base64
    public_key: Base64
    """COSE_Key in CTAP2 canonical form: ES256 or EdDSA."""
    screen: Literal["own", "page"]
    """``page``: it signs on a page that an untrusted party serves."""


class RsaJwk(Record, tag_field="kty", tag="RSA"):
    """An RSA public key of an identity provider (RFC 7518, section 6.3)."""

    kid: Text
    alg: Literal["RS256"]
    n: Base64
    e: Base64


class EcJwk(Record, tag_field="kty", tag="EC"):
    """A P-256 public key of an identity provider (RFC 7518, section 6.2)."""

    kid: Text
    alg: Literal["ES256"]
    crv: Literal["P-256"]
    x: Base64
    y: Base64


class OkpJwk(Record, tag_field="kty", tag="OKP"):
    """An Ed25519 public key of an identity provider (RFC 8037)."""

    kid: Text
    alg: Literal["EdDSA"]
    crv: Literal["Ed25519"]
    x: Base64


Jwk = RsaJwk | EcJwk | OkpJwk


class OidcSigner(Record, tag_field="kind", tag="oidc"):
    """An identity at a provider: a factor beside a passkey or key, never enough alone.

    The provider's keys are pinned by the owner. Vaults fetch none.
    """

    label: Text
    issuer: Text
    """Exact, as the provider writes it."""
    audience: Text
    """A client id that is registered for approvals and for nothing else."""
    sub: Text
    jwks: Annotated[tuple[Jwk, ...], Meta(min_length=1, max_length=MAX_JWKS)]


OwnKeySigner = KeySigner | PasskeySigner
"""A signer that holds a key of its own."""
Signer = KeySigner | PasskeySigner | OidcSigner


class Threshold(Record, tag_field="kind", tag="threshold"):
    """A principal: at least ``threshold`` of its parts must agree."""

    label: Text
    threshold: Annotated[int, Meta(ge=1, le=MAX_SIGNERS)]
    of: Annotated[
        tuple[KeySigner | PasskeySigner | OidcSigner | Threshold, ...],
        Meta(min_length=1, max_length=MAX_SIGNERS),
    ]


class KeySignature(Record, tag_field="kind", tag="key"):
    """Ed25519 or DER ECDSA over the DSSE encoding of the statement's bytes."""

    signer: Sha256
    signature: Base64


class PasskeySignature(Record, tag_field="kind", tag="passkey"):
    """A whole WebAuthn assertion whose challenge is the statement's digest."""

    signer: Sha256
    authenticator_data: Base64
    client_data: Base64
    """clientDataJSON as the authenticator's client made it."""
    signature: Base64


class OidcSignature(Record, tag_field="kind", tag="oidc"):
    """A whole ID token whose nonce is the statement's digest, in base64url."""

    signer: Sha256
    token: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]*\Z", max_length=MAX_ID_TOKEN)]


Signature = KeySignature | PasskeySignature | OidcSignature


def signer_id(signer: Signer) -> str:
    """Return the fingerprint of a signer: one key, or one identity, is one under any label."""
    if isinstance(signer, OidcSigner):
        who = {"issuer": signer.issuer, "audience": signer.audience, "sub": signer.sub}
        return digest("placet-signer/1", encode(who))
    return digest("placet-signer/1", encode({"public_key": signer.public_key}))


def owner_fingerprint(owner: Threshold) -> str:
    """Return the digest of an owner principal, as a workload's measured config names it."""
    return digest("placet-owner/1", encode(owner))
