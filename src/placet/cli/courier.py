"""``placet sign`` and ``placet deliver``: statements that travel as files."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.text import Text

from placet.cli.arguments import FILE
from placet.cli.files import load_key, read_json
from placet.cli.look import look
from placet.cli.output import (
    Fact,
    answer,
    err,
    json_option,
    odd,
    reported,
    say,
    short,
    show_facts,
    when,
)
from placet.cli.pen import ask, missing_signatures, send, sign, words, write_out
from placet.cli.reach import Target
from placet.cli.settings import Home
from placet.cli.words import named, tee_facts, titled, until
from placet.core.signer import Threshold
from placet.core.statement import (
    Birth,
    Chained,
    Promote,
    Retire,
    SignedStatement,
    UntrustedStatement,
    open_statement,
)
from placet.errors import MalformedError


@click.command()
@click.argument("file", type=FILE)
@click.option("--key-file", type=FILE, metavar="FILE", help="Sign with this key; else the owner's.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@reported
def sign_file(*, file: Path, key_file: Path | None, yes: bool, as_json: bool) -> int:
    """Add your signature to a statement that another signer composed.

    Where an owner is several signers, each signs the same statement. Read what it says:
    words alone vouch for nothing that somebody else composed.
    """
    home = Home.find()
    sent = _read(file)
    owner = _owner_of(home, sent)
    key = load_key(key_file) if key_file is not None else home.owner().key
    if not (yes and as_json):
        say(Text(f"{titled(sent.statement).kind} of key {short(sent.key)}", style="bold"))
        show_facts(_content(sent), err)
    if not yes:
        ask("Sign this?")
    signed = sign(sent, key, owner)
    lacking = missing_signatures(signed, owner)
    _learn(home, signed)
    return write_out(signed, file, home, as_json=as_json, lacking=lacking)


@click.command()
@click.argument("file", type=FILE)
@json_option
@reported
def deliver(*, file: Path, as_json: bool) -> int:
    """Bring a signed statement from a file to every vault of its key, as any courier may.

    Repeating it is safe. Exit codes as for `placet promote`.
    """
    home = Home.find()
    sent = _read(file)
    _learn(home, sent)
    target = Target.find(home, sent.key)
    if not as_json:
        said = titled(sent.statement)
        answer(f"{said.kind}: {said.subject}  ({words(sent.digest)})")
    return send(target, sent, home, as_json=as_json)


def _read(file: Path) -> UntrustedStatement:
    sent = open_statement(read_json(file, SignedStatement, "signed statement"))
    if not isinstance(sent.statement, Chained):
        raise MalformedError(
            f"{file} holds a {titled(sent.statement).kind}, which has no place in a charter",
            "Stage it: placet stage KEY --profile FILE --version V --source COMMIT",
        )
    return sent


def _learn(home: Home, sent: UntrustedStatement) -> None:
    """Keep a birth that others have signed since it was composed here."""
    if not isinstance(sent.statement, Birth):
        return
    if missing_signatures(sent, sent.statement.body.policy.owner) is None:
        for known in home.known_keys():
            if known.key == sent.digest:
                home.remember(msgspec.structs.replace(known, birth=sent.signed()))


def _owner_of(home: Home, sent: UntrustedStatement) -> Threshold:
    if isinstance(sent.statement, Birth):
        return sent.statement.body.policy.owner
    target = Target.find(home, sent.key)
    return target.visit(lambda v: look(v, target.key), "asking").policy.owner


def _content(sent: UntrustedStatement) -> list[Fact]:
    statement, facts = sent.statement, list[Fact]()
    if isinstance(statement, Birth):
        body = statement.body
        facts += [
            ("label", body.label),
            ("guarded by", f"{body.vault_set.n} vaults, any {body.vault_set.k} give the key back"),
            *(("  vault", f"{m.endpoint}  {m.id}") for m in body.vault_set.vaults),
            *(("  their code", named(p)) for p in body.vault_set.profiles),
            ("floor", str(body.policy.security_version_floor)),
        ]
        for profile in body.policy.profiles:
            facts += [("lets in", ""), *tee_facts(profile)]
    elif isinstance(statement, Promote):
        promote = statement.body
        facts += [("lets in", ""), *tee_facts(promote.profile)]
        at = f" {when(promote.retire_at)}" if promote.retire_at is not None else ""
        facts += [
            ("earlier ones", odd(promote.earlier + at)),
            ("brings back", "retired code" if promote.unretire else "nothing that was retired"),
            ("floor", str(promote.security_version_floor)),
        ]
    elif isinstance(statement, Retire):
        facts += [("shuts out", statement.body.code), ("reason", statement.body.reason)]
    return [
        *facts,
        ("signed by", f"{len(sent.signatures)} so far"),
        ("expires", until(statement)),
        ("statement", sent.digest),
        ("six words", words(sent.digest)),
    ]
