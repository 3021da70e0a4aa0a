"""``placet key update`` and ``placet key auto-migrate``: the owner's rules, changed."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from msgspec import structs

from placet.cli.arguments import FILE, key_argument, span
from placet.cli.files import read_json
from placet.cli.govern import decide
from placet.cli.govern_words import change_facts, changes, clause_facts, newcomers
from placet.cli.how import How, decides, reason_option
from placet.cli.look import Look, look
from placet.cli.output import Fact, bad, good, odd, plain, warn, when
from placet.cli.policy_file import PolicyFile, read_policy
from placet.cli.policy_words import Names, listed
from placet.cli.reach import Target, clock
from placet.cli.settings import Home
from placet.cli.words import anchor, named
from placet.core.profile import Profile
from placet.core.table import AutoMigrate, Rules
from placet.errors import MalformedError, PolicyDeniedError
from placet.policy.principal import leaves


@click.command()
@key_argument
@click.option("--policy", "file", type=FILE, metavar="FILE", help="The rules from now on (TOML).")
@click.option(
    "--add-vault-release",
    "releases",
    type=FILE,
    multiple=True,
    metavar="PROFILE",
    help="Vault code that may take over shares (JSON); repeatable. Reviewers may sign that alone.",
)
@reason_option
@decides(key_file=True)
def update(
    *,
    name: str,
    file: Path | None,
    releases: tuple[Path, ...],
    reason: str,
    how: How,
) -> int:
    r"""Put other rules in the place of those in force, as a whole.

    What changes is shown row by row. A signer that is added to the owner counts for
    nothing during the cool-down, so add before you take out. An auto-migrate clause is
    turned on by a statement of its own: placet key auto-migrate.

    \b
    Examples:
      placet key update notes/data --policy team.toml --reason "new laptop"
      placet key update notes/data --add-vault-release vault-2.json --reason "vaults 2"
    """
    if file is None and not releases:
        raise click.UsageError("name what changes: --policy FILE, --add-vault-release PROFILE")
    home = Home.find()
    target = Target.find(home, name)
    found = target.visit(lambda v: look(v, target.key), "asking").decidable()
    old = found.policy.rules
    new = old if file is None else _rules(old, file, target, quiet=how.as_json)
    profiles = tuple(read_json(p, Profile, "profile") for p in releases)
    facts = _update_facts(found, new, profiles, reason)
    how = how.about(f"New rules for key {target.name}")
    return decide(
        home,
        target,
        found,
        lambda c: c.update(found.policy, new, reason, vault_profiles=profiles),
        facts,
        how,
    )


@click.group("auto-migrate")
def auto_migrate() -> None:
    """Let others than the owner let versions in, within limits; or end that.

    Off by default. A use of the clause is a promote by its signers. It waits, and
    meanwhile each signer of the owner can say no: placet void.
    """


@auto_migrate.command()
@key_argument
@click.option(
    "--policy",
    "file",
    type=FILE,
    required=True,
    metavar="FILE",
    help="A policy file: of it the clause counts here and nothing else (TOML).",
)
@click.option("--reason", default="hands-off rollout", show_default=True, help="For readers.")
@click.option(
    "--type-out", metavar="SENTENCE", help="The sentence that a terminal would ask you to type."
)
@decides()
def on(
    *,
    name: str,
    file: Path,
    reason: str,
    type_out: str | None,
    how: How,
) -> int:
    """Turn on the clause of a policy file, by a statement that does nothing else.

    It is typed out, word for word, and not answered by habit.
    """
    home = Home.find()
    target = Target.find(home, name)
    found = target.visit(lambda v: look(v, target.key), "asking").decidable()
    old, policy = found.policy.rules, _read(file)
    clause = policy.rules.auto_migrate
    if clause is None:
        raise MalformedError(
            f"{file} has no auto-migrate clause",
            "Write one: [auto_migrate], as placet policy new --preset sandbox does.",
        )
    new = structs.replace(old, auto_migrate=clause)
    others = changes(structs.replace(old, auto_migrate=clause), policy.rules)
    if others and not how.as_json:
        names = listed([c.rule for c in others])
        warn(
            f"{file} differs from the rules in force in {names} too: that is not part of this; "
            f"placet key update {target.argument} --policy {shlex.quote(plain(str(file)))}"
        )
    how = how.about(
        f"Others may let versions in: key {target.name}",
        sentence=sentence_of(clause, found.policy.label),
        typed=type_out,
    )
    facts = [*clause_facts(clause, Names.of(new)), *_before(old), ("reason", reason)]
    return decide(home, target, found, lambda c: c.update(found.policy, new, reason), facts, how)


@auto_migrate.command()
@key_argument
@click.option("--reason", default="no hands-off rollout", show_default=True, help="For readers.")
@decides()
def off(
    *,
    name: str,
    reason: str,
    how: How,
) -> int:
    """Turn the clause off. What was let in by it stays; what waits under it is dead."""
    home = Home.find()
    target = Target.find(home, name)
    found = target.visit(lambda v: look(v, target.key), "asking").decidable()
    old = found.policy.rules
    if old.auto_migrate is None:
        raise PolicyDeniedError(
            f"no auto-migrate clause is in force for {target.name}", reason="no-clause"
        )
    new = structs.replace(old, auto_migrate=None)
    how = how.about(f"Only the owner lets versions in: key {target.name}")
    facts = [*change_facts(changes(old, new)), ("reason", reason)]
    return decide(home, target, found, lambda c: c.update(found.policy, new, reason), facts, how)


def sentence_of(clause: AutoMigrate, label: str) -> str:
    """Return what people type out to turn a clause on."""
    signers = listed([s.label for s in leaves(clause.signers)])
    return f"let {signers} promote {label} without me"


def _read(file: Path) -> PolicyFile:
    policy = read_policy(file)
    policy.check()
    return policy


def _rules(old: Rules, file: Path, target: Target, *, quiet: bool) -> Rules:
    """Return the rules of a file; a clause that is not in force stays out of them."""
    new = _read(file).rules
    if new.auto_migrate is None or new.auto_migrate == old.auto_migrate:
        return new
    command = (
        f"placet key auto-migrate on {target.argument} --policy {shlex.quote(plain(str(file)))}"
    )
    kept = structs.replace(new, auto_migrate=old.auto_migrate)
    if kept == old:
        raise MalformedError(
            f"of {file} only the auto-migrate clause is new, and that is turned on by a statement "
            "of its own",
            command,
        )
    if not quiet:
        warn(f"the auto-migrate clause of {file} is not turned on by this: {command}")
    return kept


def _update_facts(
    found: Look, new: Rules, profiles: tuple[Profile, ...], reason: str
) -> list[Fact]:
    old, names = found.policy.rules, Names.of(new)
    rows = change_facts(changes(old, new))
    facts = rows or [("rules", good("stay as they are"))]
    added = newcomers(old, new)
    if added:
        start = when(clock.now() + new.cooldown)
        facts.append(
            (
                "new in the owner",
                odd(
                    f"{listed(names.all(added))}: counts for nothing until {start} "
                    f"({span(new.cooldown)}); until then every other signer is shown it"
                ),
            )
        )
    for profile in profiles:
        facts.append(("vault release", odd(f"{named(profile)}, {anchor(profile.anchor)}")))
    if found.policy.recovery is not None and new != old:
        facts.append(("ends", odd("the recovery that is open")))
    return [*facts, ("reason", reason)]


def _before(old: Rules) -> list[Fact]:
    if old.auto_migrate is None:
        return [("until now", "nobody but the owner lets versions in")]
    return [("until now", bad("another clause was on; its uses are counted anew"))]
