"""AMD SEV-SNP: one report, the VCEK or VLEK that signed it, and AMD's chain above that.

Layouts are those of AMD's SEV-SNP firmware ABI (56860), chapter 7 and tables 10 and 23;
certificates are described in AMD's VCEK/VLEK specification (57230). The steps are those
of spec/02, section 8.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from placet.attest.roots import amd_signer
from placet.attest.trust import TrustAnchor
from placet.attest.verify.chains import (
    UNREADABLE,
    check_dates,
    check_issued,
    check_signature,
    common_name,
    is_listed,
    load,
    names,
    p384_key,
    quiet,
)
from placet.attest.verify.quote import refuse
from placet.core.attestation import TcbState, VerifiedEvidence
from placet.core.profile import SnpMeasurement

REPORT, SIGNED, SIGNATURE_END = 1184, 0x2A0, 0x2A0 + 144
VERSIONS = range(2, 6)
CPUID_SINCE = 3
"""From this version on a report names the CPU's family and model."""
REPORT_DATA = slice(0x50, 0x90)
ECDSA_P384 = 1
MASK_CHIP_KEY = 1 << 1
Key = Literal["vcek", "vlek"]
KEYS: Mapping[int, Key] = {0: "vcek", 1: "vlek"}
POLICY_RESERVED_ONE, POLICY_MIGRATE_MA, POLICY_DEBUG = 1 << 17, 1 << 18, 1 << 19
PLATFORM = {1: "tsme", 2: "ecc", 3: "rapl-disabled", 4: "ciphertext-hidden", 5: "aliases-checked"}
"""Bits of PLATFORM_INFO that protect, when they are set; bit 0 says that SMT is on."""
CPUS = {
    "milan": (0x19, range(0x10)),
    "genoa": (0x19, (*range(0x10, 0x20), *range(0xA0, 0xB0))),
    "turin": (0x1A, range(0x20)),
}
"""CPU family and models of the products."""

_OID = "1.3.6.1.4.1.3704.1."
HWID, CSP = x509.ObjectIdentifier(_OID + "4"), x509.ObjectIdentifier(_OID + "5")
PRODUCT = x509.ObjectIdentifier(_OID + "2")
SVN = {"bl": 1, "tee": 2, "snp": 3, "4": 4, "5": 5, "6": 6, "7": 7, "ucode": 8, "fmc": 9}
LAYOUT = ("bl", "tee", "4", "5", "6", "7", "snp", "ucode")
"""Where in the eight bytes of a TCB version each component lies; Turin has another order."""
TURIN_LAYOUT = ("fmc", "bl", "tee", "snp", "4", "5", "6", "ucode")
TURIN_HWID = 8

GUIDS = {
    "63da758de6644564adc5f4b93be8accd": "vcek",
    "a8074bc2a25a483eaae639c045a0b8a1": "vlek",
    "4ab7b379bbac4fe4a02f05aef327c782": "ask",
    "c0b406a4a803495297433fb6014cd0ae": "ark",
    "92f81bc358114d3d97ffd19f88dc67ea": "crl",
}
"""Entries of the certificate table behind an extended report (GHCB 2.01, section 4.1.8.1)."""
MEMBERS = frozenset(GUIDS.values())
ENTRY = 24
"""Bytes of an entry of that table: GUID, offset, length."""
MAX_ENTRIES = 64
"""Entries that are looked at, the one that ends them included; real tables have five."""


@dataclass(frozen=True, slots=True)
class Report:
    """The fields of a report that are looked at; nothing is verified."""

    raw: bytes

    def number(self, layout: str, at: int) -> int:
        """Return one little-endian number."""
        (value,) = struct.unpack_from(layout, self.raw, at)
        return int(value)

    @property
    def version(self) -> int:
        """Return VERSION."""
        return self.number("<I", 0)

    @property
    def policy(self) -> int:
        """Return POLICY, what the owner of the guest allowed."""
        return self.number("<Q", 8)

    @property
    def signer(self) -> int:
        """Return MASK_CHIP_KEY and SIGNING_KEY with what is around them."""
        return self.number("<I", 0x48)

    def hex(self, at: int, size: int) -> str:
        """Return bytes as hex."""
        return self.raw[at : at + size].hex()

    @property
    def reported_tcb(self) -> bytes:
        """Return REPORTED_TCB, which the VCEK was derived for."""
        return self.raw[0x180:0x188]

    @property
    def chip_id(self) -> bytes:
        """Return CHIP_ID; all zero when the host hides it."""
        return self.raw[0x1A0:0x1E0]

    @property
    def cpu(self) -> tuple[int, int] | None:
        """Return CPU family and model, if this version has them."""
        return (self.raw[0x188], self.raw[0x189]) if self.version >= CPUID_SINCE else None


def split(raw: bytes) -> tuple[Report, dict[str, bytes]]:
    """Return the report, and what lies in the certificate table behind it.

    Raises:
        EvidenceError: ``check`` is ``length``, ``header`` or ``certificate-table``.
    """
    # 8.1 Length, version and signature scheme.
    if len(raw) < REPORT:
        refuse("length", f"report is {len(raw)} bytes, {REPORT} are needed")
    report = Report(raw[:REPORT])
    if report.version not in VERSIONS or report.number("<I", 0x34) != ECDSA_P384:
        refuse("header", f"no report of version {report.version} with this signature is read here")
    return report, dict(_table(raw[REPORT:]))


def _table(raw: bytes) -> Iterator[tuple[str, bytes]]:
    # 8.2 The table is transport: what it holds counts by its signatures only. Entries that
    # nobody knows here are passed over, one that stands twice is not.
    seen = set()
    for at in range(0, min(len(raw), MAX_ENTRIES * ENTRY), ENTRY):
        entry = raw[at : at + ENTRY]
        if not any(entry):
            return
        if len(entry) < ENTRY:
            break
        guid, (offset, length) = entry[:16], struct.unpack("<II", entry[16:])
        if offset < at + ENTRY or offset + length > len(raw):
            break
        # Firmware tables write a GUID's first fields in either byte order.
        swapped = guid[3::-1] + guid[5:3:-1] + guid[7:5:-1] + guid[8:]
        name = GUIDS.get(guid.hex()) or GUIDS.get(swapped.hex())
        if name in seen:
            refuse("certificate-table", f"certificate table has its {name} twice")
        if name is not None:
            seen.add(name)
            yield name, raw[offset : offset + length]
    if raw:
        refuse("certificate-table", "certificate table has no end, or an entry outside of it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain whose signatures held: leaf, intermediate and root."""

    leaf: x509.Certificate
    signer: x509.Certificate
    root: x509.Certificate
    key: ec.EllipticCurvePublicKey
    product: str
    extensions: Mapping[x509.ObjectIdentifier, bytes]


def verify_snp(
    raw: bytes,
    members: Mapping[str, bytes],
    *,
    trust: Sequence[TrustAnchor],
    now: int,
    grace: int,
) -> VerifiedEvidence:
    """Return what a genuine report shows.

    Args:
        raw: The report, with or without a certificate table behind it.
        members: Certificates and CRL (DER) that came beside it, by the names of `GUIDS`.
        trust: The roots of the measured config.
        now: Unix seconds.
        grace: Seconds for which a CRL counts after its end.

    Raises:
        EvidenceError: ``check`` names the check of spec/02, section 8.
    """
    report, table = split(raw)
    if table.keys() & members.keys():
        both = ", ".join(sorted(table.keys() & members.keys()))
        refuse("collateral", f"{both} stands in the certificate table and beside it")
    found = {**table, **members}
    # 8.3 Which key signed: one of the two kinds, and its certificate is there.
    kind = KEYS.get(report.signer >> 2 & 7)
    if kind is None or report.signer & MASK_CHIP_KEY:
        refuse("signing-key", "report is signed by neither VCEK nor VLEK")
    if kind not in found:
        refuse(
            "collateral",
            f"report is signed by a {kind.upper()}, whose certificate is missing",
            reason="collateral-missing",
        )
    chain, anchor = _find_chain(found, kind, trust)
    # 8.6 Dates of all three, and the revocation list where there is one.
    ends = check_dates((chain.leaf, chain.signer, chain.root), now)
    overdue = 0
    if "crl" in found:
        crl_ends = _check_crl(found["crl"], chain, now, grace)
        ends, overdue = min(ends, crl_ends), max(0, now - crl_ends)
    # 8.7 to 8.9
    _check_certificate(report, chain, kind)
    _check_product(report, chain)
    _check_signature(report, chain.key)
    # 8.10 Debug and migration, from bytes that are signed by now.
    if report.policy & POLICY_DEBUG:
        refuse("debug", "guest's policy allows debugging: its host may read its memory")
    if report.policy & POLICY_MIGRATE_MA:
        refuse("migration", "guest's policy allows a migration agent")
    if not report.policy & POLICY_RESERVED_ONE:
        refuse("header", "guest's policy lacks the bit that is always set")
    shown = _shown(report, chain.product, anchor, chip=kind == "vcek")
    return replace(shown, expires=ends, overdue=overdue)


def _find_chain(
    found: Mapping[str, bytes], kind: Key, trust: Sequence[TrustAnchor]
) -> tuple[Chain, TrustAnchor]:
    # 8.4 The chain ends in a root of the config; one that came along must be that root.
    # The issuers' names only choose among several roots.
    above = names(load(found[kind]))[1]
    for anchor in trust:
        signer = found.get("ask") or amd_signer(anchor.fingerprint, kind)
        root = names(load(anchor.root_der))[0]
        same = found.get("ark", anchor.root_der) == anchor.root_der
        if signer is not None and same and names(load(signer)) == (above, root):
            return _chain(found[kind], signer, anchor.root_der), anchor
    return refuse("anchor", "report's chain ends in no root that is trusted")


# A refusal raises and is not kept. Dates and revocation are asked each time.
@lru_cache(maxsize=64)
def _chain(leaf_der: bytes, signer_der: bytes, root_der: bytes) -> Chain:
    # 8.5 Each certificate was issued by the next one; names fit.
    leaf, signer, root = load(leaf_der), load(signer_der), load(root_der)
    check_issued((leaf, signer), root)
    return Chain(
        leaf=leaf,
        signer=signer,
        root=root,
        key=p384_key(leaf),
        product=product_of(root),
        extensions=amd_extensions(leaf),
    )


def amd_extensions(leaf: x509.Certificate) -> dict[x509.ObjectIdentifier, bytes]:
    """Return AMD's own extensions of a VCEK or VLEK, as they are encoded."""
    return {
        e.oid: e.value.value
        for e in leaf.extensions
        if isinstance(e.value, x509.UnrecognizedExtension)
    }


def product_of(root: x509.Certificate) -> str:
    """Return the product that a root says by its name: AMD's own as well as a development PKI's.

    Raises:
        EvidenceError: ``check`` is ``chain``: it has no one common name.
    """
    return common_name(root).rpartition("-")[2].casefold()


def _check_crl(der: bytes, chain: Chain, now: int, grace: int) -> int:
    try:
        with quiet():
            crl = x509.load_der_x509_crl(der)
            begins, ends = crl.last_update_utc.timestamp(), crl.next_update_utc
            genuine = crl.issuer == chain.root.subject and crl.is_signature_valid(
                chain.root.public_key()  # type: ignore[arg-type] # it checks the kinds inside
            )
            revoked = [c for c in (chain.signer, chain.leaf) if is_listed(crl, c)]
    except UNREADABLE as e:
        refuse("crl", "revocation list does not parse", e)
    if not genuine:
        refuse("crl", "revocation list is not signed by the root")
    if begins > now:
        refuse("crl-not-yet-valid", f"revocation list begins at {begins}")
    if ends is None or ends.timestamp() + grace < now:
        refuse("crl-ended", f"revocation list ended at {ends}")
    if revoked:
        refuse("revoked", "a certificate of the report's chain is revoked")
    return int(ends.timestamp())


def _check_certificate(report: Report, chain: Chain, kind: Key) -> None:
    # 8.7 The certificate is of the kind and the TCB version of the report.
    if common_name(chain.leaf) != f"SEV-{kind.upper()}":
        refuse("signing-key", f"report says {kind.upper()}, its certificate another key")
    turin = chain.product == "turin"
    layout = TURIN_LAYOUT if turin else LAYOUT
    certified = bytes(_svn(chain.extensions, component) for component in layout)
    if certified != report.reported_tcb:
        refuse("reported-tcb", "report's TCB version is not its certificate's")
    if kind == "vlek":
        if HWID in chain.extensions or CSP not in chain.extensions:
            refuse("chip-id", "a VLEK's certificate names a provider, and no chip")
        return
    size = TURIN_HWID if turin else len(report.chip_id)
    hidden = any(report.chip_id[size:]) or not any(report.chip_id)
    if chain.extensions.get(HWID) != report.chip_id[:size] or hidden:
        refuse("chip-id", "report is of another chip than its certificate")


def _check_product(report: Report, chain: Chain) -> None:
    # 8.8 Root, certificate and CPU are of one product.
    name = _text(chain.extensions.get(PRODUCT, b"")).casefold()
    if name.partition("-")[0] != chain.product or chain.product not in CPUS:
        refuse("product", f"certificate is for {name!r}, its root for {chain.product!r}")
    family, models = CPUS[chain.product]
    if report.cpu is not None and (report.cpu[0] != family or report.cpu[1] not in models):
        refuse("product", f"CPU family and model {report.cpu} are not of {chain.product}")


def _svn(extensions: Mapping[x509.ObjectIdentifier, bytes], component: str) -> int:
    der = extensions.get(x509.ObjectIdentifier(f"{_OID}3.{SVN[component]}"), b"")
    value = int.from_bytes(der[2:], "big")
    if component in ("4", "5", "6", "7") and not der:
        return 0  # Turin's certificates have fewer of these.
    if len(der) not in (3, 4) or der[:2] != bytes([2, len(der) - 2]) or value > 255:  # noqa: PLR2004 - DER of one byte
        refuse("reported-tcb", f"certificate has no security version of component {component}")
    return value


def _text(der: bytes) -> str:
    """Return a short IA5String."""
    fits = len(der) > 2 and der[0] == 0x16 and der[1] == len(der) - 2  # noqa: PLR2004 - DER
    return der[2:].decode("ascii", "replace") if fits else ""


def _check_signature(report: Report, key: ec.EllipticCurvePublicKey) -> None:
    # 8.9 The signature: 72 little-endian bytes each, and nothing unsigned behind them.
    raw = report.raw
    r, s = raw[SIGNED : SIGNED + 72], raw[SIGNED + 72 : SIGNATURE_END]
    if any(r[48:]) or any(s[48:]) or any(raw[SIGNATURE_END:]):
        refuse("trailing", "bytes that nobody signed stand around the signature")
    check_signature(key, int.from_bytes(r, "little"), int.from_bytes(s, "little"), raw[:SIGNED])


def _shown(report: Report, product: str, anchor: TrustAnchor, *, chip: bool) -> VerifiedEvidence:
    # 8.11 What it shows. AMD rates no platform: its versions are for a profile to judge.
    family, _ = CPUS[product]
    model = () if report.cpu is None else (f"{family:02x}{report.cpu[1]:02x}",)
    flags = report.number("<Q", 0x40)
    on = {name for bit, name in PLATFORM.items() if flags >> bit & 1}
    return VerifiedEvidence(
        measurement=SnpMeasurement(
            measurement=report.hex(0x90, 48),
            host_data=report.hex(0xC0, 32),
            vmpl=report.number("<I", 0x30),
            policy=f"{report.policy:016x}",
            id_key_digest=report.hex(0xE0, 48),
            author_key_digest=report.hex(0x110, 48),
            guest_svn=report.number("<I", 4),
        ),
        report_data=report.raw[REPORT_DATA],
        anchor=anchor.name,
        tcb=TcbState(status="Unrated", advisories=(), evaluation=0, date=0),
        families=(product, f"{family:02x}", *model),
        # A VLEK is the same on many machines: no chip's key vouches for the id.
        hardware_id=report.chip_id.hex() if chip else None,
        expires=0,
        features=frozenset(on if flags & 1 else {*on, "smt-disabled"}),
        reported_tcb=report.reported_tcb.hex(),
    )
