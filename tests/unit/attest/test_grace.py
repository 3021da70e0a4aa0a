"""The vendor is out of reach: collateral counts until its end, and then for the owner's grace."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from placet_testing.charters import identity, profile
from placet_testing.contexts import connection

from placet.attest.verify import bind, verify_evidence
from placet.core.attestation import report_data
from placet.core.limits import MAX_GRACE
from placet.errors import EvidenceError, TcbError
from placet.policy.match import match_any
from placet_dev.tee import pki as dev
from placet_dev.tee.pki import DAY
from placet_dev.tee.quotes import tdx_quote

NOW = 1_800_000_000
END = NOW - NOW % DAY + 30 * DAY - 1
"""The last second of the development PKI's collateral of that day."""
FAMILIES = ("sgx", "tdx")


def shown(lab, evidence, now, grace):
    """Verify under the lab's root."""
    return verify_evidence(evidence, trust=[lab.pki.anchor()], now=now, grace=grace)


@pytest.mark.req("R8.5")
@pytest.mark.parametrize("family", FAMILIES)
def test_collateral_counts_until_its_end_and_for_the_grace(lab, family):
    """To the second: the end itself, the grace's last second, and none beyond."""
    evidence = lab.evidence(family)
    before = shown(lab, evidence, END, 0)
    assert (before.expires, before.overdue) == (END + 1, 0)
    within = shown(lab, evidence, END + 60, 60)
    assert within == replace(before, overdue=60)
    for now, grace in ((END + 1, 0), (END + 61, 60), (END + MAX_GRACE + 1, MAX_GRACE)):
        with pytest.raises(EvidenceError) as refused:
            shown(lab, evidence, now, grace)
        assert refused.value.members["check"] == "collateral-ended"


@pytest.mark.req("R8.5")
@pytest.mark.parametrize(
    "flaw", [{"ends": NOW + 61}, {"crl_ends": NOW + 61}], ids=["TCB info", "CRLs"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_part_that_ends_is_the_end(lab, family, flaw):
    """CRLs, TCB info and QE identity: whichever ends first."""
    evidence = lab.evidence(family, flaws=lab.flaws(**flaw))
    assert shown(lab, evidence, NOW + 61, 1).overdue == 1
    with pytest.raises(EvidenceError) as refused:
        shown(lab, evidence, NOW + 61, 0)
    assert refused.value.members["check"] == "collateral-ended"


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity", "root_ca_crl", "pck_crl"])
def test_each_part_has_an_end_of_its_own(lab, member):
    """One part of older collateral in the rest is found, whichever it is."""
    signatures = {m: f"{m}_signature" for m in ("tcb_info", "qe_identity")}
    names = [member, *([signatures[member]] if member in signatures else [])]
    old = json.loads(lab.collateral("sgx", lab.flaws(ends=NOW, crl_ends=NOW)))
    evidence = lab.evidence(
        "sgx", collateral=lab.members("sgx", **{name: old[name] for name in names})
    )
    assert shown(lab, evidence, NOW, 1).overdue == 1
    with pytest.raises(EvidenceError) as refused:
        lab.verify(evidence)
    assert refused.value.members["check"] == "collateral-ended"


@pytest.mark.req("R8.5")
def test_a_grace_is_for_collateral_and_not_for_certificates(lab):
    """A PCK or TCB signer that ended by now is refused, though the library was asked earlier."""
    life, key = (NOW - DAY, END + 10), ec.generate_private_key(ec.SECP256R1())
    pck = dev._issue(
        dev.PCK, lab.pki.pck.key, lab.pki.ca, life=life, sgx=dev._sgx_extension(dev.FMSPC)
    )
    signer = dev._issue(dev.TCB_SIGNER, key, lab.pki.root, life=life)
    short_lived = {
        "PCK": lab.evidence("sgx", quote=lab.quote("sgx", pki=replace(lab.pki, pck=pck))),
        "TCB signer": lab.evidence(
            "sgx", collateral=replace(lab.pki, tcb=signer).collateral("sgx", NOW)
        ),
    }
    for name, evidence in short_lived.items():
        assert shown(lab, evidence, END + 10, 60).overdue == 10, name
        with pytest.raises(EvidenceError) as refused:
            shown(lab, evidence, END + 11, 60)
        assert refused.value.members["check"] == "dates", name


def test_within_a_grace_certificates_have_begun(lab):
    """A certificate of tomorrow does not count today, whatever the library is asked about."""
    signer = dev._issue(
        dev.TCB_SIGNER,
        ec.generate_private_key(ec.SECP256R1()),
        lab.pki.root,
        life=(NOW + DAY, NOW + 9 * DAY),
    )
    flaws = lab.flaws(ends=NOW - 5)
    evidence = lab.evidence(
        "sgx", collateral=replace(lab.pki, tcb=signer).collateral("sgx", NOW, flaws)
    )
    with pytest.raises(EvidenceError) as refused:
        shown(lab, evidence, NOW, 60)
    assert refused.value.members["check"] == "dates"


@pytest.mark.parametrize("grace", [-1, MAX_GRACE + 1])
def test_no_caller_gives_more_than_the_limit(lab, grace):
    """A grace out of range is the caller's mistake."""
    with pytest.raises(ValueError, match="grace"):
        shown(lab, lab.evidence("sgx"), NOW, grace)


@pytest.mark.parametrize(
    "text",
    ["{}", '{"nextUpdate":7}', '{"nextUpdate":"tomorrow"}', "[]", "[" * 70000, "7"],
    ids=["missing", "a number", "no date", "a list", "too deep", "no object"],
)
def test_an_end_that_cannot_be_read_is_refused(lab, text):
    """Collateral that does not say when it ends, does not begin."""
    evidence = lab.evidence("sgx", collateral=lab.members("sgx", qe_identity=text))
    with pytest.raises(EvidenceError) as refused:
        lab.verify(evidence)
    assert refused.value.members["check"] == "collateral"


@pytest.mark.req("R8.5")
def test_an_outage_ends_where_the_owner_said(lab):
    """A release is decided by the profile's own grace, over what the channel let through."""
    good = profile(2)
    claimed = identity(good, ("sha256:" + "01" * 32,))
    context = connection(**msgspec.structs.asdict(claimed.claims))
    quote = tdx_quote(lab.pki, measurement=good.measurement, report_data=report_data(context))
    evidence = lab.evidence("tdx", quote=quote)
    who = bind(shown(lab, evidence, END + 3600, MAX_GRACE), context)
    patient = msgspec.structs.replace(
        good,
        anchor=lab.pki.anchor().name,
        tcb=msgspec.structs.replace(good.tcb, grace=3600),
    )
    assert match_any([patient], who) == patient
    for grace in (0, 3599):
        strict = msgspec.structs.replace(
            patient, tcb=msgspec.structs.replace(good.tcb, grace=grace)
        )
        with pytest.raises(TcbError) as refused:
            match_any([strict], who)
        assert refused.value.members["check"] == "collateral-ended"
