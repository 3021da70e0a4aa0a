"""The auto-migrate clause: when others than the owner may promote (DESIGN section 4, R6.7).

Pure. Who signed, the delay and the clause's end are **not** checked here:
`placet.policy.authority` does that. The comments carry the numbers of spec/09, section 5.
"""

from __future__ import annotations

from placet.core.profile import Profile
from placet.core.statement import Promote
from placet.core.table import AutoMigrate, clause_digest
from placet.errors import PolicyDeniedError
from placet.policy.key_policy import KeyPolicy

CODE_FIELDS = (
    "mrenclave",
    "mrtd",
    "rtmr0",
    "rtmr1",
    "rtmr2",
    "rtmr3",
    "measurement",
    "pcr0",
    "pcr1",
    "pcr2",
)
"""Fields of a measurement that measure code."""
DERIVED_FIELDS = ("mr_config_id", "host_data")
"""Fields that follow from image and config: `check_profile` sees to that."""


def clause_of(policy: KeyPolicy, digest: str) -> AutoMigrate:
    """Return the clause in force, which a promote names by its digest.

    Raises:
        PolicyDeniedError: There is none, or it is another one.
    """
    clause = policy.rules.auto_migrate
    if clause is None or clause_digest(clause) != digest:
        raise _refused(f"no auto-migrate clause {digest} is in force for this key", "no-clause")
    return clause


def check_use(policy: KeyPolicy, statement: Promote) -> None:
    """Check that a promote keeps within the clause that it names.

    Raises:
        PolicyDeniedError: It does not; ``limit`` names which limit.
    """
    body = statement.body
    # 5.1 The clause is the one in force, and not used up.
    clause = clause_of(policy, body.auto or "")
    if policy.auto_uses >= clause.budget:
        raise _refused(f"clause was used {policy.auto_uses} times, its budget", "budget")
    # 5.2 It lets in and does nothing else: it retires nothing, revives nothing, moves no floor.
    if body.earlier != "keep" or body.unretire or body.security_version_floor != policy.floor:
        raise _refused("a use of the clause only lets in", "only-lets-in")
    # 5.3 It differs from a version approved without an end in what the clause names alone.
    if not any(
        _within(clause, approval.profile, body.profile)
        for approval in policy.approvals
        if approval.until is None
    ):
        raise _refused(
            f"profile differs from every approved one in more than {', '.join(clause.changes)}, "
            f"or its security version rises by more than {clause.max_step} or falls",
            "changes",
        )


def _within(clause: AutoMigrate, old: Profile, new: Profile) -> bool:
    step = new.security_version - old.security_version
    return 0 <= step <= clause.max_step and _changes(old, new) <= set(clause.changes)


def _changes(old: Profile, new: Profile) -> set[str]:
    """Return what differs, in the words of a clause; what no clause can name as itself."""
    plain = ("app", "anchor", "tcb", "image", "config")
    found = {f for f in plain if getattr(old, f) != getattr(new, f)}
    if type(old.measurement) is not type(new.measurement):
        return {*found, "tee"}
    for field in old.measurement.__struct_fields__:
        if getattr(old.measurement, field) == getattr(new.measurement, field):
            continue
        if field in CODE_FIELDS:
            found.add("measurement")
        elif field not in DERIVED_FIELDS:
            found.add(field)
    return found


def _refused(detail: str, limit: str) -> PolicyDeniedError:
    return PolicyDeniedError(
        detail, "The owner can promote it: placet promote.", reason="auto-limits", limit=limit
    )
