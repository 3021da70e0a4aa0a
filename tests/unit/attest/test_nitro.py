"""Nitro documents: what an honest one shows, and a table of everything that is refused."""

from __future__ import annotations

from functools import cache

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from placet_testing.amd import NOW
from placet_testing.nitro import ES384, Nitro, envelope, indefinite, with_pair

from placet.attest.verify import verify_evidence
from placet.core.attestation import Evidence
from placet.core.encoding import b64
from placet.core.limits import MAX_EVIDENCE
from placet.errors import EvidenceError

HOUR = 3600
CA = x509.BasicConstraints(ca=True, path_length=None)


@cache
def pki(keys="ours", organization=""):
    """Return a PKI in AWS's shape."""
    return Nitro.create(keys=keys, organization=organization)


def verify(raw, *, lab=None, now=NOW):
    """Verify a document under a PKI's root."""
    return verify_evidence(envelope(raw), trust=[(lab or pki()).anchor()], now=now)


def refused(raw, **given):
    """Return the name of the check that refuses."""
    with pytest.raises(EvidenceError) as refusal:
        verify(raw, **given)
    return refusal.value.members["check"]


def payload(**changes):
    """Return an honest payload, but for ``changes``."""
    return cbor2.dumps(pki().fields(**changes))


@pytest.mark.parametrize("tag", [18, None])
def test_an_honest_document_shows_the_enclave(tag):
    """With and without its tag: registers, user data, time and root come out."""
    fields = pki().fields()
    shown = verify(pki().message(payload(), tag=tag))
    m = shown.measurement
    assert [m.pcr0, m.pcr1, m.pcr2] == [fields["pcrs"][i].hex() for i in range(3)]
    assert shown.report_data == fields["user_data"]
    assert shown.anchor == pki().anchor().name
    assert (shown.tcb.status, shown.tcb.date, shown.families) == ("Unrated", NOW, ("nitro",))
    assert shown.hardware_id is None
    assert shown.expires > NOW


def test_registers_that_are_zero_narrow_nothing():
    """PCR3, PCR4 and PCR8 are shown where they hold something."""
    pcrs = pki().fields()["pcrs"]
    shown = verify(pki().document(pcrs=pcrs | {3: b"3" * 48, 4: bytes(48), 8: b"8" * 48}))
    m = shown.measurement
    assert (m.pcr3, m.pcr4, m.pcr8) == ((b"3" * 48).hex(), None, (b"8" * 48).hex())
    assert verify(pki().document(user_data=None)).report_data == b""


HONEST = {
    "an indefinite map inside": lambda: pki().message(indefinite(pki().fields())),
    "a field that nobody knows": lambda: pki().document(more=b"x"),
    "nonce and key": lambda: pki().document(nonce=b"n" * 1024, public_key=b"k" * 1024),
    "made five minutes ahead": lambda: pki().document(timestamp=(NOW + 300) * 1000),
}


@pytest.mark.parametrize("make", HONEST.values(), ids=HONEST.keys())
def test_what_aws_signed_may_be_so(make):
    """What only the signer can have written is taken."""
    assert verify(make())


ENVELOPES = {
    "empty": lambda: b"",
    "text": lambda: b"document",
    "ES256": lambda: pki().message(payload(), protected=cbor2.dumps({1: -7})),
    "no algorithm": lambda: pki().message(payload(), protected=b""),
    "two protected headers": lambda: pki().message(
        payload(), protected=cbor2.dumps({1: -35, 4: b""})
    ),
    "an unprotected header": lambda: pki().message(payload(), unprotected={4: b"k"}),
    "unprotected is a list": lambda: pki().message(payload(), unprotected=[]),
    "tag 17": lambda: pki().message(payload(), tag=17),
    "trailing byte": lambda: pki().document() + b"\0",
    "truncated": lambda: pki().document()[:-1],
    "half": lambda: pki().document()[:2000],
    "three parts": lambda: cbor2.dumps([ES384, {}, payload()]),
    "payload is text": lambda: cbor2.dumps([ES384, {}, "payload", bytes(96)]),
    "signature is text": lambda: cbor2.dumps([ES384, {}, payload(), "x" * 96]),
    "signature is short": lambda: pki().message(payload(), signature=bytes(95)),
    "signature is long": lambda: pki().message(payload(), signature=bytes(97)),
    "indefinite outside": lambda: b"\x9f" + pki().message(payload(), tag=None)[1:] + b"\xff",
    "a length that is not the shortest": lambda: (
        b"\x98\x04" + pki().message(payload(), tag=None)[1:]
    ),
    "10,000 deep": lambda: b"\x81" * 10_000 + b"\0",
    "a huge length": lambda: b"\x5b" + b"\xff" * 8,
}


@pytest.mark.req("R1.7")
@pytest.mark.parametrize("make", ENVELOPES.values(), ids=ENVELOPES.keys())
def test_another_envelope_is_refused(make):
    """The message is exactly one array of four, in the shortest form."""
    assert refused(make()) == "header"


FIELDS = {
    **{
        f"no {name}": {name: ...}
        for name in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
    },
    "module id is bytes": {"module_id": b"i"},
    "SHA256": {"digest": "SHA256"},
    "digest with a newline": {"digest": "SHA384\n"},
    "timestamp is zero": {"timestamp": 0},
    "timestamp is negative": {"timestamp": -1},
    "timestamp is true": {"timestamp": True},
    "timestamp is a float": {"timestamp": NOW * 1000.5},
    "timestamp is text": {"timestamp": "now"},
    "timestamp is beyond all": {"timestamp": 2**53},
    "registers are a list": {"pcrs": [b"0" * 48]},
    "no register": {"pcrs": {}},
    "register 32": {"pcrs": dict.fromkeys((0, 1, 2, 32), b"1" * 48)},
    "register -1": {"pcrs": dict.fromkeys((0, 1, 2, -1), b"1" * 48)},
    "register by name": {"pcrs": {0: b"1" * 48, 1: b"1" * 48, 2: b"1" * 48, "3": b"1" * 48}},
    "register of 47 bytes": {"pcrs": {0: b"1" * 48, 1: b"1" * 48, 2: b"1" * 47}},
    "register of 49 bytes": {"pcrs": {0: b"1" * 48, 1: b"1" * 48, 2: b"1" * 49}},
    **{
        f"no PCR{gone}": {"pcrs": {i: b"1" * 48 for i in (0, 1, 2) if i != gone}}
        for gone in range(3)
    },
    "certificate is text": {"certificate": "pem"},
    "no bundle": {"cabundle": []},
    "bundle of seven": {"cabundle": [b"c"] * 7},
    "bundle of texts": {"cabundle": ["c"]},
    **{
        f"{name} of 1,025 bytes": {name: b"x" * 1025}
        for name in ("user_data", "nonce", "public_key")
    },
    "user data is text": {"user_data": "x"},
}


@pytest.mark.req("R1.7")
@pytest.mark.parametrize("changes", FIELDS.values(), ids=FIELDS.keys())
def test_another_shape_of_a_field_is_refused(changes):
    """Signed or not: every field is of its type and size."""
    assert refused(pki().document(**changes)) == "document"


def test_a_field_twice_and_no_map_are_refused():
    """Two values of one field are none; a list is no document."""
    twice = with_pair(payload(), "digest", "SHA384")
    assert refused(pki().message(twice)) == "document"
    for other in (cbor2.dumps([1]), b"", b"\xff", cbor2.dumps("x")):
        assert refused(pki().message(other)) == "document"


def signed_by(**flaws):
    """Return a document of a PKI with flaws, and that PKI."""
    lab = Nitro.create(**flaws)
    return lab.document(), lab


def life(begin, end):
    """Return a life around now, in seconds."""
    return begin + NOW, end + NOW


def test_a_foreign_root_is_refused():
    """A whole PKI of its own, one with the names of ours, and our root glued on."""
    theirs = pki("theirs", pki().organization)
    assert refused(theirs.document()) == "anchor"
    glued = theirs.document(cabundle=[pki().parties["root"].der, *theirs.bundle("root")])
    assert refused(glued) == "chain"


CHAINS = {
    "no root": lambda: pki().document(cabundle=pki().bundle("root")),
    "no leaf of this chain": lambda: pki().document(certificate=pki("theirs").leaf.der),
    "leaf is no certificate": lambda: pki().document(certificate=b"0"),
    "bundle holds no certificate": lambda: pki().document(cabundle=[*pki().bundle()[:1], b"0"]),
}


@pytest.mark.req("R3.2")
@pytest.mark.parametrize("name", CHAINS)
def test_a_broken_chain_is_refused(name):
    """Each link is issued by the one before it, from the trusted root on."""
    assert refused(CHAINS[name]()) == ("anchor" if name == "no root" else "chain")


def test_each_certificate_in_between_is_needed():
    """A chain without any one of them is none."""
    for party in list(pki().parties)[1:]:
        assert refused(pki().document(cabundle=pki().bundle(party))) == "chain"


def test_who_may_issue_whom():
    """A leaf that is a CA, issuers that are none or too far up, a key on another curve."""
    middle = list(pki().parties)[1]
    for flaws in (
        {"leaf": {"constraints": CA}},
        {middle: {"constraints": x509.BasicConstraints(ca=False, path_length=None)}},
        {middle: {"constraints": x509.BasicConstraints(ca=True, path_length=0)}},
    ):
        raw, lab = signed_by(**flaws)
        assert refused(raw, lab=lab) == "chain"
    small = Nitro.create(leaf={"key": ec.generate_private_key(ec.SECP256R1())})
    raw = small.message(cbor2.dumps(small.fields()), signature=bytes(96))
    assert refused(raw, lab=small) == "chain"


def test_each_certificate_counts_now():
    """Ended or not begun, leaf, root, and whatever is in between; and the leaf's three hours."""
    for party in (*pki().parties, "leaf"):
        for ended in (life(-2 * HOUR, -1), life(1, HOUR)):
            raw, lab = signed_by(**{party: {"life": ended}})
            assert refused(raw, lab=lab) == "dates", party
    last = verify(pki().document()).expires
    assert verify(pki().document(), now=last)
    assert refused(pki().document(), now=last + 1) == "dates"


def test_a_document_of_later_is_refused():
    """Made more than five minutes after now, whoever's clock is wrong."""
    assert refused(pki().document(timestamp=(NOW + 301) * 1000)) == "dates"


SIGNATURES = {
    "zero": lambda: pki().message(payload(), signature=bytes(96)),
    "another document's": lambda: pki().message(
        payload(), signature=pki().sign(payload(user_data=b"other"))
    ),
    "another key's": lambda: pki().message(payload(), key=pki("theirs").leaf.key),
    "one bit": lambda: pki().document()[:-1] + bytes([pki().document()[-1] ^ 1]),
}


@pytest.mark.req("R3.1")
@pytest.mark.parametrize("make", SIGNATURES.values(), ids=SIGNATURES.keys())
def test_another_signature_is_refused(make):
    """The leaf's key signed exactly this."""
    assert refused(make()) == "signature"


@pytest.mark.req("R3.3")
def test_debug_mode_is_refused():
    """PCR0 is zero: its host reads its memory."""
    pcrs = {i: bytes(48) for i in range(16)}
    assert refused(pki().document(pcrs=pcrs)) == "debug"
    assert refused(pki().document(pcrs=pki().fields()["pcrs"] | {0: bytes(48)})) == "debug"


def test_stapled_collateral_and_sizes_are_refused():
    """A document brings all it needs, within the limit of evidence."""
    raw = pki().document()
    stapled = Evidence(family="nitro", quote=b64(raw), collateral=b64(b"{}"))
    with pytest.raises(EvidenceError) as refusal:
        verify_evidence(stapled, trust=[pki().anchor()], now=NOW)
    assert refusal.value.members["check"] == "collateral"
    assert refused(bytes(MAX_EVIDENCE + 3)) == "size"


@pytest.mark.req("R3.1")
def test_no_byte_of_a_document_is_free():
    """Each byte refuses when a bit of it flips."""
    raw = pki().document()
    for at in range(0, len(raw), 3):
        flipped = raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]
        assert refused(flipped)
