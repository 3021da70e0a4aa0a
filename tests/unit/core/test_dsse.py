"""DSSE: the specification's own vector, another implementation, and what vaults sign with it."""

from __future__ import annotations

import base64

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope

from placet.core.dsse import Signed, open_signed, pae, sign_record, vault_id, verify_signature
from placet.core.encoding import Int, Record, b64, unb64
from placet.errors import MalformedError, VerificationError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
P256 = ec.derive_private_key(2**200 + 7, ec.SECP256R1())
SPEC_X = 46950820868899156662930047687818585632848591499744589407958293238635476079160
SPEC_Y = 5640078356564379163099075877009565129882514886557779369047442380624545832820
SPEC_SIGNATURE = (
    "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
)
RAW = KEY.public_key().public_bytes_raw()


def test_specification_vector():
    """The example of secure-systems-lab/dsse, protocol.md, section "Test Vectors"."""
    message = pae("http://example.com/HelloWorld", b"hello world")
    assert message == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    public = b"\4" + SPEC_X.to_bytes(32, "big") + SPEC_Y.to_bytes(32, "big")
    # The example has r and s bare; ours are DER, as smart cards and browsers make them.
    raw = base64.b64decode(SPEC_SIGNATURE)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    verify_signature("p256", public, encode_dss_signature(r, s), message)


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the uncompressed point of a key."""
    return key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


@given(st.text(st.characters(exclude_categories=("Cs",))), st.binary())
def test_same_bytes_as_another_implementation(kind, payload):
    """Types and payloads of any content and length, the empty ones too."""
    assert pae(kind, payload) == Envelope(payload, kind, {}).pae()


@given(st.text("ab 1", max_size=6), st.binary(max_size=6), st.text("ab 1", max_size=6), st.binary())
def test_no_two_contents_share_an_encoding(kind, payload, other_kind, other_payload):
    """The lengths keep type and payload apart."""
    same = (kind, payload) == (other_kind, other_payload)
    assert (pae(kind, payload) == pae(other_kind, other_payload)) == same


def test_signature_of_each_algorithm():
    """Ed25519 raw, ECDSA with SHA-256 in DER."""
    verify_signature("ed25519", RAW, KEY.sign(b"m"), b"m")
    verify_signature("p256", point(P256), P256.sign(b"m", ec.ECDSA(hashes.SHA256())), b"m")


P256_SIGNATURE = P256.sign(b"m", ec.ECDSA(hashes.SHA256()))
BAD = {
    "another message": ("ed25519", RAW, KEY.sign(b"m"), b"n"),
    "another key": ("ed25519", RAW, OTHER.sign(b"m"), b"m"),
    "a byte less": ("ed25519", RAW, KEY.sign(b"m")[:-1], b"m"),
    "a byte more": ("ed25519", RAW, KEY.sign(b"m") + b"\0", b"m"),
    "S not reduced (RFC 8032, 5.1.7)": (
        "ed25519",
        RAW,
        KEY.sign(b"m")[:32]
        + (
            int.from_bytes(KEY.sign(b"m")[32:], "little")
            + 2**252
            + 27742317777372353535851937790883648493
        ).to_bytes(32, "little"),
        b"m",
    ),
    "no key": ("ed25519", b"", KEY.sign(b"m"), b"m"),
    "p256: another message": ("p256", point(P256), P256_SIGNATURE, b"n"),
    "p256: another hash": ("p256", point(P256), P256.sign(b"m", ec.ECDSA(hashes.SHA384())), b"m"),
    "p256: not DER": ("p256", point(P256), bytes(64), b"m"),
    "p256: r and s zero": ("p256", point(P256), bytes.fromhex("3006020100020100"), b"m"),
    "p256: a byte more": ("p256", point(P256), P256_SIGNATURE + b"\0", b"m"),
    "p256: a key of the other kind": ("p256", RAW, P256_SIGNATURE, b"m"),
    "p256: no point": ("p256", b"\4" + bytes(64), P256_SIGNATURE, b"m"),
}


@pytest.mark.parametrize(("algorithm", "key", "signature", "message"), BAD.values(), ids=BAD.keys())
def test_bad_signature_is_refused(algorithm, key, signature, message):
    """One error for whatever is wrong with signature or key."""
    with pytest.raises(VerificationError, match="does not hold"):
        verify_signature(algorithm, key, signature, message)


class Note(Record):
    """Something that a vault says."""

    n: Int


class Letter(Record):
    """The same fields under another name."""

    n: Int


SIGNED = sign_record(Note(n=1), KEY)
VAULT = vault_id(RAW)


def test_vault_signs_and_is_read():
    """A record by the vault that it is expected of."""
    assert open_signed(SIGNED, Note, vault=VAULT) == Note(n=1)


def _with(**changes: str) -> Signed:
    return msgspec.structs.replace(SIGNED, **changes)


FORGED = {
    "another vault is expected": (SIGNED, Note, vault_id(OTHER.public_key().public_bytes_raw())),
    "another record type": (SIGNED, Letter, VAULT),
    "another content": (_with(payload=b64(b'{"n":2}')), Note, VAULT),
    "another vault's signature": (
        _with(signature=sign_record(Note(n=1), OTHER).signature),
        Note,
        VAULT,
    ),
    "another vault's key": (sign_record(Note(n=1), OTHER), Note, VAULT),
    "no signature": (_with(signature=""), Note, VAULT),
    "signed without its type": (_with(signature=b64(KEY.sign(b'{"n":1}'))), Note, VAULT),
}


@pytest.mark.parametrize(("signed", "shape", "vault"), FORGED.values(), ids=FORGED.keys())
def test_forged_record_is_refused(signed, shape, vault):
    """Key, type, content and signature belong together."""
    with pytest.raises(VerificationError):
        open_signed(signed, shape, vault=vault)


def test_signed_bytes_must_be_canonical():
    """A vault's signature does not excuse another spelling."""
    payload = b'{"n": 1}'
    signature = KEY.sign(pae("application/vnd.placet.note.v1+json", payload))
    with pytest.raises(MalformedError):
        open_signed(_with(payload=b64(payload), signature=b64(signature)), Note, vault=VAULT)


def test_vault_id_is_of_the_raw_key():
    """The fingerprint covers the key and a label of its own."""
    assert unb64(SIGNED.vault_key) == RAW
    assert vault_id(RAW[:-1]) != VAULT
