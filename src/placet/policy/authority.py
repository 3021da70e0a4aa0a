"""Who must sign a statement, and how long it then waits. Pure (spec/09, section 3).

A statement may have several *ways* to be approved; each is a list of principals that all
must agree. The owner's way to nearly everything is the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from placet.core.limits import PAGE_DELAY
from placet.core.signer import Signer, Threshold, signer_id
from placet.core.statement import Promote, Recover, UntrustedStatement, UpdatePolicy, Void
from placet.core.table import Rules
from placet.errors import ApprovalError
from placet.policy.auto_migrate import clause_of
from placet.policy.governance import acts_for, guardians_of, open_recovery
from placet.policy.key_policy import KeyPolicy, birth_of
from placet.policy.principal import alone_on_page, any_of, check_principal, leaves, require


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Principals that together may approve one statement."""

    principals: tuple[Threshold, ...]
    owner: Threshold | None
    """The one among them that waits where it signed alone on a page of others."""
    delay: int = 0
    """Seconds that it waits in any case."""
    names: str | None = None
    """A veto counts where the vault sees the statement of this digest waiting."""


def ways(policy: KeyPolicy | None, sent: UntrustedStatement) -> tuple[Way, ...]:
    """Return every way in which this statement may be approved.

    Raises:
        MalformedError: The first statement is no birth, or its owner is no principal.
        PolicyDeniedError: It rests on a clause, guardians or an intent that is not there.
    """
    statement = sent.statement
    if policy is None:
        return (_birth_way(sent),)
    if isinstance(statement, Promote) and statement.body.auto is not None:
        # 3.2 A use of the clause is signed by the clause's signers, and waits.
        clause = clause_of(policy, statement.body.auto)
        return (Way(principals=(clause.signers,), owner=None, delay=clause.delay),)
    if isinstance(statement, Recover):
        return (_recovery_way(policy, statement),)
    # 3.4 Everything else the owner signs, with the managers where the table says so.
    rules = policy.rules
    principals = [rules.owner]
    if rules.managers is not None and any(a.managers for a in acts_for(policy, sent)):
        principals.append(rules.managers)
    return Way(principals=tuple(principals), owner=rules.owner), *_others(rules, sent)


def _birth_way(sent: UntrustedStatement) -> Way:
    # 3.1 A birth is signed by the owner that it names.
    owner = birth_of(sent).body.policy.owner
    check_principal(owner)
    return Way(principals=(owner,), owner=owner)


def _others(rules: Rules, sent: UntrustedStatement) -> Iterator[Way]:
    statement = sent.statement
    if isinstance(statement, Void):
        # 3.5 Any one owner signer says no to what waits.
        veto = any_of(rules.owner, "any signer of the owner")
        yield Way(principals=(veto,), owner=None, names=statement.body.statement)
    if (
        isinstance(statement, UpdatePolicy)
        and rules.reviewers is not None
        and statement.body.policy == rules
    ):
        # 3.6 Reviewers add vault releases, where nothing else changes.
        yield Way(principals=(rules.reviewers,), owner=None)


def signers_of(found: Sequence[Way]) -> tuple[Signer, ...]:
    """Return everybody whose signature may count, each once."""
    by_id = {signer_id(s): s for way in found for p in way.principals for s in leaves(p)}
    return tuple(by_id.values())


def wait_of(found: Sequence[Way], signed: frozenset[str], *, seen: frozenset[str]) -> int:
    """Return how many seconds a statement waits, by the quickest way that was taken.

    Args:
        found: The ways there are.
        signed: Ids of those whose signatures hold and count now.
        seen: Digests of statements that wait, which any one owner signer may veto.

    Raises:
        ApprovalError: No way was taken by enough people: what the first one lacks.
    """
    waits, lacking = [], []
    for way in found:
        if way.names is not None and way.names not in seen:
            continue
        try:
            waits.append(_wait(way, signed))
        except ApprovalError as e:
            lacking.append(e)
    if waits:
        return min(waits)
    raise lacking[0]


def _recovery_way(policy: KeyPolicy, statement: Recover) -> Way:
    # 3.3 Guardians sign the intent; who is to be the owner signs the completion.
    if statement.body.owner is not None:
        return Way(principals=(guardians_of(policy).principal,), owner=None)
    owner = open_recovery(policy, statement.body.intent).owner
    return Way(principals=(owner,), owner=owner)


def _wait(way: Way, signed: frozenset[str]) -> int:
    for principal in way.principals:
        require(principal, signed)
    page = way.owner is not None and alone_on_page(way.owner, signed)
    return max(way.delay, PAGE_DELAY if page else 0)
