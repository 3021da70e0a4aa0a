"""Judge evidence offline, against collateral and a given trust anchor."""

from placet.attest.verify.binding import bind
from placet.attest.verify.evidence import EvidenceVerifier, verify_evidence

__all__ = ["EvidenceVerifier", "bind", "verify_evidence"]
