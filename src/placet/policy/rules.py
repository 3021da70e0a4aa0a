"""Is a table of rules one that can be kept, and may it replace the one in force? Pure.

The comments carry the numbers of spec/09, section 2.
"""

from __future__ import annotations

from collections.abc import Iterable

from placet.core.signer import Signer, Threshold, signer_id
from placet.core.table import ActName, Rules
from placet.errors import MalformedError, PolicyDeniedError, UnrepairableError
from placet.policy.principal import check_principal, leaves, satisfied
from placet.policy.signers import signer_identity, signer_key_check

ACTS: tuple[ActName, ...] = ("promote", "retire", "update_policy", "rotate", "move", "delete")


def check_rules(rules: Rules) -> None:
    """Refuse rules that contradict themselves, or that could never be repaired.

    Raises:
        UnrepairableError: The loss of one signer, or nothing at all, would freeze the key.
        MalformedError: A principal, a key or a field is unfit, or a key has two roles.
    """
    # 2.1 Each principal is one, and each plain signer has a sound key.
    for principal in _principals(rules):
        check_principal(principal)
    for signer in (*rules.stagers, *rules.auditors):
        signer_key_check(signer)
    # 2.2 One key, one role: who proposes never co-signs, who watches never decides.
    _check_apart(rules)
    # 2.3 What the managers must sign, managers can.
    needs = [name for name in ACTS if getattr(rules.acts, name).managers]
    if needs and rules.managers is None:
        raise MalformedError(
            f"managers must co-sign {', '.join(needs)}, and there are none",
            "Name managers, or let the owner act alone.",
        )
    # 2.4 The policy can repair itself.
    _check_repairable(rules)


def check_succession(old: Rules, new: Rules) -> None:
    """Refuse rules that may not follow these, whoever signs.

    Raises:
        PolicyDeniedError: An immutable field, a cool-down or an auto-migrate clause
            would change in a way that the rules in force forbid; ``reason`` names it.
    """
    # 2.5 What is fixed for life stays, and stays fixed.
    for name in old.immutable:
        if getattr(old, name) != getattr(new, name):
            raise PolicyDeniedError(f"{name} is fixed for life", reason="immutable", field=name)
    if not set(old.immutable) <= set(new.immutable):
        raise PolicyDeniedError("what is fixed for life stays so", reason="immutable")
    # 2.6 The cool-down only rises: whoever could lower it first would add his key next.
    if new.cooldown < old.cooldown:
        raise PolicyDeniedError(
            f"the cool-down falls from {old.cooldown} to {new.cooldown} seconds; it only rises",
            reason="cooldown-lowered",
        )
    # 2.7 Letting others promote is a decision of its own, never one line among many.
    clause = new.auto_migrate
    if clause is not None and clause != old.auto_migrate and _apart(old) != _apart(new):
        raise PolicyDeniedError(
            "an auto-migrate clause is turned on by a statement that changes nothing else",
            "Change the other rules first, then the clause: placet key auto-migrate.",
            reason="auto-not-alone",
        )


def indispensable(threshold: Threshold) -> tuple[Signer, ...]:
    """Return the signers without whom a principal can never be satisfied again."""
    signers = leaves(threshold)
    everyone = frozenset(map(signer_id, signers))
    return tuple(s for s in signers if not satisfied(threshold, everyone - {signer_id(s)}))


def _principals(rules: Rules) -> Iterable[Threshold]:
    yield rules.owner
    if rules.managers is not None:
        yield rules.managers
    if rules.reviewers is not None:
        yield rules.reviewers
    if rules.guardians is not None:
        yield rules.guardians.principal
    if rules.auto_migrate is not None:
        yield rules.auto_migrate.signers


def _check_apart(rules: Rules) -> None:
    guardians = rules.guardians.principal if rules.guardians else None
    roles: dict[str, tuple[Signer, ...]] = {
        "owner": leaves(rules.owner),
        "managers": leaves(rules.managers) if rules.managers else (),
        "guardians": leaves(guardians) if guardians else (),
        "auditors": rules.auditors,
    }
    seen: dict[tuple[str, bytes], str] = {}
    for role, signers in roles.items():
        for signer in signers:
            other = seen.setdefault(signer_identity(signer), role)
            if other != role:
                raise MalformedError(
                    f"signer {signer.label!r} is named among {other} and among {role}",
                    "Give each role keys of its own.",
                )
    clause = leaves(rules.auto_migrate.signers) if rules.auto_migrate else ()
    for signer in (*rules.stagers, *clause):
        role = seen.get(signer_identity(signer), "owner")
        if role != "owner":
            raise MalformedError(
                f"signer {signer.label!r} proposes versions and is named among {role}",
                "Who proposes never co-signs, guards or watches: give it a key of its own.",
            )


def _check_repairable(rules: Rules) -> None:
    if "owner" in rules.immutable:
        raise UnrepairableError(
            "an owner fixed for life could never replace a lost or stolen signer",
            "Leave owner out of the immutable fields.",
        )
    managers = rules.managers
    if managers is None or not any(getattr(rules.acts, name).managers for name in ACTS):
        return
    lone = indispensable(managers)
    if "managers" in rules.immutable and lone:
        raise UnrepairableError(
            f"managers are fixed for life and must co-sign: the loss of "
            f"{lone[0].label!r} would freeze the key",
            "Let any m of more than m managers sign, or leave managers changeable.",
        )


def _apart(rules: Rules) -> tuple[object, ...]:
    """Return everything but the clause."""
    return tuple(getattr(rules, f) for f in Rules.__struct_fields__ if f != "auto_migrate")
