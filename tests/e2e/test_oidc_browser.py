"""Approvals by a real provider's ID tokens, in a real browser; and sign-ins that are none."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from placet_testing.charters import birth_body, composer, owner_of
from placet_testing.charters import person as key_of
from placet_testing.oidc_provider_node import NODE, ROOT, installed, lacking, person, running

from placet.client.oidc import Means, discover, enrol, sign_in
from placet.client.oidc_web import ProviderWeb
from placet.core.signer import OidcSignature, signer_id
from placet.core.statement import compose
from placet.errors import ApprovalError
from placet.policy.charter import Courier, take
from placet.policy.jwk import thumbprint
from placet.policy.oidc import verify_id_token

LACKING = lacking()
pytestmark = pytest.mark.skipif(bool(LACKING), reason=LACKING or "nothing is lacking")

WEB = ProviderWeb()
CLIENTS = {"approvals-es256": "ES256", "approvals-rs256": "RS256", "approvals-eddsa": "EdDSA"}
KEY = key_of("owner")


@pytest.fixture(scope="module", name="folder")
def _folder():
    """Install what the scripts import."""
    try:
        return installed()
    except RuntimeError as e:
        pytest.skip(f"the provider cannot be installed: {e}")


@pytest.fixture(scope="module", name="issuer")
def _issuer(folder):
    """Run the provider."""
    with running(folder) as issuer:
        yield issuer


@pytest.fixture(scope="module", name="browser")
def _browser(tmp_path_factory):
    """Start one browser, whose session at the provider lasts over all tests."""
    with person(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture(name="owner")
def _owner(browser):
    """Give the person back as the owner who agrees."""
    browser.name, browser.declines = "owner", False
    return browser


@pytest.fixture(scope="module", name="signers")
def _signers(issuer, browser):
    """Enrol the owner's identity once at each client."""
    return {
        client: enrol(
            issuer, client, label="work account", means=Means(browse=browser.visit, web=WEB)
        )
        for client in CLIENTS
    }


def statement(*signers, seed="one"):
    """Return a birth of now, for an owner of whom all must sign."""
    owner = owner_of(KEY.signer, *signers, threshold=1 + len(signers))
    return composer(int(time.time()), seed).birth(birth_body(owner))


def digest(sent) -> bytes:
    """Return what the nonce is made of."""
    return bytes.fromhex(sent.digest.removeprefix("sha256:"))


def verify(signer, sent, token):
    """Verify a token as a vault does."""
    return verify_id_token(
        signer,
        OidcSignature(signer=signer_id(signer), token=token),
        nonce=digest(sent),
        issued_at=sent.statement.issued_at,
        expires_at=sent.statement.expires_at,
    )


class Elsewhere:
    """Has the person sign in as another program asks: what it may change, and what it gets."""

    def __init__(self, person, **changes):
        self._person, self._changes = person, changes
        self.tokens = []

    def visit(self, address):
        """Open the address with other members in its query; ``None`` takes one out."""
        parts = urlsplit(address)
        asked = dict(parse_qsl(parts.query)) | self._changes
        kept = {name: value for name, value in asked.items() if value is not None}
        self._person.visit(parts._replace(query=urlencode(kept)).geturl())

    def get(self, url):
        """Ask the provider as the tool does."""
        return WEB.get(url)

    def post(self, url, form):
        """Redeem the code for the client that asked, and keep the token."""
        answer = WEB.post(
            url, form | {"client_id": self._changes.get("client_id", form["client_id"])}
        )
        self.tokens.append(answer.members["id_token"])
        return answer


@pytest.mark.parametrize(("client", "alg"), CLIENTS.items())
def test_a_sign_in_at_a_real_provider_approves_this_statement(signers, owner, client, alg):
    """Enrolled, signed in for, verified, taken beside the key; the JWK is kept."""
    signer = signers[client]
    assert (signer.sub, signer.audience) == ("owner", client)
    assert {jwk.alg for jwk in signer.jwks} == {"ES256", "RS256", "EdDSA"}
    sent = statement(signer)
    signature = sign_in(signer, sent, Means(browse=owner.visit, web=WEB))
    assert "go back to the terminal" in owner.text()
    both = compose(sent.statement, (*KEY.sign(sent).signatures, signature))
    policy, taken = take(None, [Courier(sent=both)], now=int(time.time()))
    assert policy.key == sent.digest
    assert taken[0].jwks == tuple(thumbprint(jwk) for jwk in signer.jwks if jwk.alg == alg)
    with pytest.raises(ApprovalError):
        take(None, [Courier(sent=compose(sent.statement, (signature,)))], now=int(time.time()))


def test_each_approval_is_a_sign_in_of_its_own(signers, owner):
    """The browser has a session at the provider; the person is asked all the same."""
    signer = signers["approvals-es256"]
    for seed in ("first", "second"):
        sign_in(signer, statement(signer, seed=seed), Means(browse=owner.visit, web=WEB))
        assert owner.asked[0] == "login"


SIGN_INS = {
    "by another client of the provider": ({"client_id": "notes-web"}, "aud"),
    "by another client for approvals": ({"client_id": "approvals-rs256"}, "aud"),
    "with another nonce": ({"nonce": "n-0S6_WzA2Mj"}, "nonce"),
    "with another nonce, in hex": ({"nonce": "00" * 32}, "nonce"),
    "without a nonce": ({"nonce": None}, "nonce"),
    "without max_age, as most apps do": ({"max_age": None, "prompt": None}, "auth_time"),
}


@pytest.mark.req("R5.4")
@pytest.mark.parametrize(("changes", "reason"), SIGN_INS.values(), ids=SIGN_INS.keys())
def test_a_sign_in_elsewhere_is_never_an_approval(signers, owner, changes, reason):
    """Whatever app had the owner sign in, its token approves nothing; here or at a vault."""
    signer = signers["approvals-es256"]
    sent = statement(signer)
    elsewhere = Elsewhere(owner, **changes)
    with pytest.raises(ApprovalError) as refusal:
        sign_in(signer, sent, Means(browse=elsewhere.visit, web=elsewhere))
    assert refusal.value.members["reason"] == reason
    (token,) = elsewhere.tokens
    forged = OidcSignature(signer=signer_id(signer), token=token)
    both = compose(sent.statement, (*KEY.sign(sent).signatures, forged))
    with pytest.raises(ApprovalError) as refusal:
        take(None, [Courier(sent=both)], now=int(time.time()))
    assert refusal.value.members["reason"] == reason


def test_a_session_is_no_sign_in(signers, owner):
    """An old session gives a token at once, with the time of the sign-in that it stems from."""
    signer = signers["approvals-es256"]
    first = statement(signer, seed="first")
    sign_in(signer, first, Means(browse=owner.visit, web=WEB))
    later = statement(signer, seed="later")
    aged = composer(later.statement.issued_at + 3600, "aged").birth(later.statement.body)
    elsewhere = Elsewhere(owner, prompt=None, max_age="9999")
    with pytest.raises(ApprovalError) as refusal:
        sign_in(signer, aged, Means(browse=elsewhere.visit, web=elsewhere))
    assert "login" not in owner.asked
    assert refusal.value.members["reason"] == "auth_time"


def test_somebody_else_at_the_same_provider_is_not_the_owner(signers, owner):
    """The client is right, the nonce is right, the person is not."""
    signer = signers["approvals-es256"]
    owner.name = "somebody"
    with pytest.raises(ApprovalError) as refusal:
        sign_in(signer, statement(signer), Means(browse=owner.visit, web=WEB))
    assert refusal.value.members["reason"] == "sub"


def test_the_approval_of_one_statement_is_none_of_another(signers, owner):
    """One sign-in, one statement."""
    signer = signers["approvals-es256"]
    sent, other = statement(signer), statement(signer, seed="other")
    signature = sign_in(signer, sent, Means(browse=owner.visit, web=WEB))
    verify(signer, sent, signature.token)
    with pytest.raises(ApprovalError) as refusal:
        verify(signer, other, signature.token)
    assert refusal.value.members["reason"] == "nonce"


def test_a_person_who_declines_signs_nothing(signers, owner):
    """The provider says so, and so does the tool."""
    signer = signers["approvals-es256"]
    owner.declines = True
    with pytest.raises(ApprovalError) as refusal:
        sign_in(signer, statement(signer), Means(browse=owner.visit, web=WEB))
    assert refusal.value.members["error"] == "access_denied"


def test_an_enrolments_token_approves_nothing(issuer, owner):
    """Its nonce is of no statement, whoever gets hold of it."""
    elsewhere = Elsewhere(owner)
    signer = enrol(
        issuer, "approvals-es256", label="x", means=Means(browse=elsewhere.visit, web=elsewhere)
    )
    with pytest.raises(ApprovalError) as refusal:
        verify(signer, statement(signer), elsewhere.tokens[0])
    assert refusal.value.members["reason"] == "nonce"


def test_the_provider_says_who_it_is(issuer):
    """Metadata as they are: what is needed is there, and the keys that fit are found."""
    metadata = discover(issuer, WEB)
    assert metadata.names_issuer
    assert {jwk.kid for jwk in metadata.jwks} == {"es-1", "rs-1", "ed-1"}


STRICTER = {
    None: 1,  # its length
    "base64url": 3,  # padding, stray bits, a line after
    "json": 18,  # a member twice, floats, a byte order mark
    "header": 17,  # members that say how to verify: seen, and not acted on
    "typ": 9,
    "kid": 1,  # left out, where only one key is of the algorithm
    "aud": 3,  # several audiences, ours among them
    "azp": 4,
    "auth_time": 11,
    "iat": 5,
    "exp": 4,  # far away, or not after iat
}
"""How many vectors `jose` takes and we refuse, by reason: what a general library allows. No
other signature, algorithm, issuer, subject or number of parts is among them."""


@pytest.mark.req("R5.4")
def test_another_reading_of_jose_takes_what_we_take(folder):
    """And of what we refuse, it takes only what we refuse on purpose."""
    vectors = ROOT / "vectors" / "oidc" / "id-tokens.json"
    done = subprocess.run(
        [NODE, "jose.mjs", vectors], cwd=folder, capture_output=True, text=True, check=True
    )
    taken, cases = set(json.loads(done.stdout)), json.loads(vectors.read_text())
    assert {case["name"] for case in cases["accepted"]} <= taken
    assert Counter(c["reason"] for c in cases["refused"] if c["name"] in taken) == STRICTER
