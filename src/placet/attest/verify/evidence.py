"""Is this evidence genuine, and what does it show? (spec/02, section 4).

Offline: time, trust anchors and collateral are arguments. Whether the evidence belongs to
a connection is `bind`'s question, whether its code and platform are wanted the policy's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from dcap_qvl import QuotePolicy, QuoteVerifier  # type: ignore[import-untyped]

from placet.attest.trust import TrustAnchor
from placet.attest.verify.collateral import check_collateral, read_members
from placet.attest.verify.quote import Family, read_chain, refuse
from placet.core.attestation import Evidence, TcbState, VerifiedEvidence
from placet.core.encoding import MAX_INT, unb64
from placet.core.limits import MAX_COLLATERAL, MAX_EVIDENCE
from placet.core.profile import Measurement, SgxMeasurement, TcbStatus, TdxMeasurement
from placet.errors import EvidenceError, MalformedError, TcbError


def verify_evidence(
    evidence: Evidence, *, trust: Sequence[TrustAnchor], now: int
) -> VerifiedEvidence:
    """Return what genuine evidence shows, and refuse everything else.

    Not checked here: whose connection the evidence is for (`bind`), which code and which
    platform state are good enough (`placet.policy.match`), and how old the quote is: a
    quote holds no time, only a nonce in its report data makes it fresh.

    Args:
        evidence: A quote with stapled collateral.
        trust: The roots of the measured config. None of them means that nothing verifies.
        now: Trusted time in Unix seconds.

    Raises:
        EvidenceError: Not genuine; ``check`` names the check that caught it (spec/02,
            section 7). ``reason`` is ``collateral-missing`` when there is none.
        TcbError: Genuine, and the platform's status is none that any profile may accept.
        ValueError: ``now`` is no Unix time.
    """
    if not 0 <= now <= MAX_INT:
        raise ValueError(f"now is {now}, no Unix time")
    # 4.1 Length before anything else, on the text as it came.
    raw = _sized(evidence.quote, MAX_EVIDENCE, "quote")
    if evidence.collateral is None:
        raise EvidenceError(
            "evidence comes without collateral",
            "Staple TCB info, QE identity and CRLs to the quote.",
            check="collateral",
            reason="collateral-missing",
        )
    members = read_members(_sized(evidence.collateral, MAX_COLLATERAL, "collateral"))
    # 4.2 to 4.6
    chain = read_chain(raw, evidence.family)
    # 4.7 The chain ends in a root of the config, byte for byte.
    anchor = next((a for a in trust if a.root_der == chain[-1]), None)
    if anchor is None:
        fingerprint = hashlib.sha256(chain[-1]).hexdigest()
        refuse("anchor", f"quote's chain ends in a root that is not trusted: {fingerprint}")
    # 4.8 to 4.10
    collateral = check_collateral(members, anchor, chain, now)
    # 4.11 Chain, CRLs, signatures, QE identity, TCB level and dates: the library.
    try:
        verifier = QuoteVerifier(anchor.root_der)
        claims = verifier.verify_with_policy(raw, collateral, now, QuotePolicy.claims_only(now))
    except ValueError as e:
        refuse("quote", f"quote or collateral does not verify: {e}"[:300], e)
    return _judge(json.loads(claims.to_json()), members, evidence.family, anchor)


def _sized(text: str, limit: int, what: str) -> bytes:
    if len(text) > (4 * limit + 2) // 3:
        refuse("size", f"{what} is longer than {limit} bytes")
    try:
        return unb64(text)
    except MalformedError as e:
        refuse("encoding", f"{what} is not base64url without padding", e)


def _judge(
    claims: Mapping[str, Any], members: Mapping[str, str], family: Family, anchor: TrustAnchor
) -> VerifiedEvidence:
    """Check what the library's result leaves open (steps 4.12 to 4.14) and name the rest."""
    (report,) = claims["report"].values()
    while "base" in report:  # TDX 1.5 extends 1.0
        report = report["base"]
    # 4.12 The PCE that certified is the one that the TCB info is about.
    pck = claims["platform"]["pck"]
    if bytes(pck["pce_id"]).hex() != json.loads(members["tcb_info"])["pceId"].lower():
        refuse("pce-id", "TCB info is about another PCE than the one that certified the quote")
    # 4.13 A status that no profile may accept ends here; the others are reported.
    tcb = claims["tcb"]
    if tcb["status"] not in get_args(TcbStatus):
        check = "tcb-revoked" if tcb["status"] == "Revoked" else "tcb-status"
        raise TcbError(f"platform's TCB status is {tcb['status']!r}", check=check)
    # 4.14 Of two evaluation numbers the lower counts, of several ends the first.
    qe = claims["qe"]["tcb_eval_data_number"]
    ends = ("earliest_expiration_date", "qe_iden_earliest_expiration_date")
    ppid = bytes(pck["ppid"])
    return VerifiedEvidence(
        measurement=_sgx(report) if family == "sgx" else _tdx(report),
        report_data=bytes.fromhex(report["report_data"]),
        anchor=anchor.name,
        tcb=TcbState(
            status=tcb["status"],
            advisories=tuple(tcb["advisory_ids"]),
            evaluation=min(tcb["eval_data_number"], qe),
            date=claims["platform"]["tcb_date_tag"],
        ),
        families=(bytes(pck["fmspc"]).hex(),),
        hardware_id=ppid.hex() if any(ppid) else None,
        expires=min(claims[name] for name in ends),
    )


def _sgx(report: Mapping[str, Any]) -> Measurement:
    return SgxMeasurement(
        mrenclave=report["mr_enclave"],
        mrsigner=report["mr_signer"],
        isv_prod_id=report["isv_prod_id"],
        isv_svn=report["isv_svn"],
    )


def _tdx(report: Mapping[str, Any]) -> Measurement:
    return TdxMeasurement(
        mrtd=report["mr_td"],
        rtmr0=report["rt_mr0"],
        rtmr1=report["rt_mr1"],
        rtmr2=report["rt_mr2"],
        rtmr3=report["rt_mr3"],
        mr_config_id=report["mr_config_id"],
        td_attributes=report["td_attributes"],
        xfam=report["xfam"],
    )
