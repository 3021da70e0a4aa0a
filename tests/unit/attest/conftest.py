"""A development PKI and what an attacker can make of its evidence."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import msgspec
import pytest

from placet.attest.verify import verify_evidence
from placet.core.attestation import Evidence
from placet.core.encoding import b64
from placet_dev.tee.pki import HONEST, DevPki
from placet_dev.tee.quotes import (
    STANDARD,
    sgx_measurement,
    sgx_quote,
    tdx_measurement,
    tdx_quote,
)

NOW = 1_800_000_000
REPORT_DATA = bytes(range(64))
SGX = sgx_measurement("11" * 32, mrsigner="22" * 32, isv_prod_id=7, isv_svn=3)
TDX = tdx_measurement("33" * 48, rtmr3="44" * 48, mr_config_id="55" * 48)


@dataclass(frozen=True, kw_only=True)
class Lab:
    """One honest PKI, and how to go wrong with it."""

    pki: DevPki
    foreign: DevPki
    now: int = NOW

    def quote(self, family, form=STANDARD, *, pki=None, **fields):
        """Return a quote; ``fields`` replace those of the TDX measurement."""
        pki = pki or self.pki
        given = {"report_data": REPORT_DATA, "form": form}
        if family == "sgx":
            return sgx_quote(pki, measurement=SGX, **given)
        return tdx_quote(pki, measurement=msgspec.structs.replace(TDX, **fields), **given)

    def evidence(self, family, *, quote=None, collateral=None, flaws=HONEST):
        """Return evidence: honest, but for what is given."""
        quote = self.quote(family) if quote is None else quote
        collateral = self.collateral(family, flaws) if collateral is None else collateral
        return Evidence(family=family, quote=b64(quote), collateral=b64(collateral))

    def collateral(self, family, flaws=HONEST):
        """Return this PKI's collateral."""
        return self.pki.collateral(family, self.now, flaws)

    def members(self, family, **changes):
        """Return collateral with members put in, or taken out where ``None``."""
        members = json.loads(self.collateral(family)) | changes
        return json.dumps({k: v for k, v in members.items() if v is not None}).encode()

    def flaws(self, **fields):
        """Return flaws of collateral."""
        return replace(HONEST, **fields)

    def form(self, **fields):
        """Return an odd form of a quote."""
        return replace(STANDARD, **fields)

    def verify(self, evidence, *, trust=None, now=NOW):
        """Verify under this PKI's root."""
        return verify_evidence(evidence, trust=trust or [self.pki.anchor()], now=now)


@pytest.fixture(scope="session")
def lab():
    """Give a PKI and a foreign one that is as good as it, but for its root."""
    return Lab(pki=DevPki.create(NOW), foreign=DevPki.create(NOW))
