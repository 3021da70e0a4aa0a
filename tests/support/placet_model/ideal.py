"""Ideal signatures: what no one can forge, at the price of a hash.

The model makes millions of signatures, and what it looks for is not in Ed25519 (which the
tests of `placet.policy.signers` and `placet.core.dsse` are about). A signature here is a
digest of key and message; whoever is to sign must be in the cast, so nobody else can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from placet_testing.charters import person, vault_key
from placet_testing.governed import PAGE as PAGE_KEY
from placet_testing.passkey import authenticator_data, client_data

from placet.core.dsse import open_signed, pae, vault_id, verify_signature
from placet.core.encoding import b64
from placet.core.profile import code_id
from placet.core.signer import (
    KeySignature,
    OwnKeySigner,
    PasskeySignature,
    Signature,
    owner_fingerprint,
    signer_id,
)
from placet.core.statement import STATEMENT_TYPE
from placet.core.table import clause_digest
from placet.errors import VerificationError
from placet.policy import signers
from placet.policy.receipts import receipt_of
from placet_model.planting import in_place


def _sign(public_key: bytes, message: bytes) -> bytes:
    return hashlib.blake2b(public_key + message, person=b"ideal").digest()


def _verify(algorithm: str, public_key: bytes, signature: bytes, message: bytes) -> None:
    if signature != _sign(public_key, message):
        raise VerificationError(f"{algorithm} signature does not hold")


class IdealKey:
    """A vault's key, as far as `sign_record` looks."""

    def __init__(self, number: int) -> None:
        self._public = vault_key(number).public_key().public_bytes_raw()

    def public_key(self) -> IdealKey:
        """Return itself: it knows nothing secret."""
        return self

    def public_bytes_raw(self) -> bytes:
        """Return the raw public key."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Sign."""
        return _sign(self._public, message)


@lru_cache(None)
def signer(name: str) -> OwnKeySigner:
    """Return who somebody is to a policy; ``page`` is a passkey on a page of others."""
    return PAGE_KEY.signer if name == "page" else person(name).signer


@lru_cache(None)
def _identity(name: str) -> tuple[str, bytes]:
    who = signer(name)
    return signer_id(who), signers.signer_key(who)[1]


def signature(name: str, payload: bytes, digest: str) -> Signature:
    """Return somebody's signature of a statement."""
    who, public = _identity(name)
    if name != "page":
        raw = _sign(public, pae(STATEMENT_TYPE, payload))
        return KeySignature(signer=who, signature=b64(raw))
    client = client_data(bytes.fromhex(digest.removeprefix("sha256:")))
    auth = authenticator_data(rp_id=PAGE_KEY.rp_id)
    raw = _sign(public, auth + hashlib.sha256(client).digest())
    return PasskeySignature(
        signer=who,
        authenticator_data=b64(auth),
        client_data=b64(client),
        signature=b64(raw),
    )


@lru_cache(None)
def vault_identity(number: int) -> IdealKey:
    """Return the key of test vault ``number`` (from 1)."""
    return IdealKey(number)


@contextmanager
def ideal() -> Iterator[None]:
    """Have every signature ideal, and remember what pure functions said of the same value."""
    remembered = (
        signer_id,
        signers.signer_key_check,
        signers.signer_identity,
        signers.signer_key,
        code_id,
        clause_digest,
        vault_id,
        owner_fingerprint,
        open_signed,
        receipt_of,
    )
    with in_place({verify_signature: _verify} | {f: lru_cache(20_000)(f) for f in remembered}):
        yield
