"""``placet policy``: rules as people write them, checked and asked before anybody signs."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from placet.cli.arguments import FILE
from placet.cli.files import local_files
from placet.cli.output import (
    DONE,
    FINDINGS,
    REFUSED,
    answer,
    good,
    hint,
    json_option,
    print_json,
    reported,
    show_error,
    show_facts,
    warn,
)
from placet.cli.policy_explain import show_explained
from placet.cli.policy_file import read_policy
from placet.cli.policy_findings import findings
from placet.cli.policy_presets import TO_FILL, fill
from placet.cli.policy_simulation import Question, show_simulated, simulate_policy
from placet.cli.policy_subject import find_subject
from placet.cli.policy_words import Names
from placet.cli.reach import clock
from placet.core.signer import owner_fingerprint
from placet.errors import ConflictError, PlacetError


@click.group()
def policy() -> None:
    """Write the rules of a key, check them, and ask what they mean.

    A policy file is TOML: docs/policy-file.md. Nothing here signs or sends anything.
    """


@policy.command()
@click.option(
    "--preset", type=click.Choice(list(TO_FILL)), required=True, help="Which form to start from."
)
@click.option("--owner", multiple=True, type=FILE, metavar="FILE", help="A device of the owner's.")
@click.option("--manager", multiple=True, type=FILE, metavar="FILE", help="Who co-signs.")
@click.option("--guardian", multiple=True, type=FILE, metavar="FILE", help="Who can recover.")
@click.option("--stager", multiple=True, type=FILE, metavar="FILE", help="Who proposes versions.")
@click.option("--auditor", multiple=True, type=FILE, metavar="FILE", help="Who reads the log.")
@click.option("--out", type=FILE, metavar="FILE", help="Write it there; else it is printed.")
@json_option
@reported
def new(*, preset: str, out: Path | None, as_json: bool, **given: tuple[Path, ...]) -> int:
    r"""Write a policy file to fill in.

    Each FILE is a public signer (`placet owner show --out FILE`, a passkey's, or a public
    key in PEM) and its name becomes the signer's. Roles without one get names to fill in.

    \b
    solo       one owner, either of two devices
    team       the same, and 2 of 3 managers co-sign; guardians recover
    regulated  2 of 3 devices, 2 of 3 managers for life, short lifetimes; guardians recover
    sandbox    solo, and the stager may let versions in by a clause that the owner signs

    \b
    Example:
      placet policy new --preset team --owner phone.json --owner laptop.json --out team.toml
    """
    folder = out.parent if out is not None else Path()
    filled = fill(preset, given, folder=folder, now=clock.now())
    if out is not None:
        _write(out, filled.text)
    if as_json:
        document = {"preset": preset, "file": str(out) if out else None, "missing": filled.missing}
        print_json(document if out else {**document, "text": filled.text})
        return DONE
    if out is None:
        click.echo(filled.text, nl=False)
        return DONE
    answer(f"written: {out}")
    if filled.missing:
        hint(f"fill in who signs, or bring these files: {', '.join(filled.missing)}")
    hint(f"placet policy check {shlex.quote(str(out))}")
    return DONE


@policy.command()
@click.argument("file", type=FILE)
@json_option
@reported
def check(*, file: Path, as_json: bool) -> int:
    """Check a policy file: can it be kept, and will its author regret it?

    Exit codes: 0 fine, 1 findings, 2 unreadable or not filled in, 3 refused: vaults would
    not take such rules, since a loss would freeze them or they contradict themselves.
    """
    read = read_policy(file)
    try:
        read.check()
    except PlacetError as e:
        # Whatever the class: the file was read, and what it says is refused.
        if as_json:
            print_json(e.problem())
        else:
            show_error(e)
        return REFUSED
    found = findings(read.rules, read.unused)
    if as_json:
        print_json(
            {"file": str(file), "owner": owner_fingerprint(read.rules.owner), "findings": found}
        )
        return FINDINGS if found else DONE
    people = Names.of(read.rules).facts(read.rules)
    show_facts([*people, ("fingerprint", owner_fingerprint(read.rules.owner))])
    for finding in found:
        warn(finding.text)
    if not found:
        answer(good("fine: these rules can be kept, and nothing stands out"))
    hint(f"placet policy simulate {shlex.quote(str(file))}")
    return FINDINGS if found else DONE


@policy.command()
@click.argument("subject", metavar="FILE|KEY")
@json_option
@reported
def explain(*, subject: str, as_json: bool) -> None:
    """Say in plain words who can approve what.

    A name that ends in .toml is a policy file; any other is a KEY, whose vaults are asked.
    """
    show_explained(find_subject(subject, clock.now()), as_json=as_json)


@policy.command()
@click.argument("subject", metavar="FILE|KEY")
@click.option("--lost", multiple=True, metavar="NAME", help="A signer that is gone; repeatable.")
@click.option(
    "--stolen", multiple=True, metavar="NAME", help="A signer that a thief has; repeatable."
)
@json_option
@reported
def simulate(*, subject: str, lost: tuple[str, ...], stolen: tuple[str, ...], as_json: bool) -> int:
    r"""Answer: who could read these data today, and who could change that?

    Listed are the smallest groups of signers that suffice for each act, how long it waits,
    and who of the others can say no meanwhile. A name that ends in .toml is a policy file;
    any other is a KEY, whose vaults are asked.

    Exit code 1 when what is lost can be replaced by nobody, or when who stole that could
    let code in and nobody could say no.

    \b
    Examples:
      placet policy simulate team.toml
      placet policy simulate team.toml --lost phone --lost laptop
      placet policy simulate notes/data --stolen phone
    """
    found = find_subject(subject, clock.now())
    said = simulate_policy(found, Question(lost=lost, stolen=stolen))
    return show_simulated(found, said, as_json=as_json)


def _write(path: Path, text: str) -> None:
    with local_files():
        try:
            with path.open("x", encoding="utf-8") as f:
                f.write(text)
        except FileExistsError as e:
            raise ConflictError(
                f"{path} exists, and it is not written over", "Name another: --out FILE"
            ) from e
