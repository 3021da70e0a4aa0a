"""Mutated evidence of AMD and AWS: only our own errors leave, and soon.

Mutations know the structure: fields of reports and documents are drawn and signed as such,
certificates are taken apart as DER, changed and signed again, so that what lies behind a
signature is reached too.
"""

from __future__ import annotations

import copy
import json
import struct
import time

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placet_testing.amd import (
    FIELDS,
    GUIDS,
    NOW,
    PRODUCTS,
    REPORT,
    SIGNED,
    Amd,
    der,
    revocation_list,
    table,
)
from placet_testing.nitro import LEAF_LIFE, PCRS, Nitro, envelope

from placet.attest.verify import verify_evidence
from placet.core.attestation import Evidence
from placet.core.encoding import b64
from placet.core.limits import MAX_EVIDENCE
from placet.core.profile import NitroMeasurement
from placet.errors import EvidenceError

SECONDS = 1.0
"""Of this process's time: more than any evidence of 64 KiB may take."""
AMD = {product: Amd.create(product) for product in PRODUCTS}
MILAN = AMD["milan"]
AWS = Nitro.create()
TRUST = [*(lab.anchor() for lab in AMD.values()), AWS.anchor()]
PRODUCT = st.sampled_from(sorted(AMD))
KIND = st.sampled_from(["vcek", "vlek"])
CRL = revocation_list(MILAN.ark, revoked=[5])


def verify(evidence):
    """Return what evidence shows, or ``None`` where an error of ours refused it in time."""
    began, check = time.process_time(), ""
    try:
        return verify_evidence(evidence, trust=TRUST, now=NOW, grace=100)
    except EvidenceError as refusal:
        check = refusal.members["check"]
    finally:
        assert time.process_time() - began < SECONDS
    assert check
    return None


def snp(raw, **members):
    """Return evidence of these bytes."""
    text = json.dumps({name: value.hex() for name, value in members.items()})
    return Evidence(family="snp", quote=b64(raw), collateral=b64(text.encode()))


HONEST = {kind: verify(MILAN.evidence(kind, crl=CRL)) for kind in ("vcek", "vlek")}
DOCUMENT = verify(envelope(AWS.document()))


def test_the_honest_evidence_is_accepted():
    """What is mutated below would be accepted, were it not mutated."""
    assert all(HONEST.values())
    assert DOCUMENT is not None


# --- mutations of bytes and of DER -----------------------------------------------------


@st.composite
def mutated(draw, raw):
    """Draw bytes like ``raw`` with a few overwritten, cut out, doubled or put in."""
    raw = bytearray(raw)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        length = draw(st.integers(0, 8))
        raw[at : at + length] = draw(st.binary(max_size=8))
    return bytes(raw)


def parse(raw):
    """Return DER as a list of ``[tag, children or content]``; what does not parse is content."""
    found, at = [], 0
    while at < len(raw):
        if len(raw) < at + 2:
            return None
        tag, size, at = raw[at], raw[at + 1], at + 2
        if size > 0x80:
            size, at = int.from_bytes(raw[at : at + size - 0x80], "big"), at + size - 0x80
        content = raw[at : at + size]
        if len(content) != size:
            return None
        at += size
        # Extensions hold DER in an octet string.
        inside = parse(content) if tag & 0x20 or (tag == 4 and content[:1] == b"\x30") else None
        found.append([tag, content if inside is None else inside])
    return found


def build(nodes):
    """Return the DER of what `parse` returned."""
    return b"".join(der(t, build(c) if isinstance(c, list) else c) for t, c in nodes)


def places(nodes):
    """Return every place of a tree: the list that holds it, and where."""
    found = [(nodes, at) for at in range(len(nodes))]
    for _, content in nodes:
        if isinstance(content, list):
            found += places(content)
    return found


TAGS = st.sampled_from([1, 2, 3, 4, 5, 6, 12, 16, 19, 22, 23, 24, 30, 0x30, 0x31, 0xA0, 0xA3, 0x85])


@st.composite
def restructured(draw, raw):
    """Draw DER like ``raw`` with elements replaced, left out, doubled or under another tag."""
    nodes = parse(raw)
    for _ in range(draw(st.integers(1, 3))):
        found = places(nodes)
        holder, at = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["content", "bytes", "tag", "out", "twice", "swap"])):
            case "content":
                holder[at][1] = draw(st.binary(max_size=40))
            case "bytes":
                content = holder[at][1]
                flat = build(content) if isinstance(content, list) else content
                holder[at][1] = draw(mutated(flat))
            case "tag":
                holder[at][0] = draw(TAGS)
            case "out":
                del holder[at]
            case "twice":
                holder.insert(at, copy.deepcopy(holder[at]))
            case "swap":
                other, there = found[draw(st.integers(0, len(found) - 1))]
                holder[at] = copy.deepcopy(other[there])
        if not nodes:
            break
    return build(nodes)


def test_der_is_taken_apart_and_put_together():
    """The mutations are of what they say: without one the bytes come out again."""
    for raw in (MILAN.leaf().der, MILAN.ask.der, MILAN.ark.der, CRL, AWS.leaf.der):
        assert build(parse(raw)) == raw


# --- SEV-SNP ---------------------------------------------------------------------------


@pytest.mark.req("R1.7")
@settings(max_examples=150)
@given(data=st.data(), family=st.sampled_from(["snp", "nitro"]))
def test_noise_is_refused_by_name(data, family):
    """Arbitrary bytes up to 64 KiB end in an error of ours."""
    raw = data.draw(st.binary(max_size=300)) * data.draw(st.integers(1, 200))
    head = data.draw(st.sampled_from([b"", MILAN.report(), AWS.document()[:200]]))
    beside = data.draw(st.none() | st.binary(max_size=300).map(b64))
    evidence = Evidence(family=family, quote=b64((head + raw)[:MAX_EVIDENCE]), collateral=beside)
    assert verify(evidence) is None


@pytest.mark.req("R1.7")
@settings(max_examples=150)
@given(data=st.data(), kind=KIND)
def test_a_mutated_report_shows_the_same_or_nothing(data, kind):
    """Bytes overwritten, cut or inserted anywhere in a report and the table behind it."""
    signer = MILAN.ask if kind == "vcek" else MILAN.asvk
    behind = table((kind, MILAN.leaf(kind).der), ("ask", signer.der), ("crl", CRL))
    raw = data.draw(mutated(MILAN.report(kind) + behind))
    shown = verify(Evidence(family="snp", quote=b64(raw), collateral=None))
    # A list that is out of the table is out of the evidence: then it ends with its chain.
    assert shown is None or shown.measurement == HONEST[kind].measurement
    assert shown is None or shown.report_data == HONEST[kind].report_data


@pytest.mark.req("R1.7")
@settings(max_examples=150)
@given(data=st.data(), product=PRODUCT, kind=KIND)
def test_signed_fields_come_out_as_they_went_in(data, product, kind):
    """Whatever a genuine report says is refused by name or shown as it is."""
    lab = AMD[product]
    changes = {
        name: data.draw(
            st.binary(min_size=int(layout[:-1]), max_size=int(layout[:-1]))
            if layout.endswith("s")
            else st.integers(0, 7)
            | st.integers(0, 2 ** (8 * struct.calcsize(layout)) - 1)
            | st.just(0x30000)
        )
        for name, (_, layout) in FIELDS.items()
        if data.draw(st.integers(0, 3)) == 0
    }
    raw = lab.report(kind, **changes)
    shown = verify(lab.evidence(kind, report=raw))
    if shown is None:
        return
    made = lab.fields(kind, **changes) | {"vmpl": changes.get("vmpl", 0)}
    m = shown.measurement
    assert (m.measurement, m.host_data) == (made["measurement"].hex(), made["host_data"].hex())
    assert (m.vmpl, int(m.policy, 16), m.guest_svn) == tuple(
        made[name] for name in ("vmpl", "policy", "guest_svn")
    )
    assert not made["policy"] & 0b11 << 18
    assert shown.report_data == made["report_data"]
    assert shown.reported_tcb == lab.product.tcb_bytes().hex()
    assert shown.hardware_id == (lab.product.chip_id.hex() if kind == "vcek" else None)


ENTRY = st.tuples(
    st.sampled_from(sorted(GUIDS)),
    st.integers(0, 2000) | st.integers(0, 2**32 - 1),
    st.integers(0, 2000) | st.integers(0, 2**32 - 1),
)


@pytest.mark.req("R1.7")
@settings(max_examples=150)
@given(entries=st.lists(ENTRY, max_size=8), end=st.integers(0, 30), tail=st.binary(max_size=2000))
def test_a_table_of_any_shape_shows_the_same_or_nothing(entries, end, tail):
    """Entries of known kinds with any offsets and lengths, beside a chain that is whole."""
    heads = b"".join(
        table((kind, b""), end=b"")[:16] + struct.pack("<II", *place) for kind, *place in entries
    )
    behind = heads + bytes(end) + tail
    shown = verify(MILAN.evidence(table=behind))
    assert shown is None or shown.measurement == HONEST["vcek"].measurement


@pytest.mark.req("R1.7")
@settings(max_examples=200)
@given(data=st.data(), kind=KIND, which=st.sampled_from(["leaf", "ask", "ark", "crl"]))
def test_certificates_of_any_shape_are_refused(data, kind, which):
    """DER with elements exchanged, whose signature does not hold."""
    signer = MILAN.ask if kind == "vcek" else MILAN.asvk
    honest = {kind: MILAN.leaf(kind).der, "ask": signer.der, "ark": MILAN.ark.der, "crl": CRL}
    name = kind if which == "leaf" else which
    shape = data.draw(restructured(honest[name]) | mutated(honest[name]))
    shown = verify(snp(MILAN.report(kind), **(honest | {name: shape})))
    assert shown is None or shape == honest[name]


@pytest.mark.req("R1.7")
@settings(max_examples=250)
@given(data=st.data(), kind=KIND)
def test_certificates_of_any_shape_that_amd_signed_are_read_or_refused(data, kind):
    """The same for a leaf and an intermediate that their issuer signed as they are."""
    change = data.draw(st.sampled_from(["leaf", "signer", "crl"]))

    def edit(tbs):
        return data.draw(restructured(tbs))

    found = {
        kind: MILAN.leaf(kind, edit=edit if change == "leaf" else None).der,
        "ask": MILAN.signer(kind, edit=edit if change == "signer" else None).der,
        "crl": revocation_list(MILAN.ark, edit=edit if change == "crl" else None),
    }
    shown = verify(snp(MILAN.report(kind), **found))
    assert shown is None or shown.measurement == HONEST[kind].measurement


@pytest.mark.req("R1.7")
@settings(max_examples=150)
@given(
    kind=KIND,
    product=PRODUCT,
    changes=st.dictionaries(
        st.sampled_from(["2", *(f"3.{n}" for n in range(1, 10)), "4", "5"]),
        st.none()
        | st.binary(max_size=70)
        | st.binary(max_size=3).map(lambda raw: der(2, raw))
        | st.text(max_size=8).map(lambda text: der(0x16, text.encode())),
        min_size=1,
        max_size=4,
    ),
)
def test_extensions_of_any_content_are_read_or_refused(kind, product, changes):
    """What AMD writes into a certificate is DER, or a chip id, or is refused."""
    lab = AMD[product]
    shown = verify(lab.evidence(kind, leaf=lab.leaf(kind, extensions=changes)))
    assert shown is None or shown.reported_tcb == lab.product.tcb_bytes().hex()


def test_the_layout_of_the_lab_is_whole():
    """A report of the lab has AMD's length, and no field of it lies in its signature."""
    assert len(MILAN.report()) == REPORT
    assert max(at for at, _ in FIELDS.values()) < SIGNED


# --- Nitro -----------------------------------------------------------------------------

SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=60)
)
KEYS = st.integers(-2, 40) | st.text(max_size=6) | st.binary(max_size=6) | st.booleans()
ANY = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.builds(cbor2.CBORTag, st.sampled_from([*range(40), 100, 256, 258, 55799]), inner)
    ),
    max_leaves=8,
)
FIELD = st.sampled_from(sorted(AWS.fields()))


def aws(document):
    """Return what a document shows."""
    return verify(envelope(document))


@pytest.mark.req("R1.7")
@settings(max_examples=200)
@given(data=st.data())
def test_a_mutated_document_shows_nothing(data):
    """Bytes overwritten, cut or inserted anywhere; all of them are signed, or fixed."""
    document = AWS.document()
    raw = data.draw(mutated(document))
    tagged = raw.removeprefix(b"\xd2") == document.removeprefix(b"\xd2")
    assert (aws(raw) is not None) == tagged


@pytest.mark.req("R1.7")
@settings(max_examples=200)
@given(changes=st.dictionaries(FIELD | st.text(max_size=4), ANY, min_size=1, max_size=3))
def test_signed_fields_of_any_type_are_read_or_refused(changes):
    """Values of any type and depth where a field is expected, under a signature that holds."""
    shown = aws(AWS.document(**changes))
    if shown is None:
        return
    data = changes.get("user_data", bytes(range(64)))
    assert shown.report_data == (data or b"")
    assert changes.get("certificate", AWS.leaf.der) == AWS.leaf.der
    assert shown.expires == LEAF_LIFE[1]


@pytest.mark.req("R1.7")
@settings(max_examples=150)
@given(data=st.data())
def test_signed_bytes_that_are_no_document_are_refused(data):
    """A payload that is mutated CBOR, under a signature that holds."""
    payload = data.draw(mutated(cbor2.dumps(AWS.fields())) | ANY.map(cbor2.dumps))
    shown = aws(AWS.message(payload))
    assert shown is None or isinstance(shown.measurement, NitroMeasurement)


@pytest.mark.req("R1.7")
@settings(max_examples=150)
@given(
    protected=ANY, unprotected=ANY, payload=ANY, signature=ANY, tag=st.none() | st.integers(0, 99)
)
def test_envelopes_of_any_content_are_refused(protected, unprotected, payload, signature, tag):
    """Any value in any of the four parts."""
    parts = [protected, unprotected, payload, signature]
    raw = cbor2.dumps(parts if tag is None else cbor2.CBORTag(tag, parts))
    assert aws(raw) is None


@settings(max_examples=200)
@given(
    registers=st.dictionaries(
        st.integers(0, 31), st.binary(min_size=48, max_size=48) | st.just(bytes(48)), max_size=32
    )
)
def test_registers_come_out_as_they_went_in(registers):
    """A set of registers is shown whole, or refused for the debug mode it says."""
    pcrs = PCRS | registers
    shown = aws(AWS.document(pcrs=pcrs))
    if not any(pcrs[0]):
        assert shown is None
        return
    for number in (0, 1, 2, 3, 4, 8):
        value = pcrs[number].hex() if number < 3 or any(pcrs[number]) else None
        assert getattr(shown.measurement, f"pcr{number}") == value


@pytest.mark.req("R1.7")
@settings(max_examples=150)
@given(data=st.data(), signed=st.booleans())
def test_chains_of_any_shape_are_read_or_refused(data, signed):
    """A leaf with elements exchanged, signed by its issuer as it is or not at all."""
    if signed:
        flawed = Nitro.create(leaf={"edit": lambda tbs: data.draw(restructured(tbs))})
        cert = flawed.leaf.der
    else:
        cert = data.draw(restructured(AWS.leaf.der))
    bundle = AWS.bundle()
    at = data.draw(st.integers(1, 4))
    shown = aws(AWS.document(certificate=cert))
    assert shown is None or shown.measurement == DOCUMENT.measurement
    bundle[at:at] = [cert]
    shown = aws(AWS.document(cabundle=bundle))
    assert shown is None
