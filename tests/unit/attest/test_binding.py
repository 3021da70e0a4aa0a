"""Evidence belongs to one connection, and its registers to its claims."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from placet_testing.amd import NOW, Amd
from placet_testing.contexts import connection
from placet_testing.nitro import Nitro, envelope

from placet.attest.verify import bind, verify_evidence
from placet.core.attestation import Context, report_data
from placet.core.encoding import b64
from placet.core.profile import host_data_of, rtmr3_of, rtmr3_of_image
from placet.errors import BindingError
from placet_dev.tee.quotes import sgx_measurement, sgx_quote, tdx_measurement, tdx_quote

IMAGE = "sha256:" + "ab" * 32
CONFIG = "cd" * 48
CONTEXT = connection(image=IMAGE, config="sha384:" + CONFIG)
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


# --- an event log beside the quote -----------------------------------------------------

EVENTS = (IMAGE, "rootfs sha384:" + "ef" * 48, "ready")


def extended(lab, measured, *, claimed=None):
    """Return verified evidence whose RTMR3 was extended by ``measured``, and its claimed log."""
    measurement = tdx_measurement("33" * 48, rtmr3=rtmr3_of(measured), mr_config_id=CONFIG)
    quote = tdx_quote(lab.pki, measurement=measurement, report_data=report_data(CONTEXT))
    evidence = lab.evidence("tdx", quote=quote)
    claimed = measured if claimed is None else claimed
    return lab.verify(msgspec.structs.replace(evidence, events=claimed))


@pytest.mark.parametrize("events", [(IMAGE,), EVENTS, (IMAGE, "", ""), (IMAGE, *["x"] * 63)])
def test_a_log_that_replays_to_the_register_is_believed(lab, events):
    """The image first, and then whatever else was measured."""
    evidence = extended(lab, events)
    assert evidence.events == events
    assert bind(evidence, CONTEXT).claims.image == IMAGE


LOGS = {
    "no log, and more was measured": (EVENTS, ()),
    "an event left out": (EVENTS, EVENTS[:2]),
    "an event put in": (EVENTS[:2], EVENTS),
    "an event edited": (EVENTS, (*EVENTS[:2], "steady")),
    "two events swapped": (EVENTS, (EVENTS[0], EVENTS[2], EVENTS[1])),
    "the image twice": ((IMAGE, IMAGE), (IMAGE, IMAGE)),
    "a second image": ((IMAGE, OTHER["image"]), (IMAGE, OTHER["image"])),
    "a second image at last": ((*EVENTS, OTHER["image"]), (*EVENTS, OTHER["image"])),
    "another image": ((OTHER["image"],), (OTHER["image"],)),
    "another image first": ((OTHER["image"], "ready"), (OTHER["image"], "ready")),
    "the image at second place": (("boot", IMAGE), ("boot", IMAGE)),
    "no image": (("boot", "ready"), ("boot", "ready")),
    "events glued together": (EVENTS, (IMAGE, EVENTS[1] + EVENTS[2])),
}


@pytest.mark.parametrize("case", LOGS)
def test_a_log_that_does_not_is_refused(lab, case):
    """A log is a claim: the register says whether it is true, and the image stands first."""
    measured, claimed = LOGS[case]
    with pytest.raises(BindingError) as refusal:
        bind(extended(lab, measured, claimed=claimed), CONTEXT)
    assert refusal.value.members["check"] == "image"


# --- SEV-SNP and Nitro -----------------------------------------------------------------

SNP, AWS = Amd.create(), Nitro.create()


def guest(kind="vcek", *, config=CONTEXT.config, image=IMAGE, context=CONTEXT, **fields):
    """Return the verified evidence of a guest that was launched for a config and an image."""
    given = {
        "host_data": bytes.fromhex(host_data_of(config, image)),
        "report_data": report_data(context),
    }
    evidence = SNP.evidence(kind, report=SNP.report(kind, **(given | fields)))
    return verify_evidence(evidence, trust=[SNP.anchor()], now=NOW)


def enclave(**fields):
    """Return the verified evidence of a Nitro enclave."""
    evidence = envelope(AWS.document(**fields))
    return verify_evidence(evidence, trust=[AWS.anchor()], now=NOW)


@pytest.mark.parametrize("kind", ["vcek", "vlek"])
def test_a_guest_is_bound_by_its_report_data_and_its_launch(kind):
    """HOST_DATA is the digest of config and image, which the host set before the launch."""
    identity = bind(guest(kind), CONTEXT)
    assert (identity.claims.config, identity.claims.image) == (CONTEXT.config, IMAGE)


HOSTS = {
    "another image": {"image": OTHER["image"]},
    "another config": {"config": OTHER["config"]},
    "both the other way round": {"image": CONTEXT.config, "config": IMAGE},
    "no host data": {"host_data": bytes(32)},
    "the last byte": {"host_data": bytes.fromhex(host_data_of(CONTEXT.config, IMAGE))[:31] + b"\0"},
}


@pytest.mark.parametrize("case", HOSTS)
def test_a_guest_that_was_launched_for_something_else_is_refused(case):
    """What a guest claims about itself is what it was launched for, or it is refused."""
    with pytest.raises(BindingError) as refusal:
        bind(guest(**HOSTS[case]), CONTEXT)
    assert refusal.value.members["check"] == "host-data"


@pytest.mark.parametrize("field", OTHER)
def test_a_guests_report_for_another_context_is_refused(field):
    """A difference in any single field is another connection, for a guest too."""
    made_for = msgspec.structs.replace(CONTEXT, **{field: OTHER[field]})
    with pytest.raises(BindingError) as refusal:
        bind(guest(context=made_for), CONTEXT)
    assert refusal.value.members["check"] == "report-data"


def test_a_log_beside_a_guests_report_changes_nothing():
    """No register of a guest is extended: only HOST_DATA says what it was launched for."""
    report = SNP.report(report_data=report_data(CONTEXT))
    evidence = msgspec.structs.replace(SNP.evidence(report=report), events=(IMAGE,))
    shown = verify_evidence(evidence, trust=[SNP.anchor()], now=NOW)
    with pytest.raises(BindingError) as refusal:
        bind(shown, CONTEXT)
    assert refusal.value.members["check"] == "host-data"


def test_an_enclave_is_bound_by_its_user_data():
    """PCR0 to PCR2 cover image, config and app; the user data is compared all the same."""
    identity = bind(enclave(user_data=report_data(CONTEXT)), CONTEXT)
    assert identity.claims.image == IMAGE


USER_DATA = {
    "none": {"user_data": None},
    "empty": {"user_data": b""},
    "left out": {"user_data": ...},
    "less a byte": {"user_data": report_data(CONTEXT)[:-1]},
    "a byte more": {"user_data": report_data(CONTEXT) + b"\0"},
    "twice": {"user_data": report_data(CONTEXT) * 2},
    "of another purpose": {
        "user_data": report_data(msgspec.structs.replace(CONTEXT, purpose="create"))
    },
    "in the nonce": {"user_data": None, "nonce": report_data(CONTEXT)},
    "in the public key": {"user_data": None, "public_key": report_data(CONTEXT)},
}


@pytest.mark.parametrize("case", USER_DATA)
def test_an_enclave_with_other_user_data_is_refused(case):
    """All 64 bytes, in that field, and nothing else."""
    with pytest.raises(BindingError) as refusal:
        bind(enclave(**USER_DATA[case]), CONTEXT)
    assert refusal.value.members["check"] == "report-data"
