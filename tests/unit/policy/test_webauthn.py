"""Passkey assertions: the honest ones, every forged part, and another implementation's view."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from placet_testing.passkey import (
    AT,
    BE,
    BS,
    ED,
    ORIGIN,
    RP_ID,
    UP,
    UV,
    SoftwarePasskey,
    authenticator_data,
    client_data,
)
from webauthn import verify_authentication_response

from placet.core.encoding import b64, unb64
from placet.core.limits import MAX_CLIENT_DATA
from placet.core.signer import PasskeySignature, PasskeySigner
from placet.errors import ApprovalError, MalformedError, TooLargeError
from placet.policy.webauthn import parse_cose_key, verify_assertion

CHALLENGE = bytes(range(32))
OTHER = bytes(reversed(range(32)))
KEYS = [SoftwarePasskey(name="owner"), SoftwarePasskey(name="token", algorithm="eddsa")]
SECOND = SoftwarePasskey(name="owner's second")


def accepted_by_the_library(
    signer: PasskeySigner, signature: PasskeySignature, challenge: bytes
) -> None:
    """Ask the independent implementation; it raises when it refuses."""
    credential: dict[str, Any] = {
        "id": signer.credential_id,
        "rawId": signer.credential_id,
        "type": "public-key",
        "response": {
            "clientDataJSON": signature.client_data,
            "authenticatorData": signature.authenticator_data,
            "signature": signature.signature,
        },
    }
    verify_authentication_response(
        credential=credential,
        expected_challenge=challenge,
        expected_rp_id=signer.rp_id,
        expected_origin=list(signer.origins),
        credential_public_key=unb64(signer.public_key),
        credential_current_sign_count=0,
        require_user_verification=True,
    )


HONEST: dict[str, dict[str, bytes]] = {
    "plain": {},
    "backed up passkey": {"authenticator": authenticator_data(flags=UP | UV | BE | BS)},
    "may be backed up, is not": {"authenticator": authenticator_data(flags=UP | UV | BE)},
    "a counter that never counts": {"authenticator": authenticator_data(count=0)},
    "a member that a browser added": {
        "client": client_data(
            CHALLENGE, other_keys_can_be_added_here="do not compare clientDataJSON to a template"
        )
    },
    "members in another order, with spaces": {
        "client": json.dumps(
            dict(reversed(json.loads(client_data(CHALLENGE)).items())), indent=1
        ).encode()
    },
    "exactly as long as allowed": {
        "client": client_data(
            CHALLENGE, pad="x" * (MAX_CLIENT_DATA - len(client_data(CHALLENGE, pad="")))
        )
    },
}


@pytest.mark.parametrize("key", KEYS, ids=lambda k: k.algorithm)
@pytest.mark.parametrize("parts", HONEST.values(), ids=HONEST.keys())
def test_honest_assertion_holds_here_and_in_the_library(key, parts):
    """What a real client may send is taken, and the webauthn library agrees."""
    signature = key.assertion(CHALLENGE, **parts)
    verify_assertion(key.signer, signature, CHALLENGE)
    accepted_by_the_library(key.signer, signature, CHALLENGE)


def test_any_of_several_origins_holds():
    """A passkey may name several exact origins."""
    origins = (ORIGIN, "https://other.approve.example")
    key = SoftwarePasskey(name="owner", origins=origins)
    for origin in origins:
        client = client_data(CHALLENGE, origin=origin)
        verify_assertion(key.signer, key.assertion(CHALLENGE, client=client), CHALLENGE)


def member(**changes: object) -> dict[str, bytes]:
    """Return the attack that signs client data with other members."""
    return {"client": client_data(CHALLENGE, **changes)}


def text(raw: str | bytes) -> dict[str, bytes]:
    """Return the attack that signs this very client data."""
    return {"client": raw.encode() if isinstance(raw, str) else raw}


def device(**changes: Any) -> dict[str, bytes]:
    """Return the attack in which the authenticator says something else."""
    return {"authenticator": authenticator_data(**changes)}


GOOD = client_data(CHALLENGE)
ATTACKS: dict[str, tuple[dict[str, bytes], type[Exception]]] = {
    # what was asked for
    "another challenge": (text(client_data(OTHER)), ApprovalError),
    "the challenge cut short": (text(client_data(CHALLENGE[:31])), ApprovalError),
    "the challenge with a byte more": (text(client_data(CHALLENGE + b"\0")), ApprovalError),
    "the challenge padded": (member(challenge=b64(CHALLENGE) + "="), ApprovalError),
    "the challenge with stray bits": (member(challenge=b64(CHALLENGE)[:-1] + "9"), ApprovalError),
    "the challenge in hex": (member(challenge=CHALLENGE.hex()), ApprovalError),
    "an empty challenge": (member(challenge=""), ApprovalError),
    "no challenge": (member(challenge=None), ApprovalError),
    "a challenge that is a number": (member(challenge=1), ApprovalError),
    "type of a registration": (member(type="webauthn.create"), ApprovalError),
    "type of a payment": (member(type="payment.get"), ApprovalError),
    "type in capitals": (member(type="WebAuthn.Get"), ApprovalError),
    "no type": (member(type=None), ApprovalError),
    # where it was asked
    "another origin": (member(origin="https://evil.example"), ApprovalError),
    "origin without TLS": (member(origin="http://approve.example"), ApprovalError),
    "origin with a slash": (member(origin=ORIGIN + "/"), ApprovalError),
    "origin with a port": (member(origin=ORIGIN + ":8443"), ApprovalError),
    "origin in capitals": (member(origin=ORIGIN.upper()), ApprovalError),
    "origin under ours": (member(origin="https://x.approve.example"), ApprovalError),
    "origin that ours begins": (member(origin=ORIGIN + ".evil.example"), ApprovalError),
    "origin in look-alike letters": (member(origin=ORIGIN.replace("a", "а")), ApprovalError),  # noqa: RUF001
    "no origin": (member(origin=None), ApprovalError),
    "a frame of another origin": (member(crossOrigin=True), ApprovalError),
    "crossOrigin left out": (member(crossOrigin=None), ApprovalError),
    "crossOrigin as a word": (member(crossOrigin="false"), ApprovalError),
    "crossOrigin as zero": (member(crossOrigin=0), ApprovalError),
    "a top origin": (member(topOrigin=ORIGIN), ApprovalError),
    # how it was written
    "client data cut short": (text(GOOD[:-1]), MalformedError),
    "client data of nothing": (text(b""), MalformedError),
    "bytes after client data": (text(GOOD + b"}"), MalformedError),
    "client data twice": (text(GOOD + GOOD), MalformedError),
    "client data is an array": (text(b"[" + GOOD + b"]"), MalformedError),
    "client data is a string": (text(b'"webauthn.get"'), MalformedError),
    "client data is null": (text(b"null"), MalformedError),
    "challenge twice": (
        text(GOOD.replace(b"{", b'{"challenge":"%b",' % b64(OTHER).encode())),
        MalformedError,
    ),
    "challenge twice, the same": (
        text(GOOD.replace(b"{", b'{"challenge":"%b",' % b64(CHALLENGE).encode())),
        MalformedError,
    ),
    "challenge twice, once escaped": (
        text(GOOD.replace(b"{", b'{"\\u0063hallenge":"x",')),
        MalformedError,
    ),
    "origin twice": (
        text(GOOD.replace(b"{", b'{"origin":"https://evil.example",')),
        MalformedError,
    ),
    "type twice": (text(GOOD.replace(b"{", b'{"type":"webauthn.create",')), MalformedError),
    "crossOrigin twice": (text(GOOD.replace(b"}", b',"crossOrigin":false}')), MalformedError),
    "an unknown member twice": (text(GOOD.replace(b"{", b'{"a":1,"a":1,')), MalformedError),
    "an object inside": (member(payment={"total": "1"}), MalformedError),
    "members inside a member": (member(inner=json.loads(GOOD)), MalformedError),
    "an array inside": (member(more=[1]), MalformedError),
    "NaN": (text(GOOD.replace(b"}", b',"a":NaN}')), MalformedError),
    "Infinity": (text(GOOD.replace(b"}", b',"a":-Infinity}')), MalformedError),
    "a byte order mark": (text(b"\xef\xbb\xbf" + GOOD), MalformedError),
    "UTF-16": (text(GOOD.decode().encode("utf-16")), MalformedError),
    "no UTF-8": (text(GOOD.replace(b"}", b',"a":"\xff"}')), MalformedError),
    "a comment": (text(b"/**/" + GOOD), MalformedError),
    "single quotes": (text(GOOD.replace(b'"', b"'")), MalformedError),
    "a trailing comma": (text(GOOD.replace(b"}", b",}")), MalformedError),
    "nested to the limit": (text(b"[" * MAX_CLIENT_DATA), MalformedError),
    "one byte too long": (
        member(pad="x" * (MAX_CLIENT_DATA + 1 - len(client_data(CHALLENGE, pad="")))),
        TooLargeError,
    ),
    # what the authenticator says
    "another relying party": (device(rp_id="evil.example"), ApprovalError),
    "relying party under ours": (device(rp_id="x." + RP_ID), ApprovalError),
    "nobody there": (device(flags=UV), ApprovalError),
    "user not verified": (device(flags=UP), ApprovalError),
    "no flag at all": (device(flags=0), ApprovalError),
    "backed up and may not be": (device(flags=UP | UV | BS), ApprovalError),
    "credential data announced": (device(flags=UP | UV | AT), ApprovalError),
    "credential data there": (device(flags=UP | UV | AT, extra=bytes(50)), ApprovalError),
    "extensions announced": (device(flags=UP | UV | ED), ApprovalError),
    "extensions there": (device(flags=UP | UV | ED, extra=b"\xa0"), ApprovalError),
    "a reserved flag": (device(flags=UP | UV | 0x02), ApprovalError),
    "the other reserved flag": (device(flags=UP | UV | 0x20), ApprovalError),
    "bytes after authenticator data": (device(extra=b"\0"), ApprovalError),
    "authenticator data cut short": ({"authenticator": authenticator_data()[:-1]}, MalformedError),
    "authenticator data of nothing": ({"authenticator": b""}, MalformedError),
}


@pytest.mark.req("R5.2")
@pytest.mark.parametrize("key", KEYS, ids=lambda k: k.algorithm)
@pytest.mark.parametrize(("parts", "error"), ATTACKS.values(), ids=ATTACKS.keys())
def test_forged_assertion_is_refused(key, parts, error):
    """The authenticator signed it, so the signature holds; one part says something else."""
    signature = key.assertion(CHALLENGE, **parts)
    with pytest.raises(error) as refusal:
        verify_assertion(key.signer, signature, CHALLENGE)
    # Not merely an error further down: the one meant, or a class under it.
    assert type(refusal.value) is error


SWAPS = {
    "another credential's signature": {"signature": SECOND.assertion(CHALLENGE).signature},
    "a signature of nothing": {"signature": ""},
    "client data changed after signing": {"client_data": b64(client_data(CHALLENGE, a=1))},
    "authenticator data changed after signing": {
        "authenticator_data": b64(authenticator_data(count=8))
    },
    "the signature padded": {"signature": b64(b"\0" * 72)},
}


@pytest.mark.req("R5.2")
@pytest.mark.parametrize("key", KEYS, ids=lambda k: k.algorithm)
@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS.keys())
def test_parts_that_were_not_signed_together_are_refused(key, swap):
    """Every part says the right thing, and the signature is not over these parts."""
    signature = msgspec.structs.replace(key.assertion(CHALLENGE), **swap)
    with pytest.raises(ApprovalError, match="does not hold"):
        verify_assertion(key.signer, signature, CHALLENGE)


@pytest.mark.parametrize("field", ["client_data", "authenticator_data", "signature"])
def test_base64_of_another_spelling_is_refused(field):
    """Every part has one spelling: padding and stray bits are refused."""
    honest = KEYS[0].assertion(CHALLENGE)
    broken = msgspec.structs.replace(honest, **{field: getattr(honest, field) + "="})
    with pytest.raises(MalformedError):
        verify_assertion(KEYS[0].signer, broken, CHALLENGE)


def test_trailing_bytes_in_an_ecdsa_signature_are_refused():
    """DER says where it ends; what follows is no part of it."""
    honest = KEYS[0].assertion(CHALLENGE)
    broken = msgspec.structs.replace(honest, signature=b64(unb64(honest.signature) + b"\0"))
    with pytest.raises(ApprovalError):
        verify_assertion(KEYS[0].signer, broken, CHALLENGE)


def test_another_form_of_the_same_ecdsa_signature_changes_nothing():
    """ECDSA has two forms of a signature; neither is part of any digest, so both hold."""
    honest = KEYS[0].assertion(CHALLENGE)
    r, s = decode_dss_signature(unb64(honest.signature))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = msgspec.structs.replace(honest, signature=b64(encode_dss_signature(r, order - s)))
    verify_assertion(KEYS[0].signer, other, CHALLENGE)


@pytest.mark.parametrize("key", KEYS, ids=lambda k: k.algorithm)
def test_cose_key_gives_algorithm_and_point(key):
    """The two shapes are read to the keys that wrote them."""
    algorithm, raw = parse_cose_key(key.cose)
    if algorithm == "p256":
        numbers = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
        assert numbers.public_numbers() == key.private.public_key().public_numbers()
    else:
        assert raw == key.private.public_key().public_bytes_raw()


ES256, EDDSA = (key.cose for key in KEYS)
BAD_COSE = {
    "empty": b"",
    "cut short": ES256[:-1],
    "a byte more": ES256 + b"\0",
    "EdDSA cut short": EDDSA[:-1],
    "EdDSA a byte more": EDDSA + b"\0",
    "algorithm of another": ES256.replace(bytes.fromhex("0326"), bytes.fromhex("0327"), 1),
    "curve P-384": ES256.replace(bytes.fromhex("2001"), bytes.fromhex("2002"), 1),
    "members in another order": bytes.fromhex("a5 0326 0102 2001 215820") + ES256[10:],
    "map of open length": b"\xbf" + ES256[1:] + b"\xff",
    "map length in two bytes": b"\xb8\x05" + ES256[1:],
    "length of x in three bytes": ES256[:8] + b"\x59\x00\x20" + ES256[10:],
    "RS256": bytes.fromhex("a4 0103 03390100 2141 01 2241 03"),
    "an Ed25519 key in a P-256 map": ES256[:42] + b"\x22\x58\x1f" + ES256[45:-1],
    "compressed point": ES256[:42] + b"\x22\xf5",
    "a member more": b"\xa6" + ES256[1:] + b"\x23\x00",
    "PEM": b"-----BEGIN PUBLIC KEY-----",
}


@pytest.mark.parametrize("raw", BAD_COSE.values(), ids=BAD_COSE.keys())
def test_cose_key_of_another_shape_is_refused(raw):
    """One key has one spelling, and two kinds of key exist."""
    with pytest.raises(MalformedError, match="COSE_Key"):
        parse_cose_key(raw)


def test_point_off_the_curve_verifies_nothing():
    """Such a key is refused when a policy is taken; here it merely verifies nothing."""
    signer = msgspec.structs.replace(KEYS[0].signer, public_key=b64(ES256[:-1] + b"\0"))
    with pytest.raises(ApprovalError):
        verify_assertion(signer, KEYS[0].assertion(CHALLENGE), CHALLENGE)
