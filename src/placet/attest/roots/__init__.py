"""The vendors' roots, as they ship in the wheel. `README.md` says where each comes from.

Nothing here is trusted by itself: a main loads a root and passes it on as a value, and
`TrustAnchor` compares it with the pinned hash. A measured config names its roots itself.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from placet.attest.trust import (
    AMD,
    AMD_ROOTS,
    AWS,
    INTEL,
    INTEL_TCB_SIGNER,
    TrustAnchor,
)


def _read(name: str) -> bytes:
    return resources.files(__name__).joinpath(name).read_bytes()


@lru_cache(maxsize=1)
def pinned() -> tuple[TrustAnchor, ...]:
    """Return the anchors of Intel, AMD (one for each product) and AWS."""
    amd = [
        TrustAnchor(name=AMD, root_der=_read(f"amd-{product}.der"), tcb_signer="")
        for product in AMD_ROOTS.values()
    ]
    return (
        TrustAnchor(name=INTEL, root_der=_read("intel.der"), tcb_signer=INTEL_TCB_SIGNER),
        *amd,
        TrustAnchor(name=AWS, root_der=_read("aws-nitro-g1.der"), tcb_signer=""),
    )


@lru_cache(maxsize=16)
def amd_signer(root_fingerprint: str, key: str) -> bytes | None:
    """Return AMD's intermediate between a root and its VCEKs or VLEKs, if it is known here.

    It is as good as one that came with the evidence: the root signed it, and that is
    checked like any other.

    Args:
        root_fingerprint: SHA-256 of the root's DER, hex.
        key: ``vcek`` or ``vlek``.
    """
    product = AMD_ROOTS.get(root_fingerprint)
    if product is None:
        return None
    return _read(f"amd-{product}-{'ask' if key == 'vcek' else 'asvk'}.der")
