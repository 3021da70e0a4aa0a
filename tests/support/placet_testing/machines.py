"""Stand-ins of machines, one for each family, that were launched for a config and an image."""

from __future__ import annotations

from dataclasses import dataclass

from placet.attest.produce.configfs import ConfigfsProducer
from placet.attest.produce.gramine import GramineProducer
from placet.attest.produce.hardware import describe
from placet.attest.produce.nsm import NsmProducer
from placet.core.attestation import Context
from placet.core.config import config_digest
from placet.core.encoding import b64, encode
from placet.core.profile import host_data_of, rtmr3_of_image
from placet_dev.tee.quotes import sgx_measurement, sgx_quote, tdx_measurement, tdx_quote
from placet_testing.kernels import (
    GRAMINE,
    MEASUREMENTS,
    NSM,
    SEV,
    TSM,
    Gramine,
    Kernel,
    Nsm,
    SnpGuest,
    TdxGuest,
    Tsm,
)
from placet_testing.tee import dev_pki, vault_config, workload_config

IMAGE = "sha256:" + "1a" * 32
OWNER = "sha256:" + "0e" * 32
VAULT, WORKLOAD = vault_config(), workload_config(OWNER)


def about(config=VAULT, *, image=IMAGE):
    """Return what a process of this config says about itself."""
    return describe(encode(config), image=image, boot="boot-1")


@dataclass
class Case:
    """One family: its kernel, its device and what makes its producer."""

    kernel: Kernel
    device: object
    make: object

    def start(self, config=VAULT, **options):
        """Start a producer, and forget what it asked so far."""
        producer = self.make(about(config), machine=self.kernel.machine, **options)
        self.kernel.calls.clear()
        return producer


def tdx(config, tmp_path):
    """Return a trust domain that was launched and extended for a config and the image."""
    digest = config_digest(config).removeprefix("sha384:")

    def quote(rtmr3, data):
        measurement = tdx_measurement("33" * 48, rtmr3=rtmr3, mr_config_id=digest)
        return tdx_quote(dev_pki(), measurement=measurement, report_data=data)

    guest = TdxGuest(quote, rtmr3=bytes.fromhex(rtmr3_of_image(IMAGE)))
    kernel = Kernel({TSM: Tsm(guest), MEASUREMENTS: guest})
    log = tmp_path / "absent.log"
    return Case(kernel, guest, lambda *a, **o: ConfigfsProducer(*a, **{"log": log, **o}))


def snp(config, _tmp_path):
    """Return a guest that was launched for a config and the image."""
    guest = SnpGuest(bytes.fromhex(host_data_of(config_digest(config), IMAGE)))
    return Case(Kernel({TSM: Tsm(guest), SEV: guest}), guest, ConfigfsProducer)


def sgx(_config, _tmp_path):
    """Return an enclave."""
    measurement = sgx_measurement("22" * 32)
    device = Gramine(lambda data: sgx_quote(dev_pki(), measurement=measurement, report_data=data))
    return Case(Kernel({GRAMINE: device}), device, GramineProducer)


def nitro(_config, _tmp_path):
    """Return a Nitro enclave."""
    device = Nsm()
    return Case(Kernel({NSM: device}), device, NsmProducer)


FAMILIES = {"tdx": tdx, "snp": snp, "sgx": sgx, "nitro": nitro}


def context_of(measured=VAULT, **changes):
    """Return the context that a process of this config may have quoted."""
    usual = {
        "role": "vault" if measured == VAULT else "workload",
        "direction": "client",
        "spki": "sha256:" + "1" * 64,
        "peer_spki": "sha256:" + "2" * 64,
        "verifier_nonce": b64(b"v" * 32),
        "prover_nonce": b64(b"p" * 32),
        "exporter": b64(b"e" * 32),
        "instance": "instance-1",
        "app": measured.app,
        "image": IMAGE,
        "config": config_digest(measured),
        "purpose": None,
        "keys": None,
        "boot": "boot-1",
    }
    return Context(**(usual | changes))
