"""Certificates of AMD and AWS: loaded, issued by one another, valid at a time.

A chain whose signatures held is remembered by its bytes: they cannot change. What time
and revocation lists say is asked at every verification.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.x509.oid import NameOID

from placet.attest.verify.quote import refuse

UNREADABLE = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the x509 library raises for a certificate that is none, or another's."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the x509 library's warnings to itself: of a serial number, of a name's length."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# What bytes parse to never changes, and says nothing about trust.
@lru_cache(maxsize=64)
def load(der: bytes) -> x509.Certificate:
    """Return a certificate; nothing of it is checked.

    Raises:
        EvidenceError: ``check`` is ``chain``: it does not parse.
    """
    try:
        # AMD numbers every VCEK zero. The library says that it will stop reading such
        # ones; a test fails when it has (EVIDENCE 9.1).
        with quiet():
            cert = x509.load_der_x509_certificate(der)
    except UNREADABLE as e:
        refuse("chain", "a certificate does not parse", e)
    # The one byte beside the signature that nobody signed: how many bits of it are unused.
    if der[-len(cert.signature) - 1 :] != b"\0" + cert.signature:
        refuse("chain", "a certificate's signature is no whole number of bytes")
    return cert


def check_issued(chain: Sequence[x509.Certificate], root: x509.Certificate) -> None:
    """Check that each certificate was issued by the next one, and the last by the root.

    Dates are *not* checked (`check_dates`), nor revocation, of which only AMD has lists.

    Args:
        chain: Leaf first, root left out.
        root: The trust anchor's.

    Raises:
        EvidenceError: ``check`` is ``chain``: another issuer, a signature that does not
            hold, an issuer that is no CA or may not have so many below it, or a leaf that
            is a CA.
    """
    links = enumerate(zip(chain, [*chain[1:], root], strict=True))
    # From the root down: no key is used before it is known to be one of the chain's.
    for below, (child, issuer) in reversed(list(links)):
        try:
            with quiet():
                child.verify_directly_issued_by(issuer)
                authority = _authority(issuer)
                leaf_is_authority = below == 0 and _authority(child).ca
        except UNREADABLE as e:
            refuse("chain", f"certificate {below} was not issued by the next one", e)
        limit = authority.path_length
        if not authority.ca or (limit is not None and limit < below) or leaf_is_authority:
            refuse("chain", f"certificate {below + 1} may not issue certificate {below}")


def check_dates(certificates: Iterable[x509.Certificate], now: int) -> int:
    """Return when the first of these certificates ends, if all of them count now.

    Raises:
        EvidenceError: ``check`` is ``dates``.
    """
    ends = []
    for cert in certificates:
        begin, end = cert.not_valid_before_utc, cert.not_valid_after_utc
        if not begin.timestamp() <= now <= end.timestamp():
            refuse(
                "dates",
                f"a certificate counts from {begin:%Y-%m-%d %H:%M:%SZ} to {end:%Y-%m-%d %H:%M:%SZ}",
            )
        ends.append(int(end.timestamp()))
    return min(ends)


@lru_cache(maxsize=64)
def names(cert: x509.Certificate) -> tuple[bytes, bytes]:
    """Return subject and issuer as DER; neither says anything by itself.

    Raises:
        EvidenceError: ``check`` is ``chain``: one is damaged.
    """
    try:
        with quiet():
            return cert.subject.public_bytes(), cert.issuer.public_bytes()
    except UNREADABLE as e:
        refuse("chain", "a certificate's name does not parse", e)


def common_name(cert: x509.Certificate) -> str:
    """Return the one common name of a certificate's subject.

    Raises:
        EvidenceError: ``check`` is ``chain``: there is none, several, or one that is no text.
    """
    try:
        with quiet():
            (name,) = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except UNREADABLE as e:
        refuse("chain", "a certificate's subject has not exactly one common name", e)
    return str(name.value)


def p384_key(cert: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """Return the P-384 key of a certificate that signs evidence.

    Raises:
        EvidenceError: ``check`` is ``chain``: another kind of key.
    """
    try:
        key = cert.public_key()
    except UNREADABLE as e:
        refuse("chain", "a certificate's key does not parse", e)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        refuse("chain", "the key that signs is none on P-384")
    return key


def check_signature(key: ec.EllipticCurvePublicKey, r: int, s: int, signed: bytes) -> None:
    """Check ECDSA with SHA-384 over what evidence signs.

    Raises:
        EvidenceError: ``check`` is ``signature``.
    """
    try:
        key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(SHA384()))
    except InvalidSignature as e:
        refuse("signature", "evidence is not signed by its certificate's key", e)


def is_listed(crl: x509.CertificateRevocationList, cert: x509.Certificate) -> bool:
    """Say whether a revocation list names a certificate; the list is *not* verified.

    Every VCEK has the number zero, so that number names none of them.
    """
    number = cert.serial_number
    return number != 0 and crl.get_revoked_certificate_by_serial_number(number) is not None


def _authority(cert: x509.Certificate) -> x509.BasicConstraints:
    try:
        return cert.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return x509.BasicConstraints(ca=False, path_length=None)
