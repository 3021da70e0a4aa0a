"""Sealed values open in their place only (spec/06, section 2)."""

from __future__ import annotations

import os

import pytest

from placet.errors import VerificationError
from placet.storage.sealed import SEAL_LABEL, Seal

KEY = bytes(range(32))
SEAL = Seal(KEY, "vault-1", os.urandom)
NAME, VERSION, VALUE = "key/1", 3, b"a share of a data key"
TAG = SEAL.tag(NAME)
BLOB = SEAL.seal(NAME, VERSION, VALUE)

ELSEWHERE = {
    "another name": (SEAL, SEAL.tag("key/2"), VERSION, BLOB),
    "an older version's number": (SEAL, TAG, VERSION - 1, BLOB),
    "a newer version's number": (SEAL, TAG, VERSION + 1, BLOB),
    "another vault of the same machine": (SEAL.bound("vault-2"), TAG, VERSION, BLOB),
    "another machine": (Seal(bytes(32), "vault-1", os.urandom), TAG, VERSION, BLOB),
    "a version's digit moved into the tag": (SEAL, b"3" + TAG, 0, BLOB),
    "cut": (SEAL, TAG, VERSION, BLOB[:-1]),
    "longer": (SEAL, TAG, VERSION, BLOB + b"\0"),
    "nonce only": (SEAL, TAG, VERSION, BLOB[:12]),
    "empty": (SEAL, TAG, VERSION, b""),
    "no bytes": (SEAL, TAG, VERSION, None),
    "text": (SEAL, TAG, VERSION, "text"),
    "no tag": (SEAL, None, VERSION, BLOB),
    "no version": (SEAL, TAG, None, BLOB),
}


def test_sealed_value_opens_in_its_place():
    """With the name that it was sealed under."""
    assert SEAL.open(TAG, VERSION, BLOB) == (NAME, VALUE)


@pytest.mark.parametrize("place", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_sealed_value_opens_nowhere_else(place):
    """Each row moves or cuts one blob."""
    seal, tag, version, blob = place
    with pytest.raises(VerificationError) as caught:
        seal.open(tag, version, blob)
    assert caught.value.members == {"quarantined": True}


def test_every_bit_of_a_sealed_value_is_load_bearing():
    """Flip each in turn."""
    for bit in range(len(BLOB) * 8):
        blob = bytearray(BLOB)
        blob[bit // 8] ^= 1 << bit % 8
        with pytest.raises(VerificationError):
            SEAL.open(TAG, VERSION, bytes(blob))


def test_nonce_comes_from_the_given_randomness():
    """Twelve bytes, anew for each value, in front of the ciphertext."""
    asked = []

    def rng(size):
        asked.append(size)
        return bytes([len(asked)]) * size

    seal = Seal(KEY, "v", rng)
    first, second = seal.seal("a", 1, b"x"), seal.seal("a", 1, b"x")
    assert asked == [12, 12]
    assert (first[:12], second[:12]) == (b"\1" * 12, b"\2" * 12)
    assert first != second


def test_sealed_form_is_frozen():
    """A vault must open what an older release of it sealed."""
    seal = Seal(KEY, "vault-1", bytes)
    assert SEAL_LABEL == b"placet-storage/1\0"
    assert (
        seal.tag("key/1").hex()
        == "33725e78bdb0e0347d83f4761c5189cead3244e0eae3885f1a256aa92196e603"
    )
    assert (
        seal.seal("key/1", 1, b"value").hex()
        == "000000000000000000000000fb41270f5c9a813c6b6b4f5df35cf2217f98ba2a184774185c78a7"
    )


def test_wrong_arguments_are_the_callers_mistake():
    """A short key would be a weak one; a zero byte would end the name early."""
    with pytest.raises(ValueError, match="32 bytes"):
        Seal(KEY[:16], "v", os.urandom)
    with pytest.raises(ValueError, match="zero byte"):
        SEAL.seal("a\0b", 1, b"")
