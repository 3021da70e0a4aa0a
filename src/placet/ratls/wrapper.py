"""Evidence in a certificate: a conceptual message wrapper (spec/05, section 6).

It lets anyone look at who holds a key, with any TLS client. It **authorises nothing**: no
session and no nonce is in it, so whoever has the key can show it, at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cbor2
import msgspec

from placet.attest.produce import Producer
from placet.attest.produce.producer import role_of
from placet.attest.trust import TrustAnchor
from placet.attest.verify import EvidenceVerifier, check_bound, verify_evidence
from placet.core.attestation import CertificateClaims, Evidence, VerifiedEvidence
from placet.core.config import Config, config_digest
from placet.core.encoding import Record, decode, encode
from placet.core.limits import KIB
from placet.errors import BindingError, EvidenceError, MalformedError, TooLargeError
from placet.ratls.certificate import PeerCertificate

MEDIA_TYPE = "application/vnd.placet.evidence+json"
EVIDENCE_BIT = 1 << 2
"""The wrapper's indicator: what is in it is evidence."""

MAX_MESSAGE = 64 * KIB - 256
"""Bytes of the message, so that its length is written in two and the whole is below 64 KiB."""

_HEAD = cbor2.dumps([MEDIA_TYPE, b"", EVIDENCE_BIT])[:-2]


class CertificateMessage(Record):
    """What a certificate shows of its key."""

    evidence: Evidence
    claims: CertificateClaims
    config: Config
    """What ``claims.config`` is the digest of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownKey:
    """What genuine evidence says about a key. Made by `verify_shown` only; for eyes only."""

    evidence: VerifiedEvidence
    claims: CertificateClaims
    config: Config


def own_evidence(producer: Producer, instance: str, spki: str, *, staple: bool = False) -> bytes:
    """Return the wrapped evidence for a certificate of this process.

    Args:
        producer: Of this process.
        instance: Who it is; the same as in all of its contexts.
        spki: `spki_digest` of the certificate's key.
        staple: Put collateral to it. It outweighs all else in a handshake.

    Raises:
        TooLargeError: It does not fit, because of the measured config.
    """
    about = producer.describe()
    claims = CertificateClaims(
        role=role_of(about.measured_config),
        spki=spki,
        instance=instance,
        app=about.app,
        image=about.image,
        config=about.config,
        boot=about.boot,
    )
    evidence = producer.certificate_quote(claims)
    if not staple:
        evidence = msgspec.structs.replace(evidence, collateral=None)
    return wrap(CertificateMessage(evidence=evidence, claims=claims, config=about.measured_config))


def wrap(message: CertificateMessage) -> bytes:
    """Return the CBOR record ``[media type, bytes of the message, indicator]``.

    Raises:
        TooLargeError: The message is longer than `MAX_MESSAGE`.
    """
    raw = encode(message)
    if len(raw) > MAX_MESSAGE:
        raise TooLargeError(
            f"evidence and config for a certificate are {len(raw)} bytes, at most {MAX_MESSAGE}",
            "Make the measured config shorter.",
        )
    return cbor2.dumps([MEDIA_TYPE, raw, EVIDENCE_BIT])


def unwrap(raw: bytes) -> CertificateMessage:
    """Return the message in a wrapper; nothing in it is verified.

    No CBOR is parsed: there is one encoding of a message of some length, and ``raw`` is
    compared with it.

    Raises:
        TooLargeError: Longer than any wrapper.
        MalformedError: Not the one encoding of a wrapped message, or none of ours.
    """
    if len(raw) > len(_HEAD) + MAX_MESSAGE + 4:
        raise TooLargeError(f"evidence in the certificate is {len(raw)} bytes, at most 64 KiB")
    message = raw[len(_HEAD) + 3 : -1]
    if cbor2.dumps([MEDIA_TYPE, message, EVIDENCE_BIT]) != raw:
        raise MalformedError(
            "certificate's evidence is no record of "
            f"{MEDIA_TYPE}, its bytes and {EVIDENCE_BIT}, in CBOR's shortest form"
        )
    return decode(message, CertificateMessage, limit=MAX_MESSAGE)


def verify_shown(
    certificate: PeerCertificate,
    *,
    trust: Sequence[TrustAnchor],
    now: int,
    verify: EvidenceVerifier = verify_evidence,
) -> ShownKey:
    """Return what the evidence in a certificate shows about its key.

    *Not* shown: that the peer of this session runs there, and when it was made. Decide
    nothing by it.

    Args:
        certificate: From `parse_certificate`, with evidence allowed.
        trust: Whose evidence counts.
        now: Unix seconds.
        verify: Who verifies, and puts collateral to what came without.

    Raises:
        EvidenceError: There is none (``check`` is ``missing``), or it is not genuine.
        BindingError: It is about another key, or its claims, registers and config differ.
        MalformedError: It is not ours to read.
    """
    if certificate.evidence is None:
        raise EvidenceError("the peer's certificate carries no evidence", check="missing")
    message = unwrap(certificate.evidence)
    claims, config = message.claims, message.config
    said = (claims.spki, claims.config, claims.app, claims.role)
    if said != (certificate.spki_digest, config_digest(config), config.app, role_of(config)):
        raise BindingError(
            "certificate's evidence is about another key, or not about the config beside it",
            check="certificate",
        )
    shown = verify(message.evidence, trust=trust, now=now)
    check_bound(shown, claims)
    return ShownKey(evidence=shown, claims=claims, config=config)
