"""Does verified evidence show the code and the platform that a profile names?

Pure. That the evidence is genuine and belongs to this connection is *not* checked here:
`AttestedIdentity` stands for it. The steps are those of spec/03, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable

from placet.core.attestation import AttestedIdentity, VerifiedEvidence
from placet.core.profile import Profile, SgxMeasurement, TcbRules, code_digest, code_id
from placet.errors import NotApprovedError, TcbError


def code_of(identity: AttestedIdentity) -> str:
    """Return the code id that the evidence shows (`placet.core.profile.code_digest`)."""
    claims, measurement = identity.claims, identity.evidence.measurement
    return code_digest(claims.app, claims.image, claims.config, measurement)


def match_platform(profile: Profile, evidence: VerifiedEvidence) -> None:
    """Check anchor, narrowing fields and TCB rules of a profile whose code matched.

    Raises:
        TcbError: The platform is not one that the profile accepts; ``check`` names which rule.
    """
    # 5.4 The root that signed is the one the profile names.
    if evidence.anchor != profile.anchor:
        raise TcbError(
            f"evidence is under anchor {evidence.anchor}, the profile names {profile.anchor}",
            check="anchor",
        )
    _match_narrowing(profile, evidence)
    _match_tcb(profile.tcb, evidence)


def _match_narrowing(profile: Profile, evidence: VerifiedEvidence) -> None:
    # 5.5 Narrowing fields only ever narrow.
    want, got = profile.measurement, evidence.measurement
    if not isinstance(want, SgxMeasurement) or not isinstance(got, SgxMeasurement):
        return
    if want.mrsigner not in (None, got.mrsigner):
        raise TcbError("enclave's signer is not the one the profile names", check="mrsigner")
    if want.isv_prod_id not in (None, got.isv_prod_id):
        raise TcbError("enclave's product id is another one", check="isv-prod-id")
    if want.isv_svn is not None and (got.isv_svn is None or got.isv_svn < want.isv_svn):
        raise TcbError(
            f"enclave's SVN is {got.isv_svn}, at least {want.isv_svn} is asked", check="isv-svn"
        )


def _match_tcb(rules: TcbRules, evidence: VerifiedEvidence) -> None:
    # 5.6 The platform's TCB: an absent or unlisted status is a no.
    tcb, found = evidence.tcb, set(evidence.tcb.advisories)
    denied = found & set(rules.denied_advisories)
    allowed = found if rules.allowed_advisories is None else set(rules.allowed_advisories)
    machine = evidence.hardware_id
    accepted = ", ".join(rules.statuses)
    table = {
        "tcb-status": (
            tcb.status in rules.statuses,
            f"TCB status is {tcb.status}, the profile accepts {accepted}",
        ),
        "tcb-evaluation": (
            tcb.evaluation >= rules.min_evaluation,
            f"TCB evaluation is {tcb.evaluation}, at least {rules.min_evaluation} is asked",
        ),
        "advisory-denied": (not denied, f"denied advisories apply: {sorted(denied)}"),
        "advisory-not-allowed": (
            found <= allowed,
            f"advisories apply that are not allowed: {sorted(found - allowed)}",
        ),
        "family": (
            evidence.family not in rules.denied_families,
            f"CPU family {evidence.family} is denied",
        ),
        "hardware-id": (
            rules.hardware_ids is None or machine in rules.hardware_ids,
            "this machine is not one that the profile lists",
        ),
    }
    for check, (holds, otherwise) in table.items():
        if not holds:
            raise TcbError(
                otherwise,
                "Update the platform's firmware, or ask the owner to promote a profile "
                "that accepts it.",
                check=check,
            )


def match_any(profiles: Iterable[Profile], identity: AttestedIdentity) -> Profile:
    """Return the first profile that the evidence shows in full.

    Raises:
        NotApprovedError: No profile names this code.
        TcbError: One does, and its rules refuse the platform.
    """
    code = code_of(identity)
    refusal: TcbError | None = None
    for profile in profiles:
        if code_id(profile) != code:
            continue
        try:
            match_platform(profile, identity.evidence)
        except TcbError as e:
            refusal = e
        else:
            return profile
    raise refusal or NotApprovedError(
        f"code {code} is none of the profiles that are approved here", code=code
    )
