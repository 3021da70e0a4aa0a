"""Linux's report interface: generation, errors and registers, for TDX and SEV-SNP guests."""

from __future__ import annotations

import errno
import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from placet_testing.kernels import TSM, Kernel, SnpGuest, TdxGuest, Tsm, certificate_table
from placet_testing.machines import FAMILIES, IMAGE, VAULT, about, context_of
from placet_testing.tee import dev_pki

from placet.attest.produce.configfs import ATTEMPTS, ConfigfsProducer
from placet.attest.produce.device import HINTS
from placet.attest.produce.rtmr import extend_by_event, extend_rtmr3
from placet.attest.verify import bind, verify_evidence
from placet.attest.verify.snp import split
from placet.core.attestation import report_data
from placet.core.config import config_digest
from placet.core.encoding import unb64
from placet.core.limits import MAX_EVIDENCE
from placet.core.profile import rtmr3_of_image
from placet.errors import (
    BindingError,
    MalformedError,
    TooLargeError,
    UnavailableError,
    VerificationError,
)
from placet_dev.tee.quotes import tdx_measurement, tdx_quote

VCEK = bytes.fromhex("63da758de6644564adc5f4b93be8accd")
EMPTY = bytes.fromhex("00" * 16)


@pytest.fixture
def tdx(tmp_path):
    """Return a trust domain for the vault's config, extended by the image."""
    return FAMILIES["tdx"](VAULT, tmp_path)


@pytest.fixture
def snp(tmp_path):
    """Return an SEV-SNP guest for the vault's config and image."""
    return FAMILIES["snp"](VAULT, tmp_path)


def tsm_of(case):
    """Return the stand-in of the report interface."""
    return case.kernel.mounts[TSM]


# --- what comes out ----------------------------------------------------------------------


def test_tdx_quote_passes_the_verifier_and_is_bound_to_its_context(tdx, tmp_path):
    """From the kernel's file to an attested identity."""
    now = int(time.time())
    file = tmp_path / "collateral.json"
    file.write_bytes(dev_pki().collateral("tdx", now))
    evidence = tdx.start(collateral=file).quote(context_of())
    shown = verify_evidence(evidence, trust=[dev_pki().anchor()], now=now)
    identity = bind(shown, context_of())
    assert identity.claims.image == IMAGE
    assert (evidence.family, evidence.events) == ("tdx", ())


def test_tdx_events_travel_and_are_replayed_by_the_verifier(tdx, tmp_path):
    """A log with more than the image in it comes along; the register proves it."""
    now, log, guest = int(time.time()), tmp_path / "rtmr3.log", tdx.device
    guest.rtmr3 = bytes(48)
    machine = tdx.kernel.machine
    extend_rtmr3(IMAGE, log=log, machine=machine)
    file = tmp_path / "collateral.json"
    file.write_bytes(dev_pki().collateral("tdx", now))
    producer = tdx.start(log=log, collateral=file)
    assert producer.quote(context_of()).events == ()
    extend_by_event("container: db", log=log, machine=machine)
    evidence = producer.quote(context_of())
    assert evidence.events == (IMAGE, "container: db")
    shown = verify_evidence(evidence, trust=[dev_pki().anchor()], now=now)
    assert bind(shown, context_of()).claims.image == IMAGE


def test_snp_quote_is_the_report_with_its_certificate_table(snp):
    """In the form that the verifier takes apart."""
    snp.device.table = certificate_table((VCEK, b"der of a vcek"), (b"unknown guid 16b", b"x"))
    evidence = snp.start().quote(context_of())
    raw = unb64(evidence.quote)
    assert evidence.collateral is None
    assert raw[1184:] == snp.device.table
    report, found = split(raw)
    assert report.raw[0x50:0x90] == report_data(context_of())
    assert found == {"vcek": b"der of a vcek"}


def test_snp_host_that_gives_no_certificates_leaves_the_report_alone(snp):
    """The attribute is there, and empty."""
    assert len(unb64(snp.start().quote(context_of()).quote)) == 1184


def test_snp_level_is_written_and_counted_when_one_is_configured(snp):
    """Only then: without one the kernel's default stands."""
    report, _ = split(unb64(snp.start(vmpl=2).quote(context_of()).quote))
    assert report.number("<I", 0x30) == 2
    assert [name for op, name in snp.kernel.calls if op == "open" and "privlevel" in name]
    snp.start().quote(context_of())
    assert not [name for op, name in snp.kernel.calls if "privlevel" in name]


def test_tdx_has_neither_level_nor_table_and_none_is_asked_for(tdx):
    """Those attributes are hidden there: opening them fails."""
    tdx.start(vmpl=2).quote(context_of())
    assert not [n for _, n in tdx.kernel.calls if "privlevel" in n or "auxblob" in n]


def test_each_quote_has_an_entry_of_its_own_that_is_removed(snp):
    """Under a name that nobody can guess beforehand."""
    producer = snp.start()
    for _ in range(5):
        producer.app_report(b"x")
    made = [name for op, name in snp.kernel.calls if op == "mkdir"]
    assert made == [name for op, name in snp.kernel.calls if op == "rmdir"]
    assert len(set(made)) == 5
    assert not tsm_of(snp).entries


# --- somebody else writes, too -----------------------------------------------------------


def stranger(entry):
    """Write another 64 bytes into an entry, as another process would."""
    entry.count()
    entry.inblob = b"s" * 64


def counter(entry):
    """Only count up: another process wrote the same bytes."""
    entry.count()


AT = ("write inblob", "read outblob", "read generation")
"""Before our write, before the report is made, and at both looks at the counter."""


@pytest.mark.parametrize("family", ["tdx", "snp"])
@pytest.mark.parametrize("deed", [stranger, counter])
@pytest.mark.parametrize("at", AT)
def test_report_of_a_disturbed_entry_is_thrown_away(at, deed, family, request):
    """Another entry is made, and what comes out is ours."""
    case = request.getfixturevalue(family)
    producer = case.start()
    harmless = [] if at != "read generation" else [lambda _: None]
    tsm_of(case).before[at] = [*harmless, deed]
    evidence = producer.quote(context_of())
    assert report_data(context_of()) in unb64(evidence.quote)
    assert len([op for op, _ in case.kernel.calls if op == "mkdir"]) == 2
    assert not tsm_of(case).entries


@pytest.mark.parametrize("family", ["tdx", "snp"])
def test_who_is_disturbed_each_time_gives_up(family, request):
    """After a bounded number of entries, all of them removed."""
    case = request.getfixturevalue(family)
    producer = case.start()
    tsm_of(case).before["read outblob"] = [stranger] * 100
    with pytest.raises(UnavailableError, match="somebody else"):
        producer.quote(context_of())
    assert len([op for op, _ in case.kernel.calls if op == "mkdir"]) == ATTEMPTS
    assert not tsm_of(case).entries


def test_write_whose_error_the_kernel_lost_is_noticed_by_its_count(tdx):
    """A binary attribute is stored at close, where nobody hears of an error."""
    producer = tdx.start()

    def full(entry):
        entry.read = (entry.written + 1) % 2**64

    tsm_of(tdx).before["write inblob"] = [full] * ATTEMPTS
    with pytest.raises(UnavailableError):
        producer.quote(context_of())


def test_stranger_whose_write_stands_in_for_a_lost_one_is_noticed_by_the_bytes(tdx):
    """The count is right then, and the 64 bytes are not."""
    producer = tdx.start()

    def replaced(entry):
        stranger(entry)
        raise OSError(errno.EBUSY, "lost")

    tsm_of(tdx).before["write inblob"] = [replaced]
    with pytest.raises(UnavailableError, match="other 64 bytes"):
        producer.quote(context_of())


# --- errors ------------------------------------------------------------------------------

NUMBERS = (
    *(errno.EBUSY, errno.EWOULDBLOCK, errno.EIO, errno.ENXIO, errno.EACCES, errno.ENOENT),
    *(errno.ETIMEDOUT, errno.EINVAL, errno.ENOMEM, errno.EFBIG),
)
PLACES = (
    *("mkdir", "read provider", "read generation", "write privlevel", "read outblob"),
    "read auxblob",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
def test_every_error_of_the_kernel_is_ours_and_leaves_nothing_behind(place, number, snp):
    """With a hint where there is something to do."""
    producer = snp.start(vmpl=0)
    tsm_of(snp).faults[place] = number
    with pytest.raises(UnavailableError) as caught:
        producer.quote(context_of())
    assert caught.value.members == {"errno": errno.errorcode[number]}
    assert caught.value.hint == HINTS.get(number, "")
    assert not tsm_of(snp).entries
    assert not snp.kernel.open_files


def test_errors_that_the_issue_names_have_hints():
    """Busy, not yet, failed, nobody there."""
    assert all(HINTS[n] for n in (errno.EBUSY, errno.EWOULDBLOCK, errno.EIO, errno.ENXIO))


def test_entry_that_cannot_be_removed_costs_no_quote(snp):
    """What stays behind is public."""
    producer = snp.start()
    tsm_of(snp).faults["rmdir"] = errno.EBUSY
    assert producer.quote(context_of()).family == "snp"


def test_quote_that_is_still_in_flight_is_busy(tdx):
    """A timed-out request stays with the host; no other is taken until it answers."""
    producer = tdx.start()
    tdx.device.in_flight = True
    with pytest.raises(UnavailableError, match="busy"):
        producer.quote(context_of())


def test_level_below_the_guests_own_is_refused_by_the_kernel(snp):
    """With the level that was asked in the way."""
    snp.device.floor = 1
    with pytest.raises(UnavailableError) as caught:
        snp.start(vmpl=0)
    assert "privilege level" in caught.value.hint
    assert snp.start(vmpl=1)


def test_no_provider_and_no_configfs_are_unavailable():
    """Where there is no TEE at all."""
    with pytest.raises(UnavailableError, match="no report was made"):
        ConfigfsProducer(about(), machine=Kernel({TSM: Tsm(None)}).machine)
    with pytest.raises(UnavailableError, match="no report was made"):
        ConfigfsProducer(about())


def test_provider_that_is_not_known_is_refused(snp):
    """A report of unknown form proves nothing."""
    snp.device.provider = "arm_cca_guest"
    with pytest.raises(UnavailableError, match="arm_cca_guest"):
        snp.start()


@pytest.mark.parametrize("told", [b"", b"-1\n", b"x\n", b"\xff\n"])
def test_generation_that_is_no_number_is_malformed(told, snp):
    """A kernel that talks nonsense raises none of Python's own errors."""
    producer = snp.start()
    show = tsm_of(snp)._show
    tsm_of(snp)._show = lambda entry, name: told if name == "generation" else show(entry, name)
    with pytest.raises(MalformedError):
        producer.quote(context_of())


# --- reports that are none ---------------------------------------------------------------


@given(raw=st.binary(max_size=700) | st.binary(max_size=700).map(lambda b: b"\4\0" + b))
def test_what_is_no_tdx_quote_raises_only_our_errors(raw):
    """Empty (as older kernels give it when the host fails), short, of another version."""
    guest = TdxGuest(lambda _rtmr3, _data: raw)
    with pytest.raises((MalformedError, BindingError)):
        ConfigfsProducer(about(), machine=Kernel({TSM: Tsm(guest)}).machine)


@pytest.mark.parametrize("size", [0, 1183, 1185])
def test_report_of_another_length_is_malformed(size, snp):
    """The certificate table begins where the report ends, so its length is exact."""
    made = snp.device.report

    def report(inblob, level):
        return {"outblob": made(inblob, level)["outblob"].ljust(1185, b"\0")[:size], "auxblob": b""}

    snp.device.report = report
    with pytest.raises(MalformedError):
        snp.start()


def test_evidence_that_no_verifier_takes_is_not_sent(snp):
    """Report and table together are within the limit."""
    producer = snp.start()
    snp.device.table = bytes(MAX_EVIDENCE - 1184)
    assert producer.quote(context_of())
    snp.device.table = bytes(MAX_EVIDENCE - 1183)
    with pytest.raises(TooLargeError):
        producer.quote(context_of())
    snp.device.table = bytes(MAX_EVIDENCE + 1)
    with pytest.raises(TooLargeError):
        producer.quote(context_of())


# --- registers ---------------------------------------------------------------------------


def quoter(config=None, version=4):
    """Return what makes quotes of a trust domain that was launched for a config."""
    digest = config or config_digest(VAULT).removeprefix("sha384:")

    def quote(rtmr3, data):
        measurement = tdx_measurement("33" * 48, rtmr3=rtmr3, mr_config_id=digest)
        raw = tdx_quote(dev_pki(), measurement=measurement, report_data=data)
        if version == 4:
            return raw
        return b"\5\0" + raw[2:48] + b"\2\0\x48\2\0\0" + raw[48:]

    return quote


def started(guest, **options):
    """Start a producer on a trust domain."""
    machine = Kernel({TSM: Tsm(guest)}).machine
    return ConfigfsProducer(about(), machine=machine, **options)


@pytest.mark.parametrize("version", [4, 5])
def test_registers_are_found_in_both_versions_of_a_quote(version, tmp_path):
    """Version 5 has six bytes more before the body."""
    good = bytes.fromhex(rtmr3_of_image(IMAGE))
    log = tmp_path / "none"
    assert started(TdxGuest(quoter(version=version), good), log=log)
    with pytest.raises(BindingError) as caught:
        started(TdxGuest(quoter("55" * 48, version), good), log=log)
    assert caught.value.members["check"] == "config"


RTMR3 = {
    "never extended": bytes(48),
    "another image": bytes.fromhex(rtmr3_of_image("sha256:" + "ff" * 32)),
    "twice": hashlib.sha384(
        bytes.fromhex(rtmr3_of_image(IMAGE)) + hashlib.sha384(IMAGE.encode()).digest()
    ).digest(),
}


@pytest.mark.parametrize("case", RTMR3)
def test_trust_domain_whose_image_was_not_measured_is_refused(case, tmp_path):
    """With a typed error, at start, before any context is quoted."""
    with pytest.raises(BindingError) as caught:
        started(TdxGuest(quoter(), RTMR3[case]), log=tmp_path / "none")
    assert caught.value.members["check"] == "image"


LOGS = {
    "another image first": ("sha256:" + "ff" * 32, IMAGE),
    "an event first": ("container: db", IMAGE),
}


@pytest.mark.parametrize("case", LOGS)
def test_log_whose_first_event_is_not_the_image_is_refused(case, tmp_path):
    """Even where the register confirms it."""
    from placet.core.profile import rtmr3_of

    log = tmp_path / "rtmr3.log"
    log.write_text("".join(f"{event}\n" for event in LOGS[case]))
    guest = TdxGuest(quoter(), bytes.fromhex(rtmr3_of(LOGS[case])))
    with pytest.raises(BindingError) as caught:
        started(guest, log=log)
    assert caught.value.members["check"] == "image"


def test_register_that_moved_without_the_log_stops_the_quotes(tmp_path):
    """What nobody logged is nothing that a verifier could replay."""
    guest = TdxGuest(quoter(), bytes.fromhex(rtmr3_of_image(IMAGE)))
    producer = started(guest, log=tmp_path / "none")
    producer.quote(context_of())
    guest.rtmr3 = hashlib.sha384(guest.rtmr3 + bytes(48)).digest()
    with pytest.raises(VerificationError):
        producer.quote(context_of())


@pytest.mark.parametrize("host_data", [bytes(32), b"h" * 32])
def test_guest_of_another_host_data_is_refused(host_data):
    """Zero is what a guest has that was launched without."""
    guest = SnpGuest(host_data)
    with pytest.raises(BindingError) as caught:
        ConfigfsProducer(about(), machine=Kernel({TSM: Tsm(guest)}).machine)
    assert caught.value.members["check"] == "host-data"


def test_image_is_part_of_host_data(snp):
    """Another image on the same machine is refused as well."""
    with pytest.raises(BindingError):
        ConfigfsProducer(about(image="sha256:" + "ff" * 32), machine=snp.kernel.machine)
