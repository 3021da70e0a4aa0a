"""``placet merge``: the owner ends a fork, two statements that stand on one."""

from __future__ import annotations

from collections.abc import Sequence

import click
from msgspec import structs

from placet.cli.arguments import key_argument
from placet.cli.forward import named_code
from placet.cli.govern import decide
from placet.cli.govern_branches import Branch, read_branches
from placet.cli.govern_words import change_facts, changes
from placet.cli.how import How, decides, reason_option
from placet.cli.look import Look
from placet.cli.output import (
    DONE,
    Fact,
    answer,
    bad,
    good,
    odd,
    print_json,
    short,
    when,
)
from placet.cli.reach import Target
from placet.cli.settings import Home
from placet.cli.words import named, titled
from placet.client.signing import merge_body
from placet.core.body import MergeBody
from placet.errors import ConflictError


@click.command()
@key_argument
@click.option(
    "--rules-of",
    metavar="STATEMENT",
    help="Take the rules of the branch with this head.  [default: of the longest]",
)
@reason_option
@decides(key_file=True)
def merge(
    *,
    name: str,
    rules_of: str | None,
    reason: str,
    how: How,
) -> int:
    r"""End a fork: two of the owner's devices decided at once, and vaults differ.

    Shown are the branches, side by side, and the policy that follows: what any branch
    shut out stays out, what some branch let in and none retired is let in, the highest
    floor counts. It is signed as each branch demands.

    \b
    Example:
      placet merge notes/data --reason "both phones promoted"
    """
    home = Home.find()
    target = Target.find(home, name)
    found, branches = target.visit(lambda v: read_branches(v, target.key), "asking")
    found.heard()
    if len(branches) < 2:  # noqa: PLR2004 - one branch is no fork
        return _no_fork(target, found, as_json=how.as_json)
    if found.fork is None:
        raise ConflictError(
            f"{found.policy.vault_set.k} vaults took the same branch of {target.name}: it counts, "
            "and there is nothing to merge",
            f"Bring it to the others: placet key sync {target.argument}",
        )
    policies = [b.policy for b in branches]
    body = _body(branches, rules_of, reason, f"placet merge {target.argument}")
    how = how.about(f"Merge {len(branches)} branches of key {target.name}")
    facts = _facts(branches, body)
    return decide(
        home, target, found, lambda c: c.merge(policies, body), facts, how, branches=policies
    )


def _no_fork(target: Target, found: Look, *, as_json: bool) -> int:
    if as_json:
        print_json({"key": target.key, "head": found.policy.head, "branches": 1})
    else:
        answer(f"The charter of {target.name} has not forked: there is nothing to merge.")
    return DONE


def _body(branches: Sequence[Branch], rules_of: str | None, reason: str, see: str) -> MergeBody:
    """Return the merge that changes least, under the rules of one branch.

    Raises:
        MalformedError, NotFoundError: ``rules_of`` is the head of none.
    """
    policies = [b.policy for b in branches]
    chosen = policies[0]
    if rules_of is not None:
        head = named_code([p.head for p in policies], rules_of, see)
        chosen = next(p for p in policies if p.head == head)
    rules = chosen.rules
    if any(p.rules.auto_migrate != rules.auto_migrate for p in policies):
        # A merge turns no clause on that some branch has not.
        rules = structs.replace(rules, auto_migrate=None)
    return structs.replace(merge_body(policies, reason), policy=rules)


def _facts(branches: Sequence[Branch], body: MergeBody) -> list[Fact]:
    facts: list[Fact] = []
    for number, branch in enumerate(branches, 1):
        at = ", ".join(map(str, branch.at)) or "none that answered"
        policy = branch.policy
        facts.append(
            (
                f"branch {number}",
                f"version {policy.version}, head {short(policy.head)}, vaults {at}",
            )
        )
        for sent in branch.own:
            said = titled(sent.statement)
            facts.append(("", odd(f"{said.kind}: {said.subject}")))
    return [*facts, *_result(branches, body)]


def _result(branches: Sequence[Branch], body: MergeBody) -> list[Fact]:
    facts: list[Fact] = []
    for merged in body.profiles:
        end = "" if merged.until is None else f", until {when(merged.until)}"
        facts.append(("then lets in", good(named(merged.profile) + end)))
    if not body.profiles:
        facts.append(("then lets in", bad("nothing: no code can open the data then")))
    facts += [("shut out", bad(short(code))) for code in body.tombstones]
    facts.append(("floor", f"security version {body.security_version_floor}"))
    for number, branch in enumerate(branches, 1):
        rows = changes(branch.policy.rules, body.policy)
        if rows:
            facts += [("rules", odd(f"other than on branch {number}:")), *change_facts(rows)]
    return [*facts, ("reason", body.reason)]
