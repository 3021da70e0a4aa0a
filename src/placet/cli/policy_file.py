"""A policy as people write it: a TOML file in which every signer is named once.

docs/policy-file.md is its reference. What is read here is well-formed; whether such rules
can be kept is for `placet.policy.rules.check_rules` to say, which `PolicyFile.check` asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec

from placet.cli.policy_people import PRINCIPAL, People, with_place
from placet.cli.policy_toml import Table, read_toml
from placet.client.simulate import members
from placet.core.encoding import MAX_INT
from placet.core.limits import (
    COOLDOWN,
    MAX_DELAY,
    MAX_LIFETIME,
    MAX_PENDING,
    MAX_PROFILES,
    MIN_LIFETIME,
)
from placet.core.signer import Threshold, signer_id
from placet.core.table import Act, Acts, AutoMigrate, Change, Field, Guardians, Rules
from placet.errors import MalformedError
from placet.policy.rules import ACTS, check_rules

FORM = 1
"""The form of file that is read here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """What a policy file says."""

    path: Path
    rules: Rules
    """With the auto-migrate clause, which no birth may carry: see `birth_rules`."""
    unused: tuple[str, ...]
    """Names of signers that nothing mentions."""

    @property
    def birth_rules(self) -> Rules:
        """Return the rules that a key can be born with: all but the clause."""
        return msgspec.structs.replace(self.rules, auto_migrate=None)

    def check(self) -> None:
        """Refuse rules that could not be kept; the error names the file.

        Raises:
            UnrepairableError, MalformedError: See `check_rules`.
        """
        with_place(f"{self.path}", lambda: check_rules(self.rules))


def read_policy(path: Path) -> PolicyFile:
    """Read a policy file. Whether its rules can be kept is *not* checked.

    Raises:
        NotFoundError: The file, or one that it names, cannot be read.
        MalformedError: Who wrote it is wrong: the text names key, expectation and remedy.
    """
    top = read_toml(path)
    top.only("schema", "signers", *Rules.__struct_fields__)
    top.number("schema", FORM, FORM)
    people = People(top)
    guardians = people.part(top, "guardians", ("delay", "cooldown"))
    clause = people.part(top, "auto_migrate", _clause_keys)
    owner = people.who(top, "owner")
    if owner is None:
        top.wrong("owner", "who owns the key", f"owner = {PRINCIPAL}")
    rules = Rules(
        owner=owner,
        managers=people.who(top, "managers"),
        reviewers=people.who(top, "reviewers"),
        stagers=people.several(top, "stagers"),
        auditors=people.several(top, "auditors"),
        guardians=_guardians(*guardians) if guardians else None,
        auto_migrate=_clause(*clause) if clause else None,
        acts=_acts(top),
        immutable=_fields(top),
        cooldown=top.duration("cooldown", 0, MAX_DELAY, COOLDOWN),
        stager_quota=top.number("stager_quota", 1, MAX_PENDING, MAX_PENDING),
    )
    _check_names(path, rules)
    unused = tuple(n for n in people.named if n not in people.mentioned)
    return PolicyFile(path=path, rules=rules, unused=unused)


def _check_names(path: Path, rules: Rules) -> None:
    """Refuse two signers of one name: what people read could mean either."""
    seen: dict[str, str] = {}
    for signers in members(rules).values():
        for signer in signers:
            mine = signer_id(signer)
            if seen.setdefault(signer.label, mine) != mine:
                raise MalformedError(
                    f"{path}: two different signers are called {signer.label!r}",
                    "Give one of them another name, or another label.",
                )


def _acts(top: Table) -> Acts:
    if not top.has("acts"):
        return Acts()
    table = top.table("acts", "[acts] and below it promote = { managers = true }")
    table.only(*ACTS)
    found: dict[str, Act] = {}
    for name in table.values:
        row = table.table(name, f'{name} = {{ managers = true, lifetime = "1d" }}')
        row.only("managers", "lifetime")
        found[name] = Act(
            managers=row.flag("managers", default=False),
            lifetime=row.duration("lifetime", MIN_LIFETIME, MAX_LIFETIME, MAX_LIFETIME),
        )
    return Acts(**found)


def _guardians(table: Table, who: Threshold) -> Guardians:
    return Guardians(
        principal=who,
        delay=table.duration("delay", 0, MAX_DELAY),
        cooldown=table.duration("cooldown", 0, MAX_DELAY),
    )


_clause_keys = ("changes", "max_step", "delay", "expires_at", "budget")


def _clause(table: Table, who: Threshold) -> AutoMigrate:
    return AutoMigrate(
        signers=who,
        changes=_changes(table),
        max_step=table.number("max_step", 0, MAX_INT),
        delay=table.duration("delay", 0, MAX_DELAY),
        expires_at=table.moment("expires_at"),
        budget=table.number("budget", 1, MAX_PROFILES),
    )


def _fields(top: Table) -> tuple[Field, ...]:
    known: tuple[Field, ...] = get_args(Field)
    found = top.chosen("immutable", known, 'immutable = ["managers"]')
    return tuple(f for f in sorted(known) if f in found)


def _changes(table: Table) -> tuple[Change, ...]:
    known: tuple[Change, ...] = get_args(Change)
    write = 'changes = ["image", "measurement"]'
    found = table.chosen("changes", known, write)
    if not found:
        table.wrong("changes", "what a use may change", write)
    return tuple(c for c in sorted(known) if c in found)
