"""``placet profile diff``: what changed between two profiles, in words, for the review."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.text import Text

from placet.cli.arguments import FILE
from placet.cli.differences import Change, explain
from placet.cli.files import read_bytes
from placet.cli.output import (
    DONE,
    FINDINGS,
    answer,
    bad,
    good,
    json_option,
    odd,
    print_json,
    reported,
    show_facts,
    show_table,
)
from placet.cli.words import abbreviated, named
from placet.core.profile import Profile, code_id
from placet.errors import MalformedError


@click.command()
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
@json_option
@reported
def diff(*, before: Path, after: Path, as_json: bool) -> int:
    r"""Explain in words what changed between two profiles.

    Each file is a profile (JSON, in any layout), or a document that has one as `profile`.

    \b
    Exit codes: 0 the same, 1 they differ, 2 unreadable input.

    \b
    Example:
      placet profile diff notes-1.json notes-2.json
    """
    old, new = _read(before), _read(after)
    changes = explain(old, new)
    same_code = code_id(old) == code_id(new)
    if as_json:
        print_json(
            {
                "same": not changes,
                "same_code": same_code,
                "before": {"code": code_id(old), "profile": old},
                "after": {"code": code_id(new), "profile": new},
                "changes": changes,
            }
        )
    elif not changes:
        answer(good("Nothing differs: both name the same code, on the same platforms."))
    else:
        show_facts([("before", named(old)), ("after", named(new))])
        for change in changes:
            _show(change)
        answer("")
        if same_code:
            answer(good("Nothing that measures code differs."))
    return FINDINGS if changes else DONE


def _read(path: Path) -> Profile:
    try:
        plain = msgspec.json.decode(read_bytes(path))
        if isinstance(plain, dict) and isinstance(plain.get("profile"), dict):
            plain = plain["profile"]
        return msgspec.convert(plain, Profile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise MalformedError(f"{path} is no profile: {e}"[:300]) from e


def _show(change: Change) -> None:
    show_table(
        change.heading,
        ("field", "before", "after", "what that is"),
        [
            (d.field, abbreviated(d.before), odd(abbreviated(d.after)), d.meaning)
            for d in change.fields
        ],
    )
    answer(change.meaning)
    for note in change.notes:
        answer(f"- {note}")
    for warning in change.warnings:
        answer(Text.assemble("! ", bad(warning)))
    answer(Text(change.ask, style="dim"))
