"""What every producer on hardware shares: lies are refused before the hardware is asked."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import threading
from pathlib import Path

import pytest
from placet_testing import contexts
from placet_testing.kernels import TSM
from placet_testing.machines import (
    FAMILIES,
    IMAGE,
    VAULT,
    WORKLOAD,
    about,
    context_of,
)
from placet_testing.tee import dev_pki, vault_config

from placet.attest.produce.device import Machine, reported
from placet.attest.produce.hardware import SELF_TEST, describe
from placet.core.attestation import app_report_data, report_data
from placet.core.config import config_digest
from placet.core.encoding import b64, encode
from placet.core.limits import MAX_COLLATERAL, MAX_EVIDENCE
from placet.errors import (
    BindingError,
    MalformedError,
    RoleDeniedError,
    TooLargeError,
    UnavailableError,
)


@pytest.fixture(params=FAMILIES)
def case(request, tmp_path):
    """Return each family in turn, launched for the vault's config."""
    return FAMILIES[request.param](VAULT, tmp_path)


def spied(producer):
    """Return the list of the 64 bytes that a producer's device is asked about."""
    asked, quoted = [], producer._quoted

    def spy(data):
        asked.append(data)
        return quoted(data)

    producer._quoted = spy
    return asked


LIES = {"role": {"role": "workload"}, **contexts.LIES}


@pytest.mark.req("R1.6")
@pytest.mark.parametrize("lie", LIES)
def test_context_that_lies_is_refused_and_nothing_is_asked(lie, case):
    """No system call is made for it: what is not asked cannot be signed."""
    producer = case.start()
    if lie == "another instance than before":
        producer.quote(context_of())
        case.kernel.calls.clear()
    with pytest.raises((RoleDeniedError, MalformedError)):
        producer.quote(context_of(**LIES[lie]))
    assert case.kernel.calls == []
    producer.quote(context_of())
    assert case.kernel.calls != []


@pytest.mark.req("R1.6")
def test_the_device_signs_the_report_data_of_the_whole_context(case):
    """And an application's data under its own label; no third kind of 64 bytes leaves."""
    producer = case.start()
    asked = spied(producer)
    producer.quote(context_of())
    producer.app_report(b"data")
    assert asked == [report_data(context_of()), app_report_data(b"data")]
    assert SELF_TEST not in asked


@pytest.mark.req("R1.2")
def test_a_vault_takes_over_as_client_for_that_purpose_only(case):
    """Its other role is good for nothing else, and a client's evidence for no other role."""
    producer = case.start()
    good = {"role": "resharer", "direction": "client", "purpose": "reshare"}
    producer.quote(context_of(**good))
    for change in ({"direction": "server"}, {"purpose": None}, {"purpose": "release"}):
        with pytest.raises(RoleDeniedError):
            producer.quote(context_of(**good | change))
    with pytest.raises(RoleDeniedError):
        producer.quote(context_of(**good | {"role": "vault"}))


def test_refused_or_failed_quote_pins_no_instance(case):
    """The first one that was quoted does."""
    producer = case.start()
    with pytest.raises(RoleDeniedError):
        producer.quote(context_of(instance="other", app="bank"))
    quoted, producer._quoted = (
        producer._quoted,
        lambda _: (_ for _ in ()).throw(UnavailableError("not now")),
    )
    with pytest.raises(UnavailableError):
        producer.quote(context_of(instance="other"))
    producer._quoted = quoted
    producer.quote(context_of())
    with pytest.raises(RoleDeniedError, match="instance"):
        producer.quote(context_of(instance="other"))


def test_start_closes_what_it_opened_and_describes_the_config(case):
    """Nothing is left behind by any call."""
    producer = case.start()
    told = producer.describe()
    assert told == about()
    assert (told.app, told.config, told.boot) == (VAULT.app, config_digest(VAULT), "boot-1")
    producer.quote(context_of())
    producer.app_report(b"x")
    assert not case.kernel.open_files
    tsm = case.kernel.mounts.get(TSM)
    assert tsm is None or not tsm.entries


@pytest.mark.parametrize("chunk", [1, 7, 63, 4096])
def test_partial_reads_give_whole_evidence(chunk, case):
    """However few bytes a read returns."""
    producer = case.start()
    whole = producer.app_report(b"x")
    case.kernel.chunk = chunk
    again = producer.app_report(b"x")
    assert len(again.quote) == len(whole.quote)
    assert again.family == whole.family


def test_quotes_are_made_one_at_a_time(case):
    """Two threads that ask at once do not meet in the device."""
    producer = case.start()
    inside, met = threading.Semaphore(1), []
    quoted = producer._quoted

    def watched(data):
        met.append(inside.acquire(blocking=False))
        try:
            return quoted(data)
        finally:
            inside.release()

    producer._quoted = watched
    threads = [threading.Thread(target=producer.app_report, args=(b"x",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == [True] * 8


def test_device_that_signs_other_bytes_is_not_believed(case):
    """Whoever wrote in between gets no quote out under our name."""
    producer = case.start()
    quoted = producer._quoted
    producer._quoted = lambda _: quoted(hashlib.sha512(b"other").digest())
    with pytest.raises(UnavailableError, match="other 64 bytes"):
        producer.quote(context_of())


# --- collateral --------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["tdx", "snp", "sgx"])
def test_collateral_is_stapled_as_it_lies_there_now(family, tmp_path):
    """Renewing the file renews what is stapled; without one there is none."""
    case = FAMILIES[family](VAULT, tmp_path)
    file = tmp_path / "collateral.json"
    file.write_bytes(b"{}")
    producer = case.start(collateral=file)
    assert producer.app_report(b"x").collateral == b64(b"{}")
    file.write_bytes(b'{"a":1}')
    assert producer.app_report(b"x").collateral == b64(b'{"a":1}')
    file.write_bytes(bytes(MAX_COLLATERAL + 1))
    with pytest.raises(TooLargeError):
        producer.app_report(b"x")
    file.unlink()
    with pytest.raises(UnavailableError, match="collateral"):
        producer.app_report(b"x")
    assert case.start().app_report(b"x").collateral is None


# --- sealing keys ------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_workload_gets_no_sealing_key(family, tmp_path):
    """On no hardware; and nothing is asked of it."""
    case = FAMILIES[family](WORKLOAD, tmp_path)
    producer = case.start(WORKLOAD)
    with pytest.raises(RoleDeniedError):
        producer.sealing_key()
    assert case.kernel.calls == []


@pytest.mark.parametrize("family", ["tdx", "nitro"])
def test_hardware_that_binds_no_key_says_so(family, tmp_path):
    """A vault there cannot seal."""
    with pytest.raises(UnavailableError, match="measurement"):
        FAMILIES[family](VAULT, tmp_path).start().sealing_key()


@pytest.mark.parametrize("family", ["snp", "sgx"])
def test_sealing_key_is_the_same_at_each_start_and_hangs_on_image_and_config(family, tmp_path):
    """The hardware's own secret never leaves."""
    case = FAMILIES[family](VAULT, tmp_path)
    key = case.start().sealing_key()
    assert len(key) == 32
    assert case.start().sealing_key() == key
    assert key not in {case.device.__dict__.get("key"), case.device.__dict__.get("chip")}
    other = vault_config(dev_pki().trust_root(), dev_pki().trust_root())
    assert FAMILIES[family](other, tmp_path).start(other).sealing_key() != key


def test_sealing_key_hangs_on_the_privilege_level(tmp_path):
    """SEV-SNP: level 0 where none is configured."""
    case = FAMILIES["snp"](VAULT, tmp_path)
    keys = [case.start(vmpl=level).sealing_key() for level in (None, 0, 1)]
    assert keys[0] == keys[1] != keys[2]


# --- the description ---------------------------------------------------------------------

BAD = {
    "a space": (encode(VAULT) + b" ", IMAGE),
    "no config": (b"{}", IMAGE),
    "nothing": (b"", IMAGE),
    "an image that is no digest": (encode(VAULT), "latest"),
    "an image in upper case": (encode(VAULT), "sha256:" + "AB" * 32),
}


@pytest.mark.parametrize("bad", BAD)
def test_description_of_what_is_not_canonical_is_refused(bad):
    """Before any device is looked at."""
    config, image = BAD[bad]
    with pytest.raises(MalformedError):
        describe(config, image=image, boot="boot-1")


# --- system calls ------------------------------------------------------------------------


def test_partly_taken_write_is_an_error(tmp_path, monkeypatch):
    """Half a value is another value, so the rest is not sent after it."""
    file = tmp_path / "value"
    file.touch()
    monkeypatch.setattr("os.write", lambda _fd, _data: 3)
    with pytest.raises(UnavailableError, match="3 of 8"), reported("writing failed"):
        Machine().write(file, bytes(8))


def test_read_stops_at_its_limit(tmp_path):
    """One byte more is an error, and the end is not waited for."""
    file = tmp_path / "value"
    file.write_bytes(bytes(MAX_EVIDENCE + 1))
    assert len(Machine().read(file, MAX_EVIDENCE + 1)) == MAX_EVIDENCE + 1
    with pytest.raises(TooLargeError):
        Machine().read(file, MAX_EVIDENCE)
    with pytest.raises(TooLargeError):
        Machine().read(Path("/dev/zero"), 10)


def test_error_names_what_failed_and_what_to_do():
    """For people by text, for programs by errno."""
    with pytest.raises(UnavailableError, match="not made") as caught, reported("not made"):
        raise OSError(errno.EBUSY, "Device or resource busy")
    assert caught.value.members == {"errno": "EBUSY"}
    assert "try again" in caught.value.hint


def test_real_device_is_asked_through_its_own_ioctl(tmp_path):
    """A file that is no device says so."""

    class Eight(ctypes.Structure):
        _fields_ = (("value", ctypes.c_uint64),)

    file = tmp_path / "value"
    file.touch()
    with pytest.raises(OSError, match="ioctl") as caught:
        Machine().ask(file, 0xC0200A00, Eight())
    assert caught.value.errno == errno.ENOTTY
    assert Machine().has(file)
    assert not Machine().has(tmp_path / "absent")


@pytest.mark.parametrize("family", ["tdx", "snp"])
def test_machine_of_another_config_is_not_started_on(family, tmp_path):
    """The registers were set at launch; a config file cannot argue with them."""
    case = FAMILIES[family](WORKLOAD, tmp_path)
    with pytest.raises(BindingError):
        case.start(VAULT)
