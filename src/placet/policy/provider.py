"""Identity providers as an owner pins them: exact issuer, one client, and keys."""

from __future__ import annotations

import re
from dataclasses import dataclass

from placet.core.limits import MAX_JWKS, MAX_LABEL
from placet.core.signer import Jwk
from placet.errors import MalformedError
from placet.policy.jwk import check_jwk

_issuer = re.compile(
    r"(?:https://[a-z0-9-]+(?:\.[a-z0-9-]+)*|http://localhost|http://127\.0\.0\.1)"
    r"(?::[1-9][0-9]{0,4})?(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What an owner pins of an identity provider."""

    issuer: str
    """Exact, as the provider writes it."""
    audience: str
    """A client id that is registered for approvals and for nothing else."""
    jwks: tuple[Jwk, ...]


def check_provider(provider: Provider) -> None:
    """Refuse a provider whose tokens could not be verified, or could be made by anybody.

    That the keys are the provider's is *not* checked: the owner pinned them.

    Raises:
        MalformedError: The issuer is no plain https URL, the audience is no text, two keys
            have one ``kid``, or a key is unfit.
    """
    check_issuer(provider.issuer)
    check_text("audience", provider.audience)
    kids = [jwk.kid for jwk in provider.jwks]
    if not 1 <= len(kids) <= MAX_JWKS:
        raise MalformedError(
            f"{len(kids)} keys of provider {provider.issuer}, expected 1 to {MAX_JWKS}"
        )
    if len(set(kids)) != len(kids):
        raise MalformedError(f"two keys of provider {provider.issuer} have one kid")
    for jwk in provider.jwks:
        check_jwk(jwk)


def check_issuer(issuer: str) -> None:
    """Refuse an issuer that is no plain https URL (or http on this machine)."""
    if len(issuer) > MAX_LABEL or _issuer.fullmatch(issuer) is None:
        raise MalformedError(
            f"issuer {issuer[:MAX_LABEL]!r} is no https URL without query, fragment and user",
            "Write it exactly as the provider does; http is for localhost and 127.0.0.1 only.",
        )


def check_text(name: str, text: str) -> None:
    """Refuse an audience or a ``sub`` that is empty, too long or cannot be shown."""
    if not 1 <= len(text) <= MAX_LABEL or not text.isprintable():
        raise MalformedError(
            f"{name} of an OIDC signer is no printable text of 1 to {MAX_LABEL} characters"
        )
