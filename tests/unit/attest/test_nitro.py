"""Nitro documents through the one verifier: what they show, and a table of attacks (spec/02, 9)."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
import warnings
from functools import cache
from pathlib import Path

import cbor2
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from placet_testing.amd import DAY, NOW, issue, name, numbers, p384_key, rsa_key, swap
from placet_testing.nitro import (
    LEAF_LIFE,
    LIVES,
    PCRS,
    Nitro,
    envelope,
    indefinite,
    with_pair,
)

from placet.attest.roots import pinned
from placet.attest.verify import nitro as nitro_module
from placet.attest.verify import verify_evidence
from placet.core.attestation import TcbState
from placet.core.encoding import b64
from placet.core.limits import MAX_EVIDENCE
from placet.core.profile import NitroMeasurement
from placet.errors import EvidenceError

N384 = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffff"
    "c7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
"""Order of P-384's base point."""
VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors"
ABSENT = "real evidence lies in ../shared/vectors, which is not here"


@cache
def pki(**given):
    """Return one PKI of this test run."""
    return Nitro.create(**given)


@cache
def impostor():
    """Return a PKI with the names of ours and other keys."""
    return pki(keys="impostor", organization=pki().organization)


def verify(evidence, *, trust=None, now=NOW):
    """Verify under the root of our PKI, unless told otherwise."""
    return verify_evidence(evidence, trust=trust or [pki().anchor()], now=now)


def payload(**changes):
    """Return the bytes of an honest document's payload."""
    return cbor2.dumps(pki().fields(**changes))


# --- what honest evidence shows --------------------------------------------------------


@pytest.mark.req("R3.1")
@pytest.mark.parametrize("tag", [18, None])
@pytest.mark.parametrize("form", [cbor2.dumps, indefinite])
def test_a_document_shows_the_enclave(tag, form):
    """Registers, user data, time and end come out as they went in, in each form that occurs."""
    lab = pki()
    shown = verify(envelope(lab.message(form(lab.fields()), tag=tag)))
    registers = {f"pcr{n}": PCRS[n].hex() for n in (0, 1, 2, 3, 4, 8)}
    assert shown.measurement == NitroMeasurement(**registers)
    assert shown.report_data == bytes(range(64))
    assert shown.anchor == lab.anchor().name
    assert shown.tcb == TcbState(status="Unrated", advisories=(), evaluation=0, date=NOW)
    assert (shown.families, shown.hardware_id, shown.reported_tcb) == (("nitro",), None, None)
    assert (shown.expires, shown.overdue) == (LEAF_LIFE[1], 0)
    assert (shown.features, shown.events) == (frozenset(), ())


@pytest.mark.parametrize("register", [3, 4, 8])
def test_a_register_that_nobody_extended_is_none(register):
    """Of the registers that narrow, zero and absence both say nothing."""
    for pcrs in (
        PCRS | {register: bytes(48)},
        {n: value for n, value in PCRS.items() if n != register},
    ):
        shown = verify(envelope(pki().document(pcrs=pcrs)))
        assert getattr(shown.measurement, f"pcr{register}") is None


ACCEPTED = {
    "no user data": {"user_data": None},
    "fields of null left out": {"nonce": ..., "public_key": ...},
    "fields of the greatest length": {
        field: bytes(1024) for field in ("user_data", "nonce", "public_key")
    },
    "empty fields": dict.fromkeys(("user_data", "nonce", "public_key"), b""),
    "a field of tomorrow": {"tomorrow": [1, {"a": 1.5}]},
    "a field of tomorrow that is nested deep": {"tomorrow": [[[[[[[0]]]]]]]},
    "every register": {"pcrs": PCRS | dict.fromkeys(range(16, 32), b"\x01" * 48)},
    "three registers": {"pcrs": {n: PCRS[n] for n in (0, 1, 2)}},
    "zero in PCR1 and PCR2": {"pcrs": PCRS | {1: bytes(48), 2: bytes(48)}},
    "a clock that is ahead by all that is allowed": {"timestamp": (NOW + 300) * 1000 + 999},
    "the first millisecond": {"timestamp": 1},
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_may_be_in_a_document_may(case):
    """The ends of what is accepted."""
    fields = ACCEPTED[case]
    shown = verify(envelope(pki().document(**fields)))
    assert shown.report_data == (fields.get("user_data", bytes(range(64))) or b"")


def test_what_stands_behind_the_map_is_signed_and_passed_over():
    """Nobody but AWS can put it there, and it changes nothing."""
    found = verify(envelope(pki().message(payload() + b"\0")))
    assert found == verify(envelope(pki().document()))


def test_the_longest_document_is_read():
    """12 KiB, to the byte, and not one more."""
    rest = 12 * 1024 - len(pki().document(tomorrow=bytes(1000))) + 1000
    document = pki().document(tomorrow=bytes(rest))
    assert len(document) == 12 * 1024
    assert verify(envelope(document))
    with pytest.raises(EvidenceError) as refusal:
        verify(envelope(pki().document(tomorrow=bytes(rest + 1))))
    assert refusal.value.members["check"] == "size"


def test_certificates_count_to_the_second():
    """The first and the last second of the leaf are its own."""
    for now in (*LEAF_LIFE, NOW):
        evidence = envelope(pki().document(timestamp=now * 1000))
        assert verify(evidence, now=now).expires == LEAF_LIFE[1]


def test_of_several_roots_the_documents_own_is_named():
    """The anchor of the result is the root that signed, not the first of the config."""
    trust = [*pinned(), pki(keys="foreign").anchor(), pki().anchor()]
    assert verify(envelope(pki().document()), trust=trust).anchor == pki().anchor().name


def test_the_other_half_of_a_signature_is_the_same_document():
    """(r, n - s) holds as well: a document's hash is no id, no replay key and no cache key."""
    raw = payload()
    signature = pki().sign(raw)
    s = N384 - int.from_bytes(signature[48:], "big")
    other = pki().message(raw, signature=signature[:48] + s.to_bytes(48, "big"))
    assert verify(envelope(other)) == verify(envelope(pki().document()))


def test_the_longest_and_the_shortest_bundle():
    """A root alone may have issued the leaf, and six certificates may stand above it."""
    lab = pki()
    above = {
        "constraints": x509.BasicConstraints(ca=True, path_length=None),
        "life": LIVES["root"],
    }
    root = lab.parties["root"]
    leaf = issue(name("leaf", "DEV"), lab.leaf.key, root, life=LEAF_LIFE)
    assert verify(envelope(lab.document(certificate=leaf.der, cabundle=[root.der])))
    chain = [root]
    for number in range(5):
        key = p384_key(f"long {number}")
        chain.append(issue(name(f"CA {number}", "DEV"), key, chain[-1], **above))
    leaf = issue(name("leaf", "DEV"), lab.leaf.key, chain[-1], life=LEAF_LIFE)
    bundle = [party.der for party in chain]
    assert verify(envelope(lab.document(certificate=leaf.der, cabundle=bundle)))


# --- the table of attacks --------------------------------------------------------------


def fields(**changes):
    """Return an attack by a document with other fields, signed as such."""
    return lambda lab: lab.document(**changes)


def raw(change):
    """Return an attack that changes a signed document as a whole."""
    return lambda lab: change(lab.document())


def body(make):
    """Return an attack by other bytes where the payload stands, signed as such."""
    return lambda lab: lab.message(make(cbor2.dumps(lab.fields())))


def cose(**form):
    """Return an attack by another envelope around an honest payload."""
    return lambda lab: lab.message(cbor2.dumps(lab.fields()), **form)


def party(which, **flaws):
    """Return an attack by a PKI in which one party was issued with flaws."""

    def attack(lab):
        flawed = Nitro.create(organization=lab.organization, **{which: flaws})
        return flawed.document(), {"trust": [flawed.anchor()]}

    return attack


def bundle(*without):
    """Return an attack by a bundle that lacks certificates."""
    return lambda lab: lab.document(cabundle=lab.bundle(*without))


def ca(path):
    """Return constraints of an authority."""
    return x509.BasicConstraints(ca=True, path_length=path)


def foreign_everything(_):
    """Give a whole world under another root."""
    return pki(keys="foreign").document()


def foreign_under_our_root(lab):
    """Glue our root to a self-made chain of other names."""
    other = pki(keys="foreign")
    return other.document(cabundle=[lab.parties["root"].der, *other.bundle("root")])


def impostor_under_our_root(lab):
    """Glue our root to a self-made chain of the right names."""
    other = impostor()
    return other.document(cabundle=[lab.parties["root"].der, *other.bundle("root")])


def impostors_leaf(lab):
    """Give our bundle, and a leaf that a namesake of the instance signed."""
    return lab.message(
        cbor2.dumps(lab.fields(certificate=impostor().leaf.der)), key=impostor().leaf.key
    )


def impostors_signature(lab):
    """Sign by a key that is not the leaf's."""
    return lab.message(cbor2.dumps(lab.fields()), key=impostor().leaf.key)


def other_leaf(lab):
    """Give the certificate of another document of the same instance."""
    leaf = issue(
        name("another", lab.organization),
        p384_key("another leaf"),
        lab.parties["instance"],
        life=LEAF_LIFE,
    )
    return lab.document(certificate=leaf.der)


def other_signature(lab):
    """Put another document's signature under this one."""
    return lab.message(
        cbor2.dumps(lab.fields()), signature=lab.sign(cbor2.dumps(lab.fields(timestamp=NOW * 1000)))
    )


def signed_under_other_headers(lab):
    """Sign the payload under ES256 and say ES384."""
    content = cbor2.dumps(lab.fields())
    return lab.message(content, signature=lab.sign(content, cbor2.dumps({1: -7})))


def signed_detached(lab):
    """Sign the payload itself, without what COSE puts around it."""
    content = cbor2.dumps(lab.fields())
    r, s = numbers(lab.leaf.key, content)
    return lab.message(content, signature=r.to_bytes(48, "big") + s.to_bytes(48, "big"))


def issued_by_leaf(lab):
    """Let the leaf, which is no authority, issue another one."""
    key = p384_key("below the leaf")
    below = issue(name("below", lab.organization), key, lab.leaf, life=LEAF_LIFE)
    made = lab.fields(certificate=below.der, cabundle=[*lab.bundle(), lab.leaf.der])
    return lab.message(cbor2.dumps(made), key=key)


def shortest(change):
    """Return an attack by an honest document in another form than its shortest."""
    return lambda lab: change(lab.document())


def array_of(count):
    """Return an attack by an array of another length."""
    return lambda lab: cbor2.dumps((cbor2.loads(lab.document()).value * 2)[:count])


def parts(change):
    """Return an attack by other parts of an honest message."""

    def attack(lab):
        found = list(cbor2.loads(lab.document()).value)
        change(found)
        return cbor2.dumps(found)

    return attack


def setting(at, value):
    """Return a change of one part."""

    def change(found):
        found[at] = value

    return change


def pcr(number, value):
    """Return an attack by one register that is another, or is left out."""
    pcrs = PCRS | {number: value}
    return fields(pcrs={n: found for n, found in pcrs.items() if found is not None})


def missing(field):
    """Return an attack by a document without a field."""
    return fields(**{field: ...})


ATTACKS = {
    # 9.1 the envelope
    "nothing": (lambda _: b"", "header"),
    "text": (lambda _: b"attestation", "header"),
    "a number": (lambda _: b"\1", "header"),
    "an array of nothing": (lambda _: b"\x80", "header"),
    "a tag of nothing": (lambda _: b"\xd2", "header"),
    "a map": (lambda _: cbor2.dumps(dict.fromkeys(range(4), b"")), "header"),
    "an array of three": (array_of(3), "header"),
    "an array of five": (array_of(5), "header"),
    "longer than any NSM's": (lambda _: bytes(12 * 1024 + 1), "size"),
    "less the last byte": (raw(lambda doc: doc[:-1]), "header"),
    "half of it": (raw(lambda doc: doc[: len(doc) // 2]), "header"),
    "one byte behind": (raw(lambda doc: doc + b"\0"), "header"),
    "the document twice": (raw(lambda doc: doc + doc), "header"),
    "tag 17": (cose(tag=17), "header"),
    "tag 98": (cose(tag=98), "header"),
    "tag 18 twice": (raw(lambda doc: b"\xd2" + doc), "header"),
    "tag 18 in two bytes": (raw(lambda doc: b"\xd8\x12" + doc[1:]), "header"),
    "self-described": (raw(lambda doc: b"\xd9\xd9\xf7" + doc), "header"),
    "array of indefinite length": (
        raw(lambda doc: b"\x9f" + doc[2:] + b"\xff"),
        "header",
    ),
    "array with a longer head": (raw(lambda doc: b"\xd2\x98\x04" + doc[2:]), "header"),
    "protected header with a longer head": (
        raw(lambda doc: doc[:2] + b"\x58" + doc[2:].replace(b"\x44", b"\x04", 1)),
        "header",
    ),
    "payload of indefinite length": (
        raw(
            lambda doc: doc[:8] + b"\x5f" + doc[8 : 8 + 3 + len(payload())] + b"\xff" + doc[-98:],
        ),
        "header",
    ),
    "nested without end": (lambda _: b"\x81" * 12_000 + b"\0", "header"),
    "tags without end": (lambda _: b"\xd2" * 12_000 + b"\0", "header"),
    "maps without end": (lambda _: b"\xa1\0" * 6_000 + b"\0", "header"),
    "a length that is too great": (lambda _: b"\x84\x5b\x7f" + b"\xff" * 7, "header"),
    "a count that is too great": (lambda _: b"\x9b\x7f" + b"\xff" * 7, "header"),
    "ES256": (cose(protected=cbor2.dumps({1: -7})), "header"),
    "ES512": (cose(protected=cbor2.dumps({1: -36})), "header"),
    "an empty protected header": (cose(protected=b""), "header"),
    "a protected map of nothing": (cose(protected=cbor2.dumps({})), "header"),
    "a protected header that is open": (cose(protected={1: -35}), "header"),
    "a protected header with a longer head": (
        cose(protected=bytes.fromhex("a1013900") + b"\x22"),
        "header",
    ),
    "a second protected header": (cose(protected=cbor2.dumps({1: -35, 4: b"k"})), "header"),
    "an unprotected header": (cose(unprotected={4: b"key"}), "header"),
    "an algorithm that is unprotected": (cose(protected=b"", unprotected={1: -35}), "header"),
    "an unprotected array": (cose(unprotected=[]), "header"),
    "an unprotected null": (parts(setting(1, None)), "header"),
    "an unprotected false": (parts(setting(1, value=False)), "header"),
    "no payload": (parts(setting(2, None)), "header"),
    "a payload that is text": (parts(setting(2, "payload")), "header"),
    "a payload that is open": (parts(setting(2, {"module_id": "x"})), "header"),
    "a signature that is null": (parts(setting(3, None)), "header"),
    "a signature that is text": (cose(signature="s" * 96), "header"),
    "a signature of 95 bytes": (cose(signature=bytes(95)), "header"),
    "a signature of 97 bytes": (cose(signature=bytes(97)), "header"),
    "a signature of nothing": (cose(signature=b""), "header"),
    # 9.2 the document
    "an empty payload": (body(lambda _: b""), "document"),
    "a payload that is no CBOR": (body(lambda _: b"\xff"), "document"),
    "a payload that is a list": (body(lambda _: b"\x80"), "document"),
    "a payload that is null": (body(lambda _: b"\xf6"), "document"),
    "a payload of nothing": (body(lambda _: b"\xa0"), "document"),
    "a payload less its last byte": (body(lambda doc: doc[:-1]), "document"),
    "a field of tomorrow that is nested too deep": (
        body(lambda doc: with_pair(doc, "x", 0)[:-1] + b"\x81" * 8 + b"\0"),
        "document",
    ),
    "a payload nested without end": (body(lambda _: b"\x81" * 8_000), "document"),
    "a field twice": (body(lambda doc: with_pair(doc, "digest", "SHA384")), "document"),
    "user data twice": (body(lambda doc: with_pair(doc, "user_data", bytes(64))), "document"),
    "a register twice": (
        body(lambda doc: doc.replace(b"\x01\x58\x30" + PCRS[1], b"\x00\x58\x30" + PCRS[1], 1)),
        "document",
    ),
    "a key that is twice in a field of tomorrow": (
        body(lambda doc: with_pair(doc, "x", 0)[:-1] + bytes.fromhex("a201000100")),
        "document",
    ),
    "a date in it": (fields(tomorrow=cbor2.CBORTag(1, 0)), "document"),
    "a regular expression in it": (fields(tomorrow=cbor2.CBORTag(35, "a")), "document"),
    "a great number in it": (fields(tomorrow=2**64), "document"),
    "a timestamp that is a date": (fields(timestamp=cbor2.CBORTag(1, NOW)), "document"),
    "a reference in it": (fields(tomorrow=cbor2.CBORTag(29, 0)), "document"),
    "a tagged document": (
        body(lambda doc: cbor2.dumps(cbor2.CBORTag(55799, cbor2.loads(doc)))),
        "document",
    ),
    **{
        f"no {field}": (missing(field), "document")
        for field in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
    },
    "a module that is bytes": (fields(module_id=b"i-0"), "document"),
    "a module that is a number": (fields(module_id=1), "document"),
    "digest SHA256": (fields(digest="SHA256"), "document"),
    "digest SHA512": (fields(digest="SHA512"), "document"),
    "digest in small letters": (fields(digest="sha384"), "document"),
    "digest with a line behind": (fields(digest="SHA384\n"), "document"),
    "digest with a letter before": (fields(digest="xSHA384"), "document"),
    "digest that is bytes": (fields(digest=b"SHA384"), "document"),
    "timestamp 0": (fields(timestamp=0), "document"),
    "timestamp below 0": (fields(timestamp=-1), "document"),
    "timestamp true": (fields(timestamp=True), "document"),
    "timestamp with a point": (fields(timestamp=NOW * 1000.0), "document"),
    "timestamp that is text": (fields(timestamp=str(NOW * 1000)), "document"),
    "timestamp beyond what is exact": (fields(timestamp=2**53), "document"),
    "timestamp null": (fields(timestamp=None), "document"),
    "registers that are a list": (fields(pcrs=list(PCRS.values())), "document"),
    "no registers": (fields(pcrs={}), "document"),
    "register 32": (pcr(32, bytes(48)), "document"),
    "register -1": (pcr(-1, bytes(48)), "document"),
    "register true": (pcr("x", bytes(48)), "document"),
    "register by text": (fields(pcrs={str(n): value for n, value in PCRS.items()}), "document"),
    "register of 47 bytes": (pcr(5, bytes(47)), "document"),
    "register of 49 bytes": (pcr(5, bytes(49)), "document"),
    "register of SHA-256": (pcr(0, bytes(32)), "document"),
    "register of nothing": (pcr(5, b""), "document"),
    "register that is text": (pcr(5, "0" * 48), "document"),
    "register that is base64": (pcr(5, "A" * 64), "document"),
    "register that is null": (fields(pcrs=PCRS | {5: None}), "document"),
    "no PCR0": (pcr(0, None), "document"),
    "no PCR1": (pcr(1, None), "document"),
    "no PCR2": (pcr(2, None), "document"),
    "certificate that is text": (
        lambda lab: lab.document(certificate=lab.leaf.der.hex()),
        "document",
    ),
    "certificate that is base64": (fields(certificate="AAAA"), "document"),
    "certificate that is null": (fields(certificate=None), "document"),
    "bundle of nothing": (fields(cabundle=[]), "document"),
    "bundle that is bytes": (lambda lab: lab.document(cabundle=lab.bundle()[0]), "document"),
    "bundle of text": (fields(cabundle=["AAAA"]), "document"),
    "bundle that is a map": (fields(cabundle={b"": b""}), "document"),
    "bundle of seven": (
        lambda lab: lab.document(cabundle=[lab.bundle()[0]] * 7),
        "document",
    ),
    **{
        f"{field} of 1,025 bytes": (fields(**{field: bytes(1025)}), "document")
        for field in ("user_data", "nonce", "public_key")
    },
    **{
        f"{field} that is text": (fields(**{field: "AAAA"}), "document")
        for field in ("user_data", "nonce", "public_key")
    },
    # 9.3 roots
    "a whole world under another root": (foreign_everything, "anchor"),
    "a namesake's whole world": (lambda _: impostor().document(), "anchor"),
    "bundle without root": (bundle("root"), "anchor"),
    "bundle the other way round": (
        lambda lab: lab.document(cabundle=lab.bundle()[::-1]),
        "anchor",
    ),
    "the root at last": (
        lambda lab: lab.document(cabundle=[*lab.bundle("root"), lab.bundle()[0]]),
        "anchor",
    ),
    "root with a byte behind": (
        lambda lab: lab.document(cabundle=[lab.bundle()[0] + b"\0", *lab.bundle("root")]),
        "anchor",
    ),
    # 9.4 the chain
    "a self-made chain with our root glued on": (foreign_under_our_root, "chain"),
    "a self-made chain of the right names with our root glued on": (
        impostor_under_our_root,
        "chain",
    ),
    "leaf by a namesake": (impostors_leaf, "chain"),
    "bundle without the regional certificate": (bundle("regional"), "chain"),
    "bundle without the zonal certificate": (bundle("zonal"), "chain"),
    "bundle without the instance's certificate": (bundle("instance"), "chain"),
    "bundle of the root alone": (bundle("regional", "zonal", "instance"), "chain"),
    "two of the bundle swapped": (
        lambda lab: lab.document(cabundle=[lab.bundle()[n] for n in (0, 2, 1, 3)]),
        "chain",
    ),
    "one of the bundle twice": (
        lambda lab: lab.document(cabundle=[lab.bundle()[n] for n in (0, 1, 1, 2, 3)]),
        "chain",
    ),
    "leaf that is no certificate": (fields(certificate=b"\x30\0"), "chain"),
    "leaf that is nothing": (fields(certificate=b""), "chain"),
    "certificate of the instance as leaf": (
        lambda lab: lab.document(certificate=lab.parties["instance"].der),
        "chain",
    ),
    "bundle with what is no certificate": (
        lambda lab: lab.document(cabundle=[*lab.bundle(), b"?"]),
        "chain",
    ),
    "leaf that is a CA": (party("leaf", constraints=ca(0)), "chain"),
    "below the leaf": (issued_by_leaf, "chain"),
    "instance's certificate that is no CA": (
        party("instance", constraints=x509.BasicConstraints(ca=False, path_length=None)),
        "chain",
    ),
    "instance's certificate that does not say that it is a CA": (
        party("instance", constraints=None),
        "chain",
    ),
    "zonal certificate that is no CA": (party("zonal", constraints=None), "chain"),
    "root that is no CA": (party("root", constraints=None), "chain"),
    "zonal certificate of too short a path": (party("zonal", constraints=ca(0)), "chain"),
    "regional certificate of too short a path": (party("regional", constraints=ca(1)), "chain"),
    "root of too short a path": (party("root", constraints=ca(2)), "chain"),
    "leaf on P-256": (party("leaf", key=ec.generate_private_key(ec.SECP256R1())), "chain"),
    "leaf with an RSA key": (
        lambda lab: lab.document(
            certificate=Nitro.create(
                organization=lab.organization, leaf={"key": rsa_key("nitro leaf")}
            ).leaf.der
        ),
        "chain",
    ),
    "leaf of X.509 version 19": (
        party("leaf", edit=swap(bytes.fromhex("a003020102"), bytes.fromhex("a003020112"))),
        "chain",
    ),
    # 9.5 dates
    "leaf ended": (party("leaf", life=(NOW - DAY, NOW - 1)), "dates"),
    "leaf not begun": (party("leaf", life=(NOW + 1, NOW + DAY)), "dates"),
    "instance's certificate ended": (party("instance", life=(NOW - DAY, NOW - 1)), "dates"),
    "instance's certificate not begun": (party("instance", life=(NOW + 1, NOW + DAY)), "dates"),
    "regional certificate ended": (party("regional", life=(NOW - DAY, NOW - 1)), "dates"),
    "root ended": (party("root", life=(NOW - DAY, NOW - 1)), "dates"),
    "root not begun": (party("root", life=(NOW + 1, NOW + DAY)), "dates"),
    "three hours later": (
        lambda lab: (lab.document(), {"now": LEAF_LIFE[1] + 1}),
        "dates",
    ),
    "before": (
        lambda lab: (lab.document(timestamp=1), {"now": LEAF_LIFE[0] - 1}),
        "dates",
    ),
    "document of a clock too far ahead": (fields(timestamp=(NOW + 301) * 1000), "dates"),
    "document of the last exact millisecond": (fields(timestamp=2**53 - 1), "dates"),
    # 9.6 the signature
    "signed by another key": (impostors_signature, "signature"),
    "certificate of another document": (other_leaf, "signature"),
    "signature of another document": (other_signature, "signature"),
    "signature under other headers": (signed_under_other_headers, "signature"),
    "signature over the payload alone": (signed_detached, "signature"),
    "signature of zeros": (cose(signature=bytes(96)), "signature"),
    "signature of ones": (cose(signature=b"\xff" * 96), "signature"),
    "r and s swapped": (
        lambda lab: lab.document()[:-96] + lab.document()[-48:] + lab.document()[-96:-48],
        "signature",
    ),
    "PCR0 edited": (raw(lambda doc: doc.replace(PCRS[0], PCRS[1], 1)), "signature"),
    "user data edited": (
        raw(lambda doc: doc.replace(bytes(range(64)), bytes(64), 1)),
        "signature",
    ),
    "module edited": (raw(lambda doc: doc.replace(b"i-0dev", b"i-1dev", 1)), "signature"),
    "timestamp edited": (
        raw(
            lambda doc: doc.replace(
                struct.pack(">Q", NOW * 1000 + 578), struct.pack(">Q", NOW * 1000 + 579), 1
            )
        ),
        "signature",
    ),
    # 9.7 debug
    "debug mode": (fields(pcrs=PCRS | {n: bytes(48) for n in (0, 1, 2)}), "debug"),
    "PCR0 of zero alone": (pcr(0, bytes(48)), "debug"),
}


def attempt(attack):
    """Return the evidence of an attack, and how it must be verified."""
    made = attack(pki())
    document, how = made if isinstance(made, tuple) else (made, {})
    return envelope(document), how


@pytest.mark.req("R3.1")
@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused_by_the_check_that_is_meant(attack):
    """Each attack is refused, and by the check that names it."""
    make, check = ATTACKS[attack]
    evidence, how = attempt(make)
    with pytest.raises(EvidenceError) as refusal:
        verify(evidence, **how)
    assert refusal.value.members["check"] == check


def test_the_table_is_long_enough():
    """At least forty checks have a vector."""
    assert len(ATTACKS) >= 40


@pytest.mark.req("R3.1")
def test_a_document_with_collateral_is_refused():
    """It brings all that it needs; what stands beside it nobody reads."""
    evidence = msgspec.structs.replace(envelope(pki().document()), collateral=b64(b"{}"))
    with pytest.raises(EvidenceError) as refusal:
        verify(evidence)
    assert refusal.value.members["check"] == "collateral"


@pytest.mark.req("R3.2")
@pytest.mark.parametrize(
    "attack",
    [
        "a whole world under another root",
        "a namesake's whole world",
        "a self-made chain with our root glued on",
        "a self-made chain of the right names with our root glued on",
    ],
)
def test_a_chain_that_ends_in_a_self_made_root_is_refused(attack):
    """Foreign roots, and foreign keys below a trusted one."""
    evidence, how = attempt(ATTACKS[attack][0])
    for trust in ([pki().anchor()], [*pinned(), pki().anchor()]):
        with pytest.raises(EvidenceError) as refusal:
            verify(evidence, **(how | {"trust": trust}))
        assert refusal.value.members["check"] in ("anchor", "chain")


@pytest.mark.req("R3.2")
def test_without_roots_nothing_verifies():
    """An empty list of anchors refuses everything."""
    with pytest.raises(EvidenceError) as refusal:
        verify_evidence(envelope(pki().document()), trust=(), now=NOW)
    assert refusal.value.members["check"] == "anchor"


@pytest.mark.req("R3.3")
def test_debug_mode_is_refused_whatever_else_is_measured():
    """A debug enclave has zero in PCR0; the other registers do not help it."""
    for pcrs in (PCRS | {0: bytes(48)}, dict.fromkeys(range(16), bytes(48))):
        with pytest.raises(EvidenceError) as refusal:
            verify(envelope(pki().document(pcrs=pcrs)))
        assert refusal.value.members["check"] == "debug"


def test_what_was_remembered_of_a_chain_is_not_believed_of_another():
    """A chain that held is asked for its dates again, and helps no other leaf."""
    verify(envelope(pki().document()))
    with pytest.raises(EvidenceError) as refusal:
        verify(envelope(pki().document()), now=LEAF_LIFE[1] + 1)
    assert refusal.value.members["check"] == "dates"
    with pytest.raises(EvidenceError) as refusal:
        verify(envelope(impostors_leaf(pki())))
    assert refusal.value.members["check"] == "chain"


# --- hostile sizes ---------------------------------------------------------------------

SLOW = "(?i)" + "[\u0100-\uffff]" * 1000
"""A regular expression that takes seconds to compile."""


def colliding():
    """Return a map of pairs that all have one hash, so that each is compared with each."""
    one, two, five = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x27D4EB2F165667C5
    mask, inverse = 2**64 - 1, pow(two, -1, 2**64)
    keys = []
    first = 0
    while len(keys) < 700:
        first += 1
        acc = (five + first * two) & mask
        acc = ((acc << 31 | acc >> 33) * one) & mask
        second = (12345 - acc) * inverse & mask
        if second < 2**61 - 1:
            keys.append((first, second))
    assert len({hash(key) for key in keys}) == 1
    return b"\xb9" + struct.pack(">H", len(keys)) + b"".join(cbor2.dumps(k) + b"\0" for k in keys)


HOSTILE = {
    "longest evidence": lambda: bytes(MAX_EVIDENCE),
    "longest evidence by a byte": lambda: bytes(MAX_EVIDENCE + 1),
    "longest document of zeros": lambda: bytes(12 * 1024),
    "nested arrays": lambda: b"\x81" * 12_000,
    "nested in 64 KiB": lambda: b"\x81" * 20_000 + b"\0",
    "nested maps": lambda: b"\xa1\0" * 6_000,
    "nested tags": lambda: b"\xd2" * 12_000,
    "nested without lengths": lambda: b"\x9f" * 12_000,
    "array that says 2**63": lambda: b"\x9b\x7f" + b"\xff" * 7,
    "map that says 2**31": lambda: b"\xba\x7f" + b"\xff" * 3,
    "bytes that say 2**63": lambda: b"\x5b\x7f" + b"\xff" * 7,
    "text that says 2**32": lambda: b"\x7a" + b"\xff" * 4,
    "an expression that takes seconds": lambda: cbor2.dumps(cbor2.CBORTag(35, SLOW)),
    "an expression in the payload": lambda: pki().message(
        cbor2.dumps({"digest": cbor2.CBORTag(35, SLOW)})
    ),
    "a great number": lambda: cbor2.dumps(2**90_000),
    "a decimal of a great number": lambda: cbor2.dumps(cbor2.CBORTag(4, [1, 2**90_000])),
    "a field twice": lambda: ATTACKS["a field twice"][0](pki()),
    "a byte behind": lambda: pki().document() + b"\0",
    "another tag": lambda: pki().message(payload(), tag=17),
}


@pytest.mark.req("R1.7")
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_size_and_shape_is_refused_in_5_ms_and_without_cryptography(monkeypatch, case):
    """What is too long, trailing, unknown or twice is refused before any certificate is read."""
    evidence = envelope(HOSTILE[case]())

    def never(*_):
        pytest.fail("a certificate was read of evidence that length or shape refuse")

    monkeypatch.setattr(nitro_module, "load", never)
    took = []
    for _ in range(7):  # the best of a few: other processes are not what is measured
        began = time.perf_counter()
        with pytest.raises(EvidenceError) as refusal:
            verify(evidence)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.005
    assert refusal.value.members["check"] in ("size", "header", "document")


@pytest.mark.req("R1.7")
def test_keys_of_one_hash_take_bounded_time():
    """Pairs may be keys of a map, and anybody can make such that collide."""
    evidence = envelope(pki().message(colliding()))
    took = []
    for _ in range(3):
        began = time.process_time()
        with pytest.raises(EvidenceError) as refusal:
            verify(evidence)
        took.append(time.process_time() - began)
    assert refusal.value.members["check"] == "document"
    assert min(took) < 0.05


@pytest.mark.req("R1.7")
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_size_takes_bounded_memory(case):
    """No header of some bytes makes the verifier ask for more than a few times the input."""
    evidence = envelope(HOSTILE[case]())
    tracemalloc.start()
    try:
        with pytest.raises(EvidenceError):
            verify(evidence)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# --- every bit -------------------------------------------------------------------------


@pytest.mark.req("R3.1")
def test_no_byte_of_a_document_is_free():
    """Every byte refuses when one of its bits flips, the envelope's included."""
    document = pki().document()
    assert verify(envelope(document))
    for at in range(len(document)):
        flipped = document[:at] + bytes([document[at] ^ 1 << at % 8]) + document[at + 1 :]
        with pytest.raises(EvidenceError):
            verify(envelope(flipped))


@pytest.mark.req("R3.1")
def test_every_truncation_is_refused():
    """No prefix of a document verifies."""
    document = pki().document()
    for length in range(0, len(document), 3):
        with pytest.raises(EvidenceError):
            verify(envelope(document[:length]))


# --- real documents --------------------------------------------------------------------


def manifest():
    """Return the documents of the manifest."""
    if not (VECTORS / "manifest.json").exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=ABSENT))]
    entries = json.loads((VECTORS / "manifest.json").read_text())
    return [pytest.param(e, id=e["id"]) for e in entries if e["family"] == "nitro"]


@pytest.mark.req("R3.1")
@pytest.mark.parametrize("entry", manifest())
def test_a_real_document_gives_the_manifests_verdict(entry):
    """What was genuine is accepted, at its own time and under AWS's root, and nothing else."""
    raw = (VECTORS / entry["file"]).read_bytes()
    made = nitro_module.read_message(raw).document.timestamp // 1000
    if entry["expect"] != "accept":
        with pytest.raises(EvidenceError) as refusal:
            verify(envelope(raw), trust=pinned(), now=made)
        tampered = "tampered" in entry["expect"]
        assert refusal.value.members["check"] == ("signature" if tampered else "debug")
        return
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        shown = verify(envelope(raw), trust=pinned(), now=made)
    assert heard == []
    registers = {f"pcr{n}": entry["identity"]["pcrs"].get(str(n)) for n in (0, 1, 2, 3, 4, 8)}
    assert shown.measurement == NitroMeasurement(**registers)
    assert (shown.anchor, shown.tcb.date) == ("aws", made)
    assert made <= shown.expires <= made + 3 * 3600 + 60
    for now in (shown.expires + 1, made - 4 * 3600):
        with pytest.raises(EvidenceError) as refusal:
            verify(envelope(raw), trust=pinned(), now=now)
        assert refusal.value.members["check"] == "dates"
    for at in range(0, len(raw), 5):
        flipped = raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]
        with pytest.raises(EvidenceError):
            verify(envelope(flipped), trust=pinned(), now=made)
