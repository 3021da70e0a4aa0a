"""What a quote is bound to, and what a verified one says (DESIGN section 5, spec/05).

A prover commits to a `Context`; the hardware signs its `report_data`. The verifier
rebuilds the context from what it sees itself and compares 64 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from placet.core.encoding import (
    Base64,
    Int,
    LeanRecord,
    Record,
    Sha256,
    Sha384,
    Text,
    digest,
    encode,
)
from placet.core.limits import MAX_EVENTS
from placet.core.profile import Measurement

PROTOCOL: Literal["placet-attest/1"] = "placet-attest/1"
CERTIFICATE: Literal["placet-cert/1"] = "placet-cert/1"
EXPORTER_LABEL = b"EXPORTER-placet-attest"
APP_REPORT = b"app-report/1\0"
"""What applications of the same TEE get their own report data under (R1.6)."""

Family = Literal["sgx", "tdx", "snp", "nitro"]
"""Formats of evidence; software evidence is one of the first two, under another anchor."""
Role = Literal["workload", "vault", "resharer"]
Direction = Literal["client", "server"]
Purpose = Literal["release", "create", "reshare"]


class Claims(Record):
    """What a prover says about itself; the quote proves that it said so.

    A vault has no ``purpose`` and no ``keys``; a workload has both; who takes over from a
    vault has a purpose only (spec/05, section 2).
    """

    instance: Text
    app: Text
    image: Sha256
    config: Sha384
    purpose: Purpose | None
    keys: Sha256 | None
    boot: Text


class Context(Record, kw_only=True):
    """Everything that one piece of evidence is good for. Each field is load-bearing (R1.3)."""

    schema: Literal[1] = 1
    protocol: Literal["placet-attest/1"] = PROTOCOL
    role: Role
    direction: Direction
    spki: Sha256
    peer_spki: Sha256
    verifier_nonce: Base64
    prover_nonce: Base64
    exporter: Base64
    instance: Text
    app: Text
    image: Sha256
    config: Sha384
    purpose: Purpose | None
    keys: Sha256 | None
    boot: Text


class CertificateClaims(Record, kw_only=True):
    """What the evidence in a certificate is about: a key and a process, and no session.

    It shows, and never authorises: whoever has the key can show it, at any time.
    """

    schema: Literal[1] = 1
    protocol: Literal["placet-cert/1"] = CERTIFICATE
    role: Role
    spki: Sha256
    instance: Text
    app: Text
    image: Sha256
    config: Sha384
    boot: Text


class Evidence(LeanRecord):
    """A quote on its way, with the vendor-signed collateral that the prover stapled."""

    family: Family
    quote: Base64
    """A quote, a report with its certificate table behind it, or a document."""
    collateral: Base64 | None
    """The collateral's JSON bytes as received (spec/02, section 3)."""
    events: Annotated[tuple[Text, ...], Meta(max_length=MAX_EVENTS)] = ()
    """TDX: what RTMR3 was extended by, in order; empty stands for the image alone."""


class TcbState(Record):
    """How the vendor judges the platform, by verified collateral."""

    status: Text
    advisories: tuple[Text, ...]
    evaluation: Int
    date: Int
    """Unix seconds of the TCB level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEvidence:
    """Evidence whose signatures, chain, dates and debug bits held. Made by ``attest.verify`` only.

    That it was made for this connection is *not* part of it: see `AttestedIdentity`.
    """

    measurement: Measurement
    report_data: bytes
    anchor: str
    tcb: TcbState
    families: tuple[str, ...]
    """Names by which a rule may deny the CPU: FMSPC, or product and CPU family; lower case."""
    hardware_id: str | None
    expires: int
    """Unix seconds at which the first part of the collateral ends, or ended."""
    overdue: int = 0
    """Seconds since then, if the caller allowed for a grace; a profile has to allow it too."""
    features: frozenset[str] = frozenset()
    """What the platform has switched on (`placet.core.profile.Feature`)."""
    events: tuple[str, ...] = ()
    """The event log that came along; `bind` replays it."""
    reported_tcb: str | None = None
    """AMD: REPORTED_TCB, 8 bytes in the report's order, as hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedIdentity:
    """Verified evidence that was bound to a connection; what the rules decide on."""

    evidence: VerifiedEvidence
    role: Role
    claims: Claims


SAID = ("instance", "app", "image", "config", "boot")
"""What a context and a certificate both say about a process."""


def claims_of(context: Context | CertificateClaims) -> Claims:
    """Return the claims that a context makes; a certificate has no purpose and no keys."""
    told = {name: getattr(context, name) for name in SAID}
    if isinstance(context, CertificateClaims):
        return Claims(purpose=None, keys=None, **told)
    return Claims(purpose=context.purpose, keys=context.keys, **told)


def keys_digest(keys: Iterable[str]) -> str:
    """Return the digest of a sorted list of key ids."""
    return digest("placet-keys/1", encode(sorted(keys)))


def exporter_context(
    verifier_nonce: bytes, prover_nonce: bytes, role: Role, direction: Direction
) -> bytes:
    """Return the context value under which the TLS exporter is taken (32 bytes)."""
    tail = b"\0" + role.encode() + b"\0" + direction.encode()
    return hashlib.sha256(verifier_nonce + prover_nonce + tail).digest()


def report_data(context: Context | CertificateClaims) -> bytes:
    """Return the 64 bytes that a quote over this context carries, under its own label."""
    label = PROTOCOL if isinstance(context, Context) else CERTIFICATE
    return hashlib.sha512(label.encode() + b"\0" + encode(context)).digest()


def app_report_data(data: bytes) -> bytes:
    """Return the 64 bytes that an application may have quoted over its own ``data``."""
    return hashlib.sha512(APP_REPORT + data).digest()
