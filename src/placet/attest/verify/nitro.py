"""AWS Nitro Enclaves: a signed document (COSE_Sign1) whose chain ends in AWS's root.

The format is that of AWS's NSM API, `attestation_process.md`; COSE is RFC 9052. The
steps are those of spec/02, section 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NoReturn

import cbor2
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta

from placet.attest.trust import TrustAnchor
from placet.attest.verify.chains import check_dates, check_issued, check_signature, load, p384_key
from placet.attest.verify.quote import refuse
from placet.core.attestation import TcbState, VerifiedEvidence
from placet.core.limits import KIB
from placet.core.profile import NitroMeasurement

TAG = b"\xd2"
"""Tag 18, COSE_Sign1, in the one byte that it takes."""
PROTECTED = cbor2.dumps({1: -35})
"""The one protected header: ES384."""
MAX_DOCUMENT = 12 * KIB
"""Bytes of a document: the NSM has no room for a longer answer."""
SIGNATURE, PCR, PCRS = 96, 48, 32
MAX_BUNDLE = 6
"""Certificates of a chain, its leaf left out; real ones have four."""
MAX_FIELD = 1024
"""Bytes of user data, nonce and public key; the NSM takes no more."""
SKEW = 300
"""Seconds by which AWS's clock may be ahead of ours."""


Field = Annotated[bytes, Meta(max_length=MAX_FIELD)]
Pcr = Annotated[bytes, Meta(min_length=PCR, max_length=PCR)]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document's fields, each of its type and size; nothing is verified."""

    module_id: str
    digest: Annotated[str, Meta(pattern=r"\ASHA384\Z")]
    timestamp: Annotated[int, Meta(gt=0, lt=2**53)]
    """Milliseconds since 1970."""
    pcrs: dict[Annotated[int, Meta(ge=0, lt=PCRS)], Pcr]
    certificate: bytes
    cabundle: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=MAX_BUNDLE)]
    """Root first."""
    user_data: Field | None = None
    nonce: Field | None = None
    public_key: Field | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A document and the signature under it."""

    document: Document
    signed: bytes
    """What the signature is over (RFC 9052, section 4.4)."""
    signature: bytes


def read_message(raw: bytes) -> Message:
    """Return a document, of which nothing is verified yet.

    Args:
        raw: Within `MAX_EVIDENCE`; with or without the tag of COSE_Sign1.

    Raises:
        EvidenceError: ``check`` is ``size``, ``header`` or ``document``.
    """
    # 9.1 The envelope: four parts, one algorithm, nothing unprotected, nothing behind.
    if len(raw) > MAX_DOCUMENT:
        refuse("size", f"document is {len(raw)} bytes, longer than any NSM's")
    tag = TAG if raw.startswith(TAG) else b""
    parts = _decode(raw.removeprefix(tag), "header")
    if not isinstance(parts, list) or len(parts) != 4:  # noqa: PLR2004 - RFC 9052, section 4.2
        refuse("header", "this is no COSE_Sign1 message")
    protected, unprotected, payload, signature = parts
    if protected != PROTECTED or unprotected != {}:
        refuse("header", "headers are not exactly ES384, protected")
    if not isinstance(payload, bytes) or not isinstance(signature, bytes):
        refuse("header", "payload or signature is no byte string")
    if raw != tag + cbor2.dumps(parts) or len(signature) != SIGNATURE:
        refuse("header", "message is not in its shortest form, or bytes follow it")
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    return Message(document=_document(payload), signed=signed, signature=signature)


def _document(payload: bytes) -> Document:
    # 9.2 The document: every field of its type and size. What else is in it AWS has signed.
    try:
        # Bytes are bytes: text that might be base64 is none of them.
        fields = _decode(payload, "document")
        document = msgspec.convert(fields, Document, builtin_types=(bytes,))
    except msgspec.ValidationError as e:
        refuse("document", f"a field of the document is not of its type and size: {e}"[:300], e)
    if not {0, 1, 2} <= document.pcrs.keys():
        refuse("document", "document lacks PCR0, PCR1 or PCR2")
    return document


def verify_nitro(raw: bytes, trust: Sequence[TrustAnchor], now: int) -> VerifiedEvidence:
    """Return what a genuine document shows.

    Nonce and public key of the document are *not* used: what binds it to a connection is
    its user data.

    Args:
        raw: The document.
        trust: The roots of the measured config.
        now: Unix seconds.

    Raises:
        EvidenceError: ``check`` names the check of spec/02, section 9.
    """
    message = read_message(raw)
    document = message.document
    # 9.3 The bundle begins with a root of the config, byte for byte.
    anchor = next((a for a in trust if a.root_der == document.cabundle[0]), None)
    if anchor is None:
        refuse("anchor", "document's chain begins with no root that is trusted")
    # 9.4 Each certificate was issued by the one before it.
    chain, root, key = _chain(document.certificate, document.cabundle)
    # 9.5 Dates: the leaf's are three hours, which bounds the document's age.
    expires = check_dates((*chain, root), now)
    made = document.timestamp // 1000
    if made > now + SKEW:
        refuse("dates", "document was made after now")
    # 9.6 The leaf's key signed exactly this.
    half = SIGNATURE // 2
    r, s = message.signature[:half], message.signature[half:]
    check_signature(key, int.from_bytes(r, "big"), int.from_bytes(s, "big"), message.signed)
    # 9.7 An enclave in debug mode has zero in its first registers.
    if not any(document.pcrs[0]):
        refuse("debug", "enclave runs in debug mode: PCR0 is zero")
    return VerifiedEvidence(
        measurement=_measurement(document.pcrs),
        report_data=document.user_data or b"",
        anchor=anchor.name,
        tcb=TcbState(status="Unrated", advisories=(), evaluation=0, date=made),
        families=("nitro",),
        hardware_id=None,
        expires=expires,
    )


# A refusal raises and is not kept. Dates are asked each time.
@lru_cache(maxsize=64)
def _chain(
    leaf: bytes, bundle: tuple[bytes, ...]
) -> tuple[tuple[x509.Certificate, ...], x509.Certificate, ec.EllipticCurvePublicKey]:
    root = load(bundle[0])
    chain = tuple(load(der) for der in (leaf, *bundle[:0:-1]))
    check_issued(chain, root)
    return chain, root, p384_key(chain[0])


def _measurement(pcrs: Mapping[int, bytes]) -> NitroMeasurement:
    def register(number: int) -> str | None:
        value = pcrs.get(number, b"")
        return value.hex() if any(value) else None

    return NitroMeasurement(
        pcr0=pcrs[0].hex(),
        pcr1=pcrs[1].hex(),
        pcr2=pcrs[2].hex(),
        pcr3=register(3),
        pcr4=register(4),
        pcr8=register(8),
    )


class _NoTags(dict[int, "cbor2.SemanticDecoderCallback"]):
    """Tags are read by nobody: one makes a regular expression, whose making takes seconds."""

    def __missing__(self, tag: int) -> NoReturn:
        raise ValueError(f"no tag is expected here, and not {tag}")


_NO_TAGS = _NoTags()


def _decode(raw: bytes, check: str) -> object:
    try:
        return cbor2.loads(
            raw,
            semantic_decoders=_NO_TAGS,
            max_depth=8,
            allow_duplicate_keys=False,
        )
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as e:
        refuse(check, "this is no CBOR", e)
