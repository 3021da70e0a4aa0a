"""Evidence, collateral, roots and rules as they lie in files: read, sorted, not verified."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from placet.attest.roots import pinned
from placet.attest.trust import INTEL_TCB_SIGNER, VENDORS, TrustAnchor
from placet.attest.verify.chains import UNREADABLE, quiet
from placet.cli.evidence_fields import Fields, family_of, read_fields
from placet.cli.files import read_bytes
from placet.core.attestation import Evidence, Family
from placet.core.encoding import b64, unb64
from placet.core.profile import TcbRules
from placet.errors import MalformedError

PEM = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----([^-]*)-----END [A-Z0-9 ]+-----").findall
ISSUER_CHAIN = "tcb_info_issuer_chain"
OPEN_RULES: dict[str, object] = {
    "allowed_advisories": None,
    "denied_advisories": [],
    "denied_families": [],
    "hardware_ids": None,
    "min_evaluation": 0,
}
"""What rules say that a file leaves out; which statuses are accepted it has to say."""


@dataclass(frozen=True, slots=True)
class Found:
    """Evidence from a file, as it came, and what it says about itself."""

    evidence: Evidence
    raw: bytes
    fields: Fields


def read_evidence(
    path: Path, collateral: Iterable[Path] = (), family: Family | None = None
) -> Found:
    """Read evidence and its collateral; nothing is verified.

    Args:
        path: Quote, report (with or without certificate table) or document, as bytes or
            hex, or placet's own JSON of evidence.
        collateral: JSON in the form of spec/02, or certificates and revocation lists.
        family: What it must be taken for; by default what it looks like.

    Raises:
        MalformedError: It looks like no evidence, or a file is none of these.
        NotFoundError: A file cannot be read.
    """
    data = read_bytes(path)
    stapled: bytes | None = None
    events: tuple[str, ...] = ()
    if data.lstrip()[:1] == b"{":
        own = _own(data, path)
        data, family, events = unb64(own.quote), family or own.family, own.events
        stapled = None if own.collateral is None else unb64(own.collateral)
    else:
        data = _unhex(data)
    kind = family or family_of(data)
    if kind is None:
        raise MalformedError(
            f"{path} looks like no evidence that is known here",
            "If it is, say which: --family sgx, tdx, snp or nitro",
        )
    fields = read_fields(data, kind)
    given = _collateral(tuple(collateral), kind, fields)
    found = given if given is not None else stapled
    evidence = Evidence(
        family=kind,
        quote=b64(data),
        collateral=None if found is None else b64(found),
        events=events,
    )
    return Found(evidence, data, fields)


def _own(data: bytes, path: Path) -> Evidence:
    try:
        return msgspec.json.decode(data, type=Evidence)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise MalformedError(f"{path} is JSON, but not of evidence: {e}") from e


def _unhex(data: bytes) -> bytes:
    text = data.strip().removeprefix(b"0x")
    try:
        return bytes.fromhex(text.decode("ascii")) if len(text) > 1 else data
    except ValueError:
        return data


def _collateral(paths: tuple[Path, ...], family: Family, fields: Fields) -> bytes | None:
    members: dict[str, str] = {}
    ders: list[bytes] = []
    for path in paths:
        raw = read_bytes(path)
        if raw.lstrip()[:1] == b"{":
            members |= _members(raw, path)
        else:
            ders += _ders(raw)
    if ders and family in ("sgx", "tdx"):
        raise MalformedError(
            "collateral of a quote is one JSON file, not certificates",
            "Take the form of spec/02, section 3; placet collateral fetch writes it",
        )
    if ders:
        members |= {name: der.hex() for name, der in _sorted(ders, fields).items()}
    return json.dumps(members).encode() if members else None


def _members(raw: bytes, path: Path) -> dict[str, str]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise MalformedError(f"{path} is no JSON: {e}"[:300]) from e
    if isinstance(found.get("collateral"), dict):  # a case of vectors/hostile
        found = found["collateral"]
    return dict(found)


def _ders(raw: bytes) -> list[bytes]:
    """Return what is in a PEM file, or the one thing that a DER file is; nothing is parsed."""
    if b"-----BEGIN" not in raw:
        return [raw]
    try:
        return [base64.b64decode(b"".join(block.split()), validate=True) for block in PEM(raw)]
    except ValueError as e:
        raise MalformedError("a PEM block is not base64") from e


def _sorted(ders: list[bytes], fields: Fields) -> dict[str, bytes]:
    """Name what certificates and revocation lists are, by what they say about themselves.

    What does not parse is taken for the key's own certificate, so that the verifier
    refuses it and says why.
    """
    leaf = str(fields.measurements.get("signing_key", "")).casefold()
    leaf = leaf if leaf in ("vcek", "vlek") else "vcek"
    members: dict[str, bytes] = {}
    authorities: list[tuple[x509.Certificate, bytes]] = []
    for der in ders:
        cert = _certificate(der)
        if cert is None:
            members["crl" if _is_crl(der) else leaf] = der
        elif (name := _name(cert)) in ("SEV-VCEK", "SEV-VLEK"):
            members[name[4:].casefold()] = der
        elif _authority(cert):
            authorities.append((cert, der))
        else:
            members[leaf] = der
    return members | _above(members, leaf, authorities)


def _above(
    members: dict[str, bytes], leaf: str, authorities: list[tuple[x509.Certificate, bytes]]
) -> dict[str, bytes]:
    """Return of some authorities those that stand above the leaf, by their names."""
    found: dict[str, bytes] = {}
    below = _certificate(members[leaf]) if leaf in members else None
    for name, is_root in (("ask", False), ("ark", True)):
        for cert, der in authorities:
            fits = below is None or cert.subject == below.issuer
            if fits and (cert.issuer == cert.subject) is is_root:
                found[name] = der
        below = _certificate(found["ask"]) if "ask" in found else below
    return found


def _certificate(der: bytes) -> x509.Certificate | None:
    try:
        with quiet():
            cert = x509.load_der_x509_certificate(der)
            _ = cert.subject, cert.issuer  # damaged names show here
    except UNREADABLE:
        return None
    return cert


def _is_crl(der: bytes) -> bool:
    try:
        with quiet():
            x509.load_der_x509_crl(der)
    except UNREADABLE:
        return False
    return True


def _name(cert: x509.Certificate) -> str:
    with quiet():
        names = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _authority(cert: x509.Certificate) -> bool:
    try:
        with quiet():
            return bool(cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except UNREADABLE:
        return False


def one_certificate(raw: bytes) -> bytes | None:
    """Return the DER of the certificate that a file holds, if that is what it holds."""
    ders = _ders(raw)
    return ders[0] if len(ders) == 1 and _certificate(ders[0]) is not None else None


def trusted(root: Path | None, found: Found | None = None) -> tuple[TrustAnchor, ...]:
    """Return the pinned anchors, or the one that a file names in their place.

    Args:
        root: A certificate, PEM or DER.
        found: Evidence; under a root that is nobody's, its TCB signer is taken by the name
            that it has there. It must still be issued by that root directly, and be no CA
            and no PCK.

    Raises:
        MalformedError: The file holds no certificate.
    """
    if root is None:
        return pinned()
    der = one_certificate(read_bytes(root))
    if der is None:
        raise MalformedError(f"{root} is not one certificate (PEM or DER)")
    fingerprint = hashlib.sha256(der).hexdigest()
    name, signer = VENDORS.get(fingerprint, (f"software:{fingerprint}", _signer(found) or "none"))
    return (TrustAnchor(name=name, root_der=der, tcb_signer=signer),)


def _signer(found: Found | None) -> str:
    collateral = None if found is None else found.evidence.collateral
    try:
        members = json.loads(unb64(collateral or ""))
        with quiet():
            name = _name(x509.load_pem_x509_certificates(members[ISSUER_CHAIN].encode())[0])
    except (*UNREADABLE, KeyError, AttributeError, MalformedError):
        return ""
    # Under no other root that name counts; the verifier refuses it by a check.
    return "" if name == INTEL_TCB_SIGNER else name


def read_rules(path: Path) -> TcbRules:
    """Read a profile's rules on platforms, or those of a whole profile.

    Raises:
        MalformedError: They are none, or accept no status.
    """
    try:
        plain = json.loads(read_bytes(path))
        if isinstance(plain, dict) and isinstance(plain.get("tcb"), dict):
            plain = plain["tcb"]
        rules = msgspec.convert({**OPEN_RULES, **plain}, TcbRules)
    except (ValueError, TypeError, RecursionError, msgspec.ValidationError) as e:
        raise MalformedError(
            f"{path} holds no TCB rules: {e}"[:300],
            'Write at least {"statuses": ["UpToDate"]}; spec/03, section 1 has the others',
        ) from e
    if not rules.statuses:
        raise MalformedError(f"{path} accepts no status: nothing would ever pass")
    return rules
