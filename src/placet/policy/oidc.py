"""ID tokens as an additional factor, verified by the vault itself (OpenID Connect Core 1.0).

A parser of our own for one fixed shape, because whoever parses decides what was signed: a
compact JWS of three parts whose header says ``alg``, ``kid`` and maybe ``typ``. The keys are
those that the owner pinned; nothing is fetched, and nothing in a token says where from.

No other module reads what is in a token, and none of it leaves here unverified (R5.5).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from placet.core.encoding import b64, unb64
from placet.core.limits import MAX_ID_TOKEN
from placet.core.signer import Jwk, OidcSignature, OidcSigner
from placet.errors import ApprovalError, MalformedError, PlacetError, TooLargeError
from placet.policy.jwk import thumbprint, verify_jws
from placet.policy.provider import Provider, check_provider, check_text

CLOCK_SKEW = 60
"""Seconds by which the clocks of owner and provider may differ."""
MAX_TOKEN_LIFE = 24 * 3600
"""Seconds from a token's ``iat`` to its ``exp``."""

HEADER = frozenset(("alg", "kid", "typ"))
"""All that a header may hold. Every other member says how to verify, and it is not to say."""
ALGORITHMS = ("RS256", "ES256", "EdDSA")

_parts = 3
_seconds = range(10**9, 10**11)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """An ID token that held, as far as a statement's approval rests on it."""

    until: int
    """Unix seconds: its ``exp``. From then on it supports no taking by the clock alone."""
    jwk: str
    """``sha256:`` thumbprint (RFC 7638) of the pinned key that verified it."""


def oidc_signer_check(signer: OidcSigner) -> None:
    """Refuse an identity that no token could prove, or anybody's could.

    Raises:
        MalformedError: As `check_provider`, or ``sub`` is no text.
    """
    check_provider(Provider(issuer=signer.issuer, audience=signer.audience, jwks=signer.jwks))
    check_text("sub", signer.sub)


def verify_id_token(
    signer: OidcSigner,
    signature: OidcSignature,
    *,
    nonce: bytes,
    issued_at: int,
    expires_at: int,
) -> VerifiedToken:
    """Check that this identity approved ``nonce``, by a sign-in made for it.

    How the person signed in is *not* looked at (``amr``, ``acr``), nor groups, roles or mail:
    the provider says these, and he is trusted with nothing. Nor is the time: the caller
    holds ``until`` against its own.

    Args:
        signer: The identity as the policy names it, with keys that `oidc_signer_check` passed.
        signature: A whole ID token, as the provider returned it.
        nonce: The 32 bytes of the statement's digest.
        issued_at: Of the statement; the sign-in is at most a minute older.
        expires_at: Of the statement; the sign-in is not later.

    Raises:
        ApprovalError: It is about something or somebody else, or does not hold; ``reason``
            names the member.
        MalformedError: It does not parse.
    """
    provider = Provider(issuer=signer.issuer, audience=signer.audience, jwks=signer.jwks)
    jwk, claims = _verified(provider, signature.token)
    _expect("sub", claims, signer.sub)
    until = _check_claims(provider, claims, nonce, issued_at, expires_at)
    return VerifiedToken(until=until, jwk=thumbprint(jwk))


def verify_enrolment(
    provider: Provider, token: str, *, label: str, nonce: bytes, issued_at: int, expires_at: int
) -> OidcSigner:
    """Return the signer that a sign-in proves: whoever it was, at this provider.

    For the owner's own tool, which drew ``nonce`` at random: no statement has that digest.

    Raises:
        ApprovalError, MalformedError: As `verify_id_token`.
    """
    _, claims = _verified(provider, token)
    _check_claims(provider, claims, nonce, issued_at, expires_at)
    sub = claims.get("sub")
    if not isinstance(sub, str):
        raise _refusal("sub", "token has no sub that is text")
    signer = OidcSigner(
        label=label, issuer=provider.issuer, audience=provider.audience, sub=sub, jwks=provider.jwks
    )
    oidc_signer_check(signer)
    return signer


def _verified(provider: Provider, token: str) -> tuple[Jwk, Mapping[str, object]]:
    # Length, then shape: nothing is decoded that no honest token could be.
    if len(token) > MAX_ID_TOKEN:
        raise TooLargeError(f"token is {len(token)} characters, at most {MAX_ID_TOKEN}")
    parts = token.split(".", _parts)
    if len(parts) != _parts:
        raise _malformed("parts", f"token is no compact JWS of {_parts} parts")
    raw_header, raw_payload, signature = (_decoded(part) for part in parts)
    jwk = _key(provider, _parse("header", raw_header))
    # The payload is bytes of a stranger until this line.
    verify_jws(jwk, signature, f"{parts[0]}.{parts[1]}".encode("ascii"))
    return jwk, _parse("payload", raw_payload)


def _key(provider: Provider, header: Mapping[str, object]) -> Jwk:
    """Return the pinned key that a header names; a name is all that it may be."""
    for name in header:
        if name not in HEADER:
            # Half a surrogate is text to JSON's parser and to no encoder.
            named = name[:40].encode("ascii", "replace").decode()
            detail = f"token's header has {named!r}, expected only alg, kid and typ"
            raise _refusal("header", detail, member=named)
    if header.get("typ", "JWT") != "JWT":
        raise _refusal("typ", f"token's typ is {_shown(header.get('typ'))}, expected JWT")
    alg, kid = header.get("alg"), header.get("kid")
    if alg not in ALGORITHMS:
        raise _refusal("alg", f"token's alg is {_shown(alg)}, expected one of {ALGORITHMS}")
    pinned = [jwk for jwk in provider.jwks if jwk.kid == kid]
    if not pinned:
        raise ApprovalError(
            f"token names key {_shown(kid)}, which is none of the {len(provider.jwks)} pinned of "
            f"{provider.issuer}",
            "If the provider changed its keys, pin the new ones by an update-policy.",
            reason="kid",
        )
    if pinned[0].alg != alg:
        raise _refusal(
            "alg", f"token's alg is {alg}, key {_shown(kid)} is pinned for {pinned[0].alg}"
        )
    return pinned[0]


def _check_claims(
    provider: Provider, claims: Mapping[str, object], nonce: bytes, issued_at: int, expires_at: int
) -> int:
    _expect("iss", claims, provider.issuer)
    if claims.get("aud") != [provider.audience]:
        _expect("aud", claims, provider.audience)
    if "azp" in claims:
        _expect("azp", claims, provider.audience)
    _expect("nonce", claims, b64(nonce))
    at, iat, exp = (_time(name, claims) for name in ("auth_time", "iat", "exp"))
    # A fresh sign-in, for this statement: not a session from before it, nor one after its end.
    _within("auth_time", at, issued_at - CLOCK_SKEW, min(expires_at, iat + CLOCK_SKEW))
    _within("iat", iat, issued_at - CLOCK_SKEW, expires_at)
    _within("exp", exp, iat + 1, iat + MAX_TOKEN_LIFE)
    if "nbf" in claims:
        nbf = claims["nbf"]
        if type(nbf) is not int or nbf > iat + CLOCK_SKEW:
            raise _refusal(
                "nbf", f"token's nbf is {_shown(nbf)}, expected at most {iat + CLOCK_SKEW}"
            )
    return exp


def _expect(name: str, claims: Mapping[str, object], expected: str) -> None:
    if claims.get(name) != expected:
        raise _refusal(name, f"token's {name} is {_shown(claims.get(name))}, expected {expected!r}")


def _time(name: str, claims: Mapping[str, object]) -> int:
    value = claims.get(name)
    # ``True`` is an int to Python and no time to anybody; 13 digits would be milliseconds.
    if type(value) is not int or value not in _seconds:
        raise _refusal(
            name, f"token's {name} is {_shown(value)}, expected whole seconds since 1970"
        )
    return value


def _within(name: str, value: int, first: int, last: int) -> None:
    if not first <= value <= last:
        raise _refusal(name, f"token's {name} is {value}, expected {first} to {last}")


def _decoded(part: str) -> bytes:
    try:
        return unb64(part)
    except MalformedError as e:
        raise _malformed("base64url", f"a part of the token is unreadable: {e.detail}") from e


def _parse(what: str, raw: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(
            raw.decode(),
            object_pairs_hook=_members,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as e:
        raise _malformed("json", f"token's {what} does not parse: {e}"[:300]) from e
    if not isinstance(value, dict):
        raise _malformed("json", f"token's {what} is no object")
    return value


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member appears twice")
    return members


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is no integer")


def _shown(value: object) -> str:
    # Of what is nested only the kind: its text could be as deep as the parser goes, and deeper.
    return repr(value)[:100] if isinstance(value, str | int | None) else type(value).__name__


def _refusal(reason: str, detail: str, **members: object) -> PlacetError:
    return ApprovalError(detail[:600], _HINTS.get(reason, ""), reason=reason, **members)


def _malformed(reason: str, detail: str) -> PlacetError:
    return MalformedError(
        detail, "Send the ID token exactly as the provider sent it.", reason=reason
    )


_HINTS = {
    "nonce": "Sign in for this very statement: placet oidc sign FILE.",
    "auth_time": "Sign in anew, with max_age=0, after the statement was composed.",
    "aud": "Register a client for approvals alone, and sign in with that one.",
}
