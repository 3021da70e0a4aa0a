"""An enclave under Gramine: ``/dev/attestation``."""

from __future__ import annotations

import errno
import time

import pytest
from placet_testing.kernels import GRAMINE, Gramine, Kernel
from placet_testing.machines import FAMILIES, VAULT, about, context_of
from placet_testing.tee import dev_pki

from placet.attest.produce.gramine import GramineProducer
from placet.attest.verify import bind, verify_evidence
from placet.core.attestation import report_data
from placet.core.encoding import unb64
from placet.errors import MalformedError, UnavailableError


@pytest.fixture
def case(tmp_path):
    """Return an enclave."""
    return FAMILIES["sgx"](VAULT, tmp_path)


def test_quote_passes_the_verifier_and_is_bound_to_its_context(case, tmp_path):
    """From the enclave's file to an attested identity."""
    now = int(time.time())
    file = tmp_path / "collateral.json"
    file.write_bytes(dev_pki().collateral("sgx", now))
    evidence = case.start(collateral=file).quote(context_of())
    shown = verify_evidence(evidence, trust=[dev_pki().anchor()], now=now)
    assert bind(shown, context_of()).role == "vault"
    assert (evidence.family, evidence.events) == ("sgx", ())


def test_report_data_is_written_before_the_quote_is_opened(case):
    """A value is made when its file is opened, so the order counts."""
    case.start().quote(context_of())
    names = [name.rpartition("/")[2] for op, name in case.kernel.calls if op == "open"]
    assert names == ["user_report_data", "quote"]


def test_folder_may_lie_elsewhere(case):
    """As the argument says."""
    kernel = Kernel({"/attestation": case.device})
    producer = GramineProducer(about(), machine=kernel.machine, folder=next(iter(kernel.mounts)))
    assert report_data(context_of()) in unb64(producer.quote(context_of()).quote)


@pytest.mark.parametrize("kind", ["none", "epid", "", "dcap2", "\xe9"])
def test_other_schemes_of_attestation_are_refused(kind, case):
    """Before anything is written."""
    case.device.kind = kind
    with pytest.raises(UnavailableError, match="dcap"):
        case.start()
    assert not case.device.quotes


@pytest.mark.parametrize("kind", ["dcap", "dcap\n"])
def test_scheme_may_end_in_a_newline(kind, case):
    """With and without: both are the same name."""
    case.device.kind = kind
    assert case.start()


def test_other_code_of_the_enclave_that_writes_in_between_is_noticed(case):
    """The files are process-wide; a RA-TLS library may use them as well."""
    producer = case.start()

    def intrude(device):
        device.report_data = b"i" * 64

    case.device.before = [intrude]
    with pytest.raises(UnavailableError, match="other 64 bytes"):
        producer.quote(context_of())
    assert producer.quote(context_of())


FILES = ("attestation_type", "user_report_data", "quote")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.EIO, errno.ENOMEM])
def test_every_error_is_ours(file, number, case):
    """Gramine answers ``EACCES`` where the quoting service failed."""
    case.device.faults[file] = number
    with pytest.raises(UnavailableError) as caught:
        case.start()
    assert caught.value.members == {"errno": errno.errorcode[number]}
    assert not case.kernel.open_files


def test_gramine_without_sgx_is_unavailable():
    """Its folder is there, with keys and nothing else."""
    device = Gramine(lambda _: b"", faults={"attestation_type": errno.ENOENT})
    with pytest.raises(UnavailableError):
        GramineProducer(about(), machine=Kernel({GRAMINE: device}).machine)


@pytest.mark.parametrize("size", [0, 1, 431])
def test_short_quote_is_malformed(size):
    """It ends before the report data does."""
    device = Gramine(lambda _: bytes(size))
    with pytest.raises(MalformedError):
        GramineProducer(about(), machine=Kernel({GRAMINE: device}).machine)


@pytest.mark.parametrize("secret", [b"", b"k" * 15, b"k" * 17])
def test_sealing_secret_of_another_size_is_refused(secret, case):
    """An empty one is what a key has that was never set."""
    case.device.key = secret
    with pytest.raises(MalformedError):
        case.start().sealing_key()


def test_missing_sealing_secret_is_unavailable(case):
    """Gramine of before 1.5 has no such file."""
    case.device.faults["keys/_sgx_mrenclave"] = errno.ENOENT
    with pytest.raises(UnavailableError, match="sealing key"):
        case.start().sealing_key()
