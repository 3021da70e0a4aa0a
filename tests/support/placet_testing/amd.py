"""INSECURE: a development PKI in AMD's formats, and reports under it, honest or not.

Layouts are written down here a second time, from AMD's documents (56860, 57230) and the
GHCB, so that a mistake in the verifier does not repeat itself.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import struct
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from placet.attest.trust import TrustAnchor
from placet.core.attestation import Evidence
from placet.core.encoding import b64

NOW = 1_800_000_000
DAY = 86400
LIFE = (NOW - 100 * DAY, NOW + 3000 * DAY)
REPORT_DATA = bytes(range(64))
GUEST_POLICY = 0x30000
"""SMT is allowed (bit 16), and the bit that is always set (bit 17)."""

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Edit = Callable[[bytes], bytes]

# --- certificates ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Party:
    """A key and the certificate for it, which may be one that no library would build."""

    key: Any
    der: bytes
    subject: x509.Name

    @property
    def serial(self) -> int:
        """Return the certificate's number."""
        return x509.load_der_x509_certificate(self.der).serial_number


def der(tag: int, content: bytes) -> bytes:
    """Return one DER element."""
    size = len(content)
    long = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, *([size] if size < 0x80 else [0x80 | len(long), *long])]) + content


def name(common_name: str, organization: str) -> x509.Name:
    """Return a name in the order of AMD's."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


@cache
def rsa_key(slot: str) -> rsa.RSAPrivateKey:
    """Return this test run's key of that name; AMD's have 4096 bits."""
    assert slot
    return rsa.generate_private_key(65537, 2048)


@cache
def p384_key(slot: str) -> ec.EllipticCurvePrivateKey:
    """Return this test run's key of that name."""
    assert slot
    return ec.generate_private_key(ec.SECP384R1())


def issue(
    subject: x509.Name,
    key: Any,
    issuer: Party | None,
    *,
    life: tuple[int, int] = LIFE,
    constraints: x509.BasicConstraints | None = None,
    serial: int = 1,
    extensions: Iterable[x509.UnrecognizedExtension] = (),
    edit: Edit | None = None,
) -> Party:
    """Return a certificate; ``edit`` changes what is signed before it is signed."""
    begin, end = (dt.datetime.fromtimestamp(at, dt.UTC) for at in life)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial or 1)
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signer = issuer.key if issuer else key
    built = builder.sign(signer, SHA384(), rsa_padding=_padding(signer))
    edits = [zero_serial] * (not serial) + [edit] * (edit is not None)
    raw = built.public_bytes(Encoding.DER)
    if edits:
        raw = _resign(raw, built.tbs_certificate_bytes, signer, edits)
    return Party(key=key, der=raw, subject=subject)


def zero_serial(tbs: bytes) -> bytes:
    """Number a certificate zero, as AMD numbers every VCEK; no library builds one."""
    return swap(bytes.fromhex("a003020102020101"), bytes.fromhex("a003020102020100"))(tbs)


def swap(old: bytes, new: bytes) -> Edit:
    """Return an edit that puts ``new`` in the place of ``old``."""

    def edit(tbs: bytes) -> bytes:
        assert old in tbs, old.hex()
        return tbs.replace(old, new, 1)

    return edit


def _padding(key: Any) -> padding.PSS | None:
    pss = padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=48)
    return pss if isinstance(key, rsa.RSAPrivateKey) else None


def _resign(raw: bytes, tbs: bytes, key: Any, edits: Iterable[Any]) -> bytes:
    at = raw.index(tbs) + len(tbs)
    algorithm = raw[at : at + 2 + raw[at + 1]]
    content = tbs[2 + (tbs[1] & 0x7F) :]
    for edit in edits:
        content = edit(content)
    tbs = der(0x30, content)
    pss = _padding(key)
    signature = key.sign(tbs, pss, SHA384()) if pss else key.sign(tbs, ec.ECDSA(SHA384()))
    return der(0x30, tbs + algorithm + der(3, b"\0" + signature))


def revocation_list(
    issuer: Party,
    *,
    revoked: Iterable[int] = (),
    life: tuple[int, int] = (NOW - DAY, NOW + 30 * DAY),
    named: x509.Name | None = None,
    edit: Edit | None = None,
) -> bytes:
    """Return a CRL as DER; ``named`` is another issuer's name."""
    begin, end = (dt.datetime.fromtimestamp(at, dt.UTC) for at in life)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(named or issuer.subject)
        .last_update(begin)
        .next_update(end)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin)
        builder = builder.add_revoked_certificate(entry.build())
    built = builder.sign(issuer.key, SHA384(), rsa_padding=_padding(issuer.key))
    raw = built.public_bytes(Encoding.DER)
    return _resign(raw, built.tbs_certlist_bytes, issuer.key, [edit]) if edit else raw


# --- products, and the PKI of one ------------------------------------------------------

SVN = {"bl": 1, "tee": 2, "snp": 3, "4": 4, "5": 5, "6": 6, "7": 7, "ucode": 8, "fmc": 9}
"""Last arc of the extension (1.3.6.1.4.1.3704.1.3.*) of each security version."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """What differs between AMD's products."""

    name: str
    stepping: str
    cpu: tuple[int, int, int]
    layout: tuple[str | None, ...]
    tcb: Mapping[str, int]
    chip_id: bytes
    hwid: int

    def tcb_bytes(self, **changes: int) -> bytes:
        """Return a TCB version as a report has it."""
        tcb = {**self.tcb, **changes}
        return bytes(0 if part is None else tcb[part] for part in self.layout)


OLD = ("bl", "tee", None, None, None, None, "snp", "ucode")
OLD_TCB = {"bl": 4, "tee": 1, "snp": 23, "ucode": 211}
CHIP_ID = hashlib.sha512(b"chip").digest()
PRODUCTS = {
    "milan": Product(
        name="Milan",
        stepping="Milan-B0",
        cpu=(0x19, 0x01, 1),
        layout=OLD,
        tcb=OLD_TCB,
        chip_id=CHIP_ID,
        hwid=64,
    ),
    "genoa": Product(
        name="Genoa",
        stepping="Genoa",
        cpu=(0x19, 0x11, 1),
        layout=OLD,
        tcb=OLD_TCB,
        chip_id=CHIP_ID,
        hwid=64,
    ),
    "turin": Product(
        name="Turin",
        stepping="Turin-C1",
        cpu=(0x1A, 0x02, 1),
        layout=("fmc", "bl", "tee", "snp", None, None, None, "ucode"),
        tcb={"fmc": 2, "bl": 5, "tee": 1, "snp": 4, "ucode": 77},
        chip_id=CHIP_ID[:8] + bytes(56),
        hwid=8,
    ),
}
CA, SUB_CA = (x509.BasicConstraints(ca=True, path_length=n) for n in (1, 0))
PROVIDER = "CN=cc-dev-1.invalid"


def asn1_number(value: int) -> bytes:
    """Return a number of one byte as AMD's extensions hold it."""
    return der(2, bytes([value]) if value < 0x80 else bytes([0, value]))


@dataclass(frozen=True, kw_only=True)
class Amd:
    """ARK, ASK and ASVK of one product, with the leaves below them."""

    product: Product
    organization: str
    keys: str
    ark: Party
    ask: Party
    asvk: Party

    @classmethod
    def create(cls, product: str = "milan", *, keys: str = "ours", organization: str = "") -> Amd:
        """Return a PKI; ``keys`` names its keys, so that another one has others.

        Args:
            product: One of `PRODUCTS`.
            keys: PKIs with the same names and other keys are impostors of one another.
            organization: What its names say; by default its own.
        """
        made = PRODUCTS[product]
        organization = organization or f"DEV AMD (insecure) {keys}"
        slot = f"{keys} {made.name}"
        root = name("ARK-" + made.name, organization)
        ark = issue(root, rsa_key(slot + " ark"), None, constraints=CA, serial=0x10000)
        pki = cls(product=made, organization=organization, keys=slot, ark=ark, ask=ark, asvk=ark)
        return replace(pki, ask=pki.signer("vcek"), asvk=pki.signer("vlek"))

    def signer(self, kind: str, **flaws: Any) -> Party:
        """Return an intermediate; ``flaws`` are those of `issue`, and ``key`` and ``issuer``."""
        between = "SEV-" if kind == "vcek" else "SEV-VLEK-"
        key = flaws.pop("key", None) or rsa_key(f"{self.keys} {kind} signer")
        given = {"constraints": SUB_CA, "serial": 0x10001 if kind == "vcek" else 0x10101}
        issuer = flaws.pop("issuer", self.ark)
        subject = flaws.pop("subject", name(between + self.product.name, self.organization))
        return issue(subject, key, issuer, **(given | flaws))

    def extensions(self, kind: str, changes: Mapping[str, bytes | None]) -> dict[str, bytes]:
        """Return a leaf's extensions by what follows 1.3.6.1.4.1.3704.1."""
        product = self.product
        made: dict[str, bytes | None] = {
            "1": asn1_number(1),
            "2": der(0x16, (product.stepping if kind == "vcek" else product.name).encode()),
            **{f"3.{arc}": asn1_number(product.tcb.get(part, 0)) for part, arc in SVN.items()},
            "4": product.chip_id[: product.hwid] if kind == "vcek" else None,
            "5": der(0x16, PROVIDER.encode()) if kind == "vlek" else None,
        }
        if "fmc" not in product.tcb:
            del made["3.9"]
        return {arc: raw for arc, raw in (made | dict(changes)).items() if raw is not None}

    def leaf(self, kind: str = "vcek", **flaws: Any) -> Party:
        """Return a VCEK or VLEK; ``flaws`` are those of `issue`, and some more.

        Args:
            kind: ``vcek`` or ``vlek``.
            **flaws: ``key``, ``issuer``, ``subject``, ``extensions`` (by the end of their OID,
                ``None`` for one that is left out), and what `issue` takes.
        """
        extensions = self.extensions(kind, flaws.pop("extensions", {}))
        key = flaws.pop("key", None) or p384_key(f"{self.keys} {kind}")
        issuer = flaws.pop("issuer", self.ask if kind == "vcek" else self.asvk)
        subject = flaws.pop("subject", name("SEV-" + kind.upper(), self.organization))
        # A VLEK that can be revoked has a number; real ones have zero, like every VCEK.
        given = {"serial": 0 if kind == "vcek" else 77}
        found = [
            x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.3704.1.{arc}"), raw)
            for arc, raw in extensions.items()
        ]
        return issue(subject, key, issuer, extensions=found, **(given | flaws))

    def anchor(self) -> TrustAnchor:
        """Return this root as a trust anchor, under its fingerprint."""
        return software_anchor(self.ark.der)

    def fields(self, kind: str = "vcek", **changes: Any) -> dict[str, Any]:
        """Return the fields of an honest report, but for ``changes``."""
        made = {
            "version": 3,
            "guest_svn": 6,
            "policy": GUEST_POLICY,
            "algorithm": 1,
            "platform": 1 << 1 | 1 << 2,
            "signer": 0 if kind == "vcek" else 1 << 2,
            "report_data": REPORT_DATA,
            "measurement": b"\x33" * 48,
            "host_data": b"\x44" * 32,
            "id_key_digest": b"\x55" * 48,
            "author_key_digest": b"\x66" * 48,
            "reported_tcb": self.product.tcb_bytes(),
            "cpu": bytes(self.product.cpu),
            "chip_id": self.product.chip_id if kind == "vcek" else bytes(64),
        }
        if changes.get("version") == 2:
            made["cpu"] = bytes(3)
        return made | changes

    def report(self, kind: str = "vcek", *, key: Any = None, **changes: Any) -> bytes:
        """Return a report that is signed, by the key of `leaf` if by no other."""
        key = key or p384_key(f"{self.keys} {kind}")
        return sign(body(**self.fields(kind, **changes)), key)

    def evidence(
        self,
        kind: str = "vcek",
        *,
        report: bytes | None = None,
        leaf: Party | None = None,
        table: bytes = b"",
        **beside: bytes | None,
    ) -> Evidence:
        """Return evidence: honest, but for what is given; ``None`` leaves a member out."""
        report = self.report(kind) if report is None else report
        signer = self.ask if kind == "vcek" else self.asvk
        members = {kind: (leaf or self.leaf(kind)).der, "ask": signer.der} | beside
        found = {name: raw.hex() for name, raw in members.items() if raw is not None}
        collateral = b64(json.dumps(found).encode()) if found else None
        return Evidence(family="snp", quote=b64(report + table), collateral=collateral)


def software_anchor(root: bytes) -> TrustAnchor:
    """Return any root as an anchor, under its fingerprint."""
    fingerprint = hashlib.sha256(root).hexdigest()
    return TrustAnchor(name="software:" + fingerprint, root_der=root, tcb_signer="DEV none")


# --- reports and the table behind them -------------------------------------------------

REPORT, SIGNED = 1184, 672
FIELDS = {
    "version": (0x00, "<I"),
    "guest_svn": (0x04, "<I"),
    "policy": (0x08, "<Q"),
    "vmpl": (0x30, "<I"),
    "algorithm": (0x34, "<I"),
    "platform": (0x40, "<Q"),
    "signer": (0x48, "<I"),
    "report_data": (0x50, "64s"),
    "measurement": (0x90, "48s"),
    "host_data": (0xC0, "32s"),
    "id_key_digest": (0xE0, "48s"),
    "author_key_digest": (0x110, "48s"),
    "reported_tcb": (0x180, "8s"),
    "cpu": (0x188, "3s"),
    "chip_id": (0x1A0, "64s"),
}
GUIDS = {
    "vcek": "63da758d-e664-4564-adc5-f4b93be8accd",
    "vlek": "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "ask": "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "ark": "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    "crl": "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
    "other": "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6",
}


def body(**fields: Any) -> bytes:
    """Return the part of a report that is signed."""
    raw = bytearray(SIGNED)
    for field, value in fields.items():
        at, layout = FIELDS[field]
        struct.pack_into(layout, raw, at, value)
    return bytes(raw)


def numbers(key: ec.EllipticCurvePrivateKey, signed: bytes) -> tuple[int, int]:
    """Return r and s of a signature with SHA-384."""
    return utils.decode_dss_signature(key.sign(signed, ec.ECDSA(SHA384())))


def with_signature(signed: bytes, r: int, s: int) -> bytes:
    """Return a report with these two numbers."""
    return (signed + r.to_bytes(72, "little") + s.to_bytes(72, "little")).ljust(REPORT, b"\0")


def sign(signed: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a report whose signed part this is."""
    return with_signature(signed, *numbers(key, signed))


def table(*entries: tuple[str, bytes], swapped: bool = False, end: bytes = bytes(24)) -> bytes:
    """Return a certificate table; ``swapped`` writes GUIDs as Windows does."""
    at = 24 * len(entries) + len(end)
    headers, blobs = b"", b""
    for kind, raw in entries:
        guid = uuid.UUID(GUIDS[kind])
        headers += (guid.bytes_le if swapped else guid.bytes) + struct.pack("<II", at, len(raw))
        blobs += raw
        at += len(raw)
    return headers + end + blobs
