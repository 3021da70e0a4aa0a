"""Which producer a machine has, and what it needs to be told."""

from __future__ import annotations

import pytest
from placet_testing.kernels import GRAMINE, NSM, SEV, TSM, Kernel
from placet_testing.machines import FAMILIES, IMAGE, VAULT, WORKLOAD

from placet.attest.produce import open_producer
from placet.attest.produce.configfs import ConfigfsProducer
from placet.attest.produce.gramine import GramineProducer
from placet.attest.produce.nsm import NsmProducer
from placet.core.encoding import b64, encode
from placet.errors import BindingError, MalformedError, UnavailableError

CLASSES = {
    "tdx": ConfigfsProducer,
    "snp": ConfigfsProducer,
    "sgx": GramineProducer,
    "nitro": NsmProducer,
}


@pytest.fixture
def environ(tmp_path):
    """Return what a process on hardware is told."""
    file = tmp_path / "config.json"
    file.write_bytes(encode(VAULT))
    return {"PLACET_CONFIG": str(file), "PLACET_IMAGE": IMAGE}


def kernel_of(tmp_path, *families):
    """Return a machine with the devices of several families."""
    mounts = {}
    for family in families:
        mounts |= FAMILIES[family](VAULT, tmp_path).kernel.mounts
    return Kernel(mounts)


@pytest.mark.parametrize("family", FAMILIES)
def test_machine_has_the_producer_of_its_device(family, environ, tmp_path):
    """Found by what is there, not by what is said."""
    producer = open_producer(environ, kernel_of(tmp_path, family).machine)
    assert type(producer) is CLASSES[family]
    assert producer.describe().measured_config == VAULT
    assert producer.describe().image == IMAGE
    assert producer.app_report(b"x").family == family


def test_devices_are_looked_for_in_one_order(environ, tmp_path):
    """An enclave before a guest before Nitro; a launcher's socket before all."""
    kernel = kernel_of(tmp_path, "sgx", "snp", "nitro")
    assert type(open_producer(environ, kernel.machine)) is GramineProducer
    del kernel.mounts[GRAMINE]
    assert type(open_producer(environ, kernel.machine)) is ConfigfsProducer
    del kernel.mounts[TSM], kernel.mounts[SEV]
    assert type(open_producer(environ, kernel.machine)) is NsmProducer
    del kernel.mounts[NSM]
    with pytest.raises(UnavailableError, match="no TEE"):
        open_producer(environ, kernel.machine)


def test_launchers_socket_comes_first(environ, tmp_path):
    """And is not given up for a device when it is broken."""
    kernel = kernel_of(tmp_path, "sgx")
    with pytest.raises(UnavailableError, match="PLACET_TEE_FD"):
        open_producer(environ | {"PLACET_TEE_FD": "x"}, kernel.machine)
    assert kernel.calls == []


def test_this_machine_without_a_tee_is_refused():
    """Also when a config and an image are named."""
    with pytest.raises(UnavailableError, match="no TEE"):
        open_producer({})
    with pytest.raises(UnavailableError, match="no TEE"):
        open_producer({"PLACET_CONFIG": "/x", "PLACET_IMAGE": IMAGE})


@pytest.mark.parametrize("name", ["PLACET_CONFIG", "PLACET_IMAGE"])
def test_config_and_image_must_be_named(name, environ, tmp_path):
    """Nothing stands in for them."""
    del environ[name]
    with pytest.raises(UnavailableError, match=name):
        open_producer(environ, kernel_of(tmp_path, "snp").machine)


def test_boot_is_drawn_at_each_start(environ, tmp_path):
    """A restarted process is another start of the same machine."""
    machine = kernel_of(tmp_path, "snp").machine
    boots = {open_producer(environ, machine).describe().boot for _ in range(4)}
    assert len(boots) == 4


def test_unmeasured_words_decide_nothing(environ, tmp_path):
    """Another config or image than the machine was launched for does not start."""
    machine = kernel_of(tmp_path, "snp").machine
    with pytest.raises(BindingError):
        open_producer(environ | {"PLACET_IMAGE": "sha256:" + "ff" * 32}, machine)
    other = tmp_path / "other.json"
    other.write_bytes(encode(WORKLOAD))
    with pytest.raises(BindingError):
        open_producer(environ | {"PLACET_CONFIG": str(other)}, machine)
    other.write_bytes(encode(VAULT) + b"\n")
    with pytest.raises(MalformedError):
        open_producer(environ | {"PLACET_CONFIG": str(other)}, machine)
    with pytest.raises(UnavailableError, match="config"):
        open_producer(environ | {"PLACET_CONFIG": str(tmp_path / "absent")}, machine)


def test_collateral_and_level_are_taken_from_the_environment(environ, tmp_path):
    """Both are optional."""
    file = tmp_path / "collateral.json"
    file.write_bytes(b"{}")
    machine = kernel_of(tmp_path, "snp").machine
    more = {"PLACET_COLLATERAL": str(file), "PLACET_VMPL": "1"}
    producer = open_producer(environ | more, machine)
    assert producer.app_report(b"x").collateral == b64(b"{}")
    assert producer._vmpl == 1


@pytest.mark.parametrize("level", ["", "4", "-1", "01", "one", "\u0661"])
def test_level_that_is_none_is_refused(level, environ, tmp_path):
    """And not taken for the default."""
    with pytest.raises(UnavailableError, match="PLACET_VMPL"):
        open_producer(environ | {"PLACET_VMPL": level}, kernel_of(tmp_path, "snp").machine)
