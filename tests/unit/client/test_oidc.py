"""Signing in: what is asked of a provider, what it may answer, and who else may not."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from urllib.parse import urlencode

import msgspec
import pytest
from placet_testing.charters import NOW, birth_body, composer, owner_of, person, seeded
from placet_testing.oidc_provider import AUDIENCE, SoftwareProvider
from placet_testing.oidc_provider_http import served

from placet.client.oidc import Means, discover, enrol, sign_in
from placet.client.oidc_redirect import MAX_QUERY, listening
from placet.client.oidc_web import MAX_ANSWER, ProviderWeb, checked
from placet.core.statement import compose
from placet.errors import (
    ApprovalError,
    ApprovalExpiredError,
    MalformedError,
    PlacetError,
    PolicyDeniedError,
    TooLargeError,
    UnavailableError,
    VerificationError,
)
from placet.policy.charter import Courier, take

WEB = ProviderWeb(timeout=10)
CONFIGURATION = "/.well-known/openid-configuration"


@pytest.fixture(name="there")
def _there():
    """Serve a provider."""
    with served(NOW + 10) as there:
        yield there


def means(there, **changes) -> Means:
    """Return what a sign-in takes, in this test."""
    given = Means(
        browse=there.sign_in, web=WEB, now=lambda: NOW + 5, rng=seeded("tool"), patience=5
    )
    return replace(given, **changes)


def birth(there):
    """Return a birth for an owner of a key and an identity."""
    owner = owner_of(person("owner").signer, there.provider.signer(), threshold=2)
    return composer().birth(birth_body(owner))


def signed(there, **changes):
    """Sign in for a birth, and return the signature."""
    return sign_in(there.provider.signer(), birth(there), means(there, **changes))


# --- what is asked --------------------------------------------------------------------------


def test_a_sign_in_asks_for_what_an_approval_needs(there):
    """Code flow, S256, a nonce that is the statement's digest, and a person who signs in now."""
    sent = birth(there)
    signature = sign_in(there.provider.signer(), sent, means(there))
    asked, form = there.asked[0], there.forms[0]
    digest = bytes.fromhex(sent.digest.removeprefix("sha256:"))
    assert base64.urlsafe_b64decode(asked.pop("nonce") + "=") == digest
    hashed = hashlib.sha256(form["code_verifier"].encode()).digest()
    challenge = asked.pop("code_challenge")
    assert challenge == base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
    assert len(asked.pop("state")) == len(form["code_verifier"]) == 43
    assert asked == {
        "response_type": "code",
        "client_id": AUDIENCE,
        "redirect_uri": form["redirect_uri"],
        "scope": "openid",
        "code_challenge_method": "S256",
        "max_age": "0",
        "prompt": "login",
    }
    assert form.keys() == {"grant_type", "code", "redirect_uri", "client_id", "code_verifier"}
    assert there.paths == [CONFIGURATION, "/jwks", "/token"]
    both = compose(sent.statement, (*person("owner").sign(sent).signatures, signature))
    take(None, [Courier(sent=both)], now=NOW + 20)


def test_nothing_is_drawn_twice(there):
    """Another sign-in has another state and another verifier."""
    rng = seeded("tool")
    for _ in range(2):
        signed(there, rng=rng)
    assert len({a["state"] for a in there.asked}) == 2
    assert len({f["code_verifier"] for f in there.forms}) == 2


def test_enrolment_pins_the_keys_of_today(there):
    """The identity comes out of the verified token."""
    other = SoftwareProvider(issuer=there.provider.issuer, kid="k2", algorithm="EdDSA")
    there.keys = [msgspec.to_builtins(key) for key in (there.provider.jwk, other.jwk)]
    signer = enrol(there.provider.issuer, AUDIENCE, label="at work", means=means(there))
    assert (signer.sub, signer.audience, signer.label) == ("owner", AUDIENCE, "at work")
    assert signer.jwks == (there.provider.jwk, other.jwk)


def test_an_authorization_endpoint_may_have_a_query(there):
    """Some providers name a tenant in it."""
    there.metadata = {"authorization_endpoint": f"{there.provider.issuer}/auth?tenant=1"}
    signed(there)
    assert there.asked[0]["tenant"] == "1"


# --- what a provider may answer -------------------------------------------------------------

LIES = {
    "another issuer": ({"issuer": "https://evil.example"}, VerificationError),
    "a slash at the end": ({"issuer": "slash"}, VerificationError),
    "no issuer": ({"issuer": ...}, VerificationError),
    "an issuer that is a number": ({"issuer": 1}, VerificationError),
    "no token endpoint": ({"token_endpoint": ...}, MalformedError),
    "a token endpoint without TLS": ({"token_endpoint": "http://evil.example/t"}, MalformedError),
    "a file": ({"jwks_uri": "file:///etc/passwd"}, MalformedError),
    "a user in an address": ({"jwks_uri": "https://u@evil.example/j"}, MalformedError),
    "keys at a number": ({"jwks_uri": 1}, MalformedError),
    "an address with a line feed": (
        {"authorization_endpoint": "https://evil.example/\nx"},
        MalformedError,
    ),
}


@pytest.mark.parametrize(("metadata", "error"), LIES.values(), ids=LIES.keys())
def test_metadata_that_do_not_fit_are_refused(there, metadata, error):
    """Before any browser is opened."""
    slash = {"issuer": there.provider.issuer + "/"}
    there.metadata = slash if metadata == {"issuer": "slash"} else metadata
    with pytest.raises(error):
        signed(there)
    assert there.asked == []


EC = msgspec.to_builtins(SoftwareProvider().jwk)
KEY_SETS = {
    "no keys": [],
    "for encryption": [EC | {"use": "enc"}],
    "of another algorithm": [EC | {"alg": "ES512"}],
    "symmetric": [{"kty": "oct", "kid": "k1", "k": "AA"}],
    "without kid": [{n: v for n, v in EC.items() if n != "kid"}],
    "off the curve": [EC | {"x": EC["y"]}],
    "no object": ["k1"],
    "two of one kid": [EC, EC],
    "nine": [EC | {"kid": f"k{i}"} for i in range(9)],
}


@pytest.mark.parametrize("keys", KEY_SETS.values(), ids=KEY_SETS.keys())
def test_keys_that_cannot_be_pinned_enrol_nobody(there, keys):
    """Said before anybody signs in."""
    there.answers["/jwks"] = (200, json.dumps({"keys": keys}).encode())
    with pytest.raises(MalformedError):
        enrol(there.provider.issuer, AUDIENCE, label="x", means=means(there))
    assert there.asked == []


def test_keys_for_something_else_are_left_out(there):
    """And what a key says besides is dropped."""
    fit = msgspec.to_builtins(there.provider.jwk) | {"use": "sig", "x5c": ["MIIB"]}
    del fit["alg"]
    there.keys = [EC | {"use": "enc"}, {"kty": "RSA", "kid": "small", "n": "AQ", "e": "AQAB"}, fit]
    assert discover(there.provider.issuer, WEB).jwks == (there.provider.jwk,)


def test_a_provider_that_changed_its_keys_is_said_before_the_sign_in(there):
    """The way out is a statement of the owner's."""
    there.keys = [EC]
    with pytest.raises(ApprovalError, match="pinned") as refusal:
        signed(there)
    assert refusal.value.members["reason"] == "kid"
    assert there.asked == []


CLAIMS = {
    "another statement": ({"nonce": "x"}, "nonce"),
    "another person": ({"sub": "somebody"}, "sub"),
    "a session": ({"auth_time": NOW - 3600}, "auth_time"),
    "no auth_time": ({"auth_time": ...}, "auth_time"),
    "another issuer": ({"iss": "https://evil.example"}, "iss"),
    "a long life": ({"exp": NOW + 90_000}, "exp"),
}


@pytest.mark.parametrize(("claims", "reason"), CLAIMS.values(), ids=CLAIMS.keys())
def test_a_token_is_verified_before_it_is_attached(there, claims, reason):
    """Exactly as a vault will do it."""
    there.claims = claims
    with pytest.raises(ApprovalError) as refusal:
        signed(there)
    assert refusal.value.members["reason"] == reason


TOKEN_ANSWERS = {
    "an error": (400, b'{"error":"invalid_client"}', ApprovalError),
    "an error that is none": (400, b'{"error":"\\u001b[2J<b>"}', ApprovalError),
    "an error without a word": (400, b"{}", ApprovalError),
    "no JSON": (200, b"<html>", MalformedError),
    "an array": (200, b"[]", MalformedError),
    "nothing": (200, b"", MalformedError),
    "no ID token": (200, b'{"access_token":"x"}', MalformedError),
    "an ID token that is a number": (200, b'{"id_token":1}', MalformedError),
    "an error page": (502, b"<html>", UnavailableError),
    "too much": (200, b" " * (MAX_ANSWER + 1), TooLargeError),
}


@pytest.mark.parametrize(
    ("status", "body", "error"), TOKEN_ANSWERS.values(), ids=TOKEN_ANSWERS.keys()
)
def test_token_answers_that_are_none(there, status, body, error):
    """A typed error each, which holds neither code nor verifier."""
    there.answers["/token"] = (status, body)
    with pytest.raises(error) as refusal:
        signed(there)
    said = json.dumps(refusal.value.problem())
    assert "the-code" not in said
    assert "\\u001b" not in said


@pytest.mark.parametrize("path", [CONFIGURATION, "/jwks", "/token"])
def test_a_redirect_is_not_followed(there, path):
    """Least of all with a code in its form."""
    there.redirects[path] = f"{there.provider.issuer}/elsewhere"
    with pytest.raises(PlacetError):
        signed(there)
    assert "/elsewhere" not in there.paths


def test_a_provider_that_is_not_there():
    """Named, and safe to try again."""
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1/"):
        discover("http://127.0.0.1:1", WEB)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(there, monkeypatch):
    """It could not reach it, and has no business with it."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert discover(there.provider.issuer, WEB).issuer == there.provider.issuer


@pytest.mark.parametrize("issuer", ["http://accounts.example", "https://a.example?x=1", "", "x"])
def test_no_issuer_is_asked_that_no_signer_may_name(issuer):
    """Not even for its metadata."""
    with pytest.raises(MalformedError):
        discover(issuer, WEB)


@pytest.mark.parametrize(
    "url", ["https://a.example/x?y=%20", "https://A.example:8443", "http://localhost:1/a"]
)
def test_addresses_that_a_provider_may_name(url):
    """Another host of its own among them."""
    assert checked(url) == url


# --- how the browser comes back -------------------------------------------------------------


@pytest.mark.parametrize(
    ("back", "reason"),
    [
        ({"iss": "https://evil.example"}, {"reason": "iss"}),
        ({"iss": ""}, {"reason": "iss"}),
    ],
)
def test_an_answer_of_another_provider_is_refused(there, back, reason):
    """RFC 9207: its code is redeemed nowhere."""
    there.comes_back = back
    with pytest.raises(ApprovalError) as refusal:
        signed(there)
    assert refusal.value.members == reason
    assert there.forms == []


def test_a_provider_that_names_itself_must_do_so(there):
    """And one that does not say that it does, need not."""
    real = there.visit
    there.visit = lambda address: real(address.partition("&iss=")[0])
    with pytest.raises(ApprovalError) as refusal:
        signed(there)
    assert refusal.value.members["reason"] == "iss"
    there.metadata = {"authorization_response_iss_parameter_supported": False}
    signed(there)


def test_a_person_who_says_no(there):
    """The provider's word for it is passed on, if it is a word."""
    real = there.visit
    there.comes_back = {"error": "access_denied"}
    there.visit = lambda address: real(address.replace("code=the-code&", ""))
    with pytest.raises(ApprovalError) as refusal:
        signed(there)
    assert refusal.value.members["error"] == "access_denied"
    assert there.forms == []


def test_nobody_signs_in(there):
    """The port is given back after a while."""
    with pytest.raises(PolicyDeniedError, match="nobody signed in"):
        signed(there, browse=lambda _: None, patience=0.05)


def test_an_expired_statement_is_signed_by_nobody(there):
    """Said before the person is asked."""
    with pytest.raises(ApprovalExpiredError):
        signed(there, now=lambda: birth(there).statement.expires_at)
    assert there.paths == []


STRANGERS = {
    "without state": {"code": "c"},
    "with another state": {"code": "c", "state": "guess"},
    "with an empty state": {"code": "c", "state": ""},
    "with text that is no ASCII": {"code": "c", "state": "\u00e9"},
    "too long": {"code": "c" * MAX_QUERY, "state": "s"},
    "too many members": {"state": "s"} | {f"m{i}": "" for i in range(20)},
}


@pytest.mark.parametrize("members", STRANGERS.values(), ids=STRANGERS.keys())
def test_other_programs_answers_are_turned_away_and_the_wait_goes_on(there, members):
    """Nobody but the provider knows the state."""
    with listening("s") as redirect:
        status, _ = there.visit(f"{redirect.uri}?{urlencode(members)}")
        assert status == 400
        assert there.visit(f"{redirect.uri}?code=real&state=s")[0] == 200
        assert redirect.wait(5) == {"code": "real", "state": "s"}


def test_what_else_is_asked_of_the_port(there):
    """Another path, another host, a member twice, a second answer."""
    with listening("s") as redirect:
        other = redirect.uri.replace("/signed-in", "/favicon.ico")
        assert there.visit(other)[0] == 404
        assert there.visit(f"{redirect.uri}?code=x&state=s", host="evil.example")[0] == 421
        assert there.visit(f"{redirect.uri}?code=x&code=y&state=s")[0] == 400
        assert there.visit(f"{redirect.uri}?code=x&state=s")[0] == 200
        assert there.visit(f"{redirect.uri}?code=y&state=s")[0] == 410
        assert redirect.wait(5)["code"] == "x"
        with pytest.raises(PolicyDeniedError):
            redirect.wait(0.01)
