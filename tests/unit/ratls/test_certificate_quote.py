"""Every source of evidence makes a certificate's under its own label, about itself only."""

from __future__ import annotations

import socket
import threading
import time

import msgspec
import pytest
from placet_testing.machines import FAMILIES, VAULT, context_of
from placet_testing.serving import trust
from placet_testing.tee import PID, Tee, vault_config

from placet.attest.produce.socket import SocketProducer
from placet.attest.verify import verify_evidence
from placet.core.attestation import CertificateClaims, report_data
from placet.core.limits import MAX_FRAME
from placet.errors import MalformedError, RoleDeniedError
from placet.ratls.wrapper import own_evidence, unwrap

SPKI = "sha256:" + "22" * 32
LIES = {
    "role": {"role": "workload"},
    "app": {"app": "bank"},
    "image": {"image": "sha256:" + "f" * 64},
    "config": {"config": "sha384:" + "f" * 96},
    "boot": {"boot": "boot-0"},
    "no instance": {"instance": ""},
    "another instance than before": {"instance": "instance-2"},
}


def claims_like(context, **changes):
    """Return the claims of a certificate of the process that a context is about."""
    named = {n: getattr(context, n) for n in CertificateClaims.__struct_fields__}
    usual = {**named, "protocol": "placet-cert/1", "spki": SPKI}
    return CertificateClaims(**(usual | changes))


@pytest.fixture(params=FAMILIES)
def case(request, tmp_path):
    """Return a machine of each family, launched for a vault."""
    return FAMILIES[request.param](VAULT, tmp_path)


@pytest.mark.req("R1.6")
def test_hardware_signs_the_report_data_of_the_claims(case):
    """The device is asked about these 64 bytes and no others."""
    producer, asked = case.start(), []
    quoted = producer._quoted
    producer._quoted = lambda data: asked.append(data) or quoted(data)
    claims = claims_like(context_of())

    producer.certificate_quote(claims)
    producer.quote(context_of())

    assert asked == [report_data(claims), report_data(context_of())]


@pytest.mark.req("R1.6")
@pytest.mark.parametrize("lie", LIES)
def test_hardware_is_not_asked_about_another_process(lie, case):
    """Claims are compared first, with what sessions said too."""
    producer = case.start()
    producer.quote(context_of())
    producer._quoted = None
    with pytest.raises((RoleDeniedError, MalformedError)):
        producer.certificate_quote(claims_like(context_of(), **LIES[lie]))


@pytest.fixture
def launched():
    """Return the producer of a process, whose launcher answers on the other end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    tee = Tee(vault_config())

    def answer():
        while raw := ours.recv(MAX_FRAME):
            ours.send(tee.enclave.answer(raw, PID))

    thread = threading.Thread(target=answer)
    thread.start()
    producer = SocketProducer(theirs)
    yield producer
    producer.close()
    thread.join()
    ours.close()


def test_the_launcher_answers_over_its_socket(launched):
    """What comes back is evidence over the claims that were sent."""
    found = unwrap(own_evidence(launched, "sha256:" + "11" * 32, SPKI, staple=True))
    shown = verify_evidence(found.evidence, trust=trust(), now=int(time.time()))
    assert shown.report_data == report_data(found.claims)


@pytest.mark.req("R1.6")
def test_the_launcher_refuses_over_its_socket(launched):
    """A process gets evidence about itself only."""
    found = unwrap(own_evidence(launched, "sha256:" + "11" * 32, SPKI))
    with pytest.raises(RoleDeniedError, match="boot"):
        launched.certificate_quote(msgspec.structs.replace(found.claims, boot="another"))
