"""The peer's certificate has one shape, and everything else is refused quickly (R1.7)."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from placet.errors import EvidenceError, MalformedError, PlacetError, TooLargeError
from placet.ratls.certificate import (
    ALLOWED,
    EVIDENCE,
    MAX_CERTIFICATE,
    make_certificate,
    parse_certificate,
    spki_digest,
)

NOW = 1_800_000_000
BASIC = (x509.BasicConstraints(ca=False, path_length=None), True)
BOTH = ALLOWED | {EVIDENCE}
ENCODED = make_certificate(now=NOW, lifetime=3600)[1].public_bytes(serialization.Encoding.DER)


def quote(size, oid=EVIDENCE):
    """Return an extension that carries some bytes."""
    return x509.UnrecognizedExtension(oid, b"q" * size), False


def test_our_own_certificate_is_taken():
    """What make_certificate writes, parse_certificate reads; the digest is of the SPKI."""
    key, cert = make_certificate(now=NOW, lifetime=3600)
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    parsed = parse_certificate(cert.public_bytes(serialization.Encoding.DER))

    assert (parsed.spki_der, parsed.spki_digest) == (spki, spki_digest(spki))
    assert int(cert.not_valid_before_utc.timestamp()) == NOW - 300
    assert int(cert.not_valid_after_utc.timestamp()) == NOW + 3600
    assert cert.subject == cert.issuer
    assert [e.critical for e in cert.extensions] == [True]


def test_evidence_is_taken_where_it_is_allowed_only(ends):
    """The seam for evidence in the certificate: one more allowed extension."""
    cert = ends.der(ends.certificate(ends.p256, extensions=(BASIC, quote(5000))))

    assert parse_certificate(cert, allowed=BOTH).der == cert
    with pytest.raises(EvidenceError, match=r"unknown extension 2\.23\.133\.5\.4\.9"):
        parse_certificate(cert)


def twice(ends):
    """Return a certificate with two pieces of evidence, which no builder makes."""
    second = x509.ObjectIdentifier("2.23.133.5.4.10")
    cert = ends.certificate(ends.p256, extensions=(BASIC, quote(20), quote(20, second)))
    old, new = (bytes.fromhex("06066781050504" + last) for last in ("0a", "09"))
    assert old in ends.der(cert)
    return ends.der(cert).replace(old, new)


def corrupted(ends):
    """Return a certificate with one bit of its own signature flipped."""
    raw = bytearray(ends.der(ends.certificate(ends.p256)))
    raw[-1] ^= 1
    return bytes(raw)


def other(ends, key, **changes):
    """Return a certificate of another kind of key."""
    return ends.der(ends.certificate(key, **changes))


def of(**changes):
    """Return a row: our certificate, but for the changes."""
    return lambda ends: other(ends, ends.p256, **changes)


def off_curve(raw):
    """Flip a bit of the public point."""
    at = raw.index(bytes.fromhex("03420004")) + 20
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def sequence(body):
    """Return the DER of a sequence of 128 to 65535 bytes."""
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return b"\x30" + bytes([0x80 | len(size)]) + size + body


def with_spki(ends, change):
    """Return a well signed certificate whose SubjectPublicKeyInfo was changed."""
    spki = ends.p256.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    tbs = ends.certificate(ends.p256).tbs_certificate_bytes
    tbs = sequence(tbs[tbs.index(b"\xa0\x03\x02\x01\x02") :].replace(spki, change(spki)))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    signature = ends.p256.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return sequence(tbs + algorithm + b"\x03" + bytes([len(signature) + 1, 0]) + signature)


def compressed(ends):
    """Return a certificate whose key is the same point in its short form: good, but for us."""
    point = ends.p256.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    made = with_spki(ends, lambda spki: b"\x30\x39" + spki[2:23] + b"\x03\x22\0" + point)
    again = x509.load_der_x509_certificate(made)
    again.verify_directly_issued_by(again)
    return made


def padded(ends):
    """Return a certificate whose SubjectPublicKeyInfo goes on after the point."""
    return with_spki(ends, lambda spki: sequence(spki[2:] + bytes(256)))


P521 = ec.generate_private_key(ec.SECP521R1())
RSA = rsa.generate_private_key(65537, 2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
STRANGER = ec.generate_private_key(ec.SECP256R1())
NAMES = x509.SubjectAlternativeName([x509.DNSName(f"a{i}.x") for i in range(6500)])
MANY = [quote(1, x509.ObjectIdentifier(f"1.3.6.1.4.1.58270.1.{i}")) for i in range(2500)]
A_CA = x509.BasicConstraints(ca=True, path_length=None)
LONG = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "n" * 60)] * 40)
UNKNOWN = x509.ObjectIdentifier("1.3.6.1.4.1.58270.1.1")


def patched(old, new):
    """Return a row: bytes replaced in our certificate, so that its signature fails too."""

    def build(ends):
        raw = of()(ends)
        assert raw.count(bytes.fromhex(old)) == 1
        return raw.replace(bytes.fromhex(old), bytes.fromhex(new))

    return build


# Each with the reason that must be given: a later check would refuse most of them as well.
HOSTILE = {
    "empty": (MalformedError, "parse", lambda _: b""),
    "not DER": (MalformedError, "parse", lambda _: b"\x30" * 600),
    "trailing byte": (MalformedError, "ExtraData", lambda ends: of()(ends) + b"\0"),
    "cut": (MalformedError, "parse", lambda ends: of()(ends)[:-1]),
    "version 2": (MalformedError, "version 2", patched("a003020102", "a003020101")),
    "serial 0": (MalformedError, "serial", patched("020102020107", "020102020100")),
    "no extension at all": (MalformedError, "parse", of(extensions=())),
    "extension twice": (EvidenceError, "twice", twice),
    "unknown extension": (
        EvidenceError,
        "unknown extension 1.3.6",
        of(extensions=(BASIC, quote(9, UNKNOWN))),
    ),
    "64 KiB of names": (EvidenceError, "unknown", of(extensions=(BASIC, (NAMES, False)))),
    "2500 extensions": (MalformedError, "size 2501", of(extensions=[BASIC, *MANY])),
    "a CA": (EvidenceError, "no CA", of(extensions=((A_CA, True),))),
    "not critical": (EvidenceError, "critically", of(extensions=((BASIC[0], False),))),
    "no basic constraints": (EvidenceError, "no CA", of(extensions=(quote(9),))),
    "over the limit": (TooLargeError, "at most", of(extensions=(BASIC, quote(MAX_CERTIFICATE)))),
    "issuer is another": (EvidenceError, "differ", of(issuer="ca", signer=STRANGER)),
    "2 KiB of subject": (EvidenceError, "1 KiB", of(subject=LONG)),
    "signed by another key": (EvidenceError, "own key", of(signer=STRANGER)),
    "signature corrupted": (EvidenceError, "own key", corrupted),
    "SHA-384": (EvidenceError, "SHA-256", of(digest=hashes.SHA384())),
    "RSA key": (MalformedError, "parse", lambda ends: other(ends, RSA)),
    "RSA key, ours signs": (EvidenceError, "P-256", lambda ends: other(ends, RSA, signer=STRANGER)),
    "Ed25519 key": (EvidenceError, "SHA-256", lambda ends: other(ends, ED25519, digest=None)),
    "P-521 key": (EvidenceError, "P-256", lambda ends: other(ends, P521)),
    "another curve": (
        EvidenceError,
        "P-256",
        patched("2a8648ce3d030107034200", "2a8648ce3d030106034200"),
    ),
    "point off the curve": (EvidenceError, "own key", lambda ends: off_curve(of()(ends))),
    "compressed point": (EvidenceError, "uncompressed", compressed),
    "more than a point": (EvidenceError, "uncompressed", padded),
}


@pytest.mark.req("R1.7")
@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_certificates_are_refused_within_5_ms(ends, attack):
    """Each row raises its class, and the fastest of three tries takes under 5 ms."""
    expect, reason, build = HOSTILE[attack]
    raw = build(ends)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with pytest.raises(expect, match=reason):
            parse_certificate(raw, allowed=BOTH)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005


@pytest.mark.req("R1.7")
@pytest.mark.parametrize("attack", sorted(HOSTILE))
def test_no_signature_is_verified_before_the_cheap_checks_pass(ends, attack, monkeypatch):
    """Only certificates of the right shape reach cryptography's parser and verifier."""
    called, raw = [], HOSTILE[attack][2](ends)
    load = x509.load_der_x509_certificate
    monkeypatch.setattr(x509, "load_der_x509_certificate", lambda d: called.append(1) or load(d))
    with pytest.raises(PlacetError):
        parse_certificate(raw)
    wrong_signature = {"signed by another key", "signature corrupted", "point off the curve"}
    assert bool(called) == (attack in wrong_signature)


@pytest.mark.req("R1.7")
@given(st.binary(max_size=2000))
def test_noise_raises_our_errors_only(noise):
    """Whatever the bytes, nothing but a PlacetError leaves."""
    with pytest.raises(PlacetError):
        parse_certificate(noise)


@pytest.mark.req("R1.7")
@given(st.data())
def test_a_changed_certificate_is_refused_by_our_errors_only(data):
    """Up to three changed, inserted or dropped bytes: refused, and by a PlacetError."""
    raw = bytearray(ENCODED)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["change", "insert", "drop"])):
            case "change":
                raw[at] = data.draw(st.integers(0, 255))
            case "insert":
                raw.insert(at, data.draw(st.integers(0, 255)))
            case "drop":
                del raw[at]
    if raw == ENCODED:
        return
    with pytest.raises(PlacetError):
        parse_certificate(bytes(raw))
