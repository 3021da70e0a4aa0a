"""Which roots may sign evidence (spec/02, section 2).

A root comes from the measured config, as a value. There is no built-in one and no way
to load a second one later (I17).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from placet.core.config import TrustRoot
from placet.core.encoding import unb64
from placet.errors import EvidenceError

INTEL, AMD, AWS = "intel", "amd", "aws"
INTEL_TCB_SIGNER = "Intel SGX TCB Signing"
INTEL_ROOT = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
"""SHA-256 of the DER of Intel's SGX root certificate that ends in 2049."""
AMD_ROOTS = {
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": "milan",
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": "genoa",
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": "turin",
}
"""SHA-256 of the DER of AMD's root keys (ARK), and the product that each is for."""
AWS_ROOT = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
"""SHA-256 of the DER of AWS's Nitro Enclaves root G1."""
VENDORS = {
    INTEL_ROOT: (INTEL, INTEL_TCB_SIGNER),
    **dict.fromkeys(AMD_ROOTS, (AMD, "")),
    AWS_ROOT: (AWS, ""),
}
"""Pinned roots, with the one name and TCB signer that each may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchor:
    """A root that may sign evidence, under the only name that it can have.

    Args:
        name: ``intel``, ``amd``, ``aws``, or ``software:`` and the SHA-256 of ``root_der`` in hex.
        root_der: The root certificate. It is *not* parsed here.
        tcb_signer: Common name of the certificate that signs its TCB info; empty for AMD and
            AWS, whose evidence knows none.

    Raises:
        EvidenceError: A vendor's name or signer with another root, its root under another
            name, a hash that is not the root's, or no signer. The config is wrong.
    """

    name: str
    root_der: bytes
    tcb_signer: str

    def __post_init__(self) -> None:
        fingerprint = self.fingerprint
        if vendor := VENDORS.get(fingerprint):
            fits = (self.name, self.tcb_signer) == vendor
        else:
            theirs = self.tcb_signer in ("", INTEL_TCB_SIGNER)
            fits = self.name == "software:" + fingerprint and not theirs
        if not fits:
            raise EvidenceError(
                f"trust anchor {self.name!r} with TCB signer {self.tcb_signer!r} does not fit "
                f"the root certificate with SHA-256 {fingerprint}",
                "Name a vendor's root as the vendor is, Intel's with its own signer, and any "
                "other `software:<sha256>`.",
                check="anchor",
            )

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the root's DER, in hex."""
        return hashlib.sha256(self.root_der).hexdigest()


def trust_from_config(roots: Sequence[TrustRoot]) -> tuple[TrustAnchor, ...]:
    """Return the anchors of a measured config.

    Raises:
        EvidenceError: There is none, one twice, or one contradicts itself.
        MalformedError: A root is not base64url.
    """
    anchors = tuple(
        TrustAnchor(name=r.anchor, root_der=unb64(r.root), tcb_signer=r.tcb_signer) for r in roots
    )
    if not anchors or len({a.root_der for a in anchors}) != len(anchors):
        raise EvidenceError(
            f"config names {len(anchors)} trust roots; at least one is needed, none of them twice",
            "Put the root that signs the peers' evidence into `trust_roots`.",
            check="anchor",
        )
    return anchors
