"""Self-signed certificates: a fresh key per process, and a strict reader of the peer's.

A certificate authorises nobody: it carries the key that the handshake proves possession
of, and the evidence that counts is bound to that key *and* to the session (DESIGN,
section 5). What evidence the certificate itself may carry is for people who look
(`ratls.wrapper`). So the reader takes one shape only, the one that `make_certificate` writes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ObjectIdentifier

from placet.core.limits import KIB, MAX_EVIDENCE
from placet.errors import EvidenceError, MalformedError, TooLargeError

MAX_CERTIFICATE = MAX_EVIDENCE + 4 * KIB
"""Bytes of one certificate: one piece of evidence and what stands around it."""

BASIC_CONSTRAINTS = x509.BasicConstraints.oid
EVIDENCE = ObjectIdentifier("2.23.133.5.4.9")
"""Evidence in a conceptual message wrapper (TCG DICE Attestation Architecture 1.1)."""

ALLOWED = frozenset({BASIC_CONSTRAINTS})
WITH_EVIDENCE = ALLOWED | {EVIDENCE}
"""The extensions that may stand in a certificate, and where it may carry evidence."""

_ECDSA_SHA256 = ObjectIdentifier("1.2.840.10045.4.3.2")
_P256_HEADER = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""All but the 64 point bytes of a P-256 SubjectPublicKeyInfo (RFC 5480, section 2)."""

_NO_CA = b"\x30\x00"
_CLOCK_SKEW = 300


@asn1.sequence
class _Algorithm:
    oid: ObjectIdentifier


@asn1.sequence
class _Extension:
    oid: ObjectIdentifier
    critical: Annotated[bool, asn1.Default(value=False)]
    value: bytes


@asn1.sequence
class _Tbs:
    version: Annotated[int, asn1.Explicit(0)]
    serial: int
    algorithm: _Algorithm
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    spki: asn1.TLV
    extensions: Annotated[list[_Extension], asn1.Explicit(3), asn1.Size(1, 8)]


@asn1.sequence
class _Certificate:
    tbs: _Tbs
    algorithm: _Algorithm
    signature: asn1.BitString


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCertificate:
    """A certificate of the one shape that is taken, signed by its own key."""

    der: bytes = field(repr=False)
    spki_der: bytes
    spki_digest: str
    evidence: bytes | None = field(default=None, repr=False)
    """As it came, and nobody has read it yet (`ratls.wrapper`)."""


def spki_digest(spki_der: bytes) -> str:
    """Return ``sha256:`` and the hex SHA-256 of a DER SubjectPublicKeyInfo."""
    return "sha256:" + hashlib.sha256(spki_der).hexdigest()


def make_certificate(
    *, now: int, lifetime: int, evidence_of: Callable[[str], bytes] | None = None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return a fresh P-256 key and its self-signed certificate.

    Args:
        now: Unix seconds; the certificate is valid from five minutes before.
        lifetime: Seconds after ``now`` for which it is valid.
        evidence_of: Gets the `spki_digest` of the fresh key and returns what the certificate
            is to show about it, wrapped (`ratls.wrapper`). What it raises comes out.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "placet")])
    start, end = (dt.datetime.fromtimestamp(t, dt.UTC) for t in (now - _CLOCK_SKEW, now + lifetime))
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if evidence_of is not None:
        shown = x509.UnrecognizedExtension(EVIDENCE, evidence_of(spki_digest(own_spki(key))))
        builder = builder.add_extension(shown, critical=False)
    return key, builder.sign(key, hashes.SHA256())


def own_spki(holder: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    """Return the DER SubjectPublicKeyInfo of one's own certificate or key."""
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def parse_certificate(
    der: bytes, *, allowed: frozenset[ObjectIdentifier] = ALLOWED
) -> PeerCertificate:
    """Return the peer's certificate if it has exactly the shape that we write.

    *Not* checked here: validity (OpenSSL did, by this host's clock), possession of the
    key (the handshake did), and who the peer is (evidence says). Evidence that it carries
    is not even read.

    Args:
        der: At most `MAX_CERTIFICATE` bytes.
        allowed: The extensions that may stand in it, each once.

    Raises:
        TooLargeError: Longer than the limit.
        MalformedError: Not the DER of an X.509 version 3 certificate of that shape.
        EvidenceError: Another kind of key, an extension that is unknown or stands
            twice, or a signature that is not the certificate's own.
    """
    # Cheap checks on bytes come first; the one signature is verified last (R1.7).
    if len(der) > MAX_CERTIFICATE:
        raise TooLargeError(f"certificate is {len(der)} bytes, at most {MAX_CERTIFICATE} are read")
    try:
        cert = asn1.decode_der(_Certificate, der)
    except ValueError as e:
        raise MalformedError(f"certificate does not parse: {e}"[:300]) from e
    tbs = cert.tbs
    if tbs.version != 2 or tbs.serial <= 0:  # noqa: PLR2004 - X.509 writes version 3 as 2
        raise MalformedError(f"certificate has version {tbs.version + 1} or a serial below 1")
    if cert.algorithm.oid != _ECDSA_SHA256:  # the loader compares the inner one with it
        raise EvidenceError("certificate is not signed with ECDSA and SHA-256")
    _check_names(tbs)
    _check_extensions(tbs.extensions, allowed)
    spki = _P256_HEADER[:2] + tbs.spki.data  # tag and length; both are looked at here:
    if not spki.startswith(_P256_HEADER) or len(spki) != len(_P256_HEADER) + 64:
        raise EvidenceError("certificate's key is not an uncompressed P-256 point")
    # OpenSSL takes a self-signed leaf without looking at its signature (TLS.md, pitfall 2).
    try:
        parsed = x509.load_der_x509_certificate(der)
        parsed.verify_directly_issued_by(parsed)
    except (ValueError, TypeError, InvalidSignature) as e:
        raise EvidenceError("certificate is not signed by its own key") from e
    shown = next((e.value for e in tbs.extensions if e.oid == EVIDENCE), None)
    return PeerCertificate(der=der, spki_der=spki, spki_digest=spki_digest(spki), evidence=shown)


def _check_names(tbs: _Tbs) -> None:
    issuer, subject = bytes(tbs.issuer.data), bytes(tbs.subject.data)
    if issuer != subject or len(issuer) > KIB:
        raise EvidenceError("certificate's issuer and subject differ or are beyond 1 KiB")


def _check_extensions(found: list[_Extension], allowed: frozenset[ObjectIdentifier]) -> None:
    names = [e.oid for e in found]
    if len(set(names)) != len(names):
        raise EvidenceError("certificate has an extension twice")
    if unknown := [n.dotted_string for n in names if n not in allowed]:
        raise EvidenceError(f"certificate has the unknown extension {unknown[0]}"[:300])
    basic = [e for e in found if e.oid == BASIC_CONSTRAINTS]
    if not basic or not basic[0].critical or basic[0].value != _NO_CA:
        raise EvidenceError("certificate does not say, critically, that it is no CA")
    if any(e.critical for e in found if e.oid == EVIDENCE):
        raise EvidenceError("certificate calls critical what nobody has to read")
