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

INTEL = "intel"
INTEL_TCB_SIGNER = "Intel SGX TCB Signing"
INTEL_ROOT = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
"""SHA-256 of the DER of Intel's SGX root certificate that ends in 2049."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchor:
    """A root that may sign evidence, under the only name that it can have.

    Args:
        name: ``intel``, or ``software:`` and the SHA-256 of ``root_der`` in hex.
        root_der: The root certificate. It is *not* parsed here.
        tcb_signer: Common name of the certificate that signs its TCB info.

    Raises:
        EvidenceError: Intel's name or signer with another root, Intel's root under another
            name, a hash that is not the root's, or no signer. The config is wrong.
    """

    name: str
    root_der: bytes
    tcb_signer: str

    def __post_init__(self) -> None:
        fingerprint = hashlib.sha256(self.root_der).hexdigest()
        if fingerprint == INTEL_ROOT:
            fits = self.name == INTEL and self.tcb_signer == INTEL_TCB_SIGNER
        else:
            theirs = self.tcb_signer in ("", INTEL_TCB_SIGNER)
            fits = self.name == "software:" + fingerprint and not theirs
        if not fits:
            raise EvidenceError(
                f"trust anchor {self.name!r} with TCB signer {self.tcb_signer!r} does not fit "
                f"the root certificate with SHA-256 {fingerprint}",
                "Name Intel's root `intel` with its own signer, any other `software:<sha256>`.",
                check="anchor",
            )


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
