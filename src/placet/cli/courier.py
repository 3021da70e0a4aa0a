"""``placet sign`` and ``placet deliver``: statements that travel as files."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.text import Text

from placet.cli.arguments import FILE
from placet.cli.content import content, identity
from placet.cli.files import load_key, read_json
from placet.cli.look import look
from placet.cli.output import answer, err, json_option, reported, say, show_facts
from placet.cli.pen import ask, missing_signatures, send, sign, words, write_out
from placet.cli.reach import Target
from placet.cli.settings import Home
from placet.cli.words import titled
from placet.core.signer import Threshold
from placet.core.statement import (
    Birth,
    Chained,
    SignedStatement,
    UntrustedStatement,
    open_statement,
)
from placet.errors import ApprovalError, MalformedError, PlacetError
from placet.policy.authority import Way, signers_of, wait_of, ways


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
    sent = _read(file)
    found = _ways(home, sent)
    key = load_key(key_file) if key_file is not None else home.owner(signer).key
    shown = content(sent)
    if not (yes and as_json):
        say(Text(shown.title, style="bold"))
        show_facts([*shown.facts, *identity(sent)], err)
    if not yes:
        ask("Sign this?")
    signed = sign(sent, key, _anybody(found), shown)
    lacking = _lacking(found, signed)
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


def _ways(home: Home, sent: UntrustedStatement) -> tuple[Way, ...]:
    """Return in which ways a statement may be approved, by the key's policy in force."""
    if isinstance(sent.statement, Birth):
        return ways(None, sent)
    target = Target.find(home, sent.key)
    return ways(target.visit(lambda v: look(v, target.key), "asking").policy, sent)


def _anybody(found: tuple[Way, ...]) -> Threshold:
    """Return the principal of all whose signature may count: owners, managers, guardians."""
    return Threshold(label="who may sign this", threshold=1, of=signers_of(found))


def _lacking(found: tuple[Way, ...], sent: UntrustedStatement) -> PlacetError | None:
    """Return why the signatures so far are not enough, if they are not."""
    vetoed = frozenset(way.names for way in found if way.names is not None)
    try:
        wait_of(found, frozenset(s.signer for s in sent.signatures), seen=vetoed)
    except ApprovalError as e:
        return e
    return None
