"""Write what a shell is told of the command line: `src/placet/cli/completion_known.json`.

The commands themselves are asked, those of ``placet-dev`` too. Every value must be of a
kind that can be completed, or stand in `TEXTS`: a new option that has neither ends this
with its name, and a test compares the table with the commands.

    .venv/bin/python tools/completion.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn, get_args
from unittest.mock import patch

import click

from placet.cli.arguments import Duration
from placet.cli.completion_known import TABLE
from placet.cli.main import GROUP, SUMMARIES, cli
from placet.core.profile import TcbStatus

KINDS = {
    "KEY": "key",
    "CODE": "code",
    "STAGE|CODE": "code",
    "FILE|KEY": "key|file",
    "[KEY]...": "key",
    "HOST:PORT": "endpoint",
    "--constellation": "constellation",
    "key new --stager": "file",
    "profile from-evidence --statuses": "list",
    "run --key": "id",
    "audit verify --fetch": "key",
    "audit verify --key": "id",
    "run --volume": "folder",
    "run --collateral": "folder",
    "run COMMAND": "file",
    "vault serve --data": "folder",
    "vault serve --collateral": "folder",
    "witness serve --data": "folder",
    "platform serve --state": "folder",
    "platform serve --bundles": "folder",
    "platform serve --tee": "file",
}
"""Kinds by a name, or by a command and a name; where there is none, the type says it."""

TEXTS = frozenset(
    {
        "--app",
        "--client-id",
        "--config",
        "--fmspc",
        "--image",
        "--kds",
        "--label",
        "--pcs",
        "--origin",
        "--reason",
        "--rules-of",
        "--root-crl",
        "--rp-id",
        "--security-key",  # usb, or what another distribution names
        "--signer",
        "--lost",
        "--source",
        "--stolen",
        "--tcb-signer",
        "--type-out",
        "dev logs NAME",
        "doctor --probe",  # of the operator's own network
        "key add KEYID",  # not known here yet
        "key new LABEL",
        "oidc enrol ISSUER",
        "owner use SIGNER",
        "STATEMENT",  # vaults show what waits
        "STAGE",  # nothing that is kept here says what is staged
        "platform serve --listen",
        "platform serve --starter",
        "stage --version",
        "vault log --every",
        "vault serve --listen",
        "vault serve --probe",
        "dev up --store",
        "vault serve --store",
        "vault serve --adopt",
        "vault serve --endpoint",
        "dev vault-upgrade [N|all]",
        "key new --witness",
        "witness serve --allow",
        "witness serve --listen",
    }
)
"""Values of which nobody can know anything before they are typed."""

CHOICES = {"profile from-evidence --statuses": get_args(TcbStatus)}
"""What a list is made of."""


ONE = ("nargs", 1)
Said = dict[str, Any]


class Seen(Exception):  # noqa: N818 - no error: it brings a parser out of a `main`
    """A parser was about to parse."""


def written() -> str:
    """Return the table as its file holds it, a command a line."""
    rows = [f"{json.dumps(name)}: {json.dumps(said)}" for name, said in sorted(known().items())]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def known() -> dict[str, Said]:
    """Return all commands and groups by name; the root's is empty.

    Raises:
        LookupError: Values are of no kind, and nobody said that they are free text.
    """
    found = dict(_below(cli, click.Context(cli, info_name="placet", **cli.context_settings), ""))
    lacking = [
        value.get("about")
        for said in found.values()
        for value in (*said["options"], *said["arguments"])
        if "about" in value
    ]
    if lacking:
        raise LookupError(f"of no kind, see KINDS and TEXTS in tools/completion.py: {lacking}")
    return found


def _below(command: click.Command, ctx: click.Context, name: str) -> Iterator[tuple[str, Said]]:
    summary = SUMMARIES.get(name.replace(" ", ".")) or command.get_short_help_str(100)
    said: Said = {"help": summary, "options": [], "arguments": []}
    contributed = {e.name: e for e in entry_points(group=GROUP)}.get(name.replace(" ", "."))
    call = contributed.load() if contributed else command
    if isinstance(call, click.Command):
        for param in command.get_params(ctx):
            _add(said, name, _of_click(param))
    else:
        for action in _parser(call)._actions:  # noqa: SLF001 - no public list
            _add(said, name, _of_argparse(action))
    if isinstance(command, click.Group):
        yield name, {"group": True, **said}
        for below in command.list_commands(ctx):
            inner = command.get_command(ctx, below)
            if inner is not None and not inner.hidden:
                context = click.Context(inner, parent=ctx, info_name=below)
                yield from _below(inner, context, f"{name} {below}".strip())
    else:
        yield name, said


def _add(said: Said, command: str, value: Said) -> None:
    """Add a value to what is said of a command, with its kind."""
    label = value["names"][-1] if "names" in value else value["metavar"]
    own = f"{command} {label}"
    if "kind" in value:
        usual = "text" if {own, label} & TEXTS else value["kind"]
        value["kind"] = next((KINDS[n] for n in (own, label) if n in KINDS), usual)
        if not value["kind"]:
            value["about"] = own
    if own in CHOICES:
        value["choices"] = list(CHOICES[own])
    value.pop("metavar", None)
    said["options" if "names" in value else "arguments"].append(
        {k: v for k, v in value.items() if v is not None and v is not False and (k, v) != ONE}
    )


def _of_click(param: click.Parameter) -> Said:
    if isinstance(param, click.Argument):
        metavar = param.metavar or str(param.name).upper()
        value: Said = {"name": param.name, "metavar": metavar, "nargs": param.nargs}
    else:
        value = {"names": [*param.opts, *param.secondary_opts], "help": _line(param)}
        if getattr(param, "is_flag", False):
            return value
        value |= {"multiple": param.multiple, "nargs": param.nargs}
    return {**value, **_of_type(param.type)}


def _line(param: click.Parameter) -> str:
    return " ".join((getattr(param, "help", None) or "").split())


def _of_type(found: object) -> Said:
    match found:
        case click.Choice():
            return {"kind": "choice", "choices": [str(c) for c in found.choices]}
        case click.Path():
            return {"kind": "file" if found.file_okay else "folder"}
        case Duration():
            return {"kind": "span"}
        case click.types.IntParamType():
            return {"kind": "number"}
    return {"kind": ""}


def _parser(call: Callable[[Sequence[str]], int]) -> argparse.ArgumentParser:
    """Return the parser that a contributed `main` makes. This is a hack: none returns it."""

    def seen(parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise Seen(parser)

    with patch.object(argparse.ArgumentParser, "parse_args", seen):
        try:
            call([])
        except Seen as e:
            found = e.args[0]
            if isinstance(found, argparse.ArgumentParser):
                return found
    raise LookupError(f"{call} makes no parser before all else")


def _of_argparse(action: argparse.Action) -> Said:
    value: Said = {"kind": "file" if action.type is Path else ""}
    if action.choices:
        value = {"kind": "choice", "choices": [str(c) for c in action.choices]}
    if action.nargs == 0:
        value = {}
    if action.option_strings:
        return {"names": list(action.option_strings), "help": action.help, **value}
    many = -1 if action.nargs in ("+", "*") else 1
    return {"name": action.dest, "metavar": action.dest.upper(), "nargs": many, **value}


def main() -> None:
    """Write the table."""
    TABLE.write_text(written(), encoding="utf-8")
    print(f"{TABLE}: {len(known())} commands and groups")


if __name__ == "__main__":
    main()
