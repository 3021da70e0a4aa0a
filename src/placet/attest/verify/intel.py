"""Intel SGX and TDX: the library verifies, and what it leaves open is checked around it.

The steps are those of spec/02, section 4; `quote` and `collateral` hold the first ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from dcap_qvl import QuotePolicy, QuoteVerifier  # type: ignore[import-untyped]

from placet.attest.trust import TrustAnchor
from placet.attest.verify.collateral import check_collateral, read_members
from placet.attest.verify.quote import read_chain, refuse
from placet.core.attestation import Family, TcbState, VerifiedEvidence
from placet.core.profile import Measurement, SgxMeasurement, TcbStatus, TdxMeasurement
from placet.errors import TcbError


def verify_intel(
    raw: bytes,
    collateral: bytes,
    *,
    family: Family,
    trust: Sequence[TrustAnchor],
    now: int,
    grace: int,
) -> VerifiedEvidence:
    """Return what a genuine quote shows.

    Args:
        raw: The quote.
        collateral: Its collateral, the JSON of spec/02, section 3.
        family: ``sgx`` or ``tdx``.
        trust: The roots of the measured config.
        now: Unix seconds.
        grace: Seconds for which collateral counts after its end.

    Raises:
        EvidenceError: ``check`` names the check of spec/02, section 4.
        TcbError: The platform's status is none that any profile may accept.
    """
    members = read_members(collateral)
    # 4.2 to 4.6
    chain = read_chain(raw, family)
    # 4.7 The chain ends in a root of the config, byte for byte.
    anchor = next((a for a in trust if a.root_der == chain[-1]), None)
    if anchor is None:
        fingerprint = hashlib.sha256(chain[-1]).hexdigest()
        refuse("anchor", f"quote's chain ends in a root that is not trusted: {fingerprint}")
    # 4.8 to 4.10
    checked = check_collateral(members, anchor, chain, now, grace)
    # 4.11 Chain, CRLs, signatures, QE identity, TCB level and dates: the library. Within the
    # grace it is asked about the last second of the collateral.
    at = min(now, checked.last)
    try:
        verifier = QuoteVerifier(anchor.root_der)
        claims = verifier.verify_with_policy(raw, checked.value, at, QuotePolicy.claims_only(at))
    except ValueError as e:
        refuse("quote", f"quote or collateral does not verify: {e}"[:300], e)
    found = json.loads(claims.to_json())
    shown = _judge(found, members["tcb_info"], family, anchor)
    return replace(
        shown, expires=min(shown.expires, checked.last + 1), overdue=max(0, now - checked.last)
    )


def _judge(
    claims: Mapping[str, Any],
    tcb_info: str,
    family: Family,
    anchor: TrustAnchor,
) -> VerifiedEvidence:
    """Check what the library's result leaves open (steps 4.12 to 4.14) and name the rest."""
    (report,) = claims["report"].values()
    while "base" in report:  # TDX 1.5 extends 1.0
        report = report["base"]
    # 4.12 The PCE that certified is the one that the TCB info is about.
    pck = claims["platform"]["pck"]
    if bytes(pck["pce_id"]).hex() != json.loads(tcb_info)["pceId"].lower():
        refuse("pce-id", "TCB info is about another PCE than the one that certified the quote")
    # 4.13 A status that no profile may accept ends here; the others are reported.
    tcb = claims["tcb"]
    if tcb["status"] not in get_args(TcbStatus):
        check = "tcb-revoked" if tcb["status"] == "Revoked" else "tcb-status"
        raise TcbError(f"platform's TCB status is {tcb['status']!r}", check=check)
    # 4.14 Of two evaluation numbers the lower counts, of several ends the first.
    qe = claims["qe"]["tcb_eval_data_number"]
    names = ("earliest_expiration_date", "qe_iden_earliest_expiration_date")
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
        expires=min(claims[name] for name in names),
        features=frozenset() if pck["smt_enabled"] is not False else frozenset({"smt-disabled"}),
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
