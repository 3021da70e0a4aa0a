"""Six words: the list, the bits, and what they are of."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from mnemonic import Mnemonic

from placet.core.wordlist import WORDS
from placet.core.words import six_words


def test_list_is_that_of_bip_39():
    """The same list as another package's, and the file that BIP-39 publishes."""
    assert list(WORDS) == Mnemonic("english").wordlist
    file = "".join(f"{word}\n" for word in WORDS).encode()
    assert (
        hashlib.sha256(file).hexdigest()
        == "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
    )


def test_words_are_told_apart_by_four_letters():
    """So that a person may read them out, or compare them at a glance."""
    assert len(WORDS) == len(set(WORDS)) == len({word[:4] for word in WORDS}) == 2048


@given(st.binary(min_size=32, max_size=32))
def test_words_are_the_first_66_bits(raw):
    """Bit by bit, another way than the code goes."""
    hashed = hashlib.sha256(b"placet-words/1\0" + raw).digest()
    bits = "".join(f"{byte:08b}" for byte in hashed)[:66]
    expected = tuple(WORDS[int(bits[i : i + 11], 2)] for i in range(0, 66, 11))
    assert six_words("sha256:" + raw.hex()) == expected


def test_words_of_nearly_equal_digests_differ():
    """One bit of a digest changes the words."""
    assert six_words("sha256:" + "00" * 32) != six_words("sha256:" + "00" * 31 + "01")
