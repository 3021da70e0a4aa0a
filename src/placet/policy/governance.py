"""How each statement changes a key's policy; those about who decides in full. Pure, no clock.

Signatures, place and time are **not** checked here (`placet.policy.charter`). The comments
carry the numbers of spec/09, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from msgspec import structs

from placet.core.limits import MAX_CHARTER, MAX_LIFETIME
from placet.core.profile import check_profile, check_vault_set, code_id
from placet.core.signer import signer_id
from placet.core.statement import (
    Delete,
    Merge,
    Promote,
    Recover,
    Retire,
    UntrustedStatement,
    UpdatePolicy,
    Void,
)
from placet.core.table import Act, ActName, Guardians, Rules
from placet.errors import ConflictError, KeyDeletedError, MalformedError, PolicyDeniedError
from placet.policy.auto_migrate import check_use
from placet.policy.key_policy import (
    Approval,
    KeyPolicy,
    Recovery,
    born,
    check_evaluation,
    check_floor,
    promoted,
    raised,
    retired,
)
from placet.policy.principal import leaves
from placet.policy.rules import ACTS, check_rules, check_succession


def follow(policy: KeyPolicy | None, sent: UntrustedStatement, *, at: int) -> KeyPolicy:
    """Return the policy after one more statement.

    Args:
        policy: Before it; ``None`` before a birth.
        sent: Stands on the head of ``policy`` and is signed as it demands: **not** checked.
        at: Unix seconds at which it was taken; delays that it begins count from then.

    Raises:
        MalformedError, PolicyDeniedError, ConflictError: It breaks a rule of its type.
    """
    statement, digest = sent.statement, sent.digest
    _check_lifetime(policy, sent)
    if policy is None:
        return born(sent)
    # 4.1 A key that was destroyed stays so.
    check_alive(policy)
    if policy.version >= MAX_CHARTER:
        raise PolicyDeniedError(f"charter is full at {MAX_CHARTER} statements")
    rule = _rules.get(type(statement))
    if rule is None:
        raise ConflictError("a key is born once", head=policy.head, version=policy.version)
    after = rule(policy, statement, digest, at)
    version = policy.version + 1
    if isinstance(statement, Merge):
        version = statement.base_version + 1
    return replace(after, chain=(*policy.chain, digest), version=version)


def check_alive(policy: KeyPolicy) -> None:
    """Raise `KeyDeletedError` if the owner destroyed this key."""
    if policy.deleted:
        raise KeyDeletedError(
            f"key {policy.key} was destroyed by its owner",
            "Its data cannot be read any more. A new key: placet key new.",
        )


def _check_lifetime(policy: KeyPolicy | None, sent: UntrustedStatement) -> None:
    # 4.2 Signatures carry no time: how fresh they are is how short a statement lives.
    statement = sent.statement
    cap = min([MAX_LIFETIME, *(a.lifetime for a in acts_for(policy, sent))])
    if statement.expires_at - statement.issued_at > cap:
        raise PolicyDeniedError(
            f"statement lives {statement.expires_at - statement.issued_at} seconds, "
            f"at most {cap} are allowed",
            "Sign it with an earlier end: --expires.",
            reason="lifetime",
        )


def acts_for(policy: KeyPolicy | None, sent: UntrustedStatement) -> tuple[Act, ...]:
    """Return the rows of the policy's table that a statement falls under."""
    if policy is None:
        return ()
    names = _acts.get(type(sent.statement), ())
    if isinstance(sent.statement, UpdatePolicy) and _shifts(policy.rules, sent.statement):
        names = ACTS
    return tuple(getattr(policy.rules.acts, name) for name in names)


def _shifts(old: Rules, statement: UpdatePolicy) -> bool:
    """Return whether an update changes who may decide about other acts than itself."""
    new = statement.body.policy
    clause = new.auto_migrate is not None and new.auto_migrate != old.auto_migrate
    return clause or (new.acts, new.managers) != (old.acts, old.managers)


def _promoted(policy: KeyPolicy, statement: Promote, digest: str) -> KeyPolicy:
    # 4.3 A use of the clause keeps within it, and is counted.
    if statement.body.auto is None:
        return promoted(policy, statement, digest)
    check_use(policy, statement)
    after = promoted(policy, statement, digest)
    return replace(after, auto_uses=policy.auto_uses + 1)


def _updated(policy: KeyPolicy, statement: UpdatePolicy, at: int) -> KeyPolicy:
    body = statement.body
    # 4.4 The vault set takes vault releases; nothing else of it changes by this.
    vault_set = policy.vault_set
    if body.vault_profiles:
        profiles = (*vault_set.profiles, *body.vault_profiles)
        if len(set(profiles)) != len(profiles):
            raise PolicyDeniedError("vault release is in the vault set already")
        vault_set = structs.replace(vault_set, profiles=profiles)
        check_vault_set(vault_set)
    elif body.policy == policy.rules:
        raise PolicyDeniedError("update changes nothing", reason="no-change")
    return replace(_ruled(policy, body.policy, at), vault_set=vault_set)


def _ruled(policy: KeyPolicy, rules: Rules, at: int) -> KeyPolicy:
    """Return the policy under other rules."""
    old = policy.rules
    if rules == old:
        return policy
    check_rules(rules)
    check_succession(old, rules)
    young = policy.young
    if rules.owner != old.owner:
        # 4.5 Who is new counts for nothing at first.
        known = set(map(signer_id, leaves(old.owner)))
        still = dict(young)
        until = at + rules.cooldown
        new = [signer_id(s) for s in leaves(rules.owner)]
        young = tuple((s, still.get(s, until)) for s in new if s not in known or s in still)
    fresh = rules.auto_migrate != old.auto_migrate
    return replace(
        policy,
        rules=rules,
        young=young,
        # 4.6 An owner who can change the rules needs no recovery.
        recovery=None,
        auto_uses=0 if fresh else policy.auto_uses,
    )


def _recovered(policy: KeyPolicy, statement: Recover, digest: str, at: int) -> KeyPolicy:
    body = statement.body
    if body.owner is not None:
        # 4.7 Intent: one at a time, for an owner that could act.
        guardians = guardians_of(policy)
        if policy.recovery is not None:
            raise PolicyDeniedError(
                f"recovery {policy.recovery.intent} is open already", reason="recovery-open"
            )
        check_rules(structs.replace(policy.rules, owner=body.owner))
        recovery = Recovery(intent=digest, owner=body.owner, since=at, ready=at + guardians.delay)
        return replace(policy, recovery=recovery)
    # 4.8 Completion: of the intent that is open. It changes who owns, never what runs.
    done = open_recovery(policy, body.intent)
    return replace(
        policy,
        rules=structs.replace(policy.rules, owner=done.owner),
        recovery=None,
        young=(),
        promote_from=at + guardians_of(policy).cooldown,
    )


def guardians_of(policy: KeyPolicy) -> Guardians:
    """Return the guardians of a key, or raise `PolicyDeniedError`."""
    guardians = policy.rules.guardians
    if guardians is None:
        raise PolicyDeniedError("this key has no guardians", reason="no-guardians")
    return guardians


def open_recovery(policy: KeyPolicy, intent: str | None) -> Recovery:
    """Return the recovery that is open, or raise `PolicyDeniedError` if it is not this one."""
    recovery = policy.recovery
    if recovery is None or recovery.intent != intent:
        raise PolicyDeniedError(
            f"no recovery {intent} is open: it was vetoed, completed or never taken",
            reason="no-recovery",
        )
    return recovery


def _voided(policy: KeyPolicy, statement: Void) -> KeyPolicy:
    # 4.9 It uses up the version, so what was signed for it is dead; it ends a recovery.
    if policy.recovery is not None and policy.recovery.intent == statement.body.statement:
        return replace(policy, recovery=None)
    return policy


def _merged(policy: KeyPolicy, statement: Merge, digest: str, at: int) -> KeyPolicy:
    body = statement.body
    # 4.10 Nothing that was shut out on a branch comes back by a merge, and no floor falls.
    if not policy.tombstones <= set(body.tombstones):
        raise PolicyDeniedError("merge forgets a tombstone", reason="tombstone-missing")
    if body.security_version_floor < policy.floor:
        raise PolicyDeniedError("merge lowers the security version floor", reason="floor-lowered")
    clause = body.policy.auto_migrate
    if clause is not None and clause != policy.rules.auto_migrate:
        raise PolicyDeniedError("merge sets an auto-migrate clause", reason="auto-not-alone")
    approvals = []
    for merged in body.profiles:
        profile, code = merged.profile, code_id(merged.profile)
        check_profile(profile)
        check_floor(profile, body.security_version_floor)
        check_evaluation(profile, policy.evaluations)
        if code in body.tombstones and merged.until is None:
            raise PolicyDeniedError(
                f"merge lets in code {code}, which has a tombstone", reason="retired"
            )
        approvals.append(Approval(profile=profile, code=code, statement=digest, until=merged.until))
    if len({a.code for a in approvals}) != len(approvals):
        raise MalformedError("merge names the same code twice")
    return replace(
        _ruled(policy, body.policy, at),
        approvals=tuple(approvals),
        floor=body.security_version_floor,
        tombstones=frozenset(body.tombstones),
        evaluations=raised(policy.evaluations, [a.profile for a in approvals]),
        merged=policy.merged | set(body.heads),
        recovery=None,
    )


def _deleted(policy: KeyPolicy, statement: Delete) -> KeyPolicy:
    # 4.11 The label, typed out, is this key's.
    if statement.body.label != policy.label:
        raise PolicyDeniedError(
            f"delete names the label {statement.body.label!r}, this key's is {policy.label!r}",
            reason="label",
        )
    codes = {a.code for a in policy.approvals}
    return replace(
        policy, approvals=(), tombstones=policy.tombstones | codes, recovery=None, deleted=True
    )


_rules: dict[type, Callable[..., KeyPolicy]] = {
    Promote: lambda policy, it, digest, _: _promoted(policy, it, digest),
    Retire: lambda policy, it, *_: retired(policy, it),
    UpdatePolicy: lambda policy, it, _, at: _updated(policy, it, at),
    Recover: _recovered,
    Void: lambda policy, it, *_: _voided(policy, it),
    Merge: _merged,
    Delete: lambda policy, it, *_: _deleted(policy, it),
}
# A merge may do anything at once.
_acts: dict[type, tuple[ActName, ...]] = {
    Promote: ("promote",),
    Retire: ("retire",),
    UpdatePolicy: ("update_policy",),
    Merge: ACTS,
    Delete: ("delete",),
}
