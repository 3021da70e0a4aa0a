"""The messages of the attestation exchange, in the order in which they go (spec/05, section 3).

And the plainest way to verify the evidence in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta

from placet.attest.trust import TrustAnchor
from placet.attest.verify import verify_evidence
from placet.core.attestation import Claims, Evidence, VerifiedEvidence
from placet.core.encoding import Base64, Record, Sha256
from placet.core.limits import MAX_GRACE


class Hello(Record, tag_field="kind", tag="hello"):
    """Who connects, and the client's nonce."""

    protocol: Literal["placet-attest/1"]
    role: Literal["visitor", "workload", "resharer"]
    nonce: Base64


class VaultProof(Record, tag_field="kind", tag="vault-proof"):
    """The server's nonce, evidence, and its identity key's signature over the report data."""

    nonce: Base64
    claims: Claims
    evidence: Evidence
    vault_key: Base64
    signature: Base64


class PeerProof(Record, tag_field="kind", tag="peer-proof"):
    """The client's evidence; a visitor has none."""

    claims: Claims | None
    keys: Annotated[tuple[Sha256, ...], Meta(max_length=64)]
    evidence: Evidence | None


class Verdict(Record, tag_field="kind", tag="verdict"):
    """The server's answer: ``None`` is a welcome."""

    problem: dict[str, str | int | bool | None] | None


async def verify_at_once(
    evidence: Evidence, network: str, *, trust: Sequence[TrustAnchor], now: int
) -> VerifiedEvidence:
    """Verify with nothing around it: for servers that nobody can flood."""
    del network
    return verify_evidence(evidence, trust=trust, now=now, grace=MAX_GRACE)
