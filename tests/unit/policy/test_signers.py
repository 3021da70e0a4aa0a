"""Who signed: by key and by passkey, strangers, junk, and signatures over something else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from placet_testing.charters import birth_body, composer, person, profile, vault_set
from placet_testing.passkey import RP_ID, SoftwarePasskey, p256_key

from placet.client.signing import SigningKey
from placet.core.dsse import pae
from placet.core.encoding import b64, unb64
from placet.core.limits import MAX_SIGNERS
from placet.core.signer import KeySignature, KeySigner, PasskeySigner, signer_id
from placet.core.statement import STATEMENT_TYPE, Birth, UntrustedStatement, compose
from placet.errors import ApprovalError, MalformedError, TooLargeError
from placet.policy.signers import signer_key_check, verify_signatures

ED25519 = person("owner")
P256 = SigningKey.of("card", p256_key("card"))
PASSKEY = SoftwarePasskey(name="phone")
TOKEN = SoftwarePasskey(name="token", algorithm="eddsa")
EVERYONE = (ED25519, P256, PASSKEY, TOKEN)
SIGNERS = tuple(one.signer for one in EVERYONE)
BIRTH = composer().birth(birth_body())


def ids(*who) -> frozenset[str]:
    """Return the signer ids of these people."""
    return frozenset(signer_id(one.signer) for one in who)


def sealed(sent: UntrustedStatement, *who) -> UntrustedStatement:
    """Return the statement signed by these people."""
    for one in who:
        sent = one.sign(sent)
    return sent


@pytest.mark.parametrize("one", EVERYONE, ids=["ed25519", "p256", "es256", "eddsa"])
def test_each_kind_of_signer_signs(one):
    """A key and a passkey of each algorithm is recognised by its signature."""
    verified = verify_signatures(one.sign(BIRTH), SIGNERS)
    assert (verified.statement, verified.signers) == (BIRTH.digest, ids(one))
    assert verified.strangers == frozenset()


def test_everyone_counts_once_however_often_they_sign():
    """Two signatures of one signer are one signer."""
    verified = verify_signatures(sealed(BIRTH, *EVERYONE, ED25519, PASSKEY), SIGNERS)
    assert verified.signers == ids(*EVERYONE)


def test_strangers_are_passed_over_and_reported():
    """A stranger's signature neither counts nor hurts, whatever it holds."""
    junk = KeySignature(signer="sha256:" + "9" * 64, signature=b64(b"junk"))
    sent = sealed(BIRTH, person("platform"), ED25519)
    sent = compose(sent.statement, (*sent.signatures, junk))
    verified = verify_signatures(sent, SIGNERS)
    assert verified.signers == ids(ED25519)
    assert verified.strangers == ids(person("platform")) | {junk.signer}


@pytest.mark.parametrize(
    "sent", [BIRTH, person("platform").sign(BIRTH)], ids=["nobody", "strangers only"]
)
def test_nobody_known_signed(sent):
    """Silence is refusal."""
    with pytest.raises(ApprovalError, match="nobody who may"):
        verify_signatures(sent, SIGNERS)


def test_no_signers_at_all_is_a_refusal():
    """Without anybody who counts, nobody signed."""
    with pytest.raises(ApprovalError, match="nobody who may"):
        verify_signatures(ED25519.sign(BIRTH), ())


def test_too_many_signatures_are_refused_before_any_is_checked():
    """Length first: 64 signatures are verified, 65 are not."""
    most = compose(BIRTH.statement, ED25519.sign(BIRTH).signatures * MAX_SIGNERS)
    assert verify_signatures(most, SIGNERS).signers == ids(ED25519)
    signatures = ED25519.sign(BIRTH).signatures * (MAX_SIGNERS + 1)
    with pytest.raises(TooLargeError):
        verify_signatures(compose(BIRTH.statement, signatures), SIGNERS)


def replaced(**changes: object) -> UntrustedStatement:
    """Return the birth with other fields: another statement."""
    return compose(msgspec.structs.replace(BIRTH.statement, **changes))


def promote_like(**changes: object) -> UntrustedStatement:
    """Return a promote, for which an approval of another promote is tried."""
    from placet.core.body import PromoteBody
    from placet.core.statement import Promote

    fields = {
        "key": "sha256:" + "1" * 64,
        "prev": "sha256:" + "2" * 64,
        "base_version": 1,
        "issued_at": 1_800_000_000,
        "expires_at": 1_800_086_400,
        "nonce": b64(bytes(32)),
        "body": PromoteBody(
            profile=profile(2),
            provenance=None,
            review=None,
            earlier="keep",
            retire_at=None,
            unretire=False,
            security_version_floor=0,
        ),
    }
    return compose(Promote(**(fields | changes)))


BODY = promote_like().statement.body
OTHERS: dict[str, tuple[UntrustedStatement, UntrustedStatement]] = {
    "another key": (promote_like(), promote_like(key="sha256:" + "3" * 64)),
    "another head": (promote_like(), promote_like(prev="sha256:" + "3" * 64)),
    "another version": (promote_like(), promote_like(base_version=2)),
    "another time of issue": (promote_like(), promote_like(issued_at=1_800_000_001)),
    "a later end": (promote_like(), promote_like(expires_at=1_800_086_401)),
    "another nonce": (promote_like(), promote_like(nonce=b64(bytes(31) + b"\1"))),
    "another measurement": (
        promote_like(),
        promote_like(body=msgspec.structs.replace(BODY, profile=profile(3))),
    ),
    "earlier versions retired": (
        promote_like(),
        promote_like(body=msgspec.structs.replace(BODY, earlier="retire")),
    ),
    "a review that was not named": (
        promote_like(),
        promote_like(body=msgspec.structs.replace(BODY, review="sha256:" + "4" * 64)),
    ),
    "another vault set": (
        BIRTH,
        replaced(body=birth_body(vaults=vault_set(4, 3))),
    ),
    "another label": (BIRTH, replaced(body=birth_body(label="notes/else"))),
    "another floor": (BIRTH, replaced(body=birth_body(floor=1))),
}


@pytest.mark.req("R5.2")
@pytest.mark.parametrize("one", EVERYONE, ids=["ed25519", "p256", "es256", "eddsa"])
@pytest.mark.parametrize(("approved", "shown"), OTHERS.values(), ids=OTHERS.keys())
def test_approval_of_one_statement_is_none_of_another(one, approved, shown):
    """Signatures move to no statement that differs in a single field."""
    moved = compose(shown.statement, one.sign(approved).signatures)
    with pytest.raises(ApprovalError):
        verify_signatures(moved, SIGNERS)
    assert verify_signatures(one.sign(shown), SIGNERS).signers == ids(one)


def forged(make: Callable[[], bytes]) -> UntrustedStatement:
    """Return the birth with the owner's name over these signature bytes."""
    signature = KeySignature(signer=signer_id(ED25519.signer), signature=b64(make()))
    return compose(BIRTH.statement, (signature,))


RAW = {
    "over the bare payload": lambda: ED25519.private.sign(BIRTH.payload),
    "over the digest": lambda: ED25519.private.sign(bytes.fromhex(BIRTH.digest[7:])),
    "over another payload type": lambda: ED25519.private.sign(
        pae("application/vnd.placet.taken.v1+json", BIRTH.payload)
    ),
    "over the older DSSE form": lambda: ED25519.private.sign(
        b"DSSEv0 %d %b %d %b"
        % (len(STATEMENT_TYPE), STATEMENT_TYPE.encode(), len(BIRTH.payload), BIRTH.payload)
    ),
    "of another key": lambda: person("platform").private.sign(pae(STATEMENT_TYPE, BIRTH.payload)),
    "of nothing": lambda: b"",
    "of zeros": lambda: bytes(64),
    "with a byte more": lambda: ED25519.private.sign(pae(STATEMENT_TYPE, BIRTH.payload)) + b"\0",
}


@pytest.mark.parametrize("make", RAW.values(), ids=RAW.keys())
def test_signature_over_anything_else_is_refused(make):
    """Key signers sign the DSSE encoding of exactly these bytes under exactly this type."""
    with pytest.raises(ApprovalError, match="does not hold"):
        verify_signatures(forged(make), SIGNERS)


def test_one_bad_signature_of_a_known_signer_refuses_the_whole():
    """Nothing honest makes it, so nothing is built on what stands beside it."""
    good = PASSKEY.sign(BIRTH).signatures
    bad = forged(lambda: bytes(64)).signatures
    for signatures in (good + bad, bad + good):
        with pytest.raises(ApprovalError):
            verify_signatures(compose(BIRTH.statement, signatures), SIGNERS)


@pytest.mark.parametrize(
    ("claimed", "by"), [(PASSKEY, ED25519), (ED25519, PASSKEY)], ids=["as passkey", "as key"]
)
def test_signature_of_the_other_kind_is_refused(claimed, by):
    """A passkey does not sign as a key does, nor a key as a passkey does."""
    signature = by.sign(BIRTH).signatures[0]
    moved = msgspec.structs.replace(signature, signer=signer_id(claimed.signer))
    with pytest.raises(ApprovalError, match="kind"):
        verify_signatures(compose(BIRTH.statement, (moved,)), SIGNERS)


def test_labels_do_not_make_signers():
    """One key is one signer under any label, and its id is the digest of its key."""
    other = msgspec.structs.replace(ED25519.signer, label="somebody else")
    assert signer_id(other) == signer_id(ED25519.signer)
    assert isinstance(BIRTH.statement, Birth)


@pytest.mark.parametrize("signer", SIGNERS, ids=["ed25519", "p256", "es256", "eddsa"])
def test_well_formed_signer_passes(signer):
    """Each kind, as its tools make it."""
    signer_key_check(signer)


def key(algorithm: str, raw: bytes | str) -> KeySigner:
    """Return a signer of this public key."""
    data = bytes.fromhex(raw) if isinstance(raw, str) else raw
    return KeySigner(label="unfit", algorithm=algorithm, public_key=b64(data))


def p256_point(form: serialization.PublicFormat) -> bytes:
    """Return a P-256 key in another form."""
    return P256.private.public_key().public_bytes(serialization.Encoding.X962, form)


UNCOMPRESSED = p256_point(serialization.PublicFormat.UncompressedPoint)
COMPRESSED = p256_point(serialization.PublicFormat.CompressedPoint)
_p = 2**255 - 19
# The points of order 1, 2, 4 and 8, and the other spellings of those that have one
# (Chalkias, Garillot, Nikolaenko: Taming the many EdDSAs, 2020, table 1).
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
UNFIT_KEYS = {
    "ed25519: nothing": key("ed25519", b""),
    "ed25519: 31 bytes": key("ed25519", unb64(ED25519.signer.public_key)[:-1]),
    "ed25519: 33 bytes": key("ed25519", unb64(ED25519.signer.public_key) + b"\0"),
    "ed25519: off the curve": key("ed25519", (2).to_bytes(32, "little")),
    "ed25519: y not reduced": key("ed25519", (_p + 3).to_bytes(32, "little")),
    "ed25519: a P-256 point": key("ed25519", UNCOMPRESSED),
    "p256: nothing": key("p256", b""),
    "p256: compressed": key("p256", COMPRESSED),
    "p256: hybrid": key("p256", bytes([6 + UNCOMPRESSED[-1] % 2]) + UNCOMPRESSED[1:]),
    "p256: at infinity": key("p256", b"\0"),
    "p256: off the curve": key("p256", UNCOMPRESSED[:-1] + bytes([UNCOMPRESSED[-1] ^ 1])),
    "p256: zeros": key("p256", b"\4" + bytes(64)),
    "p256: a byte more": key("p256", UNCOMPRESSED + b"\0"),
    "p256: a byte less": key("p256", UNCOMPRESSED[:-1]),
    "p256: an Ed25519 key": key("p256", unb64(ED25519.signer.public_key)),
} | {f"ed25519: small order {raw[:6]}..{raw[-4:]}": key("ed25519", raw) for raw in SMALL_ORDER}


@pytest.mark.parametrize("signer", UNFIT_KEYS.values(), ids=UNFIT_KEYS.keys())
def test_unfit_key_is_refused(signer):
    """A key that could never sign, or for which anybody could, gets into no policy."""
    with pytest.raises(MalformedError):
        signer_key_check(signer)


def test_small_order_keys_are_why():
    """OpenSSL holds a signature under such a key that was made without any private key."""
    nobody = key("ed25519", SMALL_ORDER[0])
    anyone = KeySignature(signer=signer_id(nobody), signature=b64(b"\1" + bytes(63)))
    sent = compose(BIRTH.statement, (anyone,))
    assert verify_signatures(sent, [nobody]).signers == {signer_id(nobody)}
    with pytest.raises(MalformedError, match="small order"):
        signer_key_check(nobody)


def test_no_random_key_is_refused():
    """The check on Ed25519 points takes every key that is generated."""
    for i in range(200):
        signer_key_check(person(f"someone {i}").signer)


def test_key_in_another_spelling_is_refused():
    """Stray bits in the base64 would be another signer id for the same key."""
    text = ED25519.signer.public_key
    stray = text[:-1] + chr(ord(text[-1]) + 1)
    with pytest.raises(MalformedError, match="base64url"):
        signer_key_check(msgspec.structs.replace(ED25519.signer, public_key=stray))


def passkey(**changes: object) -> PasskeySigner:
    """Return the phone's passkey with other fields."""
    return msgspec.structs.replace(PASSKEY.signer, **changes)


FIT_PASSKEYS = {
    "its own host": passkey(),
    "a host under it": passkey(origins=("https://vaults.approve.example",)),
    "a port": passkey(origins=("https://approve.example:8443",)),
    "this machine": passkey(rp_id="localhost", origins=("http://localhost:8000",)),
    "this machine, over TLS": passkey(rp_id="localhost", origins=("https://localhost",)),
}
UNFIT_PASSKEYS = {
    "no TLS": passkey(origins=("http://approve.example",)),
    "another host": passkey(origins=("https://evil.example",)),
    "one good, one bad": passkey(origins=("https://approve.example", "https://evil.example")),
    "a host that merely ends alike": passkey(origins=("https://disapprove.example",)),
    "host above it": passkey(rp_id="x." + RP_ID),
    "a slash at the end": passkey(origins=("https://approve.example/",)),
    "a path": passkey(origins=("https://approve.example/x",)),
    "a user": passkey(origins=("https://u@approve.example",)),
    "capitals": passkey(origins=("https://Approve.example",)),
    "port zero": passkey(origins=("https://approve.example:0",)),
    "a line more": passkey(origins=("https://approve.example\n",)),
    "any origin": passkey(origins=("*",)),
    "null": passkey(origins=("null",)),
    "an app": passkey(origins=("android:apk-key-hash:x",)),
    "an empty RP ID": passkey(rp_id=""),
    "RP ID with a dot before": passkey(rp_id="." + RP_ID),
    "this machine, under another name": passkey(
        rp_id="localhost", origins=("http://x.localhost:1",)
    ),
    "no credential id": passkey(credential_id=""),
    "credential id too long": passkey(credential_id=b64(bytes(1024))),
    "credential id in another spelling": passkey(credential_id="AB"),
    "key of no COSE form": passkey(public_key=ED25519.signer.public_key),
    "point off the curve": passkey(public_key=b64(PASSKEY.cose[:-1] + b"\0")),
    "small order": passkey(public_key=b64(TOKEN.cose[:10] + bytes(32))),
}


@pytest.mark.parametrize("signer", FIT_PASSKEYS.values(), ids=FIT_PASSKEYS.keys())
def test_passkey_of_secure_origins_passes(signer):
    """Origins at or under the RP ID, with TLS or on this machine."""
    signer_key_check(signer)


@pytest.mark.parametrize("signer", UNFIT_PASSKEYS.values(), ids=UNFIT_PASSKEYS.keys())
def test_unfit_passkey_is_refused(signer):
    """What no browser would sign for, or others could ask for, gets into no policy."""
    with pytest.raises(MalformedError):
        signer_key_check(signer)


def test_curve_check_agrees_with_the_curve_equation():
    """The check on Ed25519 points is the one of RFC 8032, by another road: recover x."""
    d = -121665 * pow(121666, -1, _p) % _p
    for i in range(100):
        y = int.from_bytes(hashlib.sha256(b"%d" % i).digest(), "little") % _p
        x2 = (y * y - 1) * pow(d * y * y + 1, -1, _p) % _p
        root = pow(x2, (_p + 3) // 8, _p)
        on_curve = any(r * r % _p == x2 for r in (root, root * pow(2, (_p - 1) // 4, _p) % _p))
        signer = key("ed25519", y.to_bytes(32, "little"))
        if on_curve:
            signer_key_check(signer)
        else:
            with pytest.raises(MalformedError, match="curve"):
                signer_key_check(signer)


def test_p256_key_is_any_point():
    """Every generated P-256 key passes."""
    for i in range(20):
        point = (
            p256_key(f"someone {i}")
            .public_key()
            .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        )
        signer_key_check(key("p256", point))
    assert ec.SECP256R1.key_size == 256
