"""Judge evidence offline, against collateral and a given trust anchor."""

from placet.attest.verify.binding import bind
from placet.attest.verify.evidence import verify_evidence

__all__ = ["bind", "verify_evidence"]
