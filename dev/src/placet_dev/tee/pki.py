"""INSECURE: a development DCAP PKI, in Intel's formats and under names that say DEV.

Root, PCK CA, PCK leaf with the Intel SGX extension, TCB signer, both CRLs, TCB info and
QE identity. Everything is signed deterministically (RFC 6979), so that one day's
collateral is the same bytes in every process that holds the keys.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from placet.attest.trust import TrustAnchor
from placet.core.config import TrustRoot
from placet.core.encoding import b64

Tee = Literal["sgx", "tdx"]

ROOT, PCK_CA = "DEV DCAP Root CA (insecure)", "DEV PCK CA (insecure)"
PCK, TCB_SIGNER = "DEV PCK (insecure)", "DEV TCB Signing (insecure)"

FMSPC = bytes.fromhex("de7e57de7e57")
"""Made up: Intel's begin with a zero byte."""
PCE_ID = b"\0\0"
CPU_SVN = bytes([1] * 16)
PCE_SVN = 11
QE_SVN = 8
QE_MRSIGNER = bytes([0xDE] * 32)
QE_PRODUCT = {"sgx": 1, "tdx": 2}
TEE_TCB_SVN = bytes([5, 1, 2]) + bytes(13)

DAY = 86400
SGX_EXTENSION = "1.2.840.113741.1.13.1"
_LONG = 0x80
_SGX_OID = bytes.fromhex("2a864886f84d010d01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaws:
    """What is odd about a piece of collateral; nothing is, by default. For tests.

    ``None`` stands for the honest value. Times are Unix seconds. ``revoked`` names
    certificates of the PKI, ``signer`` is the one that signs TCB info and QE identity.
    """

    status: str = "UpToDate"
    advisories: tuple[str, ...] = ()
    qe_status: str = "UpToDate"
    evaluation: int = 20
    fmspc: bytes = FMSPC
    pce_id: bytes = PCE_ID
    cpu_svn: bytes = CPU_SVN
    revoked: tuple[str, ...] = ()
    signer: str = "tcb"
    identity_signer: str | None = None
    issued: int | None = None
    ends: int | None = None
    crl_issued: int | None = None
    crl_ends: int | None = None
    replaced: dict[str, str] = field(default_factory=dict)
    """Members of the collateral's JSON that are put in at last, signatures or not."""


HONEST = Flaws()


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One certificate of the PKI and its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        """Return the certificate's DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        """Return the certificate's PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, data: bytes) -> bytes:
        """Return r and s over ``data``, 32 bytes each."""
        return sign(self.key, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevPki:
    """A development PKI with the key that quotes. Whoever holds it can claim anything."""

    root: Party
    ca: Party
    pck: Party
    tcb: Party
    attestation: ec.EllipticCurvePrivateKey

    @classmethod
    def create(
        cls, now: int, *, fmspc: bytes = FMSPC, pck_ends: int | None = None, name: str = ""
    ) -> DevPki:
        """Return a new PKI that is valid from two days before ``now`` for ten years.

        Args:
            now: Unix seconds.
            fmspc: Six bytes of the PCK certificate.
            pck_ends: When the PCK certificate ends, if not with the others.
            name: TCB signer's common name, for tests that claim Intel's.
        """
        begin, end = now - 2 * DAY, now + 3650 * DAY
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(5)]
        life = (begin, end)
        root = _issue(ROOT, keys[0], None, life=life, path=1)
        ca = _issue(PCK_CA, keys[1], root, life=life, path=0)
        pck = _issue(PCK, keys[2], ca, life=(begin, pck_ends or end), sgx=_sgx_extension(fmspc))
        tcb = _issue(name or TCB_SIGNER, keys[3], root, life=life)
        return cls(root=root, ca=ca, pck=pck, tcb=tcb, attestation=keys[4])

    def save(self, folder: Path) -> None:
        """Write keys and certificates into ``folder``, readable by this user only."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for part in fields(self):
            value = getattr(self, part.name)
            key = value.key if isinstance(value, Party) else value
            _write(folder / f"{part.name}.key.pem", _key_pem(key))
            if isinstance(value, Party):
                _write(folder / f"{part.name}.cert.pem", value.pem.encode())

    @classmethod
    def load(cls, folder: Path) -> DevPki:
        """Return the PKI that `save` wrote.

        Raises:
            OSError: A file is missing. ``ValueError``: one is not what `save` wrote.
        """

        def party(name: str) -> Party:
            pem = (folder / f"{name}.cert.pem").read_bytes()
            return Party(
                key=_read_key(folder / f"{name}.key.pem"),
                certificate=x509.load_pem_x509_certificate(pem),
            )

        return cls(
            root=party("root"),
            ca=party("ca"),
            pck=party("pck"),
            tcb=party("tcb"),
            attestation=_read_key(folder / "attestation.key.pem"),
        )

    def trust_root(self) -> TrustRoot:
        """Return this root as a measured config names it."""
        anchor = self.anchor()
        return TrustRoot(
            anchor=anchor.name, root=b64(anchor.root_der), tcb_signer=anchor.tcb_signer
        )

    def anchor(self) -> TrustAnchor:
        """Return this root as a trust anchor, under its fingerprint."""
        name = self.tcb.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        root = self.root.der
        return TrustAnchor(
            name="software:" + hashlib.sha256(root).hexdigest(),
            root_der=root,
            tcb_signer=str(name),
        )

    def collateral(self, tee: Tee, now: int, flaws: Flaws = HONEST) -> bytes:
        """Return the collateral of one day as JSON, in the form of ``shared/vectors``.

        It is valid from an hour before that day (UTC) for thirty days, and within a day
        the same bytes come out.
        """
        day = now - now % DAY
        issued = day - 3600 if flaws.issued is None else flaws.issued
        ends = day + 30 * DAY if flaws.ends is None else flaws.ends
        crl_life = (
            day - 3600 if flaws.crl_issued is None else flaws.crl_issued,
            day + 30 * DAY if flaws.crl_ends is None else flaws.crl_ends,
        )
        revoked = [getattr(self, name).certificate.serial_number for name in flaws.revoked]
        dates = {"issueDate": _zulu(issued), "nextUpdate": _zulu(ends)}
        info = _compact(_tcb_info(tee, flaws) | dates)
        identity = _compact(_qe_identity(tee, flaws) | dates)
        signer: Party = getattr(self, flaws.signer)
        identity_signer: Party = getattr(self, flaws.identity_signer or flaws.signer)
        members = {
            "pck_crl_issuer_chain": self.ca.pem + self.root.pem,
            "root_ca_crl": _crl(self.root, revoked, crl_life),
            "pck_crl": _crl(self.ca, revoked, crl_life),
            "tcb_info_issuer_chain": signer.pem + self.root.pem,
            "tcb_info": info,
            "tcb_info_signature": signer.sign(info.encode()).hex(),
            "qe_identity_issuer_chain": identity_signer.pem + self.root.pem,
            "qe_identity": identity,
            "qe_identity_signature": identity_signer.sign(identity.encode()).hex(),
        }
        return _compact(members | flaws.replaced).encode()


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Return ECDSA P-256 with SHA-256 over ``data`` as r and s, 32 bytes each."""
    signature = key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    r, s = utils.decode_dss_signature(signature)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def public_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return x and y of the public key, 32 bytes each."""
    point = key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return point[1:]


def _tcb_info(tee: Tee, flaws: Flaws) -> dict[str, object]:
    date = "2026-01-01T00:00:00Z"
    tcb: dict[str, object] = {
        "sgxtcbcomponents": [{"svn": n} for n in flaws.cpu_svn],
        "pcesvn": PCE_SVN,
    }
    extra: dict[str, object] = {}
    if tee == "tdx":
        # Of TEE_TCB_SVN the first two are judged by the module's identity (TDX 1.5).
        tcb["tdxtcbcomponents"] = [{"svn": n} for n in bytes([5, 0]) + TEE_TCB_SVN[2:]]
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        level = {"tcb": {"isvsvn": TEE_TCB_SVN[0]}, "tcbDate": date, "tcbStatus": "UpToDate"}
        extra["tdxModule"] = module
        extra["tdxModuleIdentities"] = [{"id": "TDX_01", **module, "tcbLevels": [level]}]
    level = {"tcb": tcb, "tcbDate": date, "tcbStatus": flaws.status}
    if flaws.advisories:
        level["advisoryIDs"] = list(flaws.advisories)
    return {
        "id": tee.upper(),
        "version": 3,
        "fmspc": flaws.fmspc.hex().upper(),
        "pceId": flaws.pce_id.hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": flaws.evaluation,
        **extra,
        "tcbLevels": [level],
    }


def _qe_identity(tee: Tee, flaws: Flaws) -> dict[str, object]:
    return {
        "id": "TD_QE" if tee == "tdx" else "QE",
        "version": 2,
        "tcbEvaluationDataNumber": flaws.evaluation,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": QE_MRSIGNER.hex().upper(),
        "isvprodid": QE_PRODUCT[tee],
        "tcbLevels": [
            {
                "tcb": {"isvsvn": QE_SVN},
                "tcbDate": "2026-01-01T00:00:00Z",
                "tcbStatus": flaws.qe_status,
            }
        ],
    }


def _issue(  # one certificate has this many properties
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: Party | None,
    *,
    life: tuple[int, int],
    path: int | None = None,
    sgx: x509.UnrecognizedExtension | None = None,
) -> Party:
    signing_key = issuer.key if issuer else key
    authority = path is not None
    usage = x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=not authority,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer.certificate.subject if issuer else _name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(life[0]))
        .not_valid_after(_time(life[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=path), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_key(signing_key), critical=False)
    )
    if sgx:
        builder = builder.add_extension(sgx, critical=False)
    return Party(key=key, certificate=builder.sign(signing_key, hashes.SHA256()))


def _crl(issuer: Party, revoked: Iterable[int], life: tuple[int, int]) -> str:
    begin, end = life
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(_time(begin))
        .next_update(_time(end))
        .add_extension(_authority_key(issuer.key), critical=False)
        .add_extension(x509.CRLNumber(begin // DAY), critical=False)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(entry.revocation_date(_time(begin)).build())
    crl = builder.sign(issuer.key, hashes.SHA256(), ecdsa_deterministic=True)
    return crl.public_bytes(serialization.Encoding.DER).hex()


def _authority_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _sgx_extension(fmspc: bytes) -> x509.UnrecognizedExtension:
    """Return the extension of a PCK certificate (Intel, SGX PCK certificate profile)."""
    svns = [_item(_integer(n), 2, i) for i, n in enumerate(CPU_SVN, start=1)]
    svns += [_item(_integer(PCE_SVN), 2, 17), _item(_tlv(0x04, CPU_SVN), 2, 18)]
    flags = [_item(_tlv(0x01, b"\0"), 7, i) for i in (1, 2, 3)]
    body = [
        _item(_tlv(0x04, bytes(16)), 1),  # PPID
        _item(_tlv(0x30, *svns), 2),
        _item(_tlv(0x04, PCE_ID), 3),
        _item(_tlv(0x04, fmspc), 4),
        _item(_tlv(0x0A, b"\x01"), 5),  # scalable
        _item(_tlv(0x04, bytes(16)), 6),  # platform instance
        _item(_tlv(0x30, *flags), 7),  # dynamic platform, cached keys, SMT
    ]
    oid = x509.ObjectIdentifier(SGX_EXTENSION)
    return x509.UnrecognizedExtension(oid, _tlv(0x30, *body))


def _item(value: bytes, *arcs: int) -> bytes:
    return _tlv(0x30, _tlv(0x06, _SGX_OID + bytes(arcs)), value)


def _integer(n: int) -> bytes:
    return _tlv(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big"))


def _tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8 or 1, "big")
    # DER: a short length is one byte, a long one the count of its bytes and these.
    count = b"" if len(body) < _LONG else bytes([_LONG | len(length)])
    return bytes([tag]) + count + length + body


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _time(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _zulu(seconds: int) -> str:
    return _time(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} holds no elliptic curve key")
    return key


def _write(path: Path, data: bytes) -> None:
    # Opened with its mode: a key is never readable by others, not for a moment.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
