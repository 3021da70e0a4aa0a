"""Sign in at an identity provider, to approve one statement and nothing else.

Authorization code with PKCE and a loopback redirect (RFC 6749, 7636, 8252), ``max_age=0``
and ``prompt=login``: the person signs in anew for each approval. What the provider gives
besides the ID token is dropped; nothing is stored, refreshed or polled. The token is
verified here exactly as each vault will do it, and only then handed on.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import msgspec

from placet.client.oidc_redirect import listening
from placet.client.oidc_web import ProviderWeb, checked
from placet.core.encoding import b64, digest
from placet.core.limits import MAX_JWKS
from placet.core.signer import Jwk, OidcSignature, OidcSigner, signer_id
from placet.core.statement import UntrustedStatement
from placet.errors import (
    ApprovalError,
    ApprovalExpiredError,
    MalformedError,
    PlacetError,
    VerificationError,
)
from placet.policy.jwk import check_jwk, thumbprint
from placet.policy.oidc import verify_enrolment, verify_id_token
from placet.policy.provider import Provider, check_issuer, check_provider

WELL_KNOWN = "/.well-known/openid-configuration"
PATIENCE = 300
"""Seconds for which a sign-in is waited for."""
ALG = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}
"""The one algorithm of each kind of key that vaults verify."""

_error = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_members_of = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a provider says about itself. TLS vouches for it, and nothing else."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks: tuple[Jwk, ...]
    """Those of its keys that a signer may pin."""
    names_issuer: bool
    """Whether its answers name it (RFC 9207)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a sign-in takes from around it.

    Args:
        browse: Opens an address for the person.
        web: Asks the provider.
        now: Unix seconds.
        rng: Randomness for ``state``, code verifier and an enrolment's nonce.
        patience: Seconds for which the person is waited for.
    """

    browse: Callable[[str], object]
    web: ProviderWeb
    now: Callable[[], int] = lambda: int(time.time())
    rng: Callable[[int], bytes] = os.urandom
    patience: float = PATIENCE


def discover(issuer: str, web: ProviderWeb) -> Metadata:
    """Ask a provider about itself (OpenID Connect Discovery 1.0, section 4).

    Args:
        issuer: As the owner configured it; what answers must call itself exactly so.
        web: Asks.

    Raises:
        VerificationError: What answers is another issuer.
        MalformedError: No issuer, or metadata without what is needed; no fit key.
        UnavailableError: No answer.
    """
    check_issuer(issuer)
    said = web.get(issuer.removesuffix("/") + WELL_KNOWN)
    if said.get("issuer") != issuer:
        raise VerificationError(
            f"{issuer} calls itself {str(said.get('issuer'))[:200]!r}",
            "Configure the issuer exactly as the provider writes it, slashes included.",
        )
    return Metadata(
        issuer=issuer,
        authorization_endpoint=checked(said.get("authorization_endpoint")),
        token_endpoint=checked(said.get("token_endpoint")),
        jwks=_fit_keys(web.get(checked(said.get("jwks_uri"))), issuer),
        names_issuer=said.get("authorization_response_iss_parameter_supported") is True,
    )


def enrol(issuer: str, audience: str, *, label: str, means: Means) -> OidcSigner:
    """Return the signer that a sign-in proves, with the provider's keys of today pinned.

    Args:
        issuer: Exact.
        audience: Client id, registered for approvals only.
        label: Name of the signer.
        means: How to sign in.

    Raises:
        PlacetError: As for `discover` and `sign_in`.
    """
    metadata = discover(issuer, means.web)
    provider = Provider(issuer=issuer, audience=audience, jwks=metadata.jwks)
    check_provider(provider)
    # Under a label of its own: an enrolment approves nothing, whoever gets hold of the token.
    name = digest("placet-oidc-enrolment/1", means.rng(32))
    nonce, began = bytes.fromhex(name.removeprefix("sha256:")), means.now()
    token = _signed_in(metadata, audience, nonce, means)
    return verify_enrolment(
        provider,
        token,
        label=label,
        nonce=nonce,
        issued_at=began,
        expires_at=began + int(means.patience) + 1,
    )


def sign_in(signer: OidcSigner, sent: UntrustedStatement, means: Means) -> OidcSignature:
    """Return a signature of this identity over a statement, by a sign-in made for it.

    Args:
        signer: As the policy names it.
        sent: Composed or read here, and shown to the person.
        means: How to sign in.

    Raises:
        ApprovalError: The provider refused, or its token is not for this statement.
        ApprovalExpiredError: The statement is past its end.
        PolicyDeniedError: Nobody signed in in time.
        PlacetError: As for `discover`.
    """
    statement = sent.statement
    if means.now() >= statement.expires_at:
        raise ApprovalExpiredError(f"statement {sent.digest} ended at {statement.expires_at}")
    metadata = discover(signer.issuer, means.web)
    pinned, published = ({thumbprint(k) for k in keys} for keys in (signer.jwks, metadata.jwks))
    if not pinned & published:
        raise ApprovalError(
            f"{signer.issuer} has none of the {len(pinned)} keys that are pinned of it any more",
            "Enrol anew, and have the other signers approve the new keys by an update-policy.",
            reason="kid",
        )
    nonce = bytes.fromhex(sent.digest.removeprefix("sha256:"))
    token = _signed_in(metadata, signer.audience, nonce, means)
    signature = OidcSignature(signer=signer_id(signer), token=token)
    verify_id_token(
        signer,
        signature,
        nonce=nonce,
        issued_at=statement.issued_at,
        expires_at=statement.expires_at,
    )
    return signature


def _signed_in(metadata: Metadata, audience: str, nonce: bytes, means: Means) -> str:
    """Return the ID token of a sign-in. It is *not* verified here."""
    state, verifier = b64(means.rng(32)), b64(means.rng(32))
    with listening(state) as redirect:
        asked = {
            "response_type": "code",
            "client_id": audience,
            "redirect_uri": redirect.uri,
            "scope": "openid",
            "state": state,
            "nonce": b64(nonce),
            "code_challenge": b64(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
            "max_age": "0",
            "prompt": "login",
        }
        mark = "&" if "?" in metadata.authorization_endpoint else "?"
        means.browse(f"{metadata.authorization_endpoint}{mark}{urlencode(asked)}")
        code = _code(redirect.wait(means.patience), metadata)
        uri = redirect.uri
    answer = means.web.post(
        metadata.token_endpoint,
        {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": uri,
            "client_id": audience,
            "code_verifier": verifier,
        },
    )
    if answer.status != 200:  # noqa: PLR2004 - RFC 6749, 5.1
        raise _refused("gave no token", answer.members.get("error"))
    found = answer.members.get("id_token")
    if not isinstance(found, str):
        raise MalformedError(f"{metadata.issuer} answered without an ID token")
    return found


def _code(answer: Mapping[str, str], metadata: Metadata) -> str:
    # RFC 9207: another provider that the browser was led to cannot have its code used here.
    if answer.get("iss", metadata.issuer if not metadata.names_issuer else "") != metadata.issuer:
        raise ApprovalError("the sign-in was answered by another provider", reason="iss")
    if "code" not in answer:
        raise _refused("refused the sign-in", answer.get("error"))
    return answer["code"]


def _refused(what: str, error: object) -> PlacetError:
    named = error if isinstance(error, str) and _error.fullmatch(error) else "no error that is one"
    return ApprovalError(f"the identity provider {what}: {named}", "Sign in again.", error=named)


def _fit_keys(jwks: Mapping[str, object], issuer: str) -> tuple[Jwk, ...]:
    listed = jwks.get("keys")
    if not isinstance(listed, list):
        raise MalformedError(f"{issuer} publishes no keys")
    found = tuple(key for one in listed if (key := _fit_key(one)) is not None)
    if not 1 <= len(found) <= MAX_JWKS:
        raise MalformedError(
            f"{issuer} publishes {len(listed)} keys, {len(found)} of which can verify an ID "
            f"token; expected 1 to {MAX_JWKS}",
            "Vaults verify RS256 (2048 to 4096 bits), ES256 and EdDSA (Ed25519).",
        )
    return found


def _fit_key(one: object) -> Jwk | None:
    """Return a published key as a signer pins it; nothing if it is for something else."""
    if not isinstance(one, dict) or one.get("use", "sig") != "sig":
        return None
    kind = str(one.get("kty"))
    alg = ALG.get(kind)
    if alg is None or one.get("alg", alg) != alg:
        return None
    members = {name: one.get(name) for name in ("kid", *_members_of[kind])}
    try:
        key: Jwk = msgspec.convert(members | {"kty": kind, "alg": alg}, Jwk)
        check_jwk(key)
    except (msgspec.ValidationError, MalformedError):
        return None
    return key
