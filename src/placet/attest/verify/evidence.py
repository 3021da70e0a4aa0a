"""Is this evidence genuine, and what does it show? (spec/02, section 4).

Offline: time, trust anchors and collateral are arguments. Whether the evidence belongs to
a connection is `bind`'s question, whether its code and platform are wanted the policy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from placet.attest.trust import TrustAnchor
from placet.attest.verify.binding import check_report_data
from placet.attest.verify.collateral import read_object
from placet.attest.verify.intel import verify_intel
from placet.attest.verify.nitro import verify_nitro
from placet.attest.verify.quote import refuse, report_data_of
from placet.attest.verify.snp import MEMBERS, REPORT_DATA, verify_snp
from placet.core.attestation import Context, Evidence, VerifiedEvidence
from placet.core.encoding import MAX_INT, unb64
from placet.core.limits import MAX_COLLATERAL, MAX_EVIDENCE, MAX_GRACE
from placet.errors import MalformedError


class EvidenceVerifier(Protocol):
    """What a channel asks of whoever verifies evidence for it: `verify_evidence`, or more."""

    def __call__(
        self, evidence: Evidence, *, trust: Sequence[TrustAnchor], now: int, grace: int = 0
    ) -> VerifiedEvidence:
        """Return what genuine evidence shows, and refuse everything else."""


def verify_evidence(
    evidence: Evidence, *, trust: Sequence[TrustAnchor], now: int, grace: int = 0
) -> VerifiedEvidence:
    """Return what genuine evidence shows, and refuse everything else.

    Not checked here: whose connection the evidence is for (`bind`), which code and which
    platform state are good enough (`placet.policy.match`), and how old it is: a quote and
    a report hold no time, only a nonce in their report data makes them fresh.

    Args:
        evidence: A quote, report or document, with stapled collateral where it needs some.
        trust: The roots of the measured config. None of them means that nothing verifies.
        now: Trusted time in Unix seconds.
        grace: Seconds for which collateral counts after its end. Whoever allows any **must**
            compare ``overdue`` of the result with what a profile allows.

    Raises:
        EvidenceError: Not genuine; ``check`` names the check that caught it (spec/02,
            section 7). ``reason`` is ``collateral-missing`` when there is none.
        TcbError: Genuine, and the platform's status is none that any profile may accept.
        ValueError: ``now`` or ``grace`` is out of range: the caller is wrong.
    """
    if not 0 <= now <= MAX_INT or not 0 <= grace <= MAX_GRACE:
        raise ValueError(f"now is {now}, no Unix time, or grace {grace} beyond {MAX_GRACE} s")
    # 4.1 Length before anything else, on the text as it came.
    raw = sized(evidence.quote, MAX_EVIDENCE, "quote")
    stapled = evidence.collateral
    collateral = None if stapled is None else sized(stapled, MAX_COLLATERAL, "collateral")
    if evidence.family == "nitro":
        if collateral is not None:
            refuse("collateral", "a Nitro document brings all that it needs with it")
        shown = verify_nitro(raw, trust, now)
    elif evidence.family == "snp":
        shown = verify_snp(raw, _snp_members(collateral), trust=trust, now=now, grace=grace)
    elif collateral is None:
        refuse(
            "collateral",
            "evidence comes without collateral",
            hint="Staple TCB info, QE identity and CRLs to the quote.",
            reason="collateral-missing",
        )
    else:
        shown = verify_intel(
            raw, collateral, family=evidence.family, trust=trust, now=now, grace=grace
        )
    return shown if not evidence.events else replace(shown, events=evidence.events)


def check_early(evidence: Evidence, expected: Context) -> None:
    """Refuse evidence that says of itself that it was made for something else.

    To save the work of verifying it, and for nothing else: what passes is *not* verified,
    and `bind` compares again. A Nitro document is not looked into.

    Raises:
        EvidenceError: It is too long, or no such evidence.
        BindingError: It was made for another connection.
    """
    raw = sized(evidence.quote, MAX_EVIDENCE, "quote")
    if evidence.family == "nitro":
        return
    said = raw[REPORT_DATA] if evidence.family == "snp" else report_data_of(raw, evidence.family)
    check_report_data(said, expected)


def sized(text: str, limit: int, what: str) -> bytes:
    """Return the bytes of base64url, after its length was looked at.

    Raises:
        EvidenceError: ``check`` is ``size`` or ``encoding``.
    """
    if len(text) > (4 * limit + 2) // 3:
        refuse("size", f"{what} is longer than {limit} bytes")
    try:
        return unb64(text)
    except MalformedError as e:
        refuse("encoding", f"{what} is not base64url without padding", e)


def _snp_members(raw: bytes | None) -> dict[str, bytes]:
    """Return certificates and CRL that came beside a report, as DER."""
    members = {} if raw is None else read_object(raw)
    if members.keys() - MEMBERS:
        refuse("collateral", f"collateral of a report has members other than {sorted(MEMBERS)}")
    try:
        return {name: bytes.fromhex(text) for name, text in members.items()}
    except ValueError as e:
        refuse("collateral", "a member of the collateral is no hex", e)
