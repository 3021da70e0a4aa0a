"""Judge evidence offline, against collateral and a given trust anchor."""

from placet.attest.verify.binding import bind, check_bound
from placet.attest.verify.evidence import EvidenceVerifier, check_early, verify_evidence

__all__ = ["EvidenceVerifier", "bind", "check_bound", "check_early", "verify_evidence"]
