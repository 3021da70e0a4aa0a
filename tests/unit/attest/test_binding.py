"""Evidence belongs to one connection, and its registers to its claims."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from placet.attest.verify import bind
from placet.core.attestation import Context, report_data
from placet.core.encoding import b64
from placet.core.profile import rtmr3_of_image
from placet.errors import BindingError
from placet_dev.tee.quotes import sgx_measurement, sgx_quote, tdx_measurement, tdx_quote

IMAGE = "sha256:" + "ab" * 32
CONFIG = "cd" * 48
CONTEXT = Context(
    role="workload",
    direction="client",
    spki="sha256:" + "01" * 32,
    peer_spki="sha256:" + "02" * 32,
    verifier_nonce=b64(b"v" * 32),
    prover_nonce=b64(b"p" * 32),
    exporter=b64(b"e" * 32),
    instance="notes-1",
    app="notes",
    image=IMAGE,
    config="sha384:" + CONFIG,
    purpose="release",
    keys="sha256:" + "03" * 32,
    boot="b1",
)
OTHER = {
    "role": "resharer",
    "direction": "server",
    "spki": "sha256:" + "11" * 32,
    "peer_spki": "sha256:" + "01" * 32,
    "verifier_nonce": b64(b"p" * 32),
    "prover_nonce": b64(b"v" * 32),
    "exporter": b64(b"f" * 32),
    "instance": "notes-2",
    "app": "mail",
    "image": "sha256:" + "ac" * 32,
    "config": "sha384:" + "ce" * 48,
    "purpose": "create",
    "keys": None,
    "boot": "b2",
}


def shown(lab, context, *, image=IMAGE, config=CONFIG):
    """Return the verified evidence of a trust domain that runs this image and config."""
    measurement = tdx_measurement("33" * 48, rtmr3=rtmr3_of_image(image), mr_config_id=config)
    quote = tdx_quote(lab.pki, measurement=measurement, report_data=report_data(context))
    return lab.verify(lab.evidence("tdx", quote=quote))


def test_what_was_claimed_comes_out_bound(lab):
    """The claims of the context, the role and the evidence make the identity."""
    evidence = shown(lab, CONTEXT)
    identity = bind(evidence, CONTEXT)
    assert identity.evidence == evidence
    assert identity.role == "workload"
    for name in identity.claims.__struct_fields__:
        assert getattr(identity.claims, name) == getattr(CONTEXT, name)


def test_the_table_has_every_field():
    """A field added to the context must be added to the attacks."""
    assert OTHER.keys() == set(Context.__struct_fields__) - {"schema", "protocol"}


@pytest.mark.parametrize("field", OTHER)
def test_evidence_for_another_context_is_refused(lab, field):
    """A difference in any single field is another connection."""
    made_for = msgspec.structs.replace(CONTEXT, **{field: OTHER[field]})
    with pytest.raises(BindingError) as refusal:
        bind(shown(lab, made_for), CONTEXT)
    assert refusal.value.members["check"] == "report-data"


@pytest.mark.parametrize(
    ("measured", "check"), [({"image": OTHER["image"]}, "image"), ({"config": "ce" * 48}, "config")]
)
def test_claims_that_the_registers_contradict_are_refused(lab, measured, check):
    """A trust domain that claims another image or config than it was started with: no."""
    with pytest.raises(BindingError) as refusal:
        bind(shown(lab, CONTEXT, **measured), CONTEXT)
    assert refusal.value.members["check"] == check


def test_sgx_claims_are_left_to_the_profile(lab):
    """MRENCLAVE covers image, config and app; the report data is compared all the same."""
    quote = sgx_quote(
        lab.pki, measurement=sgx_measurement("11" * 32), report_data=report_data(CONTEXT)
    )
    evidence = lab.verify(lab.evidence("sgx", quote=quote))
    assert bind(evidence, CONTEXT).claims.image == IMAGE
    with pytest.raises(BindingError):
        bind(evidence, msgspec.structs.replace(CONTEXT, purpose="create"))


def test_rtmr3_is_one_extension_from_zero():
    """SHA-384(48 zero bytes, SHA-384(digest text)), as the TDX module extends."""
    event = hashlib.sha384(IMAGE.encode()).digest()
    assert rtmr3_of_image(IMAGE) == hashlib.sha384(bytes(48) + event).hexdigest()
