"""Place and time of a statement: where it may stand, and what must have passed. Pure.

Every delay is counted by the vault's own time, which is an argument (I12: a delay is as
good as the clocks of k vaults). `placet.policy.charter` calls these while it takes.
"""

from __future__ import annotations

from collections.abc import Mapping

from placet.core.signer import signer_id
from placet.core.statement import (
    Birth,
    Chained,
    Merge,
    Promote,
    Recover,
    Retire,
    UntrustedStatement,
    UpdatePolicy,
    Void,
)
from placet.errors import (
    AncestorMissingError,
    ApprovalError,
    ApprovalWaitingError,
    ConflictError,
    MalformedError,
    PolicyDeniedError,
)
from placet.policy.key_policy import KeyPolicy, Recovery
from placet.policy.principal import leaves, satisfied


def check_place(policy: KeyPolicy | None, sent: UntrustedStatement) -> None:
    """Check that a statement stands on the head of this policy (I5).

    Raises:
        AncestorMissingError: Statements in between are missing here.
        ConflictError: Another statement was taken in its place, or it is of another key.
        MalformedError: It has no place in a charter.
    """
    statement = sent.statement
    if not isinstance(statement, Chained):
        raise MalformedError(
            "a stage or revoke-pending has no place in a charter",
            "Send it to /v1/pending.",
        )
    if policy is None:
        if not isinstance(statement, Birth):
            raise AncestorMissingError(
                "this vault has no statement of that key yet",
                "Send the charter from the birth statement on.",
                head=None,
                version=0,
            )
        return
    head, version = policy.head, policy.version
    if sent.key != policy.key:
        raise ConflictError(
            f"statement is about key {sent.key}, not {policy.key}", head=head, version=version
        )
    if isinstance(statement, Merge):
        _check_merge(policy, statement)
    else:
        _check_head(policy, statement)


def _check_head(policy: KeyPolicy, statement: Chained) -> None:
    head, version = policy.head, policy.version
    if statement.prev != head:
        if statement.base_version > version:
            raise AncestorMissingError(
                f"statement stands on version {statement.base_version}, "
                f"this vault is at version {version}",
                "Send the statements in between as well.",
                head=head,
                version=version,
            )
        raise ConflictError(
            f"statement stands on {statement.prev}, the head here is {head}",
            "Read the charter again and decide again: another statement came first.",
            head=head,
            version=version,
        )
    if statement.base_version != version:
        raise ConflictError(
            f"statement was written for version {statement.base_version}, "
            f"the key is at version {version}",
            head=head,
            version=version,
        )


def without_young(policy: KeyPolicy | None, signed: frozenset[str], now: int) -> frozenset[str]:
    """Return those who signed and are no longer in the cool-down of a new signer (R5.7)."""
    young = policy.young if policy else ()
    return signed - {signer for signer, until in young if now < until}


def seen_waiting(policy: KeyPolicy | None, waiting: Mapping[str, int]) -> frozenset[str]:
    """Return what any one owner signer may veto here: what waits, and an open recovery."""
    recovery = policy.recovery if policy else None
    return frozenset(waiting) | ({recovery.intent} if recovery else set())


def check_delays(
    policy: KeyPolicy | None,
    sent: UntrustedStatement,
    *,
    wait: int,
    now: int,
    waiting: Mapping[str, int],
) -> None:
    """Check that everything has passed that must, by this vault's time.

    Args:
        policy: Before the statement.
        sent: Well signed, in its place.
        wait: Seconds that it waits from when it was first seen here.
        now: This vault's time in Unix seconds.
        waiting: Since when statements wait here, by digest.

    Raises:
        ApprovalWaitingError: Not yet; ``until`` says when, if it was seen before.
        ApprovalError: The owner would be left without a signer who may act at once.
        PolicyDeniedError: Its time is over, or the key is in the cool-down of a recovery.
    """
    statement = sent.statement
    if policy is None:
        if wait:
            raise ApprovalError(
                "only one passkey signed, on a page that others serve: a birth cannot wait",
                "Have a second signer of the owner sign the same statement.",
            )
        return
    _check_cooldown(policy, sent, now)
    if isinstance(statement, Recover) and statement.body.intent and policy.recovery:
        _check_ready(sent, policy.recovery, now)
    if isinstance(statement, UpdatePolicy | Merge):
        _check_left(policy, statement, now)
    if wait:
        since = waiting.get(sent.digest)
        if since is None or now < since + wait:
            raise _not_yet(sent, None if since is None else since + wait, "a delay", wait)


def _check_merge(policy: KeyPolicy, statement: Merge) -> None:
    heads, head, version = statement.body.heads, policy.head, policy.version
    if statement.prev not in heads:
        raise MalformedError("merge stands on a statement that is none of its heads")
    if head in heads and version <= statement.base_version:
        return
    if statement.base_version > version:
        raise AncestorMissingError(
            f"merge ends other branches than this vault's, which is at {head}",
            "Send one of these branches as well.",
            head=head,
            version=version,
        )
    raise ConflictError(
        f"merge ends other branches than this vault's, which is at {head}",
        "Read the charters again and merge again.",
        head=head,
        version=version,
    )


def _check_cooldown(policy: KeyPolicy, sent: UntrustedStatement, now: int) -> None:
    """Check what a new owner may do who came by a recovery: retire and say no (R5.8)."""
    statement = sent.statement
    clause = policy.rules.auto_migrate
    use = isinstance(statement, Promote) and statement.body.auto is not None
    if use and clause and now >= clause.expires_at:
        raise PolicyDeniedError(
            f"auto-migrate clause ended at {clause.expires_at}, it is {now}",
            "The owner can promote it: placet promote.",
            reason="auto-limits",
            limit="expires-at",
        )
    if now >= policy.promote_from or isinstance(statement, Retire | Void | Recover):
        return
    if isinstance(statement, UpdatePolicy) and statement.body.policy.auto_migrate == clause:
        return
    raise PolicyDeniedError(
        f"this key's owner was replaced by a recovery: until {policy.promote_from} the new one "
        "may retire, void and update, and let nothing in",
        "Wait, then sign it anew.",
        reason="recovery-cooldown",
        until=policy.promote_from,
    )


def _check_ready(sent: UntrustedStatement, recovery: Recovery, now: int) -> None:
    if now < recovery.ready:
        raise _not_yet(sent, recovery.ready, "the guardians' delay")


def _check_left(policy: KeyPolicy, statement: UpdatePolicy | Merge, now: int) -> None:
    """Check that who stays can act at once, or one tap could put everybody else out (R5.7)."""
    owner = statement.body.policy.owner
    if owner == policy.owner:
        return
    old = without_young(policy, frozenset(map(signer_id, leaves(policy.owner))), now)
    if not satisfied(owner, old & frozenset(map(signer_id, leaves(owner)))):
        raise PolicyDeniedError(
            "it leaves nobody in the owner who counts before the cool-down of new signers ends",
            "Add the new signers first, wait, and then take the old ones out.",
            reason="all-new",
        )


def _not_yet(
    sent: UntrustedStatement, until: int | None, what: str, delay: int = 0
) -> ApprovalWaitingError:
    return ApprovalWaitingError(
        f"statement {sent.digest} waits out {what}"
        + (f" until {until}" if until is not None else ""),
        "Bring it again then. Any owner signer can say no: placet void.",
        statement=sent.digest,
        until=until,
        delay=delay,
    )
