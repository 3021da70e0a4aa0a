"""``placet promote`` and ``placet retire``: the owner's decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
import msgspec
from rich.text import Text

from placet.cli.arguments import DURATION, FILE, key_argument, span
from placet.cli.candidate import Candidate, find_candidate
from placet.cli.forward import named_code, read_forward
from placet.cli.govern import decide
from placet.cli.how import How, decides, reason_option
from placet.cli.key_view import in_force
from placet.cli.look import Look, look
from placet.cli.output import Fact, bad, odd, plain, when
from placet.cli.reach import Target, clock
from placet.cli.settings import Home
from placet.cli.words import named, tee_facts
from placet.client.signing import DAY, promote_body
from placet.core.body import PromoteBody

WEEK = 7 * DAY

Earlier = Literal["keep", "retire"] | int
"""What happens to versions approved before; a number is the seconds of an overlap."""


@click.command()
@key_argument
@click.argument("code", metavar="STAGE|CODE", required=False)
@click.option("--profile", type=FILE, metavar="FILE", help="Let this code in, staged or not.")
@click.option("--keep", is_flag=True, help="Versions approved before stay approved.")
@click.option("--retire-now", is_flag=True, help="They are retired at once.")
@click.option(
    "--overlap", type=DURATION, metavar="SPAN", help="They are retired after SPAN.  [default: 7d]"
)
@click.option("--unretire", is_flag=True, help="Say plainly that retired code comes back.")
@click.option("--floor", type=int, metavar="N", help="Raise the lowest security version to N.")
@decides()
def promote(  # noqa: PLR0913 - its options
    *,
    name: str,
    code: str | None,
    profile: Path | None,
    keep: bool,
    retire_now: bool,
    overlap: int | None,
    unretire: bool,
    floor: int | None,
    how: How,
) -> int:
    r"""Approve a version: it may open the key's data from then on.

    The statement is composed here, shown with its six words, signed with the owner's key
    and brought to every vault directly. Effective when k vaults confirm.

    \b
    Exit codes: 0 confirmed by all, 5 effective and some have not confirmed, 4 too few
    vaults, 3 refused, 6 another statement came first.

    \b
    Examples:
      placet promote notes/data 4f2bb614
      placet promote notes/data 4f2bb614 --overlap 12h --floor 2
      placet promote notes/data --profile notes-2.json --retire-now --out promote.json
    """
    if sum((keep, retire_now, overlap is not None)) > 1:
        raise click.UsageError("choose one of --keep, --retire-now and --overlap")
    if code is not None and profile is not None:
        raise click.UsageError("name it by STAGE|CODE or by --profile, not by both")
    earlier: Earlier = "keep" if keep else "retire" if retire_now else overlap or WEEK
    home = Home.find()
    target = Target.find(home, name)
    found, forward = target.visit(lambda v: read_forward(v, target.key), "asking")
    found.decidable()
    candidate = find_candidate(target, found, forward, code, profile)
    body = _body(found, candidate, earlier, unretire=unretire, floor=floor)
    how = how.about(f"Promote for key {target.name}")
    facts = _promote_facts(found, candidate, body, earlier)
    return decide(home, target, found, lambda c: c.promote(found.policy, body), facts, how)


@click.command()
@key_argument
@click.argument("code", metavar="CODE")
@reason_option
@decides()
def retire(
    *,
    name: str,
    code: str,
    reason: str,
    how: How,
) -> int:
    r"""End a version's approval, at once and for ever.

    Effective when n-k+1 vaults confirm: the others are too few to serve it. It does not
    recall a data key that was handed out before; only a restart takes that away.

    \b
    Example:
      placet retire notes/data 9c41d0aa --reason "replaced by version 2"
    """
    home = Home.find()
    target = Target.find(home, name)
    found = target.visit(lambda v: look(v, target.key), "asking").decidable()
    codes = [a.code for a in found.policy.approvals]
    chosen = named_code(codes, code, f"placet key show {target.argument}")
    how = how.about(f"Retire for key {target.name}")
    facts = _retire_facts(found, chosen, reason)
    return decide(home, target, found, lambda c: c.retire(found.policy, chosen, reason), facts, how)


def _body(
    found: Look, candidate: Candidate, earlier: Earlier, *, unretire: bool, floor: int | None
) -> PromoteBody:
    others = [a for a in found.policy.approvals if a.code != candidate.code]
    retire_at = clock.now() + earlier if isinstance(earlier, int) and others else None
    body = promote_body(found.policy, candidate.profile, retire_at=retire_at, unretire=unretire)
    staged = candidate.staged.stage.body if candidate.staged else None
    return msgspec.structs.replace(
        body,
        provenance=staged.provenance if staged else None,
        review=staged.review if staged else None,
        earlier="retire" if earlier == "retire" else body.earlier,
        security_version_floor=found.policy.floor if floor is None else floor,
    )


def _promote_facts(
    found: Look, candidate: Candidate, body: PromoteBody, earlier: Earlier
) -> list[Fact]:
    first, *rest = tee_facts(candidate.profile)
    facts: list[Fact] = [("lets in", first[1]), *((f"  {name}", value) for name, value in rest)]
    if candidate.staged is not None:
        staged = candidate.staged
        said = f"{plain(staged.stage.body.version)!r} from {plain(staged.stage.body.source)!r}"
        facts.append(("staged", f"by {staged.staged_by} as {said}"))
    else:
        facts.append(("staged", odd("by nobody")))
    if body.unretire:
        facts.append(("brings back", bad("code that was retired")))
    others = [a for a in found.policy.approvals if a.code != candidate.code]
    if candidate.before is not None:
        changed = [d.field for d in candidate.differences if not d.same]
        facts.append(("differs in", f"{', '.join(changed) or 'nothing'}, from the one before"))
    facts += _others(others_named=[named(a.profile) for a in others], body=body, earlier=earlier)
    floor, new = found.policy.floor, body.security_version_floor
    facts.append(
        ("floor", f"security version {floor}" + (f", raised to {new}" if new > floor else ""))
    )
    return facts


def _others(others_named: list[str], body: PromoteBody, earlier: Earlier) -> list[Fact]:
    if not others_named:
        return [("before it", "nothing is approved")]
    what = {
        "keep": "stays approved",
        "retire": "is retired at once",
        "retire-at": f"is retired {when(body.retire_at)}",
    }[body.earlier]
    if isinstance(earlier, int):
        what += f" (after {span(earlier)})"
    style = "yellow" if body.earlier != "keep" else ""
    lines = [Text(f"{plain(name)}: ") + Text(what, style=style) for name in others_named]
    return [("before it" if i == 0 else "", line) for i, line in enumerate(lines)]


def _retire_facts(found: Look, code: str, reason: str) -> list[Fact]:
    approval = next(a for a in found.policy.approvals if a.code == code)
    first, *rest = tee_facts(approval.profile)
    facts: list[Fact] = [
        ("shuts out", bad(str(first[1]))),
        *((f"  {name}", value) for name, value in rest),
    ]
    left = [
        named(a.profile)
        for a in found.policy.approvals
        if a.code != code and in_force(found.policy, a)
    ]
    stays: Fact = ("still approved", "; ".join(left))
    if not left:
        stays = ("still approved", bad("nothing: no code can open the data then"))
    return [*facts, stays, ("reason", reason)]
