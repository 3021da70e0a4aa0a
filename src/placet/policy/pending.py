"""Staging: put a version forward, or take it back. Inert by construction (I4).

Nothing here returns or takes a `KeyPolicy` to be changed: what is pending never reaches
the gate (spec/03, section 6).
"""

from __future__ import annotations

from placet.core.profile import check_profile
from placet.core.signer import Signer, signer_id
from placet.core.statement import RevokePending, Stage, UntrustedStatement
from placet.errors import ApprovalError, ApprovalExpiredError, MalformedError, RoleDeniedError
from placet.policy.charter import CLOCK_SKEW
from placet.policy.key_policy import KeyPolicy
from placet.policy.principal import leaves
from placet.policy.signers import verify_signatures


def check_stage(policy: KeyPolicy, sent: UntrustedStatement, *, now: int) -> str:
    """Return the signer id of the stager who may put this forward for this key.

    Raises:
        MalformedError: It is no stage, or about another key.
        RoleDeniedError: Nobody signed who is a stager or owner signer of this key.
        ApprovalExpiredError: It is past its end.
    """
    if not isinstance(sent.statement, Stage):
        raise MalformedError("only a stage can be staged")
    check_profile(sent.statement.body.profile)
    return _loose(policy, sent, policy.stagers + leaves(policy.owner), now)


def check_revoke_pending(
    policy: KeyPolicy, sent: UntrustedStatement, *, staged_by: str, now: int
) -> None:
    """Check that this takes back what ``staged_by`` put forward, or that an owner does.

    Raises:
        MalformedError, RoleDeniedError, ApprovalExpiredError: As for `check_stage`.
    """
    if not isinstance(sent.statement, RevokePending):
        raise MalformedError("only a revoke-pending takes back what was staged")
    owners = leaves(policy.owner)
    stager = tuple(s for s in policy.stagers if signer_id(s) == staged_by)
    _loose(policy, sent, stager + owners, now)


def _loose(
    policy: KeyPolicy, sent: UntrustedStatement, signers: tuple[Signer, ...], now: int
) -> str:
    statement = sent.statement
    if statement.key not in (None, policy.key):
        raise MalformedError(f"statement is about key {statement.key}, not {policy.key}")
    if not statement.issued_at - CLOCK_SKEW <= now < statement.expires_at:
        raise ApprovalExpiredError(f"statement ended at {statement.expires_at}, it is {now}")
    try:
        return min(verify_signatures(sent, signers).signers)
    except (ApprovalError, ValueError) as e:
        raise RoleDeniedError(
            "nobody signed who may stage for this key",
            "Ask the owner to list this signer among the key's stagers.",
        ) from e
