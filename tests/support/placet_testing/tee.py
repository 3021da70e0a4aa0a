"""A software TEE in this process: real quotes under a development root, without a launcher."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from placet.attest.produce.producer import Description
from placet.core.attestation import CertificateClaims, Context, Evidence, app_report_data
from placet.core.config import (
    Config,
    Opens,
    TrustRoot,
    VaultConfig,
    VaultSettings,
    WorkloadConfig,
)
from placet.core.encoding import b64
from placet.core.profile import Measurement, Profile, SgxMeasurement
from placet_dev.tee.bundle import Bundle, profile_of
from placet_dev.tee.enclave import Enclave
from placet_dev.tee.pki import DevPki
from placet_dev.tee.quotes import sgx_quote, tdx_quote
from placet_testing.charters import UP_TO_DATE

PID = 4242
PKI_FOLDER = "PLACET_TEST_PKI"
IMAGES = {number: "sha256:" + f"{number:02x}" * 32 for number in range(16)}


@cache
def dev_pki() -> DevPki:
    """Return the development PKI of this test run; its own processes are told by a variable."""
    if folder := os.environ.get(PKI_FOLDER):
        return DevPki.load(Path(folder))
    return DevPki.create(int(time.time()))


def vault_config(*roots: TrustRoot) -> VaultConfig:
    """Return a vault's measured config that trusts the test run's root."""
    return VaultConfig(
        app="placet-vault",
        argv=("placet.vault.main:main", "--listen", "{listen}", "--data", "{data}"),
        environment={},
        settings=VaultSettings(evidence_age=60, max_keys=1000),
        trust_roots=roots or (dev_pki().trust_root(),),
    )


def workload_config(owner: str, *, label: str = "notes/data") -> WorkloadConfig:
    """Return a workload's measured config that may open one owner's label."""
    return WorkloadConfig(
        app="notes",
        argv=("placet.agent.main:main", "--key", "{key}", "--volume", "{volume}"),
        environment={},
        mounts=(),
        trust_roots=(dev_pki().trust_root(),),
        opens=Opens(owner=owner, label=label, label_prefix=None),
    )


@dataclass
class Tee:
    """The `Producer` of one pretended process; `quoter` signs anything, for hostile tests."""

    config: Config
    version: int = 1
    boot: str = "boot-1"
    pki: DevPki = field(default_factory=dev_pki)
    quotes: int = 0

    def __post_init__(self) -> None:
        """Measure what pretends to run."""
        self.bundle = Bundle(
            folder=Path("/nowhere"),
            config=self.config,
            image=IMAGES[self.version],
            runtime="sha384:" + "a7" * 48,
        )
        self.enclave = Enclave(
            bundle=self.bundle,
            boot=self.boot,
            pid=PID,
            quoter=self.quoter,
            sealing_secret=b"s" * 32,
        )

    def quoter(self, measurement: Measurement, report_data: bytes) -> Evidence:
        """Sign a quote, with today's collateral stapled."""
        self.quotes += 1
        if isinstance(measurement, SgxMeasurement):
            raw = sgx_quote(self.pki, measurement=measurement, report_data=report_data)
            return self._evidence("sgx", raw)
        raw = tdx_quote(self.pki, measurement=measurement, report_data=report_data)
        return self._evidence("tdx", raw)

    def _evidence(self, family: str, raw: bytes) -> Evidence:
        collateral = _collateral(self.pki, family)
        return Evidence(family=family, quote=b64(raw), collateral=collateral)  # type: ignore[arg-type]

    def profile(self, *, security_version: int = 1) -> Profile:
        """Return what an owner approves to let this in."""
        return profile_of(
            self.bundle,
            anchor=self.pki.anchor().name,
            security_version=security_version,
            tcb=UP_TO_DATE,
        )

    def describe(self) -> Description:
        """Return what was measured."""
        return self.enclave.describe()

    def quote(self, context: Context) -> Evidence:
        """Return evidence about this process, after the enclave's checks."""
        return self.enclave.quote(context)

    def certificate_quote(self, claims: CertificateClaims) -> Evidence:
        """Return evidence for this process's certificate, after the same checks."""
        return self.enclave.quote(claims)

    def sealing_key(self) -> bytes:
        """Return the sealing key of this measurement."""
        return self.enclave.sealing_key()

    def app_report(self, data: bytes) -> Evidence:
        """Return evidence over an application's data."""
        return self.quoter(self.bundle.measurement, app_report_data(data))


_cache: dict[tuple[int, str], str] = {}


def _collateral(pki: DevPki, family: str) -> str:
    at = (id(pki), family)
    if at not in _cache:
        _cache[at] = b64(pki.collateral(family, int(time.time())))  # type: ignore[arg-type]
    return _cache[at]
