"""``placet migrate``: a clause signer's use of the auto-migrate clause."""

from __future__ import annotations

from pathlib import Path

import click

from placet.cli.arguments import FILE, key_argument, span
from placet.cli.candidate import Candidate, find_candidate
from placet.cli.forward import read_forward
from placet.cli.govern import decide
from placet.cli.govern_words import clause_facts
from placet.cli.how import How, decides
from placet.cli.look import Look
from placet.cli.output import Fact, answer, odd, short
from placet.cli.pen import send
from placet.cli.policy_words import Names
from placet.cli.reach import Target, clock
from placet.cli.settings import Home
from placet.cli.words import tee_facts
from placet.client.signing import auto_body
from placet.core.profile import code_id
from placet.core.statement import Promote, UntrustedStatement
from placet.core.table import AutoMigrate
from placet.errors import PolicyDeniedError
from placet.policy.key_policy import KeyPolicy


@click.command()
@key_argument
@click.argument("code", metavar="STAGE|CODE", required=False)
@click.option("--profile", type=FILE, metavar="FILE", help="Let this code in, staged or not.")
@decides(key_file=True)
def migrate(
    *,
    name: str,
    code: str | None,
    profile: Path | None,
    how: How,
) -> int:
    r"""Let a version in by the auto-migrate clause, as one of its signers.

    It waits out the clause's delay, in which each signer of the owner can say no. Repeat
    the command after that: the same statement is brought again and then takes effect;
    whoever runs placet key sync does that too.

    \b
    Exit codes: 5 it waits, 0 it took effect, 3 refused: it is not within the clause.

    \b
    Example:
      placet migrate notes/data 4f2bb614 --key-file builder.pem
    """
    home = Home.find()
    target = Target.find(home, name)
    found, forward = target.visit(lambda v: read_forward(v, target.key), "asking")
    found.decidable()
    clause = found.policy.rules.auto_migrate
    if clause is None:
        raise PolicyDeniedError(
            f"no auto-migrate clause is in force for {target.name}",
            f"Its owner can promote: placet promote {target.argument}",
            reason="no-clause",
        )
    candidate = find_candidate(target, found, forward, code, profile)
    body = auto_body(found.policy, candidate.profile)
    earlier = _under_way(home, target, found, candidate, body.auto)
    if earlier is not None:
        if not how.as_json:
            answer(f"brought again: promote {short(earlier.digest)}, which was signed before")
        return send(target, earlier, home, as_json=how.as_json)
    how = how.about(f"Promote by the clause for key {target.name}")
    return decide(
        home,
        target,
        found,
        lambda c: c.promote(found.policy, body),
        _facts(found.policy, candidate, clause),
        how,
    )


def _under_way(
    home: Home, target: Target, found: Look, candidate: Candidate, clause: str | None
) -> UntrustedStatement | None:
    """Return the use of the clause for this code that waits already, or was signed here."""
    sents = [w.sent for w in found.view.waiting] + [s for _, s in home.outbox(target.key)]
    for sent in sents:
        statement = sent.statement
        if (
            isinstance(statement, Promote)
            and (statement.prev, statement.body.auto) == (found.policy.head, clause)
            and code_id(statement.body.profile) == candidate.code
            and statement.expires_at > clock.now()
        ):
            return sent
    return None


def _facts(policy: KeyPolicy, candidate: Candidate, clause: AutoMigrate) -> list[Fact]:
    first, *rest = tee_facts(candidate.profile)
    left = clause.budget - policy.auto_uses
    changed = ", ".join(d.field for d in candidate.differences if not d.same)
    return [
        ("lets in", first[1]),
        *((f"  {name}", value) for name, value in rest),
        ("staged", f"by {candidate.staged.staged_by}" if candidate.staged else odd("by nobody")),
        ("differs in", f"{changed or 'nothing'}, from the one before"),
        *clause_facts(clause, Names.of(policy.rules)),
        ("uses left", f"{left} before this one"),
        ("marked", f"auto in every vault's log; {span(clause.delay)} for the owner to look"),
    ]
