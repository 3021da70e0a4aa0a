"""INSECURE: a development PKI in the shape of AWS's, and Nitro documents under it.

Layouts are those of AWS's attestation process and of COSE (RFC 9052), written down here
a second time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cbor2
from cryptography import x509

from placet.attest.trust import TrustAnchor
from placet.core.attestation import Evidence
from placet.core.encoding import b64
from placet_testing.amd import (
    DAY,
    NOW,
    REPORT_DATA,
    Party,
    issue,
    name,
    numbers,
    p384_key,
    software_anchor,
)

ES384 = cbor2.dumps({1: -35})
PCRS = {n: bytes(48) for n in range(16)} | {
    n: hashlib.sha384(bytes([n])).digest() for n in (0, 1, 2, 3, 4, 8)
}
LEAF_LIFE = (NOW - 60, NOW + 3 * 3600)
PARTIES = ("root", "regional", "zonal", "instance")
PATH = {"root": None, "regional": 2, "zonal": 1, "instance": 0}
LIVES = {
    "root": (NOW - 1000 * DAY, NOW + 9000 * DAY),
    "regional": (NOW - 5 * DAY, NOW + 15 * DAY),
    "zonal": (NOW - DAY, NOW + 5 * DAY),
    "instance": (NOW - 3600, NOW + DAY),
}


@dataclass(frozen=True, kw_only=True)
class Nitro:
    """Root to leaf, each issued by the one before it."""

    organization: str
    parties: Mapping[str, Party]
    leaf: Party

    @classmethod
    def create(cls, *, keys: str = "ours", organization: str = "", **flaws: Any) -> Nitro:
        """Return a PKI; PKIs of one organization and other keys are impostors of one another.

        Args:
            keys: Names its keys.
            organization: What its names say; by default its own.
            **flaws: By the name of a party or ``leaf``: what `issue` takes, and ``key``.
        """
        organization = organization or f"DEV AWS (insecure) {keys}"
        above: Party | None = None
        parties = {}
        for party in (*PARTIES, "leaf"):
            given: dict[str, Any] = {
                "life": LIVES.get(party, LEAF_LIFE),
                "constraints": x509.BasicConstraints(ca=party != "leaf", path_length=None),
            }
            if party in PATH:
                given["constraints"] = x509.BasicConstraints(ca=True, path_length=PATH[party])
            given |= flaws.get(party, {})
            key = given.pop("key", None) or p384_key(f"nitro {keys} {party}")
            subject = name(f"{party}.dev-1.nitro-enclaves.invalid", organization)
            above = parties[party] = issue(subject, key, above, **given)
        return cls(organization=organization, leaf=parties.pop("leaf"), parties=parties)

    def anchor(self) -> TrustAnchor:
        """Return this root as a trust anchor, under its fingerprint."""
        return software_anchor(self.parties["root"].der)

    def bundle(self, *without: str) -> list[bytes]:
        """Return the chain above the leaf, root first, with some of it left out."""
        return [self.parties[party].der for party in PARTIES if party not in without]

    def fields(self, **changes: Any) -> dict[Any, Any]:
        """Return the fields of an honest document, but for ``changes``; `...` leaves one out."""
        made = {
            "module_id": "i-0dev-enc0dev",
            "digest": "SHA384",
            "timestamp": NOW * 1000 + 578,
            "pcrs": PCRS,
            "certificate": self.leaf.der,
            "cabundle": self.bundle(),
            "public_key": None,
            "user_data": REPORT_DATA,
            "nonce": None,
        }
        return {field: value for field, value in (made | changes).items() if value is not ...}

    def document(self, **changes: Any) -> bytes:
        """Return a signed document, with tag 18."""
        return self.message(cbor2.dumps(self.fields(**changes)))

    def message(
        self,
        payload: Any,
        *,
        protected: Any = ES384,
        unprotected: Any = None,
        tag: int | None = 18,
        signature: Any = None,
        key: Any = None,
    ) -> bytes:
        """Return COSE_Sign1 over a payload, signed by the leaf if by nobody else."""
        if signature is None:
            signature = self.sign(payload, protected, key)
        parts = [protected, {} if unprotected is None else unprotected, payload, signature]
        return cbor2.dumps(parts if tag is None else cbor2.CBORTag(tag, parts))

    def sign(self, payload: Any, protected: Any = ES384, key: Any = None) -> bytes:
        """Return r and s, 48 bytes each, over what COSE signs."""
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = numbers(key or self.leaf.key, signed)
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def indefinite(fields: Mapping[Any, Any]) -> bytes:
    """Return a map of indefinite length, as the NSM writes it."""
    pairs = [cbor2.dumps(key) + cbor2.dumps(value) for key, value in fields.items()]
    return b"\xbf" + b"".join(pairs) + b"\xff"


def with_pair(payload: bytes, key: Any, value: Any) -> bytes:
    """Return a map of fewer than 23 pairs with one pair more, which it may have already."""
    assert 0xA0 <= payload[0] < 0xB7
    return bytes([payload[0] + 1]) + payload[1:] + cbor2.dumps(key) + cbor2.dumps(value)


def envelope(raw: bytes) -> Evidence:
    """Return a document as evidence."""
    return Evidence(family="nitro", quote=b64(raw), collateral=None)
