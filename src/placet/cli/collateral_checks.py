"""Is a file of collateral genuine? Checked before it is written, and when it is shown.

Whoever uses it verifies all of it again, together with evidence. These checks keep out of
a folder what no vendor signed, so that what is in it need not be thrown away.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from placet.attest.roots import amd_signer
from placet.attest.trust import TrustAnchor
from placet.attest.verify.chains import (
    UNREADABLE,
    check_dates,
    check_issued,
    common_name,
    is_listed,
    load,
    quiet,
)
from placet.attest.verify.collateral import (
    check_collateral,
    read_members,
    read_object,
    unix_time,
)
from placet.attest.verify.quote import Chain, pem_chain, refuse
from placet.attest.verify.snp import (
    HWID,
    LAYOUT,
    MEMBERS,
    SVN,
    TURIN_HWID,
    TURIN_LAYOUT,
    Key,
    amd_extensions,
    product_of,
)
from placet.cli.collateral_files import AmdItem, IntelItem, Item
from placet.core.limits import MAX_COLLATERAL
from placet.errors import EvidenceError

SVN_OID = "1.3.6.1.4.1.3704.1.3."
"""What the object ids of a VCEK's security versions begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Genuine:
    """Collateral that a vendor signed, and for how long it counts."""

    members: Mapping[str, str]
    anchor: str
    evaluation: int | None
    begins: int
    ends: int


def check_genuine(
    item: Item, raw: bytes, anchors: Sequence[TrustAnchor], *, now: int | None
) -> Genuine:
    """Return what genuine collateral is, if it is what the file's name says.

    Args:
        item: What the name says.
        raw: The file's content.
        anchors: Roots that may have signed it.
        now: Unix seconds; ``None`` asks whether it counted when its newest part was signed.

    Raises:
        EvidenceError: It is not; ``check`` as in spec/02, and ``name``: it is another's.
    """
    if len(raw) > MAX_COLLATERAL:
        refuse("size", f"collateral is longer than {MAX_COLLATERAL} bytes")
    try:
        with quiet():
            if isinstance(item, IntelItem):
                return _intel(item, read_members(raw), anchors, now)
            return _amd(item, read_object(raw), anchors, now)
    except (*UNREADABLE, KeyError, AttributeError, RecursionError) as e:
        raise EvidenceError(f"collateral does not parse: {e!r}"[:300], check="collateral") from e


# --- Intel --------------------------------------------------------------------------------


def _intel(
    item: IntelItem, members: dict[str, str], anchors: Sequence[TrustAnchor], now: int | None
) -> Genuine:
    info, identity = json.loads(members["tcb_info"]), json.loads(members["qe_identity"])
    named = {"sgx": "QE", "tdx": "TD_QE"}[item.tee]
    if (info["id"].lower(), info["fmspc"].lower()) != (item.tee, item.fmspc) or (
        identity["id"] != named
    ):
        refuse("name", f"TCB info is of {info['id']} {info['fmspc']}, QE identity {identity['id']}")
    root_crl, pck_crl = (
        x509.load_der_x509_crl(bytes.fromhex(members[name])) for name in ("root_ca_crl", "pck_crl")
    )
    issued = [_issued(info), _issued(identity), _begins(root_crl), _begins(pck_crl)]
    at = max(issued) if now is None else now
    if max(issued) > at:
        refuse("dates", "a part of the collateral is not yet valid")
    signers, authority = _intel_chains(members)
    anchor = next((a for a in anchors if a.root_der == authority[-1]), None)
    if anchor is None:
        refuse("anchor", "collateral's chains end in no root that is trusted")
    # Issuer chains, beginnings and ends: as the verifier itself sees them. The PCK chain is a
    # quote's, and there is none here.
    checked = check_collateral(members, anchor, (), at, 0)
    root, ca = load(anchor.root_der), load(authority[0])
    tcb, qe = (load(chain[0]) for chain in signers)
    ca.verify_directly_issued_by(root)
    if item.ca not in common_name(ca).lower() and anchor.name == "intel":
        refuse("name", f"revocation list is of another CA than {item.ca}")
    end = check_dates((root, ca, tcb, qe), at)
    _signed(tcb, members["tcb_info"], members["tcb_info_signature"])
    _signed(qe, members["qe_identity"], members["qe_identity_signature"])
    _check_list(root_crl, root, (ca, tcb, qe))
    _check_list(pck_crl, ca, ())
    return Genuine(
        members=members,
        anchor=anchor.name,
        evaluation=min(info["tcbEvaluationDataNumber"], identity["tcbEvaluationDataNumber"]),
        begins=max(issued),
        ends=min(checked.last + 1, end),
    )


def _intel_chains(members: Mapping[str, str]) -> tuple[tuple[Chain, Chain], Chain]:
    names = ("tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain")
    tcb, qe, ca = (pem_chain(members[name].encode(), 2, "issuer-chain") for name in names)
    return (tcb, qe), ca


def _signed(signer: x509.Certificate, text: str, signature: str) -> None:
    key, raw = signer.public_key(), bytes.fromhex(signature)
    if not isinstance(key, ec.EllipticCurvePublicKey) or len(raw) != 64:  # noqa: PLR2004 - r and s
        refuse("signature", "signature is not one of ECDSA P-256")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    try:
        key.verify(utils.encode_dss_signature(r, s), text.encode(), ec.ECDSA(SHA256()))
    except UNREADABLE as e:
        refuse("signature", "TCB info or QE identity is not signed by its signer", e)


def _issued(document: Mapping[str, str]) -> int:
    return unix_time(document["issueDate"])


# --- AMD ----------------------------------------------------------------------------------


def _amd(
    item: AmdItem, members: Mapping[str, str], anchors: Sequence[TrustAnchor], now: int | None
) -> Genuine:
    ders = {name: bytes.fromhex(text) for name, text in members.items()}
    if unknown := ders.keys() - MEMBERS:
        refuse("collateral", f"collateral has members that nobody knows: {sorted(unknown)}")
    kind: Key = "vcek" if "vcek" in ders else "vlek"
    anchor, root = _amd_root(item.product, anchors, ders.get("ark"))
    above = ders.get("ask") or amd_signer(anchor.fingerprint, kind)
    if above is None or kind not in ders:
        refuse("collateral", "collateral has no certificate of a key, or none above it")
    leaf, signer = load(ders[kind]), load(above)
    check_issued((leaf, signer), root)
    _check_vcek(item, leaf, kind)
    chain = (leaf, signer, root)
    begins = [c.not_valid_before_utc.timestamp() for c in chain]
    ends = [c.not_valid_after_utc.timestamp() for c in chain]
    if "crl" in ders:
        crl = x509.load_der_x509_crl(ders["crl"])
        _check_list(crl, root, (signer, leaf))
        begins.append(_begins(crl))
        if crl.next_update_utc is None:
            refuse("crl", "revocation list has no end")
        ends.append(crl.next_update_utc.timestamp())
    at = max(begins) if now is None else now
    if not max(begins) <= at <= min(ends):
        refuse("dates", f"a part of the collateral does not count at {at}")
    return Genuine(
        members=members,
        anchor=anchor.name,
        evaluation=None,
        begins=int(max(begins)),
        ends=int(min(ends)),
    )


def _amd_root(
    product: str, anchors: Sequence[TrustAnchor], ark: bytes | None
) -> tuple[TrustAnchor, x509.Certificate]:
    """Return the anchor of a product; one that is nobody's says by its name which it is of."""
    for anchor in anchors:
        if ark not in (None, anchor.root_der):
            continue
        root = load(anchor.root_der)
        if product_of(root) == product:
            return anchor, root
    return refuse("anchor", f"collateral's chain ends in no root of {product} that is trusted")


def _check_vcek(item: AmdItem, leaf: x509.Certificate, kind: Key) -> None:
    found = amd_extensions(leaf)
    turin = item.product == "turin"
    parts = zip(TURIN_LAYOUT if turin else LAYOUT, item.tcb, strict=True)
    for part, value in parts:
        der = found.get(x509.ObjectIdentifier(f"{SVN_OID}{SVN[part]}"), b"")
        if int.from_bytes(der[2:], "big") != value:
            refuse("name", f"certificate is for another security version of {part}")
    chip = item.chip[:TURIN_HWID] if turin else item.chip
    if common_name(leaf) != f"SEV-{kind.upper()}" or (kind == "vcek" and found.get(HWID) != chip):
        refuse("name", "certificate is of another chip, or no VCEK")


# --- revocation lists ---------------------------------------------------------------------


def _check_list(
    crl: x509.CertificateRevocationList,
    issuer: x509.Certificate,
    below: Iterable[x509.Certificate],
) -> None:
    key = issuer.public_key()
    genuine = crl.is_signature_valid(key)  # type: ignore[arg-type] # checked inside
    if crl.issuer != issuer.subject or not genuine:
        refuse("crl", "a revocation list is not signed by its issuer")
    if any(is_listed(crl, cert) for cert in below):
        refuse("revoked", "a certificate of the collateral's chains is revoked")


def _begins(crl: x509.CertificateRevocationList) -> int:
    return int(crl.last_update_utc.timestamp())
