"""The same library calls as the real thing, in this process, and nothing of ours around them.

No sockets, no event loop, no checks, no objects of the protocol beyond those that are
encoded: what remains is what pyOpenSSL, cryptography, dcap-qvl, msgspec, httptools and
SQLite cost. A floor does the work of both ends, one after the other, on one core.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import itertools
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cbor2
import httptools
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from dcap_qvl import QuoteCollateralV3, QuotePolicy, QuoteVerifier  # type: ignore[import-untyped]
from OpenSSL import SSL, crypto
from placet_testing.tee import Tee

from placet.attest.trust import TrustAnchor
from placet.core.attestation import EXPORTER_LABEL, Evidence
from placet.core.encoding import unb64
from placet.ratls.certificate import make_certificate
from placet.ratls.context import AttestedContext, make_context
from placet.storage.sqlite import OPENING, TABLES

Ends = tuple[SSL.Connection, SSL.Connection]

RECORD = "SELECT sealed FROM records WHERE tag = ?"
LAST_ENTRY = "SELECT sealed FROM entries WHERE trail = ? ORDER BY seq DESC LIMIT 1"

CERTIFICATE = "cryptography: P-256 key, self-signed X.509; pyOpenSSL: Context"
HANDSHAKE = (
    "pyOpenSSL: Connection x2, mutual TLS 1.3 handshake with X25519MLKEM768 over memory BIOs,"
    " export_keying_material x6, peer certificate to DER x2; cryptography: load certificate x2,"
    " verify_directly_issued_by x2, Ed25519 sign and verify; software TEE: quote x2 (stands"
    " for the hardware); dcap-qvl: from_json x2, verify_with_policy x2; base64 x4;"
    " msgspec: encode and decode of both pieces of evidence; TLS records for them"
)
RELEASE = (
    "TLS records both ways (pyOpenSSL, memory BIOs); httptools: parse request and response;"
    " msgspec: encode and decode of request, answer, receipt and log entry; hashlib: SHA-256"
    " x6; cryptography: Ed25519 sign and verify, AES-256-GCM seal x3, open x2; HMAC x7;"
    " sqlite3: 2 selects, BEGIN, 2 updates, 1 insert, COMMIT with fsync"
)
DEAL = (
    "os.urandom; bytes.translate and int XOR in place of GF(2^8) arithmetic (fast, and indexed"
    " by secrets: never to be used); base64, SHA-256 x5, HMAC; msgspec: encode and decode"
)
COMBINE = "bytes.translate and int XOR as above x3; base64 and SHA-256 x3, HMAC"
REPORT = "cryptography: three certificates, two signatures of the chain, ECDSA P-384"
DOCUMENT = "cbor2: loads x2, dumps; cryptography: five certificates, four signatures, ECDSA P-384"
EVIDENCE = "dcap-qvl: QuoteCollateralV3.from_json, QuoteVerifier.verify_with_policy"


def certificate(*, server: bool) -> AttestedContext:
    """Return a fresh TLS context. Our functions for it are nothing but library calls."""
    return make_context(*make_certificate(now=int(time.time()), lifetime=3600), server=server)


def verify_bare(evidence: Evidence, anchor: TrustAnchor) -> Callable[[], object]:
    """Return the bare verification of one quote with its collateral."""
    raw, collateral = unb64(evidence.quote), unb64(evidence.collateral or "").decode()
    root, now = anchor.root_der, int(time.time())

    def floor() -> object:
        parsed = QuoteCollateralV3.from_json(collateral)
        return QuoteVerifier(root).verify_with_policy(
            raw, parsed, now, QuotePolicy.claims_only(now)
        )

    return floor


def report_bare(evidence: Evidence, anchor: TrustAnchor) -> Callable[[], object]:
    """Return the bare verification of one SEV-SNP report with its chain."""
    raw = unb64(evidence.quote)
    members = msgspec.json.decode(unb64(evidence.collateral or ""), type=dict[str, str])
    ders = [bytes.fromhex(members["vcek"]), bytes.fromhex(members["ask"]), anchor.root_der]

    def floor() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # VCEKs are numbered zero
            return _signed(ders, raw[:672], raw[672 : 672 + 48][::-1], raw[744 : 744 + 48][::-1])

    return floor


def document_bare(evidence: Evidence) -> Callable[[], object]:
    """Return the bare verification of one Nitro document."""
    raw = unb64(evidence.quote)

    def floor() -> object:
        protected, _, payload, signature = cbor2.loads(raw).value
        fields = cbor2.loads(payload)
        ders = [fields["certificate"], *fields["cabundle"][::-1]]
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        return _signed(ders, signed, signature[:48], signature[48:])

    return floor


def _signed(ders: list[bytes], signed: bytes, r: bytes, s: bytes) -> object:
    chain = [x509.load_der_x509_certificate(der) for der in ders]
    for child, issuer in itertools.pairwise(chain):
        child.verify_directly_issued_by(issuer)
    numbers = int.from_bytes(r, "big"), int.from_bytes(s, "big")
    return (
        chain[0]
        .public_key()
        .verify(utils.encode_dss_signature(*numbers), signed, ec.ECDSA(hashes.SHA384()))
    )


@dataclass
class Handshake:
    """Both ends of one attested connection, in memory."""

    workload: Tee
    vault: Tee
    anchor: TrustAnchor

    def __post_init__(self) -> None:
        """Make what is made once and used for many connections."""
        self.contexts = certificate(server=False), certificate(server=True)
        self.key = Ed25519PrivateKey.generate()

    def __call__(self) -> Ends:
        """Connect, prove and verify at both ends."""
        ends = client, server = tls_handshake(*self.contexts)
        for end in ends:
            if (cert := end.get_peer_certificate()) is None:
                raise RuntimeError("no certificate came")
            der = crypto.dump_certificate(crypto.FILETYPE_ASN1, cert)
            parsed = x509.load_der_x509_certificate(der)
            parsed.verify_directly_issued_by(parsed)
            for _ in range(3):
                end.export_keying_material(EXPORTER_LABEL, 32, b"c" * 32)
        for tee, source, target in ((self.vault, server, client), (self.workload, client, server)):
            proof = tee.quoter(tee.bundle.measurement, bytes(64))
            frame = carry(source, target, msgspec.json.encode(proof, order="sorted"))
            came = msgspec.json.decode(frame, type=Evidence)
            verify_bare(came, self.anchor)()
        signature = self.key.sign(bytes(64))
        self.key.public_key().verify(signature, bytes(64))
        return ends


@dataclass
class Release:
    """One release over a connection in memory, down to the disk.

    Args:
        ends: Of a TLS connection.
        path: A database of our own, on the disk of the vaults' stores.
        request: The bodies as they really are on the wire: this one is asked,
        answer: and this one answered.
    """

    ends: Ends
    path: Path
    request: bytes
    answer: bytes

    def __post_init__(self) -> None:
        """Make a store like a vault's, with one key's trail in it."""
        self.key, self.aead = Ed25519PrivateKey.generate(), AESGCM(os.urandom(32))
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.executescript(OPENING)
        self.db.executescript(TABLES)
        for tag in (b"state", b"trail"):
            row = (tag, "meta", 0, self._seal(300))
            self.db.execute("INSERT INTO records VALUES (?, ?, ?, ?)", row)
        self.number = 0
        self._append()

    def __call__(self) -> None:
        """Ask, decide nothing, log, answer."""
        client, server = self.ends
        head = b"POST / HTTP/1.1\r\nhost: v\r\ncontent-length: %d\r\n\r\n" % len(self.request)
        httptools.HttpRequestParser(object()).feed_data(carry(client, server, head + self.request))
        msgspec.json.decode(self.request)
        receipt = self._log()
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(self.answer)
        body = msgspec.json.encode(msgspec.json.decode(self.answer), order="sorted")
        httptools.HttpResponseParser(object()).feed_data(carry(server, client, head + body))
        msgspec.json.encode(msgspec.json.decode(body), order="sorted")
        self.key.public_key().verify(self.key.sign(receipt), receipt)

    def _log(self) -> bytes:
        for query in (RECORD, LAST_ENTRY):
            ((blob,),) = self.db.execute(query, (b"trail",)).fetchall()
            self.aead.decrypt(blob[:12], blob[12:], b"place")
        for _ in range(6):
            hashlib.sha256(bytes(600)).digest()
        for _ in range(7):
            hmac.digest(b"k" * 32, b"name", "sha256")
        self.db.execute("BEGIN IMMEDIATE")
        for tag in (b"state", b"trail"):
            self.db.execute(
                "UPDATE records SET version = version + 1, sealed = ?2 WHERE tag = ?1",
                (tag, self._seal(300)),
            )
        self._append()
        self.db.execute("COMMIT")
        return msgspec.json.encode({"receipt": "x" * 600}, order="sorted")

    def _append(self) -> None:
        self.number += 1
        row = (self.number, b"trail", self.number, bytes(64), self._seal(600))
        self.db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)

    def _seal(self, size: int) -> bytes:
        nonce = os.urandom(12)
        return nonce + self.aead.encrypt(nonce, bytes(size), b"place")


@dataclass
class Sharing:
    """Sharing with library calls only, 3 of 5; the numbers that come out mean nothing."""

    secret: bytes
    manifest: bytes

    def __post_init__(self) -> None:
        """Make multiplication tables, as secret-indexed code would."""
        self.rows = [bytes(c * v & 0xFF for v in range(256)) for c in range(16)]
        self.shares = [os.urandom(len(self.secret)) for _ in range(3)]

    def deal(self) -> None:
        """Make five shares, commit to them, and check the manifest's form."""
        size = len(self.secret)
        high, middle = os.urandom(size), os.urandom(size)
        for x in range(1, 6):
            total = self._sum(((1, self.secret), (x, middle), (x * x % 16, high)))
            os.urandom(16)
            hashlib.sha256(base64.urlsafe_b64encode(total)).digest()
        hmac.digest(self.secret, self.manifest, "sha256")
        msgspec.json.encode(msgspec.json.decode(self.manifest), order="sorted")

    def combine(self) -> None:
        """Check three shares and put the secret together."""
        for share in self.shares:
            hashlib.sha256(base64.urlsafe_b64encode(share)).digest()
        total = self._sum(zip((3, 5, 7), self.shares, strict=True))
        hmac.digest(total, self.manifest, "sha256")

    def _sum(self, terms: Iterable[tuple[int, bytes]]) -> bytes:
        total = 0
        for constant, vector in terms:
            total ^= int.from_bytes(vector.translate(self.rows[constant]), "little")
        return total.to_bytes(len(self.secret), "little")


def tls_handshake(client: SSL.Context, server: SSL.Context) -> Ends:
    """Return both ends of a TLS connection in memory."""
    ends = SSL.Connection(client), SSL.Connection(server)
    ends[0].set_connect_state()
    ends[1].set_accept_state()
    for source, target in (ends, ends[::-1], ends):
        with contextlib.suppress(SSL.WantReadError):
            source.do_handshake()
        target.bio_write(source.bio_read(2**17))
    ends[1].do_handshake()
    return ends


def carry(source: SSL.Connection, target: SSL.Connection, data: bytes) -> bytes:
    """Return the data as it comes out at the other end."""
    source.sendall(data)
    target.bio_write(source.bio_read(2**20))
    received = bytearray()
    while len(received) < len(data):
        received += target.recv(2**16)
    return bytes(received)
