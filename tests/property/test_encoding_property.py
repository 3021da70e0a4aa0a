"""Canonical JSON against somebody else's RFC 8785, and against everything a fuzzer says."""

from __future__ import annotations

import json

import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from placet_testing.charters import birth_body, composer, signed

from placet.core.encoding import MAX_INT, b64, decode, encode, unb64
from placet.core.statement import SignedStatement, Statement, open_statement
from placet.errors import MalformedError

# Strings without surrogates: they are no Unicode, and both sides refuse them.
texts = st.text(st.characters(exclude_categories=("Cs",)))
keys = st.text(st.characters(exclude_categories=("Cs",), max_codepoint=0xFFFF))
scalars = st.none() | st.booleans() | st.integers(-MAX_INT, MAX_INT) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=20
)


@given(values)
def test_same_bytes_as_another_implementation(value):
    """Every value that has an encoding here has the one of RFC 8785."""
    assert encode(value) == rfc8785.dumps(value)


@given(values)
def test_every_json_reader_reads_it_back(value):
    """The encoding is plain JSON, and reading it gives the value."""
    assert json.loads(encode(value)) == value


@given(values, values)
def test_different_values_have_different_bytes(one, other):
    """No two values share their bytes (true and 1 are different values)."""
    if encode(one) == encode(other):
        assert json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(st.binary())
def test_base64url_round_trip(data):
    """Every byte string has one text."""
    assert unb64(b64(data)) == data


@given(st.text(st.sampled_from("AB-_w=+/ \n"), max_size=12))
def test_base64url_is_never_another_spelling(text):
    """What is read is what would be written."""
    try:
        data = unb64(text)
    except MalformedError:
        return
    assert b64(data) == text


BIRTH = signed(composer().birth(birth_body()))


@given(st.data())
def test_no_changed_statement_keeps_its_digest(data):
    """Of a statement's bytes, every other byte string is another statement or none."""
    payload = bytearray(BIRTH.payload)
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] = data.draw(st.integers(0, 255).filter(lambda b: b != payload[place]))
    try:
        other = open_statement(SignedStatement(payload=b64(bytes(payload)), signatures=()))
    except MalformedError:
        return
    assert other.digest != BIRTH.digest
    assert other.payload == bytes(payload)


@given(st.binary(max_size=300))
def test_only_our_own_errors_leave_the_decoder(raw):
    """Whatever arrives, it is a statement or it is malformed."""
    try:
        decode(raw, Statement)
    except MalformedError:
        return


@given(
    st.recursive(
        st.none() | st.integers() | texts, lambda i: st.lists(i) | st.dictionaries(texts, i)
    )
)
def test_no_json_but_a_statement_is_read(value):
    """JSON of any shape is refused with the one error that stands for it."""
    try:
        decode(json.dumps(value).encode(), Statement)
    except MalformedError:
        return
    raise AssertionError("something that is no statement was read as one")
