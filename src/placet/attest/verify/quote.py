"""The envelope of Intel quotes: lengths, versions and chain, before any cryptography.

Layouts are those of Intel's DCAP ECDSA quote library reference, appendix A. The steps
are those of spec/02, section 4. What the bytes *mean* is left to the library.
"""

from __future__ import annotations

import binascii
import re
import struct
from typing import NoReturn

from placet.core.attestation import Family
from placet.errors import EvidenceError

Chain = tuple[bytes, ...]
"""Certificates as DER, leaf first."""

HEADER = 48
SGX_BODY = 384
TDX_BODY = {2: 584, 3: 648, 4: 885}
"""Bytes of a body by its type in a quote v5: TDX 1.0, TDX 1.5 and its extension."""
SGX_ATTRIBUTES, TDX_ATTRIBUTES = 48, 120
"""Where in a body the attributes lie: 16 bytes of an enclave's, 8 of a trust domain's."""
TDX_SERVICE_TD = slice(600, 648)
"""Where in a body of TDX 1.5 or later the measurement of a bound service domain lies."""
SGX_REPORT_DATA, TDX_REPORT_DATA = slice(320, 384), slice(520, 584)
SGX_DEBUG = 1 << 1
TDX_DEBUG = 0xFF
"""The whole group TUD: any of its bits makes a trust domain untrusted."""
TDX_SEPT_VE_DISABLE, TDX_MIGRATABLE = 1 << 28, 1 << 29
SIGNATURES = 64 + 64
"""Bytes of the quote's signature and of the attestation key."""
QE_REPORT = 384 + 64
"""Bytes of the quoting enclave's report and of its signature by the PCK."""
ECDSA_P256, QE_REPORT_DATA, PCK_CHAIN = 2, 6, 5
TDX_TEE_TYPE = 0x81
V3, V4, V5 = 3, 4, 5
PCK_CHAIN_LENGTH = 3

_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*", re.ASCII
)


def pem_chain(pem: bytes, count: int, check: str) -> Chain:
    """Return exactly ``count`` certificates and refuse anything between or after them.

    The certificates themselves are *not* parsed.

    Raises:
        EvidenceError: Another number of certificates, other bytes, or no base64.
    """
    pem = pem.rstrip(b"\0")  # as C strings end
    found: list[bytes] = []
    at = 0
    while (block := _PEM.match(pem, at)) and len(found) <= count:
        try:
            found.append(binascii.a2b_base64(b"".join(block[1].split()), strict_mode=True))
        except binascii.Error as e:
            refuse(check, "certificate is not base64", e)
        at = block.end()
    if len(found) != count or at != len(pem):
        refuse(check, f"chain is not {count} certificates and nothing else")
    return tuple(found)


def read_chain(raw: bytes, family: Family) -> Chain:
    """Check a quote's envelope and return the PCK chain in it: leaf, CA, root.

    No signature is checked here; of the body only the attributes are read.

    Args:
        raw: The quote, already within `MAX_EVIDENCE`.
        family: What the evidence says that it is; the header must say the same.

    Raises:
        EvidenceError: ``check`` is ``header``, ``sgx-version``, ``length``,
            ``outer-certification``, ``chain``, ``trailing``, ``debug``, ``migration`` or
            ``sept-ve``.
    """
    version, body, at = _signed_part(raw, family)
    signed = raw[body:at]
    # 4.3 Every length fits the one around it, to the byte.
    (section,) = _unpack("<I", raw, at)
    at += 4
    end = at + section
    at += SIGNATURES
    if version > V3:
        kind, length = _unpack("<HI", raw, at)
        at += 6
        if kind != QE_REPORT_DATA or at + length != end:
            refuse("outer-certification", "certification data is no QE report of that length")
    at += QE_REPORT
    (auth,) = _unpack("<H", raw, at)
    at += 2 + auth
    kind, length = _unpack("<HI", raw, at)
    at += 6
    if at + length != end or end > len(raw):
        refuse("length", "signature section has another length than what it holds")
    # 4.4 The chain is in the quote: nothing is fetched, and nothing replaces it.
    if kind != PCK_CHAIN:
        refuse("chain", f"certification data is of type {kind}, not a PCK chain")
    # 4.5 What follows is padding. A quote's hash is still no id: other bytes are malleable.
    if any(raw[end:]):
        refuse("trailing", "bytes follow the quote")
    _check_attributes(signed, family)
    return pem_chain(raw[at:end], PCK_CHAIN_LENGTH, "chain")


def report_data_of(raw: bytes, family: Family) -> bytes:
    """Return the report data of a quote, which nothing vouches for yet.

    Raises:
        EvidenceError: It is no such quote.
    """
    _, body, _ = _signed_part(raw, family)
    return raw[body:][TDX_REPORT_DATA if family == "tdx" else SGX_REPORT_DATA]


def refuse(
    check: str, detail: str, cause: Exception | None = None, *, hint: str = "", **members: str
) -> NoReturn:
    """Raise the refusal of one check of spec/02."""
    raise EvidenceError(detail, hint, check=check, **members) from cause


def _signed_part(raw: bytes, family: Family) -> tuple[int, int, int]:
    """Return the version, and where the body begins and ends."""
    # 4.2 Header: a version that is proven here, the one key type, the TEE that was claimed.
    version, key_type, tee_type = _unpack("<HHI", raw, 0)
    if tee_type != (TDX_TEE_TYPE if family == "tdx" else 0) or key_type != ECDSA_P256:
        refuse("header", f"header names key type {key_type} and TEE {tee_type:#x}, not {family}")
    if family == "sgx":
        if version in (V4, V5):
            refuse("sgx-version", f"SGX quotes of version {version} are not read here, only 3")
        if version == V3:
            return version, HEADER, HEADER + SGX_BODY
    elif version == V4:
        return version, HEADER, HEADER + TDX_BODY[2]
    elif version == V5:
        kind, length = _unpack("<HI", raw, HEADER)
        if TDX_BODY.get(kind) == length:
            return version, HEADER + 6, HEADER + 6 + length
    refuse("header", f"no {family} quote of version {version} has this shape")


def _check_attributes(body: bytes, family: Family) -> None:
    # 4.6 Debug and migration, by our own reading: the library reads them once more.
    if family == "sgx":
        if body[SGX_ATTRIBUTES] & SGX_DEBUG:
            refuse("debug", "enclave runs in debug mode: its host reads its memory")
        return
    (attributes,) = _unpack("<Q", body, TDX_ATTRIBUTES)
    if attributes & TDX_DEBUG:
        refuse("debug", "trust domain runs in debug mode: its host reads its memory")
    if attributes & TDX_MIGRATABLE or any(body[TDX_SERVICE_TD]):
        refuse("migration", "trust domain can migrate, or a service domain is bound to it")
    if not attributes & TDX_SEPT_VE_DISABLE:
        refuse("sept-ve", "trust domain does not disable exceptions on its own private pages")


def _unpack(layout: str, raw: bytes, at: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(layout, raw, at)
    except struct.error as e:
        refuse("length", f"quote of {len(raw)} bytes ends early", e)
