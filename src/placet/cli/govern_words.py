"""Rules in words: what an update changes, what a clause allows, how a recovery stands."""

from __future__ import annotations

from rich.text import Text

from placet.cli.arguments import span
from placet.cli.output import Cell, Fact, odd, short, when
from placet.cli.policy_words import Names, listed
from placet.client.simulate import members
from placet.core.encoding import Record
from placet.core.signer import Signer, signer_id
from placet.core.table import Act, AutoMigrate, Guardians, Rules, clause_digest
from placet.policy.principal import leaves
from placet.policy.rules import ACTS

NOBODY = "nobody"


class RuleChange(Record):
    """One row of the rules that becomes another."""

    rule: str
    before: str
    after: str


def changes(old: Rules, new: Rules) -> tuple[RuleChange, ...]:
    """Return every row of the rules that differs, in words; nothing if none does."""
    names = _names(old, new)
    before, after = _rows(old, names), _rows(new, names)
    found = [
        RuleChange(rule=name, before=before[name], after=after[name])
        for name in before
        if before[name] != after[name]
    ]
    if not found and old != new:
        # Only what principals are called differs, or of what kind a signer of one key is.
        found.append(RuleChange(rule="labels", before="as they were", after="others"))
    return tuple(found)


def change_facts(found: tuple[RuleChange, ...]) -> list[Fact]:
    """Return changes as lines: what was, and below it what comes."""
    facts: list[Fact] = []
    for change in found:
        facts.append((change.rule, Text.assemble("was   ", (change.before, "dim"))))
        facts.append(("", Text.assemble("is    ", (change.after, "yellow"))))
    return facts


def newcomers(old: Rules, new: Rules) -> tuple[Signer, ...]:
    """Return the signers of the new owner that the old one did not have."""
    known = {signer_id(s) for s in leaves(old.owner)}
    return tuple(s for s in leaves(new.owner) if signer_id(s) not in known)


def rules_facts(rules: Rules, *, plain: bool = False) -> list[Fact]:
    """Return rules as lines.

    Args:
        rules: The rules.
        plain: Leave out what is as it is where nothing was said.
    """
    empty = _rows(Rules(owner=rules.owner, stagers=rules.stagers))
    skip = ("owner", "stagers")
    return [
        (name, said)
        for name, said in _rows(rules).items()
        if not plain or (name not in skip and said != empty[name])
    ]


def clause_facts(clause: AutoMigrate, names: Names) -> list[Fact]:
    """Return what a clause lets its signers do, limit by limit."""
    cell: Cell = odd(names.who(clause.signers))
    step = f"rises by at most {clause.max_step} each time" if clause.max_step else "stays as it is"
    return [
        ("may promote", cell),
        ("  what may differ", f"{listed(clause.changes)}, from a version that is approved"),
        ("  security version", step),
        ("  how often", f"at most {clause.budget} times"),
        ("  until", when(clause.expires_at)),
        ("  after", f"{span(clause.delay)}, in which each owner signer can say no"),
        ("clause", clause_digest(clause)),
    ]


def _names(old: Rules, new: Rules) -> Names:
    """Return names for two tables: one name for two keys is no name, so these show the key."""
    labels = {
        signer_id(s): s.label
        for rules in (old, new)
        for group in members(rules).values()
        for s in group
    }
    shared = [*labels.values()]
    return Names(
        {
            i: label if shared.count(label) == 1 else f"{label} ({short(i)})"
            for i, label in labels.items()
        }
    )


def _rows(rules: Rules, names: Names | None = None) -> dict[str, str]:
    names = names or Names.of(rules)
    return {
        "owner": names.who(rules.owner),
        "managers": names.who(rules.managers) if rules.managers else NOBODY,
        "guardians": _guardians(rules.guardians, names),
        "reviewers": names.who(rules.reviewers) if rules.reviewers else NOBODY,
        "stagers": ", ".join(names.all(rules.stagers)) or "the owner only",
        "auditors": ", ".join(names.all(rules.auditors)) or NOBODY,
        **{name.replace("_", "-"): _act(getattr(rules.acts, name)) for name in ACTS},
        "auto-migrate": _clause(rules.auto_migrate, names),
        "cool-down": f"a device added later counts after {span(rules.cooldown)}",
        "stager's quota": f"{rules.stager_quota} versions",
        "fixed for life": ", ".join(rules.immutable) or "nothing",
    }


def _act(act: Act) -> str:
    who = "owner and managers" if act.managers else "owner"
    return f"{who}; a signed statement counts for {span(act.lifetime)} at most"


def _guardians(guardians: Guardians | None, names: Names) -> str:
    if guardians is None:
        return NOBODY
    return (
        f"{names.who(guardians.principal)}; {span(guardians.delay)} after they asked, "
        f"then {span(guardians.cooldown)} without promotes"
    )


def _clause(clause: AutoMigrate | None, names: Names) -> str:
    if clause is None:
        return "off"
    return (
        f"on: {names.who(clause.signers)} may let in what differs in {listed(clause.changes)}, "
        f"security version +{clause.max_step}, {span(clause.delay)} after it was signed, "
        f"{clause.budget} times until {when(clause.expires_at)} (clause "
        f"{short(clause_digest(clause))})"
    )
