"""ID tokens as an additional factor, verified by the vault itself (OpenID Connect Core 1.0).

STUB until the next commit.
"""

from __future__ import annotations

from dataclasses import dataclass

from placet.core.signer import OidcSignature, OidcSigner
from placet.errors import ApprovalError


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """An ID token that held, as far as a statement's approval rests on it."""

    until: int
    """Unix seconds: its ``exp``. From then on it supports no taking by the clock alone."""
    jwk: str
    """``sha256:`` thumbprint (RFC 7638) of the pinned key that verified it."""


def oidc_signer_check(signer: OidcSigner) -> None:
    """Refuse an identity that no token could prove, or anybody's could."""
    raise NotImplementedError(signer)


def verify_id_token(
    signer: OidcSigner,
    signature: OidcSignature,
    *,
    nonce: bytes,
    issued_at: int,
    expires_at: int,
) -> VerifiedToken:
    """Check that this identity approved ``nonce``, by a fresh sign-in."""
    del signature, nonce, issued_at, expires_at
    raise ApprovalError(f"no token of {signer.label!r} is taken yet")
