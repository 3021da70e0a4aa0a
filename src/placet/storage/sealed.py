"""Sealing: every value on the disk is bound to its name, version and vault (spec/06, section 2)."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from placet.storage.store import quarantined

SEAL_LABEL = b"placet-storage/1\0"
KEY_SIZE = 32
NONCE_SIZE = 12


class Seal:
    """AES-256-GCM under a key derived from the TEE's sealing key, for one vault.

    Nonces are random: 2**32 values may be sealed under one sealing key (NIST SP 800-38D,
    section 8.3).

    Args:
        key: The TEE's sealing key, 32 bytes. It is used for derivation only.
        vault: The vault id; empty until it is known (see `bound`).
        rng: Returns so many random bytes.
    """

    def __init__(self, key: bytes, vault: str, rng: Callable[[int], bytes]) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"a sealing key has {KEY_SIZE} bytes, not {len(key)}")
        info = SEAL_LABEL + vault.encode()
        derived = HKDF(SHA256(), 2 * KEY_SIZE, salt=None, info=info).derive(key)
        self._aead = AESGCM(derived[:KEY_SIZE])
        self._tag_key = derived[KEY_SIZE:]
        self._key, self._rng = key, rng
        self.vault = vault

    def bound(self, vault: str) -> Seal:
        """Return the seal of the same TEE for ``vault``."""
        return Seal(self._key, vault, self._rng)

    def tag(self, name: str) -> bytes:
        """Return what stands for ``name`` on the disk, where nobody else can read it."""
        return hmac.digest(self._tag_key, name.encode(), "sha256")

    def seal(self, name: str, version: int, value: bytes) -> bytes:
        """Return ``value`` so that only this place of this vault opens it.

        Raises:
            ValueError: The name holds a zero byte: the caller is wrong.
        """
        if "\0" in name:
            raise ValueError("a record's name holds no zero byte")
        nonce = self._rng(NONCE_SIZE)
        plain = name.encode() + b"\0" + value
        return nonce + self._aead.encrypt(nonce, plain, self._place(self.tag(name), version))

    def open(self, tag: bytes, version: int, blob: bytes) -> tuple[str, bytes]:
        """Return name and value of what was sealed for this place.

        Raises:
            VerificationError: It was sealed for another name, version or vault, or changed.
        """
        try:
            place = self._place(tag, version)
            plain = self._aead.decrypt(blob[:NONCE_SIZE], blob[NONCE_SIZE:], place)
        except (InvalidTag, TypeError, ValueError) as e:
            raise quarantined("a record was changed, moved, or sealed by another vault") from e
        name, _, value = plain.partition(b"\0")
        return name.decode(), value

    def _place(self, tag: bytes, version: int) -> bytes:
        # Only the last field may hold a zero byte, so no two places are written alike.
        return b"%b%b\0%d\0%b" % (SEAL_LABEL, self.vault.encode(), version, tag)
