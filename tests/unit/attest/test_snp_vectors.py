"""Real SEV-SNP reports from ../shared/vectors, under AMD's own roots, and swaps among them."""

from __future__ import annotations

import json
import warnings
from itertools import permutations
from pathlib import Path

import pytest
from placet_testing.amd import table

from placet.attest.roots import pinned
from placet.attest.verify import verify_evidence
from placet.attest.verify.chains import load, quiet
from placet.core.attestation import Evidence
from placet.core.encoding import b64
from placet.errors import EvidenceError

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors"
ABSENT = "real evidence lies in ../shared/vectors, which is not here"
DEBUG = "377e6241d3b3"
ONE = "14fd2b6e459c"
VLEK = "decdab949afc"
CA = {
    ("milan", "vcek"): "SEV-Milan.67d303bd",
    ("milan", "vlek"): "SEV-VLEK-Milan.c5e081f5",
    ("genoa", "vcek"): "SEV-Genoa.5464738c",
    ("genoa", "vlek"): "SEV-VLEK-Genoa.197e6107",
}

pytestmark = pytest.mark.skipif(not (VECTORS / "manifest.json").exists(), reason=ABSENT)


def manifest():
    """Return the reports that have a certificate, by id."""
    if not (VECTORS / "manifest.json").exists():
        return {}
    entries = json.loads((VECTORS / "manifest.json").read_text())
    return {e["id"]: e for e in entries if e["family"] == "snp" and e["certificate"]}


REAL = manifest()


def report_of(name):
    """Return a real report."""
    return (VECTORS / REAL[name]["file"]).read_bytes()


def certificate_of(name):
    """Return the certificate of its key."""
    return (VECTORS / REAL[name]["certificate"]).read_bytes()


def kind_of(name):
    """Return ``vcek`` or ``vlek``."""
    return REAL[name]["identity"]["signing_key"].lower()


def product_of(name):
    """Return ``milan`` or ``genoa``."""
    return REAL[name]["identity"]["product"].partition("-")[0].lower()


def authority(product, kind):
    """Return AMD's intermediate, from the vectors and not from the wheel."""
    return (VECTORS / "snp" / f"ca.{CA[product, kind]}.der").read_bytes()


def verify(report, now, *, behind=b"", **members):
    """Verify under all pinned roots."""
    beside = b64(json.dumps({k: v.hex() for k, v in members.items()}).encode()) if members else None
    evidence = Evidence(family="snp", quote=b64(report + behind), collateral=beside)
    return verify_evidence(evidence, trust=pinned(), now=now)


def members(name, way):
    """Return what comes along, in one of four ways."""
    kind, cert = kind_of(name), certificate_of(name)
    ask = authority(product_of(name), kind)
    return {
        "shipped intermediate": {kind: cert},
        "its own intermediate": {kind: cert, "ask": ask},
        "table": {"behind": table((kind, cert), ("ask", ask))},
        "table of swapped GUIDs": {"behind": table((kind, cert), swapped=True)},
    }[way]


@pytest.mark.req("R3.1")
@pytest.mark.parametrize(
    "way", ["shipped intermediate", "its own intermediate", "table", "table of swapped GUIDs"]
)
@pytest.mark.parametrize("name", REAL or [None])
def test_a_real_report_shows_what_the_manifest_says(name, way):
    """Every field that others read of it; the one that allows debugging is refused for that."""
    entry = REAL[name]
    if name == DEBUG:
        with pytest.raises(EvidenceError) as refusal:
            verify(report_of(name), entry["now"], **members(name, way))
        assert refusal.value.members["check"] == "debug"
        return
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        shown = verify(report_of(name), entry["now"], **members(name, way))
    assert heard == []
    identity, m = entry["identity"], shown.measurement
    assert (m.measurement, shown.report_data.hex()) == (
        identity["measurement"],
        identity["report_data"],
    )
    assert (m.vmpl, shown.reported_tcb) == (identity["vmpl"], identity["reported_tcb"])
    assert (shown.anchor, shown.families[0]) == ("amd", product_of(name))
    assert len(shown.families) == (3 if entry["version"] > 2 else 2)
    chip = report_of(name)[0x1A0:0x1E0].hex()
    assert shown.hardware_id == (chip if kind_of(name) == "vcek" else None)
    with quiet():
        assert load(certificate_of(name)).serial_number == 0


@pytest.mark.req("R3.1")
@pytest.mark.parametrize(("name", "other"), [*permutations(REAL, 2)] or [(None, None)])
def test_no_report_counts_by_the_certificate_of_another_machine(name, other):
    """Genuine reports, each with the genuine certificate of another key."""
    with pytest.raises(EvidenceError) as refusal:
        verify(report_of(name), REAL[name]["now"], **{kind_of(name): certificate_of(other)})
    assert refusal.value.members["check"] in {
        *("anchor", "chip-id", "dates", "product", "reported-tcb", "signing-key"),
    }


@pytest.mark.parametrize(
    ("product", "kind"), [pair for pair in CA if pair != ("milan", "vcek")], ids="-".join
)
def test_no_other_intermediate_of_amd_issues_this_certificate(product, kind):
    """Another product's chain, or the other kind of key's."""
    with pytest.raises(EvidenceError) as refusal:
        verify(
            report_of(ONE),
            REAL[ONE]["now"],
            vcek=certificate_of(ONE),
            ask=authority(product, kind),
        )
    assert refusal.value.members["check"] == "anchor"


def test_the_end_of_a_vlek_is_the_end():
    """A VLEK lives a year; a day later it is refused."""
    entry = REAL[VLEK]
    report, cert = report_of(VLEK), certificate_of(VLEK)
    end = verify(report, entry["now"], vlek=cert).expires
    assert verify(report, end, vlek=cert)
    with pytest.raises(EvidenceError) as refusal:
        verify(report, end + 1, vlek=cert)
    assert refusal.value.members["check"] == "dates"


@pytest.mark.req("R3.1")
def test_no_bit_of_a_real_report_is_free():
    """All 9,472 flips of one bit are refused."""
    report, cert, now = report_of(ONE), certificate_of(ONE), REAL[ONE]["now"]
    assert verify(report, now, vcek=cert)
    for bit in range(8 * len(report)):
        flipped = bytearray(report)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EvidenceError):
            verify(bytes(flipped), now, vcek=cert)


@pytest.mark.req("R3.1")
def test_no_byte_of_a_real_certificate_is_free():
    """A flip in AMD's certificate is refused wherever it is."""
    report, cert, now = report_of(ONE), certificate_of(ONE), REAL[ONE]["now"]
    for at in range(len(cert)):
        flipped = bytearray(cert)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(EvidenceError):
            verify(report, now, vcek=bytes(flipped))
