"""``placet review``: what a promote would let in, in words."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from placet.cli.arguments import FILE, key_argument
from placet.cli.candidate import Candidate, Finding, find_candidate, findings
from placet.cli.forward import Forward, read_forward
from placet.cli.look import Look
from placet.cli.output import (
    DONE,
    FINDINGS,
    Fact,
    answer,
    good,
    hint,
    json_option,
    odd,
    print_json,
    reported,
    short,
    show_facts,
    show_table,
    warn,
    when,
)
from placet.cli.reach import Target
from placet.cli.settings import Home
from placet.cli.staging import describe
from placet.cli.words import abbreviated, anchor, named


@click.command()
@key_argument
@click.argument("code", metavar="STAGE|CODE", required=False)
@click.option(
    "--profile",
    type=FILE,
    metavar="FILE",
    help="Your own measurement of it, to compare; or, without STAGE, the code to review.",
)
@json_option
@reported
def review(*, name: str, code: str | None, profile: Path | None, as_json: bool) -> int:
    r"""Show what a promote would let in, beside what is approved. Changes nothing.

    Exit code 1 when there is something to know before deciding: vaults that differ, a
    falling security version, looser rules on platforms, code that was retired.

    What was built from what is the stager's word. Whoever builds the same sources
    measures the same code: give that as --profile, and it is compared.

    \b
    Examples:
      placet review notes/data 4f2bb614
      placet review notes/data 4f2bb614 --profile my-build.json
    """
    target = Target.find(Home.find(), name)
    found, forward = target.visit(lambda v: read_forward(v, target.key), "asking")
    candidate = find_candidate(target, found, forward, code, profile)
    own = profile if code is not None else None
    notes = findings(found, forward, candidate, own)
    if as_json:
        print_json(_document(target, found, forward, candidate, notes))
    else:
        _show(target, found, forward, candidate, notes)
        if own is not None and not any(n.finding == "not-your-build" for n in notes):
            answer(good(f"It is exactly what {own} says."))
        if any(n.finding == "approved-already" for n in notes):
            hint(f"placet key show {target.argument}")
        else:
            hint(f"placet promote {target.argument} {_argument(candidate, code, profile)}")
    return FINDINGS if notes else DONE


def _argument(candidate: Candidate, code: str | None, profile: Path | None) -> str:
    return f"--profile {profile}" if code is None else short(candidate.code)


def _document(
    target: Target,
    found: Look,
    forward: Forward,
    candidate: Candidate,
    notes: tuple[Finding, ...],
) -> dict[str, object]:
    return {
        "key": target.key,
        "label": target.known.label,
        "version": found.policy.version,
        "code": candidate.code,
        "profile": candidate.profile,
        "staged": describe(candidate.staged, forward) if candidate.staged else None,
        "before": candidate.before,
        "differences": [
            {
                "field": d.field,
                "before": d.before,
                "after": d.after,
                "same": d.same,
                "meaning": d.meaning,
            }
            for d in candidate.differences
        ],
        "findings": notes,
    }


def _show(
    target: Target,
    found: Look,
    forward: Forward,
    candidate: Candidate,
    notes: tuple[Finding, ...],
) -> None:
    profile, staged = candidate.profile, candidate.staged
    answer(Text(f"What would be let in to {target.name}", style="bold"))
    facts: list[Fact] = [
        ("app", named(profile)),
        ("code", candidate.code),
        ("image", profile.image),
    ]
    if staged is not None:
        body = staged.stage.body
        at = f"{len(staged.at)} of {target.vault_set.n} vaults"
        facts += [
            ("version", f"{body.version}, from source {body.source}"),
            ("", Text("the stager's word; build it yourself to know", style="dim")),
            ("staged", f"by {staged.staged_by}, {when(staged.stage.issued_at)}, at {at}"),
            ("stage", staged.sent.digest),
        ]
    else:
        facts.append(("staged", "by nobody: it is named by its profile or the charter"))
    facts.append(("vouched for by", anchor(profile.anchor)))
    if candidate.before is not None:
        facts.append(("compared with", f"{named(candidate.before)}, approved"))
    show_facts(facts)
    changed = [d for d in candidate.differences if not d.same]
    show_table(
        "What changes",
        ("field", "approved now", "would be let in", "what that is"),
        [(d.field, abbreviated(d.before), odd(abbreviated(d.after)), d.meaning) for d in changed],
    )
    same = [d.field for d in candidate.differences if d.same]
    if same:
        answer(Text("the same: " + ", ".join(same), style="dim"))
    answer("")
    for note in notes:
        warn(note.text)
    silent = target.vault_set.n - len(forward.answered)
    if silent:
        answer(odd(f"{silent} of {target.vault_set.n} vaults did not answer"))
    if not notes:
        answer(good("Nothing speaks against it but your own judgement."))
    if found.policy.floor < profile.security_version:
        answer(Text(f"the floor stays {found.policy.floor} unless you say --floor", style="dim"))
