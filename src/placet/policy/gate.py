"""The upgrade gate: may this caller have a share of this key, now?

Pure, and the reason this project exists. It is given the policy in force (the fold of
the charter), what attestation proved, and the time. What was *staged* is not among its
arguments: staging cannot matter (I4). The steps are those of spec/03, section 5.
"""

from __future__ import annotations

from collections.abc import Collection

from placet.core.attestation import AttestedIdentity, Purpose, keys_digest
from placet.errors import BindingError, EvidenceStaleError, NotApprovedError, RoleDeniedError
from placet.policy.governance import check_alive
from placet.policy.key_policy import Approval, KeyPolicy
from placet.policy.match import code_of, match_platform


def decide_release(
    policy: KeyPolicy,
    identity: AttestedIdentity,
    *,
    purpose: Purpose,
    keys: Collection[str],
    age: float,
    max_age: float,
    now: int,
) -> Approval:
    """Return the approval under which a share may leave, or refuse.

    The caller **must** have the decision durable in its log before the share moves (I11).

    Args:
        policy: The policy in force at this vault at this moment (R1.10).
        identity: Evidence that was verified and bound to this very connection.
        purpose: What is asked for; the evidence must have been made for it.
        keys: The key ids whose digest the evidence carries.
        age: Seconds since the evidence was made, by the vault's monotonic clock.
        max_age: Seconds for which evidence supports a release (R1.8).
        now: The vault's time in Unix seconds.

    Raises:
        RoleDeniedError: The peer is no workload.
        BindingError: The evidence was made for another purpose or other keys.
        KeyDeletedError: The owner destroyed the key.
        EvidenceStaleError: It is too old: attest again.
        NotApprovedError: The code is not approved, or no longer.
        TcbError: The code is approved, and this platform is not.
    """
    # 5.1 A workload asks, for what it attested.
    claims = identity.claims
    if identity.role != "workload":
        raise RoleDeniedError(f"a {identity.role} gets no share; only a workload does")
    if claims.purpose != purpose or policy.key not in keys or claims.keys != keys_digest(keys):
        raise BindingError(f"evidence was not made to {purpose} key {policy.key}")
    if age > max_age:
        raise EvidenceStaleError(
            f"evidence is {age:.0f} s old, at most {max_age:.0f} s are accepted",
            "Open a new connection and attest again.",
        )
    check_alive(policy)
    # 5.2 Exactly this code was approved by the owner, and was not retired.
    code = code_of(identity)
    approval = next((a for a in policy.approvals if a.code == code), None)
    retired = code in policy.tombstones
    if approval is None or (approval.until is not None and now >= approval.until):
        raise NotApprovedError(
            f"code {code} was retired" if retired else f"code {code} is not approved",
            f"The owner can look at it with: placet review {policy.key} {code}",
            code=code,
            key=policy.key,
            retired=retired,
            version=policy.version,
        )
    # 5.3 It stands on the floor in force.
    if approval.profile.security_version < policy.floor:
        raise NotApprovedError(
            f"code {code} has security version {approval.profile.security_version}, "
            f"the floor is {policy.floor}",
            "Deploy a newer version; the floor never falls.",
            code=code,
            key=policy.key,
            retired=True,
            version=policy.version,
        )
    # 5.4 to 5.6 The platform is one that the profile accepts.
    match_platform(approval.profile, identity.evidence)
    return approval
