"""What a person or a program sees: tables and colour on a terminal, JSON on request.

Results go to standard output; questions, progress and problems to standard error. What
others wrote (labels, versions, reasons) is shown with its control characters escaped, so
that nobody else writes on the owner's screen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import ParamSpec

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from placet.errors import (
    ApprovalWaitingError,
    ConflictError,
    InternalError,
    MalformedError,
    NotFoundError,
    PlacetError,
    UnavailableError,
)

P = ParamSpec("P")
Cell = str | int | Text | None
Fact = tuple[str, Cell]

DONE, FINDINGS, USAGE, REFUSED, TOO_FEW, PARTLY, CONFLICT = range(7)
"""Exit codes: done, findings, usage or unreadable input, refused, too few vaults, partly
effective, conflict."""

WHOLE = frozenset(
    (
        "vault",
        "endpoint",
        "id",
        "key",
        "code",
        "stage",
        "statement",
        "approved by",
        "when (UTC)",
        "issued (UTC)",
        "born (UTC)",
    )
)
"""Columns that are never folded: what is compared or copied."""

WIDE = 160
"""Columns where there is no terminal: nothing is folded that a program may grep for."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else WIDE)


def exit_code(error: PlacetError) -> int:
    """Return the exit code that an error ends a command with."""
    if isinstance(error, ConflictError):
        return CONFLICT
    if isinstance(error, ApprovalWaitingError):
        return PARTLY
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

    # Click's mark of a paragraph that is not filled, as a raw docstring has it.
    run.__doc__ = (command.__doc__ or "").replace("\\b\n", "\b\n")
    return run


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)


def show_error(error: PlacetError) -> None:
    """Print what was expected and came, what became of each vault, and what to do next."""
    say(Text.assemble(("placet: ", "bold red"), plain(error.detail)))
    vaults = error.members.get("vaults")
    if isinstance(vaults, list):
        named = [v for v in vaults if isinstance(v, Mapping)]
        rows = [
            (
                short(str(v.get("vault", ""))),
                str(v.get("endpoint", "")),
                str(v.get("became", "")),
                brief(str(v.get("why", ""))),
            )
            for v in named
        ]
        err.print(_table(("vault", "endpoint", "became", ""), rows))
    hint(error.hint)


def hint(text: str) -> None:
    """Print what to do next."""
    if text:
        say(Text.assemble(("next: ", "dim"), plain(text)))


def warn(text: str) -> None:
    """Print what must not be overlooked."""
    say(Text.assemble(("note: ", "bold yellow"), plain(text)))


def say(text: Text | str) -> None:
    """Print a line on standard error; it is not folded, so that commands can be copied."""
    err.print(Text(plain(text)) if isinstance(text, str) else text, soft_wrap=True)


def answer(text: Text | str) -> None:
    """Print a line of the result."""
    out.print(Text(plain(text)) if isinstance(text, str) else text, soft_wrap=True)


def print_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(msgspec.to_builtins(value), indent=2))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table; cells are texts, rich markup in them is not read."""
    if title:
        out.print()
        out.print(Text(title, style="bold"))
    out.print(_table(columns, rows))


def show_facts(facts: Iterable[Fact], console: Console = out) -> None:
    """Print names and values below each other."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(name, _cell(value))
    console.print(grid)


def _table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    table = Table(header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in WHOLE)
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(value: Cell) -> Text:
    return value if isinstance(value, Text) else Text(plain("-" if value is None else str(value)))


def good(text: str) -> Text:
    """Return a text that says that all is well."""
    return Text(plain(text), style="green")


def bad(text: str) -> Text:
    """Return a text that says that something is not."""
    return Text(plain(text), style="red")


def odd(text: str) -> Text:
    """Return a text that asks for a second look."""
    return Text(plain(text), style="yellow")


def short(digest: str) -> str:
    """Return the first 12 hex digits of a digest, as people compare them."""
    kind, _, rest = digest.partition(":")
    return (rest or kind)[:12]


def when(unix: int | None) -> str:
    """Return a time as people read it, in UTC."""
    if unix is None:
        return "-"
    try:
        return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return f"{unix} seconds after 1970"


def moment(unix: int | None) -> str:
    """Return a time for a table, whose heading says UTC."""
    return when(unix).removesuffix(" UTC")


def brief(error: PlacetError | str | None) -> str:
    """Return why something failed, without what the operating system adds to it."""
    text = error.detail if isinstance(error, PlacetError) else error or ""
    return text.partition(": [Errno")[0]


def plain(text: str) -> str:
    """Return a text in which nothing moves the cursor, colours or turns around what follows."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
