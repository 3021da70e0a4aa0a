"""Mutated evidence: only our own errors leave, and what is accepted says the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placet.attest.verify import verify_evidence
from placet.core.attestation import Evidence
from placet.core.encoding import b64
from placet.errors import EvidenceError
from placet_dev.tee.pki import DevPki
from placet_dev.tee.quotes import sgx_measurement, sgx_quote, tdx_measurement, tdx_quote

NOW = 1_800_000_000
PKI = DevPki.create(NOW)
TRUST = [PKI.anchor()]
QUOTES = {
    "sgx": sgx_quote(PKI, measurement=sgx_measurement("11" * 32), report_data=bytes(64)),
    "tdx": tdx_quote(
        PKI,
        measurement=tdx_measurement("11" * 48, rtmr3="22" * 48, mr_config_id="33" * 48),
        report_data=bytes(64),
    ),
}
COLLATERAL = {family: PKI.collateral(family, NOW) for family in QUOTES}
HONEST = {
    family: verify_evidence(
        Evidence(family=family, quote=b64(raw), collateral=b64(COLLATERAL[family])),
        trust=TRUST,
        now=NOW,
    )
    for family, raw in QUOTES.items()
}
SECTION = {"sgx": 432, "tdx": 632}
FAMILY = st.sampled_from(sorted(QUOTES))


def check(family, quote, collateral):
    """Verify: an error of ours, or just what the honest evidence shows."""
    evidence = Evidence(family=family, quote=b64(quote), collateral=b64(collateral))
    try:
        shown = verify_evidence(evidence, trust=TRUST, now=NOW)
    except EvidenceError as refusal:
        return not refusal.members["check"]
    assert shown == HONEST[family]
    return True


@st.composite
def mutated(draw, raw):
    """Draw bytes like ``raw`` with a few overwritten, cut out, doubled or put in."""
    raw = bytearray(raw)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        length = draw(st.integers(0, 8))
        new = draw(st.binary(max_size=8))
        raw[at : at + length] = new
    return bytes(raw)


@pytest.mark.req("R1.7")
@settings(max_examples=300)
@given(data=st.data(), family=FAMILY)
def test_a_mutated_quote_shows_the_same_or_nothing(data, family):
    """Bytes overwritten, cut or inserted anywhere in a quote."""
    check(family, data.draw(mutated(QUOTES[family])), COLLATERAL[family])


@settings(max_examples=200)
@given(data=st.data(), family=FAMILY)
def test_no_bit_of_header_and_body_is_free(data, family):
    """Every byte that is signed as a whole refuses when one of its bits flips."""
    raw = bytearray(QUOTES[family])
    at = data.draw(st.integers(0, SECTION[family] - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    assert not check(family, bytes(raw), COLLATERAL[family])


@pytest.mark.req("R1.7")
@settings(max_examples=200)
@given(data=st.data(), family=FAMILY)
def test_mutated_collateral_shows_the_same_or_nothing(data, family):
    """Bytes overwritten, cut or inserted anywhere in the collateral."""
    check(family, QUOTES[family], data.draw(mutated(COLLATERAL[family])))


@settings(max_examples=200)
@given(data=st.data(), family=FAMILY)
def test_mutated_members_show_the_same_or_nothing(data, family):
    """Well-formed collateral with one member changed as text."""
    members = json.loads(COLLATERAL[family])
    name = data.draw(st.sampled_from(sorted(members)))
    changed = data.draw(mutated(members[name].encode())).decode("utf-8", "replace")
    check(family, QUOTES[family], json.dumps(members | {name: changed}).encode())


@pytest.mark.req("R1.7")
@given(family=FAMILY, quote=st.binary(max_size=2000), collateral=st.binary(max_size=200))
def test_noise_is_refused_by_name(family, quote, collateral):
    """Arbitrary bytes for either part end in an error of ours."""
    assert not check(family, quote, COLLATERAL[family])
    assert not check(family, QUOTES[family], collateral)


@pytest.mark.req("R1.7")
@pytest.mark.parametrize("family", sorted(QUOTES))
def test_every_truncation_is_refused(family):
    """No prefix of a quote, at any length, verifies but the one without the chain's last zero."""
    raw = QUOTES[family]
    for length in range(0, len(raw), 7):
        assert not check(family, raw[:length], COLLATERAL[family])
    assert not check(family, raw[:-1], COLLATERAL[family])
