"""High-water marks: what a vendor signed last counts, and nothing older again."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from placet.attest import marks as module
from placet.attest.marks import Mark, Marks, check
from placet.attest.verify.collateral import read_object
from placet.core.encoding import MAX_INT, decode, encode
from placet.errors import EvidenceError
from placet_dev.tee.pki import DAY, DevPki

NOW = 1_800_000_000
VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors" / "collateral"
FMSPC = bytes.fromhex("de7e57de7e57")


@pytest.fixture(scope="module")
def pki():
    """Give a PKI that signs collateral of any day."""
    return DevPki.create(NOW)


@pytest.fixture(scope="module")
def of(lab):
    """Return the members of collateral with oddities."""

    def members(tee="tdx", *, pki=None, **flaws):
        return read_object((pki or lab.pki).collateral(tee, NOW, lab.flaws(**flaws)))

    return members


def seen(*several, anchor="intel"):
    """Return the marks after several collaterals."""
    marks = Marks()
    for members in several:
        marks = check(marks, members, anchor=anchor)
    return marks


def refused(marks, members, anchor="intel"):
    """Return the name of the check that refuses."""
    with pytest.raises(EvidenceError) as caught:
        check(marks, members, anchor=anchor)
    return caught.value.members["check"]


def test_marks_say_what_was_seen(of):
    """One mark a subject, sorted, and they survive being stored."""
    marks = seen(of(evaluation=20, issued=NOW, crl_issued=NOW))
    assert [(m.subject, m.number, m.issued) for m in marks.marks] == [
        ("intel/crl/DEV DCAP Root CA (insecure)", NOW // DAY, NOW),
        ("intel/crl/DEV PCK CA (insecure)", NOW // DAY, NOW),
        ("intel/qe-identity/td_qe", 20, NOW),
        ("intel/tcb-info/tdx/de7e57de7e57", 20, NOW),
    ]
    assert decode(encode(marks), Marks) == marks


def test_the_same_again_changes_nothing(of):
    """Every vault sees the same collateral a thousand times."""
    once = seen(of())
    assert check(once, of(), anchor="intel") == once


OLDER = {
    "a lower evaluation": {"evaluation": 19},
    "a lower evaluation that was signed later": {"evaluation": 19, "issued": NOW + DAY},
    "an older date": {"evaluation": 20, "issued": NOW - 1},
    "an older revocation list": {"evaluation": 20, "crl_issued": NOW - DAY},
    "an older list with the same number": {"evaluation": 20, "crl_issued": NOW - 1},
    "an older list beside newer documents": {"evaluation": 21, "crl_issued": NOW - DAY},
}


@pytest.mark.parametrize("case", OLDER)
def test_older_collateral_is_refused(of, case):
    """Whoever kept it back to look better, or to hide a revocation."""
    newest = {"issued": NOW, "crl_issued": NOW}
    marks = seen(of(evaluation=20, **newest))
    assert refused(marks, of(**{**newest, **OLDER[case]})) == "collateral-older"


NEWER = {
    "a newer date": {"evaluation": 20, "issued": NOW + 1},
    "a higher evaluation": {"evaluation": 21},
    "a higher evaluation that was signed earlier": {"evaluation": 21, "issued": NOW - DAY},
    "a newer revocation list": {"evaluation": 20, "crl_issued": NOW + 1},
}


@pytest.mark.parametrize("case", NEWER)
def test_newer_collateral_raises_the_marks(of, case):
    """And what was newest until then is refused."""
    newest = {"issued": NOW, "crl_issued": NOW}
    before = of(evaluation=20, **newest)
    marks = seen(before, of(**{**newest, **NEWER[case]}))
    assert refused(marks, before) == "collateral-older"


def test_subjects_do_not_touch_each_other(of, lab):
    """Another CPU family, TEE or root has marks of its own."""
    marks = seen(of(evaluation=20))
    other = bytes.fromhex("0123456789ab")
    marks = check(marks, of("sgx", evaluation=3), anchor="intel")
    with pytest.raises(EvidenceError):  # one QE identity is for all families
        check(marks, of(fmspc=other, evaluation=3), anchor="intel")
    marks = check(marks, of(fmspc=other, evaluation=20), anchor="intel")
    name = lab.foreign.anchor().name
    marks = check(marks, of(pki=lab.foreign, evaluation=1), anchor=name)
    assert {m.subject.partition("/")[0] for m in marks.marks} == {"intel", name}


def test_a_refusal_raises_nothing(of):
    """The parts of refused collateral that were newer leave no mark."""
    marks = seen(of(evaluation=20, crl_issued=NOW))
    assert refused(marks, of(evaluation=25, crl_issued=NOW - DAY)) == "collateral-older"
    assert check(marks, of(evaluation=20, crl_issued=NOW), anchor="intel") == marks


def revocations(pki, number, begin):
    """Return an AMD-shaped collateral with a list of this number and date."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ARK-Milan")]))
        .last_update(dt.datetime.fromtimestamp(begin, dt.UTC))
        .next_update(dt.datetime.fromtimestamp(begin + DAY, dt.UTC))
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    crl = builder.sign(pki.root.key, hashes.SHA256())
    return {"vcek": "00", "crl": crl.public_bytes(Encoding.DER).hex()}


def test_amds_lists_have_marks_too(pki):
    """By number; without one, by date; beyond all numbers, by the last that is written."""
    assert seen({"vcek": "00"}) == Marks()
    marks = seen(revocations(pki, None, NOW), anchor="amd")
    assert marks.marks == (Mark(subject="amd/crl/ARK-Milan", number=0, issued=NOW),)
    assert refused(marks, revocations(pki, None, NOW - 1), "amd") == "collateral-older"
    marks = check(marks, revocations(pki, 2**90, NOW), anchor="amd")
    assert marks.marks[0].number == MAX_INT
    assert refused(marks, revocations(pki, 7, NOW + DAY), "amd") == "collateral-older"


JUNK = {
    "no JSON": {"tcb_info": "{"},
    "no object": {"tcb_info": "[]"},
    "no date": {"tcb_info": '{"id":"TDX","fmspc":"00","tcbEvaluationDataNumber":1}'},
    "no text": {"tcb_info": '{"id":1,"fmspc":2}'},
    "no list": {"root_ca_crl": "00"},
    "no hex": {"root_ca_crl": "zz"},
}


@pytest.mark.parametrize("junk", JUNK)
def test_what_never_verified_ends_in_a_refusal(of, junk):
    """A caller that forgot to verify gets an error of ours and no mark."""
    assert refused(Marks(), {**of(), **JUNK[junk]}) == "collateral"


def test_marks_are_bounded(of, monkeypatch):
    """More subjects than there are is refused, not forgotten."""
    monkeypatch.setattr(module, "MAX_MARKS", 4)
    marks = seen(of())
    assert refused(marks, of("sgx")) == "collateral"
    assert check(marks, of(), anchor="intel") == marks


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["sgx", "tdx"]),
            st.integers(1, 4),
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        max_size=8,
    )
)
def test_marks_only_rise(lab, history):
    """Whatever comes in whatever order, no mark ever goes down or away (R3.1)."""
    marks = Marks()
    for tee, evaluation, issued, crl in history:
        flaws = lab.flaws(evaluation=evaluation, issued=NOW + issued, crl_issued=NOW + crl * DAY)
        before = {m.subject: (m.number, m.issued) for m in marks.marks}
        try:
            marks = check(marks, read_object(lab.pki.collateral(tee, NOW, flaws)), anchor="intel")
        except EvidenceError as e:
            assert e.members["check"] == "collateral-older"  # noqa: PT017 - one of many steps
        after = {m.subject: (m.number, m.issued) for m in marks.marks}
        assert all(after[subject] >= value for subject, value in before.items())


@pytest.mark.skipif(not VECTORS.exists(), reason="real collateral lies in ../shared/vectors")
def test_real_collateral_rises_by_evaluation_and_date():
    """What Intel signed for one family: every earlier one is refused after the last."""
    found = []
    for path in VECTORS.glob("*.json"):
        members = read_object(path.read_bytes())
        info, identity = json.loads(members["tcb_info"]), json.loads(members["qe_identity"])
        if info["fmspc"].lower() == "00806f050000":
            numbers = (info["tcbEvaluationDataNumber"], identity["tcbEvaluationDataNumber"])
            found.append((numbers, info["issueDate"], members))
    found.sort(key=lambda f: f[:2])
    last = found[-1]
    marks = seen(last[-1])
    others = [f for f in found if f[:2] != last[:2]]
    assert len(others) >= 4
    assert {refused(marks, members) for *_, members in others} == {"collateral-older"}
