"""Trust anchors: a root has one name, and Intel's is nobody else's."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest
from cryptography import x509

from placet.attest import roots, trust
from placet.attest.roots import amd_signer, pinned
from placet.attest.trust import TrustAnchor, trust_from_config
from placet.core.config import TrustRoot
from placet.core.encoding import b64
from placet.errors import EvidenceError, MalformedError
from placet_dev.tee.pki import DevPki

ROOT = b"some root"
NAME = "software:" + hashlib.sha256(ROOT).hexdigest()


@pytest.mark.parametrize(
    ("name", "root", "signer"),
    [
        pytest.param("software:" + "0" * 64, ROOT, "DEV", id="hash of another root"),
        pytest.param("intel", ROOT, "DEV", id="Intel's name"),
        pytest.param("intel", ROOT, trust.INTEL_TCB_SIGNER, id="Intel's name and signer"),
        pytest.param(NAME, ROOT, trust.INTEL_TCB_SIGNER, id="Intel's signer"),
        pytest.param(NAME, ROOT, "", id="no signer"),
        pytest.param(NAME.upper(), ROOT, "DEV", id="name in another case"),
        pytest.param("amd", ROOT, "DEV", id="AMD's name"),
        pytest.param("amd", ROOT, "", id="AMD's name without a signer"),
        pytest.param("aws", ROOT, "", id="AWS's name"),
        pytest.param("", ROOT, "DEV", id="no name"),
    ],
)
def test_an_anchor_that_claims_to_be_another_is_refused(name, root, signer):
    """No root gets Intel's name or signer, nor another root's fingerprint."""
    with pytest.raises(EvidenceError) as refusal:
        TrustAnchor(name=name, root_der=root, tcb_signer=signer)
    assert refusal.value.members["check"] == "anchor"


def test_intels_root_has_intels_name_and_signer_only(monkeypatch):
    """The pinned root is not accepted as software, nor under another signer."""
    fingerprint = hashlib.sha256(ROOT).hexdigest()
    signer = trust.INTEL_TCB_SIGNER
    monkeypatch.setitem(trust.VENDORS, fingerprint, ("intel", signer))
    assert TrustAnchor(name="intel", root_der=ROOT, tcb_signer=signer).name == "intel"
    for name, other in (("intel", "DEV"), (NAME, "DEV"), (NAME, signer)):
        with pytest.raises(EvidenceError):
            TrustAnchor(name=name, root_der=ROOT, tcb_signer=other)


def test_a_config_without_roots_trusts_nobody():
    """Silence is refusal."""
    with pytest.raises(EvidenceError):
        trust_from_config(())


def test_a_config_is_read_as_it_is(lab):
    """The development PKI's root comes out of a config as its anchor; twice is a mistake."""
    root = lab.pki.trust_root()
    assert trust_from_config((root, lab.foreign.trust_root())) == (
        lab.pki.anchor(),
        lab.foreign.anchor(),
    )
    with pytest.raises(EvidenceError):
        trust_from_config((root, root))
    with pytest.raises(MalformedError):
        trust_from_config((TrustRoot(anchor=root.anchor, root="=", tcb_signer="DEV"),))
    with pytest.raises(EvidenceError):
        trust_from_config((TrustRoot(anchor=root.anchor, root=b64(b"x"), tcb_signer="DEV"),))


def test_the_development_pki_cannot_pose_as_intel(lab):
    """A PKI whose signer bears Intel's name has no anchor at all."""
    with pytest.raises(EvidenceError):
        DevPki.create(lab.now, name=trust.INTEL_TCB_SIGNER).anchor()


def test_shipped_roots_are_the_pinned_ones():
    """Five roots ship, each with the hash that is pinned, and the page says where from."""
    anchors = pinned()
    assert {a.fingerprint for a in anchors} == trust.VENDORS.keys()
    assert [a.name for a in anchors] == ["intel", "amd", "amd", "amd", "aws"]
    page = resources.files(roots).joinpath("README.md").read_text()
    files = [f for f in resources.files(roots).iterdir() if f.name.endswith(".der")]
    assert len(files) == 11
    for file in files:
        assert f"| `{file.name}` |" in page
        assert hashlib.sha256(file.read_bytes()).hexdigest() in page


@pytest.mark.parametrize("fingerprint", trust.AMD_ROOTS)
@pytest.mark.parametrize("key", ["vcek", "vlek"])
def test_shipped_intermediates_are_signed_by_their_root(fingerprint, key):
    """AMD's intermediates are what their root signed; another root has none."""
    (root,) = [a.root_der for a in pinned() if a.fingerprint == fingerprint]
    signer = x509.load_der_x509_certificate(amd_signer(fingerprint, key))
    signer.verify_directly_issued_by(x509.load_der_x509_certificate(root))
    assert amd_signer("0" * 64, key) is None
