"""ID tokens and OIDC signers: every vector of `vectors/oidc`; nothing is fetched for any."""

from __future__ import annotations

import json
import socket
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from placet.core.encoding import encode, unb64
from placet.core.signer import OidcSignature, OidcSigner, signer_id
from placet.errors import ApprovalError, MalformedError, PlacetError
from placet.policy.oidc import VerifiedToken, oidc_signer_check, verify_id_token
from placet.policy.signers import signer_key_check

FOLDER = Path(__file__).resolve().parents[3] / "vectors" / "oidc"
TOKENS = json.loads((FOLDER / "id-tokens.json").read_text())
SIGNERS = json.loads((FOLDER / "signers.json").read_text())
STATEMENT = TOKENS["statement"]
KNOWN = {one["name"]: msgspec.convert(one["signer"], OidcSigner) for one in TOKENS["signers"]}


def named(cases):
    """Return the cases with what to call them; none would be a test of nothing."""
    if not cases:
        raise LookupError("no cases")
    return [pytest.param(case, id=case["name"]) for case in cases]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Let every attempt to reach anything fail the test."""

    def reach(*_args, **_kwargs):
        raise AssertionError("a token made the verifier reach for the network")

    for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, reach)


def verify(case) -> VerifiedToken:
    """Verify a case's token as an approval of the vectors' statement."""
    signer = KNOWN[case["signer"]]
    return verify_id_token(
        signer,
        OidcSignature(signer=signer_id(signer), token=case["token"]),
        nonce=unb64(STATEMENT["nonce"]),
        issued_at=STATEMENT["issued_at"],
        expires_at=STATEMENT["expires_at"],
    )


@pytest.mark.parametrize("case", named(TOKENS["accepted"]))
def test_honest_token_holds(case):
    """What a real provider may send is taken, with its end and the thumbprint of its key."""
    assert verify(case) == VerifiedToken(until=case["until"], jwk=case["jwk"])


@pytest.mark.req("R5.4")
@pytest.mark.parametrize("case", named(TOKENS["refused"]))
def test_token_is_refused(case):
    """Each for the reason that it was made for, with an error that can travel."""
    with pytest.raises((ApprovalError, MalformedError)) as refusal:
        verify(case)
    assert (refusal.value.type, refusal.value.members.get("reason")) == (
        case["type"],
        case["reason"],
    )
    said = encode(refusal.value.problem()).decode()
    assert len(said) < 2000
    parts = [part for part in case["token"].split(".") if len(part) > 40]
    assert not [part for part in parts if part in said]


@pytest.mark.req("R5.4")
def test_the_vectors_hold_every_attack_of_the_list():
    """THREATS R5.4, by the names of the vectors."""
    names = {case["name"] for case in TOKENS["refused"]}
    assert names >= {
        "alg: none, unsigned",
        "alg: HS256 with the RSA key as PEM",
        "jwk: a key of one's own",
        "header: jku",
        "header: x5u",
        "kid: a path",
        "kid: SQL",
        "kid: unknown",
        "kid: rotated out",
        "aud: ours and another",
        "iss: with a slash at the end",
        "payload: iss twice",
        "exp left out",
        "exp in milliseconds",
        "header: cty",
        "payload: another token",
    }
    assert not [
        name for name, times in Counter(c["name"] for c in TOKENS["refused"]).items() if times > 1
    ]


def test_every_reason_has_a_vector():
    """A reason that nothing is refused for is a check that nothing proves."""
    given = {case["reason"] for case in TOKENS["refused"]}
    claims = {"iss", "aud", "azp", "sub", "nonce", "auth_time", "iat", "exp", "nbf"}
    assert given == claims | {
        None, "parts", "base64url", "json", "header", "typ", "alg", "kid", "signature",
    }  # fmt: skip


@pytest.mark.parametrize("case", named(SIGNERS["cases"]))
def test_signer_is_fit_or_not(case):
    """What no token could prove, or anybody's could, gets into no policy."""
    signer = msgspec.convert(case["signer"], OidcSigner)
    assert signer_id(signer) == case["id"]
    if case["type"] is None:
        signer_key_check(signer)
        return
    with pytest.raises(PlacetError) as refusal:
        oidc_signer_check(signer)
    assert refusal.value.type == case["type"]


def test_signers_of_the_tokens_are_fit():
    """Their ids are as another implementation makes them."""
    for one in TOKENS["signers"]:
        signer_key_check(KNOWN[one["name"]])
        assert signer_id(KNOWN[one["name"]]) == one["id"]
