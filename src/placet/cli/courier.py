"""``placet sign`` and ``placet deliver``: statements that travel as files."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from placet.cli.arguments import FILE
from placet.cli.content import content, identity
from placet.cli.files import load_key
from placet.cli.output import answer, err, json_option, reported, say, show_facts
from placet.cli.pen import ask, send, sign, words, write_out
from placet.cli.reach import Target
from placet.cli.settings import Home
from placet.cli.statement_files import (
    anybody,
    learn_birth,
    read_statement,
    still_lacking,
    ways_of,
)
from placet.cli.words import titled


@click.command()
@click.argument("file", type=FILE)
@click.option("--key-file", type=FILE, metavar="FILE", help="Sign with this key; else the owner's.")
@click.option("--signer", metavar="NAME", help="Sign with this one of those at hand here.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@reported
def sign_file(
    *, file: Path, key_file: Path | None, signer: str | None, yes: bool, as_json: bool
) -> int:
    """Add your signature to a statement that another signer composed.

    Where an owner is several signers, each signs the same statement. Read what it says:
    words alone vouch for nothing that somebody else composed.
    """
    if key_file is not None and signer is not None:
        raise click.UsageError("name it by --key-file or by --signer, not by both")
    home = Home.find()
    sent = read_statement(file)
    found = ways_of(home, sent)
    key = load_key(key_file) if key_file is not None else home.owner(signer).key
    shown = content(sent, own=False)
    if not (yes and as_json):
        say(Text(shown.title, style="bold"))
        show_facts([*shown.facts, *identity(sent)], err)
    if not yes:
        ask("Sign this?")
    signed = sign(sent, key, anybody(found), shown)
    missing = still_lacking(found, signed)
    learn_birth(home, signed)
    return write_out(signed, file, home, as_json=as_json, lacking=missing)


@click.command()
@click.argument("file", type=FILE)
@json_option
@reported
def deliver(*, file: Path, as_json: bool) -> int:
    """Bring a signed statement from a file to every vault of its key, as any courier may.

    Repeating it is safe. Exit codes as for `placet promote`.
    """
    home = Home.find()
    sent = read_statement(file)
    learn_birth(home, sent)
    target = Target.find(home, sent.key)
    if not as_json:
        said = titled(sent.statement)
        answer(f"{said.kind}: {said.subject}  ({words(sent.digest)})")
    return send(target, sent, home, as_json=as_json)
