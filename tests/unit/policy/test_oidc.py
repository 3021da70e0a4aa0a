"""ID tokens as a factor: beside another signer, in time, at no cost, and never enough alone."""

from __future__ import annotations

import json
import time
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from placet_testing.charters import (
    NOW,
    birth_body,
    composer,
    owner_of,
    person,
    profile,
    signed,
)
from placet_testing.governed import CLAUSE, DAY, co_signed, governed_body
from placet_testing.oidc_provider import SoftwareProvider, text
from placet_testing.passkey import SoftwarePasskey

from placet.client.signing import auto_body, merge_body, promote_body
from placet.core.dsse import verify_signature
from placet.core.encoding import b64
from placet.core.limits import MAX_ID_TOKEN
from placet.core.profile import code_id
from placet.core.signer import OidcSignature, OidcSigner, Threshold, signer_id
from placet.core.statement import compose
from placet.core.table import Guardians
from placet.errors import (
    ApprovalError,
    ApprovalExpiredError,
    MalformedError,
    PlacetError,
    UnrepairableError,
)
from placet.policy import jwk as jwk_module
from placet.policy import oidc as oidc_module
from placet.policy.charter import Courier, replay, take
from placet.policy.jwk import thumbprint
from placet.policy.oidc import verify_enrolment, verify_id_token
from placet.policy.principal import alone_on_page, check_principal, leaves, require, satisfied
from placet.policy.provider import Provider
from placet.policy.rules import check_rules
from placet.policy.signers import verify_signatures

PROVIDER = SoftwareProvider()
ED = SoftwareProvider(kid="ed", algorithm="EdDSA")
NONCE = bytes(range(32))
KEY = person("owner")
BOTH = owner_of(KEY.signer, PROVIDER.signer(), threshold=2)
BIRTH = composer().birth(birth_body(BOTH))
BORN = PROVIDER.sign(KEY.sign(BIRTH))


def verify(token: str, provider: SoftwareProvider = PROVIDER, **changes: int):
    """Verify a token as one for a statement of NOW."""
    signer = provider.signer()
    return verify_id_token(
        signer,
        OidcSignature(signer=signer_id(signer), token=token),
        nonce=NONCE,
        **({"issued_at": NOW, "expires_at": NOW + DAY} | changes),
    )


# --- beside another signer, in time ---------------------------------------------------------


def test_key_and_identity_together_give_birth():
    """The statement's digest is the nonce; the key that verified is kept beside it."""
    policy, taken = take(None, [Courier(sent=BORN)], now=NOW + 60)
    assert policy.key == BORN.digest
    assert taken[0].jwks == (thumbprint(PROVIDER.jwk),)
    assert {s.signer for s in taken[0].sent.signatures} == set(map(signer_id, leaves(BOTH)))


def test_a_token_supports_no_taking_after_its_end():
    """The statement lives on; the sign-in does not."""
    sent = PROVIDER.sign(KEY.sign(BIRTH), exp=NOW + 310)
    take(None, [Courier(sent=sent)], now=NOW + 309)
    with pytest.raises(ApprovalExpiredError):
        take(None, [Courier(sent=sent)], now=NOW + 310)


@pytest.mark.parametrize("one", [KEY, PROVIDER], ids=["key", "identity"])
def test_either_alone_is_not_enough(one):
    """Two of two means two."""
    with pytest.raises(ApprovalError):
        take(None, [Courier(sent=one.sign(BIRTH))], now=NOW + 60)


def test_a_token_for_another_statement_refuses_the_whole():
    """A sign-in approves one statement; beside another it is a signature that does not hold."""
    other = composer(seed="other").birth(birth_body(BOTH))
    mixed = compose(BIRTH.statement, (*KEY.sign(BIRTH).signatures, PROVIDER.signature(other)))
    with pytest.raises(ApprovalError) as refusal:
        take(None, [Courier(sent=mixed)], now=NOW + 60)
    assert refusal.value.members["reason"] == "nonce"


def test_what_the_provider_says_of_a_sign_in_counts_for_nothing():
    """Neither how it was done, nor by whom of which role (a word of the provider, no more)."""
    told = PROVIDER.token(NONCE, NOW, amr=["hwk", "user"], acr="high", roles=["owner"])
    assert verify(told) == verify(PROVIDER.token(NONCE, NOW, amr=["pwd"], acr="0"))


def test_one_identity_is_one_under_any_label_and_keys():
    """Pinning other keys for it makes nobody new."""
    again = SoftwareProvider(kid="k2").signer()
    relabelled = msgspec.structs.replace(PROVIDER.signer(), label="again", jwks=again.jwks)
    with pytest.raises(MalformedError, match="twice"):
        check_principal(owner_of(KEY.signer, PROVIDER.signer(), relabelled, threshold=3))


# --- enrolment ------------------------------------------------------------------------------


def enrol(token: str) -> OidcSigner:
    """Verify an enrolment's token."""
    return verify_enrolment(
        Provider(issuer=PROVIDER.issuer, audience=PROVIDER.audience, jwks=(PROVIDER.jwk,)),
        token,
        label="owner at work",
        nonce=NONCE,
        issued_at=NOW,
        expires_at=NOW + 600,
    )


def test_enrolment_takes_whoever_signed_in():
    """The identity comes out of a verified token, and nowhere else."""
    assert enrol(PROVIDER.token(NONCE, NOW)) == PROVIDER.signer()


@pytest.mark.parametrize(
    "token",
    [
        PROVIDER.token(bytes(32), NOW),
        PROVIDER.token(NONCE, NOW, aud="notes-web"),
        PROVIDER.token(NONCE, NOW - DAY),
        PROVIDER.token(NONCE, NOW, sub=...),
        PROVIDER.token(NONCE, NOW, sub=7),
        PROVIDER.token(NONCE, NOW, sub=""),
        PROVIDER.token(NONCE, NOW, sub="x" * 201),
        PROVIDER.token(NONCE, NOW, sub="\ud800"),
        SoftwareProvider(kid="k2").token(NONCE, NOW),
    ],
    ids=["nonce", "audience", "age", "no sub", "number", "empty", "long", "surrogate", "key"],
)
def test_enrolment_is_as_strict_as_an_approval(token):
    """A sign-in for something else, or of nobody, enrols nobody."""
    with pytest.raises((ApprovalError, MalformedError)):
        enrol(token)


# --- hostile tokens -------------------------------------------------------------------------


@pytest.mark.req("R5.4")
@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "nonce", "auth_time", "nbf"])
def test_what_is_nested_is_not_shown(claim):
    """As deep as the parser goes; its text would go deeper."""
    for depth in range(900, 1000, 2):
        nested = PROVIDER.claims(NONCE, NOW, **{claim: 0})
        raw = text(nested).replace(b'":0', b'":' + b"[" * depth + b"]" * depth)
        with pytest.raises((ApprovalError, MalformedError)) as refusal:
            verify(PROVIDER.jws(raw))
        assert "[[" not in refusal.value.detail


@pytest.mark.req("R5.4")
def test_a_flood_of_unknown_kids_costs_neither_memory_nor_time():
    """Nothing is remembered of them, and no signature is verified for them."""
    header = text({"alg": "ES256", "kid": "k1"})
    stem = PROVIDER.jws(text(PROVIDER.claims(NONCE, NOW)), header).split(".")
    floods = [
        f"{b64(text({'alg': 'ES256', 'kid': f'unknown {i}'}))}.{stem[1]}.{stem[2]}"
        for i in range(5000)
    ]
    began = time.process_time()
    for token in floods:
        with pytest.raises(ApprovalError):
            verify(token)
    assert (time.process_time() - began) / len(floods) < 1e-3
    tracemalloc.start()
    try:
        for token in floods[:500]:
            with pytest.raises(ApprovalError):
                verify(token)
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


HEAVY = {
    "members": {f"m{i}": i for i in range(460)},
    "nested": {"a": json.loads("[" * 900 + "]" * 900)},
    "text": {"a": "\u20ac" * 900},
    "digits": {"a": int("9" * 4000)},
}


@pytest.mark.parametrize("extra", HEAVY.values(), ids=HEAVY.keys())
def test_a_token_is_read_within_a_millisecond_and_bounded_memory(extra, monkeypatch):
    """Besides the signature, whatever is in the longest one."""
    token = PROVIDER.token(NONCE, NOW, **extra)
    assert len(token) <= MAX_ID_TOKEN
    monkeypatch.setattr(oidc_module, "verify_jws", lambda *_: None)
    spent = []
    for _ in range(20):
        began = time.process_time()
        verify(token)
        spent.append(time.process_time() - began)
    assert min(spent) < 1e-3
    tracemalloc.start()
    try:
        verify(token)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_payload_is_not_parsed_before_the_signature_holds(monkeypatch):
    """Who has no key of the provider reaches the parser with a header only."""
    read = []
    monkeypatch.setattr(
        oidc_module,
        "_parse",
        lambda what, raw, real=oidc_module._parse: read.append(what) or real(what, raw),
    )
    honest = PROVIDER.token(NONCE, NOW).split(".")
    with pytest.raises(ApprovalError, match="signature"):
        verify(f"{honest[0]}.{b64(b'[' * 5000)}.{honest[2]}")
    assert read == ["header"]
    verify(".".join(honest))
    assert read == ["header", "header", "payload"]


@given(st.data())
def test_no_token_but_the_honest_one_holds(data):
    """One character put in, left out or changed, anywhere."""
    honest = ED.token(NONCE, NOW)
    at = data.draw(st.integers(0, len(honest) - 1))
    new = data.draw(st.text("ABCZabcz019-_.={\n\u00e9", max_size=2))
    token = honest[:at] + new + honest[at + 1 :]
    if token == honest:
        verify(token, ED)
        return
    with pytest.raises((ApprovalError, MalformedError)):
        verify(token, ED)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["iss", "aud", "azp", "sub", "nonce", "auth_time", "iat", "exp", "nbf", "x"]
)


@given(payload=JSON | st.binary(max_size=64), header=JSON | st.none())
def test_whatever_the_provider_signs_ends_in_an_error_of_ours(payload, header):
    """With its key in an attacker's hand, no text leaves as another exception."""
    raw = payload if isinstance(payload, bytes) else text(payload)
    with pytest.raises(PlacetError):
        verify(PROVIDER.jws(raw, None if header is None else text(header)))


@given(changes=st.dictionaries(NAMES, JSON, min_size=1, max_size=2))
def test_a_changed_claim_is_refused_unless_it_means_the_same(changes):
    """An oracle of one line for each claim that is compared; times are in the vectors."""
    honest = PROVIDER.claims(NONCE, NOW)
    claims = honest | changes
    raw = text(claims)
    same = all(claims[n] == honest[n] for n in ("iss", "sub", "nonce"))
    same &= claims["aud"] in (PROVIDER.audience, [PROVIDER.audience])
    same &= claims.get("azp", PROVIDER.audience) == PROVIDER.audience
    same &= all(
        type(claims[n]) is int and claims[n] == honest[n] for n in ("auth_time", "iat", "exp")
    )
    nbf = claims.get("nbf", 0)
    same &= type(nbf) is int and nbf <= NOW + 60
    try:
        json.loads(raw, parse_float=_never, parse_constant=_never)
    except (ArithmeticError, ValueError):
        same = False
    if same:
        assert verify(PROVIDER.jws(raw)).until == honest["exp"]
        return
    with pytest.raises(PlacetError):
        verify(PROVIDER.jws(raw))


def _never(_text):
    raise ArithmeticError


def test_es256_is_the_ecdsa_of_the_core():
    """The raw signature, written as DER, is the one that `core.dsse` verifies too."""
    message = b"message"
    raw = PROVIDER.raw_sign(message)
    point = b"\4" + PROVIDER.private.public_key().public_numbers().x.to_bytes(32, "big")
    point += PROVIDER.private.public_key().public_numbers().y.to_bytes(32, "big")
    verify_signature("p256", point, jwk_module._der(raw), message)


# --- the provider is malicious (R5.1) -------------------------------------------------------

SUBS = ("owner", "second", "third")
PHONE = SoftwarePasskey(name="phone")
OWN = (KEY.signer, PHONE.signer, person("spare").signer)
LEAVES = st.sampled_from([*OWN, *map(PROVIDER.signer, SUBS)])


@st.composite
def principals(draw, depth: int = 3) -> Threshold:
    """Draw a principal of keys, passkeys and identities, fit or not."""
    part = LEAVES if depth == 1 else LEAVES | principals(depth=depth - 1)
    of = tuple(draw(st.lists(part, min_size=1, max_size=4)))
    return Threshold(label="owner", threshold=draw(st.integers(1, len(of))), of=of)


@pytest.mark.req("R5.1")
@given(principals())
def test_no_principal_that_may_be_written_is_satisfied_by_tokens(threshold):
    """Checked when it is written; whoever holds the provider's key signs as all of them."""
    forged = frozenset(signer_id(PROVIDER.signer(sub)) for sub in SUBS)
    try:
        check_principal(threshold)
    except (UnrepairableError, MalformedError):
        return
    assert not satisfied(threshold, forged)
    with pytest.raises(ApprovalError):
        require(threshold, forged)


ALONE = {
    "one identity": owner_of(PROVIDER.signer()),
    "two identities": owner_of(*map(PROVIDER.signer, SUBS[:2]), threshold=2),
    "a key or an identity": owner_of(KEY.signer, PROVIDER.signer()),
    "two of a key and two identities": owner_of(
        KEY.signer, *map(PROVIDER.signer, SUBS[:2]), threshold=2
    ),
    "a key, or both identities": owner_of(
        KEY.signer, owner_of(*map(PROVIDER.signer, SUBS[:2]), threshold=2)
    ),
}
ROLES = {
    "owner": lambda p: {"owner": p},
    "managers": lambda p: {"managers": p},
    "guardians": lambda p: {"guardians": Guardians(principal=p, delay=DAY, cooldown=0)},
    "reviewers": lambda p: {"reviewers": p},
}


@pytest.mark.req("R5.1")
@pytest.mark.parametrize("role", ROLES.values(), ids=ROLES.keys())
@pytest.mark.parametrize("principal", ALONE.values(), ids=ALONE.keys())
def test_who_could_be_a_provider_alone_is_refused_in_every_role(principal, role):
    """Whether it is the owner's or that of somebody who acts in his place."""
    sent = composer().birth(governed_body(**role(principal)))
    sent = PROVIDER.sign(PROVIDER.sign(signed(sent), "owner"), "second")
    with pytest.raises(UnrepairableError, match="provider"):
        take(None, [Courier(sent=sent)], now=NOW + 60)


@pytest.mark.req("R5.1")
@pytest.mark.parametrize("principal", ALONE.values(), ids=ALONE.keys())
def test_who_could_be_a_provider_alone_gets_into_no_clause(principal):
    """Nor may such a one promote in the owner's place."""
    policy = replay([signed(composer().birth(governed_body()))])
    clause = msgspec.structs.replace(CLAUSE, signers=principal)
    rules = msgspec.structs.replace(policy.rules, auto_migrate=clause)
    with pytest.raises(UnrepairableError, match="provider"):
        check_rules(rules)
    sent = signed(composer(NOW + 60).update(policy, rules, "hands off"))
    with pytest.raises(UnrepairableError, match="provider"):
        take(policy, [Courier(sent=sent)], now=NOW + 120)


def with_identity(label: str, name: str, sub: str) -> Threshold:
    """Return a principal of a key and an identity, both of whom must sign."""
    return Threshold(label=label, threshold=2, of=(person(name).signer, PROVIDER.signer(sub)))


def forged_everything():
    """Return one statement of each type under a policy with an identity in every role."""
    birth = signed(
        composer().birth(
            governed_body(
                owner=with_identity("owner", "owner", "owner"),
                managers=with_identity("managers", "m1", "second"),
                guardians=Guardians(
                    principal=with_identity("guardians", "g1", "third"), delay=DAY, cooldown=0
                ),
                reviewers=with_identity("reviewers", "r1", "fourth"),
                acts=co_signed("promote"),
            )
        )
    )
    policy = replay([PROVIDER.sign(birth)])
    clause = msgspec.structs.replace(CLAUSE, signers=with_identity("builders", "b1", "fifth"))
    hands_off = composer().update(
        policy, msgspec.structs.replace(policy.rules, auto_migrate=clause), "hands off"
    )
    agreed = PROVIDER.sign(PROVIDER.sign(signed(hands_off, "owner", "m1")), "second")
    charter = [PROVIDER.sign(birth), agreed]
    policy = replay(charter)
    pen = composer(NOW + 60)
    left = pen.retire(policy, code_id(profile(1)), "left")
    right = pen.retire(policy, code_id(profile(1)), "right")
    branches = [replay([*charter, PROVIDER.sign(signed(x))]) for x in (left, right)]
    rules = msgspec.structs.replace(policy.rules, stagers=())
    return policy, {
        "birth": (None, composer(seed="x").birth(birth.statement.body)),
        "promote": (policy, pen.promote(policy, promote_body(policy, profile(2)))),
        "promote by the clause": (policy, pen.promote(policy, auto_body(policy, profile(2)))),
        "retire": (policy, left),
        "update-policy": (policy, pen.update(policy, rules, "mine now")),
        "update-policy by reviewers": (
            policy,
            pen.update(policy, policy.rules, "x", vault_profiles=(profile(9, app="placet-vault"),)),
        ),
        "recover": (
            policy,
            pen.recover(policy, owner_of(person("platform").signer), "lost, they say"),
        ),
        "void": (policy, pen.void(policy, left.digest, "no")),
        "merge": (branches[0], pen.merge(branches, merge_body(branches, "one again"))),
        "delete": (policy, pen.delete(policy, "gone")),
    }


POLICY, FORGED = forged_everything()


@pytest.mark.req("R5.1")
@pytest.mark.parametrize(("policy", "sent"), FORGED.values(), ids=FORGED.keys())
def test_with_the_providers_key_no_statement_is_approved(policy, sent):
    """Tokens of every identity that the policy names, by whoever holds the provider's key."""
    for sub in (*SUBS, "fourth", "fifth"):
        sent = PROVIDER.sign(sent, sub)
    with pytest.raises(ApprovalError) as refusal:
        take(policy, [Courier(sent=sent)], now=NOW + 120)
    assert not isinstance(refusal.value, ApprovalExpiredError)


@pytest.mark.req("R5.1")
def test_the_same_statement_with_the_key_beside_it_is_taken():
    """The table above refuses for want of a key, and for nothing else."""
    sent = FORGED["retire"][1]
    after, _ = take(POLICY, [Courier(sent=PROVIDER.sign(signed(sent)))], now=NOW + 120)
    assert after.version == POLICY.version + 1


@pytest.mark.req("R5.1")
def test_a_passkey_on_a_page_and_a_provider_are_no_two_people():
    """Page and provider may be in one hand: the page lies, and the token is forged."""
    page = SoftwarePasskey(name="page", screen="page").signer
    both = owner_of(page, PROVIDER.signer(), KEY.signer, threshold=2)
    check_principal(both)
    assert alone_on_page(both, frozenset(map(signer_id, (page, PROVIDER.signer()))))
    assert not alone_on_page(both, frozenset(map(signer_id, (page, KEY.signer))))


@pytest.mark.req("R5.4")
def test_what_signs_for_an_identity_is_a_token_and_nothing_else():
    """A signature of another kind under its id refuses the whole."""
    mine = KEY.sign(BIRTH).signatures[0]
    posed = msgspec.structs.replace(mine, signer=signer_id(PROVIDER.signer()))
    with pytest.raises(ApprovalError, match="kind"):
        verify_signatures(compose(BIRTH.statement, (posed,)), leaves(BOTH))
