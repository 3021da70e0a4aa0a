"""Trust anchors: a root has one name, and Intel's is nobody else's."""

from __future__ import annotations

import hashlib

import pytest

from placet.attest import trust
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
        pytest.param("amd", ROOT, "DEV", id="a vendor without a pinned root"),
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
    monkeypatch.setattr(trust, "INTEL_ROOT", fingerprint)
    signer = trust.INTEL_TCB_SIGNER
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
