"""One value, one encoding: what is written, and everything that is not read."""

from __future__ import annotations

import hashlib
import traceback

import pytest

from placet.core.encoding import (
    MAX_INT,
    Base64,
    Int,
    Record,
    Sha256,
    Text,
    b64,
    decode,
    digest,
    encode,
    unb64,
)
from placet.errors import MalformedError, TooLargeError


class Leaf(Record):
    """A record inside another."""

    n: Int


class Left(Record, tag_field="kind", tag="left"):
    """One of two kinds."""

    value: Int


class Right(Record, tag_field="kind", tag="right"):
    """The other."""

    value: Int


class Tree(Record, kw_only=True):
    """A record with one field of each sort."""

    schema: int = 1
    name: Text
    count: Int
    flag: bool
    leaf: Leaf | None
    more: tuple[Int, ...]
    side: Left | Right
    names: dict[Text, Int]


TREE = Tree(
    name="é",
    count=3,
    flag=True,
    leaf=Leaf(n=0),
    more=(1, 2),
    side=Left(value=5),
    names={"b": 1, "a": 2},
)
BYTES = (
    '{"count":3,"flag":true,"leaf":{"n":0},"more":[1,2],"name":"é","names":{"a":2,"b":1},'
    '"schema":1,"side":{"kind":"left","value":5}}'
).encode()


def test_record_round_trip():
    """Keys are sorted at every depth, nothing is escaped without need."""
    assert encode(TREE) == BYTES
    assert decode(BYTES, Tree) == TREE


WRITTEN = {
    # RFC 8785, section 3.2.2.2: only these are escaped, in the short form where there is one.
    "short escapes": ('\b\t\n\f\r"\\', rb'"\b\t\n\f\r\"\\"'),
    "controls": ("\0\x01\x0b\x1f", rb'"\u0000\u0001\u000b\u001f"'),
    "no other escape": ("/\x7f\x80\u2028\u2029<>&'", '"/\x7f\x80\u2028\u2029<>&\'"'.encode()),
    "beyond the BMP": ("😂", '"😂"'.encode()),
    "not normalised": ("A\u030a", '"A\u030a"'.encode()),
    "byte order mark inside": ("\ufeff", b'"\xef\xbb\xbf"'),
    "empty": ("", b'""'),
    "zero": (0, b"0"),
    "negative": (-1, b"-1"),
    "largest": (MAX_INT, b"9007199254740991"),
    "smallest": (-MAX_INT, b"-9007199254740991"),
    "true": (True, b"true"),
    "null": (None, b"null"),
    "empty array": ([], b"[]"),
    "empty object": ({}, b"{}"),
    # RFC 8785, section 3.2.3, without the one key beyond U+FFFF that encode refuses.
    "order of keys": (
        {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\x80": 6, "\u00f6": 7, "": 8},
        '{"":8,"\\r":2,"1":4,"\x80":6,"ö":7,"€":1,"\ufb33":3}'.encode(),
    ),
    "capitals first": ({"a": 1, "B": 2, "_": 3}, b'{"B":2,"_":3,"a":1}'),
    "a prefix first": ({"aa": 1, "a": 2}, b'{"a":2,"aa":1}'),
}


@pytest.mark.parametrize(("value", "expected"), WRITTEN.values(), ids=WRITTEN.keys())
def test_written_as_rfc_8785_says(value, expected):
    """The cases of the RFC within integers, strings, booleans, arrays and objects."""
    assert encode(value) == expected


UNWRITABLE = {
    "float": 1.5,
    "float that is whole": 1.0,
    "float inside": {"a": [1.0]},
    "NaN": float("nan"),
    "infinity": float("inf"),
    "too large": MAX_INT + 1,
    "too small": -MAX_INT - 1,
    "too large inside": [[{"a": 2**64}]],
    "lone surrogate": "\ud800",
    "lone surrogate in a key": {"\udfff": 1},
    "key that is a number": {1: 2},
    "key beyond U+FFFF": {"😂": 1},
}


@pytest.mark.parametrize("value", UNWRITABLE.values(), ids=UNWRITABLE.keys())
def test_what_has_no_encoding_is_a_wrong_caller(value):
    """Values that readers disagree about are never written."""
    with pytest.raises(ValueError):  # noqa: PT011 - its texts are of several libraries
        encode(value)


def changed(old: bytes, new: bytes) -> bytes:
    """Return the good bytes with one change."""
    assert BYTES.count(old) == 1
    return BYTES.replace(old, new)


REFUSED = {
    "nothing": b"",
    "a space": changed(b'"count":3', b'"count": 3'),
    "a space before": b" " + BYTES,
    "a line after": BYTES + b"\n",
    "a zero byte after": BYTES + b"\0",
    "twice": BYTES + BYTES,
    "cut short": BYTES[:-1],
    "byte order mark": b"\xef\xbb\xbf" + BYTES,
    "UTF-16": BYTES.decode().encode("utf-16"),
    "Latin-1": BYTES.decode().encode("latin-1"),
    "keys in another order": changed(b'"count":3,"flag":true', b'"flag":true,"count":3'),
    "keys in another order, inside": changed(b'"a":2,"b":1', b'"b":1,"a":2'),
    "duplicate key": changed(b'"count":3', b'"count":3,"count":3'),
    "duplicate key, first differs": changed(b'"count":3', b'"count":4,"count":3'),
    "duplicate key, escaped": changed(b'"count":3', b'"co\\u0075nt":4,"count":3'),
    "duplicate key in a map": changed(b'"a":2', b'"a":1,"a":2'),
    "duplicate tag": changed(b'"kind":"left"', b'"kind":"right","kind":"left"'),
    "unknown field": changed(b'"flag"', b'"extra":1,"flag"'),
    "unknown field inside": changed(b'{"n":0}', b'{"m":0,"n":0}'),
    "field missing": changed(b'"count":3,', b""),
    "default left out": changed(b'"schema":1,', b""),
    "tag missing": changed(b'"kind":"left",', b""),
    "tag unknown": changed(b'"left"', b'"middle"'),
    "float": changed(b'"count":3', b'"count":3.5'),
    "float that is whole": changed(b'"count":3', b'"count":3.0'),
    "exponent": changed(b'"count":3', b'"count":3e0'),
    "leading zero": changed(b'"count":3', b'"count":03'),
    "minus zero": changed(b'"n":0', b'"n":-0'),
    "plus": changed(b'"count":3', b'"count":+3'),
    "hex": changed(b'"count":3', b'"count":0x3'),
    "negative": changed(b'"count":3', b'"count":-3'),
    "integer too large": changed(b'"count":3', b'"count":9007199254740992'),
    "integer far too large": changed(b'"count":3', b'"count":%s' % (b"9" * 400)),
    "integer as text": changed(b'"count":3', b'"count":"3"'),
    "NaN": changed(b'"count":3', b'"count":NaN'),
    "Infinity": changed(b'"count":3', b'"count":Infinity'),
    "one for true": changed(b"true", b"1"),
    "True": changed(b"true", b"True"),
    "null for a number": changed(b'"count":3', b'"count":null'),
    "object for an array": changed(b"[1,2]", b"{}"),
    "trailing comma": changed(b"[1,2]", b"[1,2,]"),
    "comment": changed(b"[1,2]", b"[1,/**/2]"),
    "needless escape": changed("é".encode(), b"\\u00e9"),
    "escaped slash": changed("é".encode(), b"\\/"),
    "control unescaped": changed("é".encode(), b"\x01"),
    "capital hex": changed("é".encode(), b"\\u000B"),
    "long form of a short escape": changed("é".encode(), b"\\u000a"),
    "lone surrogate": changed("é".encode(), b"\\ud800"),
    "surrogates as bytes": changed("é".encode(), b"\xed\xa0\x80"),
    "surrogate pair escaped": changed("é".encode(), b"\\ud83d\\ude02"),
    "overlong UTF-8": changed("é".encode(), b"\xc0\xaf"),
    "text too long": changed("é".encode(), b"x" * 201),
    "single quotes": changed(b'"flag"', b"'flag'"),
    "not an object": b"[]",
    "null": b"null",
    "nested too deep": changed(b"[1,2]", b"[" * 100_000),
    "nested too deep and closed": changed(b"[1,2]", b"[" * 5000 + b"]" * 5000),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_anything_but_the_one_encoding_is_refused(raw):
    """Nothing is normalised: one value has one spelling, and the rest is no spelling."""
    with pytest.raises(MalformedError):
        decode(raw, Tree)


@pytest.mark.req("I13")
@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b'{"kind":"SECRET - at `$.x`","leaf":1}', "Invalid value - at `$.kind`"),
        (b'{"kind":"left","SECRET":1}', "Object contains unknown field"),
        (b'{"kind":"left","a`SECRET` - at `$X":1}', "Object contains unknown field"),
        (b'{"kind":"left","leaves":1}', "Object contains unknown field `leaves`"),
        (b'"SECRET"', "Expected `object`, got `str`"),
    ],
)
def test_a_refusal_does_not_repeat_what_was_read(raw, says):
    """What does not parse may be a secret in the wrong place: only field names are told."""
    with pytest.raises(MalformedError) as refused:
        decode(raw, Left | Right)
    assert refused.value.detail.endswith(f"does not parse: {says}")
    assert "SECRET" not in "".join(traceback.format_exception(refused.value))


def test_length_is_checked_before_anything_is_parsed():
    """At the limit it is read; one byte more is refused, whatever the bytes are."""
    assert decode(BYTES, Tree, limit=len(BYTES)) == TREE
    with pytest.raises(TooLargeError, match=f"at most {len(BYTES) - 1}"):
        decode(BYTES, Tree, limit=len(BYTES) - 1)
    with pytest.raises(TooLargeError):
        decode(b"\xff" * 11, Tree, limit=10)


def test_records_cannot_be_changed():
    """What was checked stays what it was."""
    with pytest.raises(AttributeError):
        TREE.count = 4  # type: ignore[misc]


class Tagged(Record):
    """Texts of a fixed form."""

    value: Sha256 | None
    data: Base64


GOOD_DIGEST = "sha256:" + "0a" * 32
BAD_DIGESTS = {
    "no label": "0a" * 32,
    "another algorithm": "sha384:" + "0a" * 32,
    "capitals": "sha256:" + "0A" * 32,
    "capital label": "SHA256:" + "0a" * 32,
    "short": GOOD_DIGEST[:-1],
    "long": GOOD_DIGEST + "0",
    "a line after": GOOD_DIGEST + "\\n",
    "a space before": " " + GOOD_DIGEST,
    "not hex": "sha256:" + "0g" * 32,
    "digits of another script": "sha256:" + "٣" * 64,
}


@pytest.mark.parametrize("text", BAD_DIGESTS.values(), ids=BAD_DIGESTS.keys())
def test_digest_of_another_form_is_refused(text):
    """Algorithm, colon, 64 lower-case hex digits: nothing else."""
    assert decode(b'{"data":"","value":"%b"}' % GOOD_DIGEST.encode(), Tagged)
    with pytest.raises(MalformedError):
        decode(b'{"data":"","value":"%b"}' % text.encode(), Tagged)


@pytest.mark.parametrize("text", ["=", "AA==", "A+", "A/", "A B", "AA\\n", "é"])
def test_binary_of_another_alphabet_is_refused_when_read(text):
    """Base64url without padding, by its characters; `unb64` does the rest."""
    with pytest.raises(MalformedError):
        decode(b'{"data":"%b","value":null}' % text.encode(), Tagged)


B64 = {b"": "", b"\0": "AA", b"\xff": "_w", b"\xfb\xef\xbe": "----", b"abcd": "YWJjZA"}


@pytest.mark.parametrize(("data", "text"), B64.items(), ids=B64.values())
def test_base64url_both_ways(data, text):
    """RFC 4648, section 5, without padding."""
    assert b64(data) == text
    assert unb64(text) == data


BAD_B64 = ["A", "AAAAA", "AA=", "AA==", "AB", "_x", "AA ", " AA", "A\nA", "+w", "/w", "AA\0", "é"]


@pytest.mark.parametrize("text", BAD_B64)
def test_base64url_of_another_spelling_is_refused(text):
    """Padding, stray bits, other alphabets and characters that libraries skip."""
    with pytest.raises(MalformedError):
        unb64(text)


def test_digest_is_labelled():
    """The label and its zero byte keep kinds of things apart."""
    assert digest("a/1", b"b") == "sha256:" + hashlib.sha256(b"a/1\0b").hexdigest()
    assert digest("a/1", b"b") != digest("a/1b", b"")
