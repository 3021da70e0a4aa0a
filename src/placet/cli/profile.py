"""``placet profile``: a profile out of verified evidence, and two profiles told apart."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from placet.attest.verify import verify_evidence
from placet.cli.arguments import FILE
from placet.cli.evidence import AT, COLLATERAL, FAMILY, ROOT
from placet.cli.evidence_files import Found, read_evidence, read_rules, trusted
from placet.cli.files import read_json, write_json
from placet.cli.from_evidence import notes_on, profile_of, rules_of
from placet.cli.output import (
    DONE,
    Fact,
    err,
    hint,
    json_option,
    out,
    print_json,
    reported,
    show_facts,
    warn,
    when,
)
from placet.cli.profile_diff import diff
from placet.cli.words import anchor, named
from placet.core.attestation import Family, VerifiedEvidence
from placet.core.config import Config, config_digest
from placet.core.encoding import MAX_INT
from placet.core.profile import Profile, TcbRules, code_id
from placet.errors import EvidenceError, MalformedError


@click.group()
def profile() -> None:
    """Write a profile out of evidence, and see what changed between two."""


@profile.command("from-evidence")
@click.argument("file", type=FILE)
@COLLATERAL
@FAMILY
@ROOT
@AT
@click.option("--app", metavar="NAME", help="The app's name; evidence does not say it.")
@click.option("--image", metavar="sha256:HEX", help="The image's digest.")
@click.option("--config", metavar="sha384:HEX", help="The config's digest; TDX has it itself.")
@click.option("--config-file", type=FILE, metavar="FILE", help="The config, in place of --config.")
@click.option(
    "--security-version",
    type=click.IntRange(0, MAX_INT),
    default=1,
    show_default=True,
    help="The app's count of security fixes.",
)
@click.option("--statuses", metavar="LIST", help="Accepted statuses, with commas between.")
@click.option("--tcb", type=FILE, metavar="FILE", help="Rules (JSON) in place of what was seen.")
@click.option("--hardware", is_flag=True, help="Accept this one machine only.")
@click.option("--narrow", is_flag=True, help="Name signers, parents and lowest versions as well.")
@click.option("--out", "to", type=FILE, metavar="FILE", help="Write the profile there.")
@json_option
@reported
def from_evidence(  # noqa: PLR0913 - each is one option
    *,
    file: Path,
    collateral: tuple[Path, ...],
    family: Family | None,
    root: Path | None,
    at: int | None,
    app: str | None,
    image: str | None,
    config: str | None,
    config_file: Path | None,
    security_version: int,
    statuses: str | None,
    tcb: Path | None,
    hardware: bool,
    narrow: bool,
    to: Path | None,
    as_json: bool,
) -> int:
    r"""Write a profile of what verified evidence shows.

    It names exactly that. FILE is verified as `placet evidence verify` does it, and what is
    refused gives no profile.
    Its rules accept the status and advisories that were seen, and nothing older. It says
    what one machine ran once, not that this is code to trust: build it yourself for that.

    \b
    Exit codes: 0 written, 3 refused, 2 unreadable input.

    \b
    Example:
      placet profile from-evidence quote.bin --collateral collateral.json \
        --app notes --image sha256:HEX --out notes-1.json
    """
    if app is None:
        raise MalformedError("which app is it? no evidence says that", "Add --app NAME")
    given = None if tcb is None else read_rules(tcb)
    found = read_evidence(file, collateral, family)
    now = at if at is not None else (found.fields.made or int(time.time()))
    shown = _verified(file, found, root, now, given)
    rules = _rules(given or rules_of(shown), shown, statuses, hardware=hardware)
    result = profile_of(
        shown,
        app=app,
        image=image,
        config=_config(config, config_file),
        security_version=security_version,
        tcb=rules,
        narrow=narrow,
    )
    notes = notes_on(result, shown)
    if to is not None:
        write_json(to, result)
    if as_json:
        print_json(
            {
                "profile": result,
                "code": code_id(result),
                "at": now,
                "expires": shown.expires,
                "hardware_id": shown.hardware_id,
                "features": sorted(shown.features),
                "notes": notes,
            }
        )
        return DONE
    console = err if to is None else out
    if to is None:
        # Alone on standard output, so that it can be sent to a file.
        print_json(result)
    show_facts(_facts(result, shown, now), console)
    for note in notes:
        warn(note)
    path = to or "FILE"
    hint(f"placet stage KEY --profile {path} --version NAME --source COMMIT")
    return DONE


def _verified(
    file: Path, found: Found, root: Path | None, now: int, rules: TcbRules | None
) -> VerifiedEvidence:
    grace = 0 if rules is None else rules.grace
    try:
        return verify_evidence(found.evidence, trust=trusted(root, found), now=now, grace=grace)
    except EvidenceError as e:
        e.hint = e.hint or f"See which check it was: placet evidence verify {file}"
        raise


def _config(digest: str | None, file: Path | None) -> str | None:
    if file is None:
        return digest
    try:
        of_file = config_digest(read_json(file, Config, "config"))  # type: ignore[arg-type] # a union
    except ValueError as e:
        raise MalformedError(f"{file} has no canonical form: {e}") from e
    if digest not in (None, of_file):
        raise MalformedError(f"{file} has the digest {of_file}, --config is {digest}")
    return of_file


def _rules(
    rules: TcbRules, shown: VerifiedEvidence, statuses: str | None, *, hardware: bool
) -> TcbRules:
    changes: dict[str, object] = {}
    if statuses is not None:
        changes["statuses"] = tuple(s.strip() for s in statuses.split(",") if s.strip())
    if hardware:
        if shown.hardware_id is None:
            raise MalformedError(
                "evidence names no machine that --hardware could mean",
                "A VLEK, a Nitro document and a hidden or absent PPID name none.",
            )
        changes["hardware_ids"] = (shown.hardware_id,)
    return msgspec.structs.replace(rules, **changes)


def _facts(result: Profile, shown: VerifiedEvidence, now: int) -> list[Fact]:
    rules = result.tcb
    return [
        ("profile", named(result)),
        ("code", code_id(result)),
        ("image", result.image),
        ("config", result.config),
        ("vouched for by", anchor(result.anchor)),
        ("verified", f"as of {when(now)}; the evidence counts until {when(shown.expires)}"),
        ("accepts", ", ".join(rules.statuses)),
        ("advisories", ", ".join(shown.tcb.advisories) or "none"),
        ("evaluation", f"{rules.min_evaluation} or later"),
        ("features seen", ", ".join(sorted(shown.features)) or "none"),
    ]


profile.add_command(diff)
