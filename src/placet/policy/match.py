"""Does verified evidence show the code and the platform that a profile names?

Pure. That the evidence is genuine and belongs to this connection is *not* checked here:
`AttestedIdentity` stands for it. The steps are those of spec/03, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from placet.core.attestation import AttestedIdentity, VerifiedEvidence
from placet.core.profile import NARROWING, Profile, TcbRules, code_digest, code_id
from placet.errors import NotApprovedError, TcbError

LOWEST = ("isv_svn", "guest_svn")
"""Narrowing fields that name the lowest accepted; the others are exact."""


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
    match_rules(profile.tcb, evidence)


def _match_narrowing(profile: Profile, evidence: VerifiedEvidence) -> None:
    # 5.5 Narrowing fields only ever narrow.
    want, got = profile.measurement, evidence.measurement
    for name in NARROWING:
        asked, found = getattr(want, name, None), getattr(got, name, None)
        if asked is None or asked == found:
            continue
        # Of security versions a higher one is as good.
        if name in LOWEST and found is not None and found > asked:
            continue
        raise TcbError(
            f"{name} is {found}, the profile asks for {asked}", check=name.replace("_", "-")
        )


def judge_platform(rules: TcbRules, evidence: VerifiedEvidence) -> Mapping[str, tuple[bool, str]]:
    """Return of each rule whether the platform behind verified evidence meets it.

    Nothing is refused here: see `match_rules`. The texts say what is wrong if it is not met.
    """
    # 5.6 The platform's TCB: an absent or unlisted status is a no.
    tcb, found = evidence.tcb, set(evidence.tcb.advisories)
    denied = found & set(rules.denied_advisories)
    allowed = found if rules.allowed_advisories is None else set(rules.allowed_advisories)
    families = set(evidence.families) & {f.casefold() for f in rules.denied_families}
    missing = set(rules.features) - evidence.features
    machine, vmpl = evidence.hardware_id, getattr(evidence.measurement, "vmpl", 0)
    accepted = ", ".join(rules.statuses)
    return {
        "tcb-status": (
            tcb.status in rules.statuses,
            f"TCB status is {tcb.status}, the profile accepts {accepted}",
        ),
        "tcb-evaluation": (
            tcb.evaluation >= rules.min_evaluation,
            f"TCB evaluation is {tcb.evaluation}, at least {rules.min_evaluation} is asked",
        ),
        "tcb-floor": (
            _reaches(evidence.reported_tcb, rules.min_tcb),
            f"REPORTED_TCB is {evidence.reported_tcb}, each byte of {rules.min_tcb} is asked",
        ),
        "advisory-denied": (not denied, f"denied advisories apply: {sorted(denied)}"),
        "advisory-not-allowed": (
            found <= allowed,
            f"advisories apply that are not allowed: {sorted(found - allowed)}",
        ),
        "family": (not families, f"CPU family {', '.join(sorted(families))} is denied"),
        "hardware-id": (
            rules.hardware_ids is None or machine in rules.hardware_ids,
            "this machine is not one that the profile lists",
        ),
        "vmpl": (vmpl <= rules.max_vmpl, f"VMPL is {vmpl}, at most {rules.max_vmpl} is accepted"),
        "features": (not missing, f"platform lacks {', '.join(sorted(missing))}"),
        "collateral-ended": (
            evidence.overdue <= rules.grace,
            f"collateral ended {evidence.overdue} s ago, {rules.grace} s of grace are given",
        ),
    }


def match_rules(rules: TcbRules, evidence: VerifiedEvidence) -> None:
    """Check the platform behind verified evidence against rules; each unmet one is a refusal.

    Raises:
        TcbError: The platform is not one that the rules accept; ``check`` names which one.
    """
    for check, (holds, otherwise) in judge_platform(rules, evidence).items():
        if not holds:
            raise TcbError(
                otherwise,
                "Update the platform's firmware, or ask the owner to promote a profile "
                "that accepts it.",
                check=check,
            )


def _reaches(reported: str | None, floor: str | None) -> bool:
    """Say whether each byte of a TCB version is at least the floor's."""
    if floor is None:
        return True
    pairs = zip(bytes.fromhex(reported or ""), bytes.fromhex(floor), strict=False)
    return reported is not None and all(got >= want for got, want in pairs)


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
