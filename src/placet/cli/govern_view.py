"""What of a key is under way: what waits, a recovery, a cool-down; for people and programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from placet.cli.govern_ways import vetoers, who_can_veto
from placet.cli.govern_words import clause_facts, rules_facts
from placet.cli.look import Look
from placet.cli.output import (
    Cell,
    Fact,
    answer,
    bad,
    hint,
    moment,
    odd,
    short,
    show_table,
    warn,
    when,
)
from placet.cli.passkey_young import young
from placet.cli.pen import words
from placet.cli.policy_words import Names
from placet.cli.reach import Target, clock
from placet.cli.words import titled
from placet.client.charters import WaitingStatement
from placet.core.encoding import Record
from placet.core.statement import Chained
from placet.core.table import clause_digest
from placet.policy.charter import effective_at
from placet.policy.key_policy import KeyPolicy


class Vetoable(Record):
    """Something that any one signer of the owner can say no to."""

    kind: Literal["waiting", "recovery"]
    statement: str
    words: str
    type: str
    about: str
    until: int | None
    """Unix seconds from which on it can take effect; ``None``: too few vaults have seen it."""
    at: tuple[int, ...]
    """Numbers of the vaults that show it."""
    veto: tuple[str, ...]
    """Who can say no, each alone."""


def vetoables(found: Look) -> tuple[Vetoable, ...]:
    """Return what waits, and an open recovery, soonest first."""
    policy = found.policy
    names = tuple(Names.of(policy.rules).all(vetoers(policy.rules)))
    listed = [_waiting(found, w, names) for w in found.view.waiting]
    if policy.recovery is not None:
        intent = policy.recovery.intent
        listed.append(
            Vetoable(
                kind="recovery",
                statement=intent,
                words=words(intent),
                type="recover",
                about=f"new owner: {Names.of(policy.rules).who(policy.recovery.owner)}",
                until=policy.recovery.ready,
                at=tuple(
                    v.number for v in found.vaults if intent in found.view.chains.get(v.vault, ())
                ),
                veto=names,
            )
        )
    return tuple(sorted(listed, key=lambda v: (v.until is None, v.until or 0, v.statement)))


def show_vetoable(target: Target, found: Look, listed: Sequence[Vetoable]) -> None:
    """Print what can be said no to."""
    if not listed:
        answer(f"Nothing waits for {target.name}, and no recovery is open.")
        return
    waiting_table(found, listed)
    hint(f'placet void {target.argument} {short(listed[0].statement)} --reason "why"')


def waiting_table(found: Look, listed: Sequence[Vetoable]) -> None:
    """Print a table of what can be said no to, if there is anything."""
    if not listed:
        return
    rows: list[tuple[Cell, ...]] = [
        (
            short(v.statement),
            odd(v.type),
            v.about,
            moment(v.until) if v.until else "too few saw it",
            f"{len(v.at)} of {len(found.vaults)}",
            who_can_veto(found.policy.rules),
        )
        for v in listed
    ]
    show_table(
        "Waits",
        ("statement", "what", "about", "until (UTC)", "at vaults", "can say no, each alone"),
        rows,
    )


def standing_document(found: Look) -> dict[str, object]:
    """Return what is under way, for programs."""
    policy, now = found.policy, clock.now()
    recovery, clause = policy.recovery, policy.rules.auto_migrate
    return {
        "rules": policy.rules,
        "waiting": [v for v in vetoables(found) if v.kind == "waiting"],
        "recovery": recovery
        and {
            "intent": recovery.intent,
            "owner": recovery.owner,
            "since": recovery.since,
            "ready": recovery.ready,
        },
        "promote_from": policy.promote_from if policy.promote_from > now else None,
        "auto_migrate": clause
        and {
            "clause": clause_digest(clause),
            "uses": policy.auto_uses,
            "uses_left": _uses_left(policy, now),
            "expires_at": clause.expires_at,
        },
        "deleted": policy.deleted,
    }


def standing_facts(found: Look) -> list[Fact]:
    """Return rules beyond the plain ones, and what is under way."""
    policy, now = found.policy, clock.now()
    names, clause = Names.of(policy.rules), policy.rules.auto_migrate
    facts = [f for f in rules_facts(policy.rules, plain=True) if f[0] != "auto-migrate"]
    if clause is not None:
        left = _uses_left(policy, now)
        text = f"on, {left} of {clause.budget} uses left" if left else "used up, or over"
        facts += [("auto-migrate", bad(text)), *_indented(clause_facts(clause, names))]
    if policy.recovery is not None:
        ready = when(policy.recovery.ready)
        facts.append(
            ("recovery", bad(f"open; {names.who(policy.recovery.owner)} owns from {ready}"))
        )
    if policy.promote_from > now:
        facts.append(
            (
                "cool-down",
                odd(f"after a recovery: nothing is let in until {when(policy.promote_from)}"),
            )
        )
    if policy.deleted:
        facts.append(("deleted", bad("by its owner: nobody can read its data any more")))
    return facts


def standing_notes(target: Target, found: Look) -> None:
    """Print what an owner must not overlook, and what to do about it."""
    for fork in found.view.forks:
        children = " and ".join(map(short, fork.children))
        warn(f"two statements stand on {short(fork.prev)}: {children}")
        if found.fork is not None:
            hint(f'placet merge {target.argument} --reason "why"   (the owner ends a fork)')
    for v in vetoables(found):
        warn(
            f"{v.type} {short(v.statement)} takes effect from {when(v.until)}; if that is not "
            f'yours: placet void {target.argument} {short(v.statement)} --reason "why"'
        )
    for y in young(found.policy, clock.now()):
        warn(
            f"signer {y.label} ({short(y.signer)}) was added and counts from "
            f"{when(y.counts_from)}; if that was not you, change the owner before: "
            f"placet key update {target.argument} --policy FILE"
        )


def effective_from(found: Look, waiting: WaitingStatement) -> int | None:
    """Return when so many vaults will take it that it is effective; ``None``: too few saw it."""
    statement = waiting.sent.statement
    if not isinstance(statement, Chained):
        raise TypeError("waiting: has no place in a charter")
    needed = effective_at(statement, found.policy.vault_set)
    times = sorted(waiting.until.values())
    return times[needed - 1] if len(times) >= needed else None


def _waiting(found: Look, waiting: WaitingStatement, veto: tuple[str, ...]) -> Vetoable:
    said = titled(waiting.sent.statement)
    return Vetoable(
        kind="waiting",
        statement=waiting.sent.digest,
        words=words(waiting.sent.digest),
        type=said.kind,
        about=said.subject,
        until=effective_from(found, waiting),
        at=tuple(v.number for v in found.vaults if v.vault in waiting.until),
        veto=veto,
    )


def _uses_left(policy: KeyPolicy, now: int) -> int:
    clause = policy.rules.auto_migrate
    if clause is None or now >= clause.expires_at:
        return 0
    return max(0, clause.budget - policy.auto_uses)


def _indented(facts: Sequence[Fact]) -> list[Fact]:
    return [(f"  {name.strip()}", value) for name, value in facts]
