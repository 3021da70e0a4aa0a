"""Six words for a statement, so that two screens can be compared by eye (spec/03, section 1)."""

from __future__ import annotations

from placet.core.encoding import digest
from placet.core.wordlist import WORDS

WORDS_LABEL = "placet-words/1"

_bits = 11
"""Bits of one word."""


def six_words(statement_digest: str) -> tuple[str, ...]:
    """Return the first 66 bits of SHA-256(``placet-words/1``, a zero byte, D) as words.

    D is hashed as its 32 raw bytes. Words vouch only for a statement that one's own tool
    composed: somebody else who is free to choose its nonce can search for words.

    Args:
        statement_digest: ``sha256:<hex>``, as `UntrustedStatement.digest` has it.
    """
    raw = bytes.fromhex(statement_digest.removeprefix("sha256:"))
    number = int(digest(WORDS_LABEL, raw).removeprefix("sha256:"), 16)
    return tuple(WORDS[(number >> (256 - _bits * i)) % 2**_bits] for i in range(1, 7))
