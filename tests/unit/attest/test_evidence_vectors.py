"""Real evidence of Intel machines, and hostile variants of it, from ../shared/vectors."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from placet.attest.trust import INTEL_TCB_SIGNER, TrustAnchor
from placet.attest.verify import verify_evidence
from placet.core.attestation import Evidence
from placet.core.encoding import b64
from placet.core.profile import SgxMeasurement
from placet.errors import EvidenceError

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors"
ABSENT = "real evidence lies in ../shared/vectors, which is not here"
FAMILIES = ("sgx", "tdx")


def load():
    """Return the manifest's verifications and the hostile cases of these families."""
    if not (VECTORS / "manifest.json").exists():
        return [pytest.param(None, None, marks=pytest.mark.skip(reason=ABSENT))], [
            pytest.param(None, marks=pytest.mark.skip(reason=ABSENT))
        ]
    manifest = json.loads((VECTORS / "manifest.json").read_text())
    real = [
        pytest.param(entry, found, id=f"{entry['family']}-{entry['id']}-{found['now']}")
        for entry in manifest
        if entry["family"] in FAMILIES
        for found in entry["verify"]
    ]
    cases = sorted((VECTORS / "hostile").rglob("*.case.json"))
    return real, [pytest.param(path, id=path.name.removesuffix(".case.json")) for path in cases]


REAL, HOSTILE = load()


def verify(raw, collateral, anchor, now):
    """Verify a quote as the family that its header names."""
    family = "tdx" if raw[4:8] == b"\x81\0\0\0" else "sgx"
    evidence = Evidence(family=family, quote=b64(raw), collateral=b64(collateral))
    return verify_evidence(evidence, trust=[anchor], now=now)


def intel():
    """Return Intel's anchor, its root taken from genuine collateral; the pin checks it."""
    members = json.loads(next((VECTORS / "collateral").iterdir()).read_text())
    chain = x509.load_pem_x509_certificates(members["tcb_info_issuer_chain"].encode())
    root = chain[-1].public_bytes(Encoding.DER)
    return TrustAnchor(name="intel", root_der=root, tcb_signer=INTEL_TCB_SIGNER)


def root_and_signer(case):
    """Return the anchor of a synthetic case."""
    root = bytes.fromhex(case["root_ca_der"])
    name = "software:" + sha256(root).hexdigest()
    return TrustAnchor(name=name, root_der=root, tcb_signer="Dev TCB Signing")


@pytest.mark.parametrize(("entry", "found"), REAL)
def test_real_evidence_gives_the_manifests_verdict(entry, found):
    """Status, advisories and identity are those that two other verifiers found."""
    raw = (VECTORS / entry["file"]).read_bytes()
    collateral = (VECTORS / found["collateral"]).read_bytes()
    if found["result"].startswith("REJECT"):
        with pytest.raises(EvidenceError):
            verify(raw, collateral, intel(), found["now"])
        return
    shown = verify(raw, collateral, intel(), found["now"])
    identity, m = entry["identity"], shown.measurement
    assert shown.tcb.status == found["result"]
    assert list(shown.tcb.advisories) == found["advisories"]
    assert shown.report_data.hex() == identity["report_data"]
    assert shown.families == (entry["fmspc"].lower(),)
    assert (shown.anchor, len(shown.hardware_id)) == ("intel", 32)
    if isinstance(m, SgxMeasurement):
        names = ("mrenclave", "mrsigner", "isvprodid", "isvsvn")
        assert [m.mrenclave, m.mrsigner, m.isv_prod_id, m.isv_svn] == [identity[n] for n in names]
    else:
        assert identity == identity | {
            "mrtd": m.mrtd,
            "rtmr0": m.rtmr0,
            "rtmr1": m.rtmr1,
            "rtmr2": m.rtmr2,
            "rtmr3": m.rtmr3,
            "mrconfigid": m.mr_config_id,
            "tdattr": m.td_attributes,
            "xfam": m.xfam,
        }


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_variant_gets_what_it_must(path):
    """What must be refused is refused by a named check; controls are accepted."""
    case = json.loads(path.read_text())
    raw = path.with_name(path.name.replace(".case.json", ".quote.bin")).read_bytes()
    collateral = json.dumps(case["collateral"]).encode()
    anchor = root_and_signer(case) if "root_ca_der" in case else intel()
    if case["must"] == "accept":
        assert verify(raw, collateral, anchor, case["now"]).tcb.status
        return
    with pytest.raises(EvidenceError) as refusal:
        verify(raw, collateral, anchor, case["now"])
    assert refusal.value.members["check"]
