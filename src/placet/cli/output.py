"""What a person or a program sees: tables and colour on a terminal, JSON on request."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import ParamSpec

import click
import msgspec
from rich.console import Console
from rich.table import Table

from placet.errors import (
    ConflictError,
    InternalError,
    MalformedError,
    NotFoundError,
    PlacetError,
    UnavailableError,
)

P = ParamSpec("P")

DONE, FINDINGS, USAGE, REFUSED, TOO_FEW, PARTLY, CONFLICT = range(7)
"""Exit codes: done, findings, usage or unreadable input, refused, too few vaults, partly
effective, conflict."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def exit_code(error: PlacetError) -> int:
    """Return the exit code that an error ends a command with."""
    if isinstance(error, ConflictError):
        return CONFLICT
    if isinstance(error, UnavailableError):
        return TOO_FEW
    if isinstance(error, MalformedError | NotFoundError):
        return USAGE
    return FINDINGS if isinstance(error, InternalError) else REFUSED


def reported(command: Callable[P, int | None]) -> Callable[P, None]:
    """Turn what a command returns into its exit code, and what it raises into two lines.

    With ``--json`` a problem is printed as JSON on standard output, so that a program
    always reads exactly one document.
    """

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs) or DONE
        except PlacetError as e:
            if kwargs.get("as_json"):
                print_json(e.problem())
            else:
                show_error(e)
            code = exit_code(e)
        sys.exit(code)

    return run


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def show_error(error: PlacetError) -> None:
    """Print what was expected and came, what became of each vault, and what to do next."""
    err.print(f"[bold red]placet:[/] {_plain(error.detail)}")
    vaults = error.members.get("vaults")
    if isinstance(vaults, dict):
        for vault, what in vaults.items():
            err.print(f"  {short(str(vault))}  {_plain(str(what))}")
    if error.hint:
        err.print(f"[dim]next:[/] {_plain(error.hint)}")


def print_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(msgspec.to_builtins(value), indent=2, default=str))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; cells are texts, rich markup in them is not read."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_plain(str(cell)) for cell in row))
    out.print(table)


def short(digest: str) -> str:
    """Return the first 12 hex digits of a digest, as people compare them."""
    kind, _, rest = digest.partition(":")
    return (rest or kind)[:12]


def when(unix: int | None) -> str:
    """Return a time as people read it, in UTC."""
    if unix is None:
        return "-"
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
