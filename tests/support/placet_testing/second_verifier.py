"""A second verifier of Intel quotes, to hold beside ours: standard library and `cryptography`.

Written from Intel's DCAP ECDSA quote library reference (appendix A), the PCK certificate
and CRL profile, and the PCS API v4. It imports neither `placet` nor the library that
`placet` rests on, so that a mistake of one of them is not made here too. For tests only:
it is slow, and its errors are for people who read test output.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from placet_testing.second_tcb import (
    Json,
    Module,
    Platform,
    Refused,
    check_enclave,
    judge,
    refuse,
)

__all__ = ["Refused", "Verdict", "verify"]

SGX, TDX = 0, 0x81
QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
BODIES = {1: 384, 2: 584, 3: 648, 4: 885}
"""Bytes of a body by its type: enclave report, TD report 1.0, 1.5, and 1.5 extended."""
SGX_OID = "1.2.840.113741.1.13.1"
_PREFIX = bytes.fromhex("2a864886f84d010d01")
DEBUG, SEPT_VE_DISABLE, MIGRATABLE = 0xFF, 1 << 28, 1 << 29
BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
KNOWN_CRITICAL = (x509.BasicConstraints, x509.KeyUsage, x509.CRLNumber)
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RecursionError,
    struct.error,
    Warning,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a genuine quote shows."""

    status: str
    advisories: tuple[str, ...]
    """Sorted."""
    report_data: bytes
    measurement: dict[str, str | int]
    evaluation: int
    """The lower one of TCB info and QE identity."""
    fmspc: str
    ppid: str
    date: int
    """Of the TCB level, Unix seconds."""
    expires: int
    """The first end of certificates, CRLs, TCB info and QE identity, Unix seconds."""


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A quote, taken apart."""

    tee: int
    kind: int
    body: bytes
    signed: bytes
    signature: bytes
    key: bytes
    qe_report: bytes
    qe_signature: bytes
    auth: bytes
    chain: tuple[bytes, ...]


def verify(
    quote: bytes, collateral: dict[str, str], root_der: bytes, tcb_signer: str, now: int
) -> Verdict:
    """Return what a genuine quote shows.

    Args:
        quote: The quote, with nothing but zeros behind it.
        collateral: Texts under the names that dcap-qvl's JSON has.
        root_der: The trusted root certificate.
        tcb_signer: Common name of the signer of TCB info and QE identity.
        now: Unix seconds.

    Raises:
        Refused: Anything is not as it must be.
    """
    try:
        # Of certificates that nobody would sign the x509 library warns, and then reads them.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return _verify(_parse(quote), collateral, root_der, tcb_signer, now)
    except UNREADABLE as e:
        raise Refused("malformed", repr(e)) from e


def _verify(
    quote: Quote, collateral: dict[str, str], root_der: bytes, tcb_signer: str, now: int
) -> Verdict:
    root = x509.load_der_x509_certificate(root_der)
    leaf, authority, last = (x509.load_der_x509_certificate(der) for der in quote.chain)
    _same(last, root)
    _issued(root, root, now, ca=True)
    _issued(authority, root, now, ca=True)
    _issued(leaf, authority, now, ca=False)
    platform = _platform(leaf)
    root_crl = _crl(collateral["root_ca_crl"], root, now)
    crl = _crl(collateral["pck_crl"], authority, now)
    info, info_signer = _signed_json(collateral, "tcb_info", root, tcb_signer, now)
    identity, identity_signer = _signed_json(collateral, "qe_identity", root, tcb_signer, now)
    for cert in (root, authority, info_signer, identity_signer):
        _not_in(root_crl, cert)
    _not_in(crl, leaf)
    tdx = quote.tee == TDX
    if (info["id"], info["version"], info["tcbType"]) != ("TDX" if tdx else "SGX", 3, 0):
        refuse("tcb-info", "of another TEE, version or type")
    if (identity["id"], identity["version"]) != ("TD_QE" if tdx else "QE", 2):
        refuse("qe-identity", "of another TEE or version")
    _check_signatures(quote, leaf)
    module = _td(quote) if tdx else None
    if not tdx and quote.body[48] & 2:
        refuse("debug", "enclave in debug mode")
    found = judge(info, platform, module, check_enclave(identity, quote.qe_report))
    certs = (root, authority, leaf, info_signer, identity_signer)
    ends = [_seconds(cert.not_valid_after_utc) for cert in certs]
    ends += [_seconds(c.next_update_utc) for c in (root_crl, crl) if c.next_update_utc]
    ends += [_date(document["nextUpdate"]) for document in (info, identity)]
    return Verdict(
        status=found.status,
        advisories=tuple(sorted(found.advisories)),
        report_data=_report_data(quote),
        measurement=_measurement(quote),
        evaluation=min(info["tcbEvaluationDataNumber"], identity["tcbEvaluationDataNumber"]),
        fmspc=platform.fmspc.hex(),
        ppid=platform.ppid.hex(),
        date=_date(found.date),
        expires=min(ends),
    )


# --- the quote ------------------------------------------------------------------------


class _Reader:
    """Takes bytes off a buffer, never more than there are."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, count: int) -> bytes:
        if count > len(self.raw) - self.at:
            refuse("length", f"{count} bytes wanted at {self.at} of {len(self.raw)}")
        self.at += count
        return self.raw[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def block(self, count: int) -> _Reader:
        return _Reader(self.take(count))

    def end(self) -> None:
        if self.at != len(self.raw):
            refuse("length", f"{len(self.raw) - self.at} bytes are left over")


def _parse(raw: bytes) -> Quote:
    reader = _Reader(raw)
    version, key_type, tee = reader.number(2), reader.number(2), reader.number(4)
    reader.take(4)  # QE SVN and PCE SVN in version 3, reserved later; signed like all of it
    vendor = reader.take(16)
    reader.take(20)
    if key_type != 2 or vendor != QE_VENDOR or (tee, version) not in _KINDS:
        refuse("header", f"version {version}, TEE {tee:#x}, key type {key_type}, {vendor.hex()}")
    kind = _KINDS[tee, version]
    if kind is None:
        kind, length = reader.number(2), reader.number(4)
        if kind not in (2, 3, 4) or length != BODIES[kind]:
            refuse("header", f"body of type {kind} has {length} bytes")
    body = reader.take(BODIES[kind])
    signed = raw[: reader.at]
    section = reader.block(reader.number(4))
    if any(raw[reader.at :]):
        refuse("trailing", "bytes follow the quote")
    signature, key = section.take(64), section.take(64)
    inner = section
    if version > 3:  # the envelope came with version 4
        if section.number(2) != 6:  # QE report certification data
            refuse("certification", "outer certification data is no QE report")
        inner = section.block(section.number(4))
        section.end()
    qe_report, qe_signature = inner.take(384), inner.take(64)
    auth = inner.take(inner.number(2))
    # Appendix A leaves the length open. Intel's enclaves write 32 bytes, and the vectors in
    # ../shared say that another length must be refused.
    if len(auth) != 32:
        refuse("auth-data", f"{len(auth)} bytes")
    if inner.number(2) != 5:  # a PCK chain
        refuse("certification", "certification data is no PCK chain")
    chain = inner.take(inner.number(4))
    inner.end()
    return Quote(
        tee=tee,
        kind=kind,
        body=body,
        signed=signed,
        signature=signature,
        key=key,
        qe_report=qe_report,
        qe_signature=qe_signature,
        auth=auth,
        chain=_pem(chain, 3),
    )


_KINDS = {(SGX, 3): 1, (TDX, 4): 2, (TDX, 5): None}
"""Versions that are read, and the type of their body where the version says it."""


def _check_signatures(quote: Quote, leaf: x509.Certificate) -> None:
    pck = leaf.public_key()
    _check(pck, quote.qe_signature, quote.qe_report, "qe-signature")
    bound = hashlib.sha256(quote.key + quote.auth).digest() + bytes(32)
    if quote.qe_report[320:384] != bound:
        refuse("attestation-key", "QE report is about another key")
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + quote.key)
    _check(point, quote.signature, quote.signed, "signature")


def _td(quote: Quote) -> Module:
    body = quote.body
    attributes = int.from_bytes(body[120:128], "little")
    if attributes & DEBUG:
        refuse("debug", "trust domain in debug mode")
    if not attributes & SEPT_VE_DISABLE:
        refuse("sept-ve", "SEPT_VE_DISABLE is off")
    if attributes & MIGRATABLE:
        refuse("migration", "MIGRATABLE is on")
    later = None
    if quote.kind > 2:  # TDX 1.5 appends TEE_TCB_SVN2 and MRSERVICETD
        later = body[584:600]
        if any(body[600:648]):
            refuse("migration", "a service domain is bound")
    return Module(svn=body[:16], later_svn=later, signer=body[64:112], attributes=body[112:120])


def _report_data(quote: Quote) -> bytes:
    return quote.body[320:384] if quote.tee == SGX else quote.body[520:584]


def _measurement(quote: Quote) -> dict[str, str | int]:
    body = quote.body
    if quote.tee == SGX:
        product, svn = struct.unpack_from("<HH", body, 256)
        return {
            "mrenclave": body[64:96].hex(),
            "mrsigner": body[128:160].hex(),
            "isv_prod_id": product,
            "isv_svn": svn,
        }
    places = {
        "td_attributes": (120, 8),
        "xfam": (128, 8),
        "mrtd": (136, 48),
        "mr_config_id": (184, 48),
        **{f"rtmr{i}": (328 + 48 * i, 48) for i in range(4)},
    }
    return {name: body[at : at + size].hex() for name, (at, size) in places.items()}


# --- certificates, CRLs and signed JSON -----------------------------------------------


def _pem(text: bytes, count: int) -> tuple[bytes, ...]:
    """Return exactly so many certificates, with nothing but white space between and behind."""
    before, *blocks = text.rstrip(b"\0").split(BEGIN)
    parts = [block.split(END) for block in blocks]
    if before or len(parts) != count or any(len(p) != 2 or p[1].strip() for p in parts):
        refuse("chain", f"not {count} certificates and nothing else")
    return tuple(base64.b64decode(b"".join(p[0].split()), validate=True) for p in parts)


def _same(cert: x509.Certificate, root: x509.Certificate) -> None:
    if _der(cert) != _der(root):
        refuse("root", "chain ends in another root")


def _der(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.DER)


def _issued(cert: x509.Certificate, issuer: x509.Certificate, now: int, *, ca: bool) -> None:
    """Check one link: name, signature, dates, and that each is what its place demands."""
    cert.verify_directly_issued_by(issuer)  # names and signature
    if not _seconds(cert.not_valid_before_utc) <= now <= _seconds(cert.not_valid_after_utc):
        refuse("dates", f"{cert.subject} at {now}")
    _known(cert.extensions)
    constraints = cert.extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = cert.extensions.get_extension_for_class(x509.KeyUsage).value
    if constraints.ca != ca or usage.key_cert_sign != ca or usage.digital_signature == ca:
        refuse("chain", f"{cert.subject} is not for its place in the chain")
    algorithm = cert.signature_hash_algorithm
    key = cert.public_key()
    if not isinstance(algorithm, hashes.SHA256) or not isinstance(key, ec.EllipticCurvePublicKey):
        refuse("chain", f"{cert.subject} is not ECDSA with SHA-256")
    if not isinstance(key.curve, ec.SECP256R1):
        refuse("chain", f"{cert.subject} has a key on another curve")


def _known(extensions: x509.Extensions) -> None:
    for extension in extensions:
        if extension.critical and not isinstance(extension.value, KNOWN_CRITICAL):
            refuse("chain", f"critical extension {extension.oid.dotted_string} is unknown")


def _crl(text: str, issuer: x509.Certificate, now: int) -> x509.CertificateRevocationList:
    crl = x509.load_der_x509_crl(bytes.fromhex(text))
    key = issuer.public_key()
    if crl.issuer != issuer.subject or not isinstance(key, ec.EllipticCurvePublicKey):
        refuse("crl", f"not of {issuer.subject}")
    if not crl.is_signature_valid(key):
        refuse("crl", "signature")
    _known(crl.extensions)
    end = crl.next_update_utc
    if end is None or not _seconds(crl.last_update_utc) <= now <= _seconds(end):
        refuse("crl-dates", f"{issuer.subject} at {now}")
    return crl


def _not_in(crl: x509.CertificateRevocationList, cert: x509.Certificate) -> None:
    if crl.get_revoked_certificate_by_serial_number(cert.serial_number) is not None:
        refuse("revoked", str(cert.subject))


def _signed_json(
    collateral: dict[str, str], name: str, root: x509.Certificate, tcb_signer: str, now: int
) -> tuple[Json, x509.Certificate]:
    """Return a document of the vendor and its signer, after checking both."""
    chain = _pem(collateral[name + "_issuer_chain"].encode(), 2)
    signer, last = (x509.load_der_x509_certificate(der) for der in chain)
    _same(last, root)
    _issued(signer, root, now, ca=False)
    common = [a.value for a in signer.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    is_pck = any(e.oid.dotted_string == SGX_OID for e in signer.extensions)
    if common != [tcb_signer] or is_pck:
        refuse("tcb-signer", f"{common} signs no {name}")
    text = collateral[name].encode()
    signature = bytes.fromhex(collateral[name + "_signature"])
    _check(signer.public_key(), signature, text, name)
    document = json.loads(text)
    if not _date(document["issueDate"]) <= now <= _date(document["nextUpdate"]):
        refuse("document-dates", f"{name} at {now}")
    return document, signer


def _check(key: object, signature: bytes, data: bytes, check: str) -> None:
    """Check ECDSA P-256 with SHA-256, given as r and s of 32 bytes each."""
    if len(signature) != 64 or not isinstance(key, ec.EllipticCurvePublicKey):
        refuse(check, "no ECDSA P-256 signature")
    r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
    try:
        key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as e:
        raise Refused(check, "signature does not hold") from e


def _seconds(when: dt.datetime) -> int:
    return int(when.timestamp())


def _date(text: str) -> int:
    return _seconds(dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC))


# --- the SGX extension of a PCK certificate -------------------------------------------


def _platform(leaf: x509.Certificate) -> Platform:
    """Return what the leaf's SGX extension says; a leaf without one is no PCK."""
    oid = x509.ObjectIdentifier(SGX_OID)
    extension = leaf.extensions.get_extension_for_oid(oid).value
    if not isinstance(extension, x509.UnrecognizedExtension):
        refuse("pck", "no SGX extension")
    ((_, content),) = _tlvs(extension.value)
    items = _items(content)
    svns = _items(_one(items[2], 0x30))
    cpu_svn = [int.from_bytes(_one(svns[i], 0x02), "big", signed=True) for i in range(1, 17)]
    found = {name: _one(items[i], 0x04) for name, i in _OCTETS.items()}
    if [len(value) for value in found.values()] != [16, 2, 6]:
        refuse("pck", "SGX extension has other lengths")
    return Platform(
        cpu_svn=bytes(cpu_svn),
        pce_svn=int.from_bytes(_one(svns[17], 0x02), "big", signed=True),
        **found,
    )


_OCTETS = {"ppid": 1, "pce_id": 3, "fmspc": 4}


def _items(sequence: bytes) -> dict[int, bytes]:
    """Return the values of a sequence of pairs by the last number of their OID, undecoded."""
    found: dict[int, bytes] = {}
    for tag, pair in _tlvs(sequence):
        if tag != 0x30:  # SEQUENCE
            refuse("pck", "SGX extension is no list of pairs")
        (oid_tag, oid), (value_tag, value) = _tlvs(pair)
        if oid_tag != 0x06 or not oid.startswith(_PREFIX) or oid[-1] in found:
            refuse("pck", "SGX extension names another or one twice")
        found[oid[-1]] = bytes([value_tag]) + value
    return found


def _one(tagged: bytes, tag: int) -> bytes:
    """Return the content of a value of `_items` that must have that tag."""
    if tagged[:1] != bytes([tag]):
        refuse("pck", f"a value of the SGX extension is not of tag {tag:#x}")
    return tagged[1:]


def _tlvs(data: bytes) -> Sequence[tuple[int, bytes]]:
    found = []
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length >= 0x80:  # a long length: how many bytes hold it
            count = length & 0x7F
            length = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + length > len(data):
            refuse("pck", "SGX extension ends early")
        found.append((tag, data[at : at + length]))
        at += length
    return found
