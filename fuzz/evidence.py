"""Evidence of four families, collateral, and evidence as it lies in files.

Where a signature would stop every mutation, a target signs what it was given: ``signed-*``
is what the vendor's own key could say.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from pathlib import Path
from typing import cast

import cbor2
from harness import CONTEXT, RULES, attempt, parts, pck_chain, target, trust
from placet_testing.amd import NOW, SIGNED, Amd, p384_key, sign
from placet_testing.nitro import Nitro

from placet.attest.collateral_folder import needs
from placet.attest.trust import TrustAnchor
from placet.attest.verify import bind, verify_evidence
from placet.attest.verify.collateral import check_collateral, read_members
from placet.cli import evidence_files
from placet.cli.evidence_fields import family_of, read_fields
from placet.core.attestation import Evidence, Family
from placet.core.encoding import b64, unb64
from placet.core.limits import MAX_GRACE
from placet.core.profile import code_digest
from placet.policy.match import judge_platform
from placet_dev.tee.pki import DevPki, Tee
from placet_dev.tee.quotes import Form, assemble

FAMILIES: tuple[Family, ...] = ("sgx", "tdx", "snp", "nitro")


def verify(
    family: Family,
    quote: bytes,
    stapled: bytes = b"",
    roots: tuple[TrustAnchor, ...] | None = None,
) -> None:
    """Verify evidence, judge its platform and bind it: all that an attacker reaches."""
    evidence = Evidence(
        family=family,
        quote=b64(quote),
        collateral=b64(stapled) if stapled else None,
        events=(CONTEXT.image,) if family == "tdx" else (),
    )
    shown = verify_evidence(evidence, trust=roots or trust(), now=NOW, grace=MAX_GRACE)
    judge_platform(RULES, shown)
    code_digest(CONTEXT.app, CONTEXT.image, CONTEXT.config, shown.measurement)
    bind(shown, CONTEXT)


@target
def sgx(data: bytes) -> None:
    """Read an SGX quote, and collateral."""
    quote, stapled = parts(data, 2)
    verify("sgx", quote, stapled)


@target
def tdx(data: bytes) -> None:
    """Read a TDX quote, and collateral."""
    quote, stapled = parts(data, 2)
    verify("tdx", quote, stapled)


@target
def snp(data: bytes) -> None:
    """Read an SEV-SNP report with its certificate table, and the members beside it."""
    quote, stapled = parts(data, 2)
    verify("snp", quote, stapled)


@target
def nitro(data: bytes) -> None:
    """Read a Nitro document."""
    verify("nitro", data)


@target
def collateral(data: bytes) -> None:
    """Read collateral, and check it before and after its end."""
    members = read_members(data)
    for now in (NOW, NOW + MAX_GRACE):
        attempt(lambda at=now: check_collateral(members, trust()[0], pck_chain(), at, MAX_GRACE))  # type: ignore[misc]


@functools.cache
def _intel() -> DevPki:
    return DevPki.create(NOW)


@functools.cache
def _honest(tee: Tee) -> dict[str, str]:
    return dict(json.loads(_intel().collateral(tee, NOW)))


@target
def signed_intel(data: bytes) -> None:
    """Sign version and body of a quote, TCB info and QE identity, then read them."""
    body, *texts = parts(data, 3)
    version, pki = body[0] if body else 0, _intel()
    tee: Tee = "sgx" if version == 3 else "tdx"  # noqa: PLR2004 - the one that is read
    members = dict(_honest(tee))
    for name, text in zip(("tcb_info", "qe_identity"), texts, strict=True):
        if text:
            members[name] = text.decode("ascii", "replace")
            members[f"{name}_signature"] = pki.tcb.sign(members[name].encode()).hex()
    quote = assemble(pki, tee, body[1:], Form(version=version or None))
    verify(tee, quote, json.dumps(members).encode(), (pki.anchor(),))


@functools.cache
def _amd() -> Amd:
    return Amd.create(keys="fuzz")


@functools.cache
def _beside(kind: str) -> bytes:
    collateral = _amd().evidence(kind, report=b"").collateral
    return unb64(collateral or "")


@target
def signed_snp(data: bytes) -> None:
    """Sign the fields of a report, then read it with what came behind them as its table."""
    body = data[:SIGNED].ljust(SIGNED, b"\0")
    kind = "vlek" if body[0x48] & 4 else "vcek"
    report = sign(body, p384_key(f"{_amd().keys} {kind}"))
    verify("snp", report + data[SIGNED:], _beside(kind), (_amd().anchor(),))


@functools.cache
def _aws() -> Nitro:
    return Nitro.create(keys="fuzz")


@target
def signed_nitro(data: bytes) -> None:
    """Sign a document's payload, with a chain put in where it is a map, then read it."""
    payload = data
    with contextlib.suppress(Exception):  # what is no map is signed as it is
        chain = {"certificate": _aws().leaf.der, "cabundle": _aws().bundle()}
        payload = cbor2.dumps({**cbor2.loads(data, max_depth=8), **chain})
    verify("nitro", _aws().message(payload), b"", (_aws().anchor(),))


@target
def folder(data: bytes) -> None:
    """Look for what evidence lacks in a folder that has nothing."""
    family = FAMILIES[data[0] % 3] if data else "sgx"
    needs(Evidence(family=family, quote=b64(data[1:]), collateral=None))


@target
def fields(data: bytes) -> None:
    """Read what evidence says about itself, as whatever it may be taken for."""
    family_of(data)
    for family in FAMILIES:
        read_fields(data, family)


class _File:
    """A file in memory: what is asked of a path in `placet.cli.files.read_bytes`."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stat(self) -> os.stat_result:
        """Return the length and zeros."""
        return os.stat_result((0, 0, 0, 0, 0, 0, len(self._data), 0, 0, 0))

    def read_bytes(self) -> bytes:
        """Return the content."""
        return self._data


@target
def files(data: bytes) -> None:
    """Read evidence with collateral beside it, a root and rules, as files."""
    first, second = (cast("Path", _File(part)) for part in parts(data, 2))
    attempt(
        lambda: evidence_files.read_evidence(first, [second]),
        lambda: evidence_files.read_evidence(first, [second], "snp"),
        lambda: evidence_files.trusted(second),
        lambda: evidence_files.read_rules(second),
    )
