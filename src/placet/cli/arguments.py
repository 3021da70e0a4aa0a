"""What commands are given: keys, files, and spans of time such as 7d, 12h, 30m, 90s."""

from __future__ import annotations

import re
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from placet.cli.completion_words import offer

SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_span = re.compile(r"([1-9][0-9]{0,6})([dhms])")


class Duration(click.ParamType[int]):
    """A command-line value of seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return seconds."""
        if isinstance(value, int):
            return value
        found = _span.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no span of time: write 7d, 12h, 30m or 90s", param, ctx)
        return int(found[1]) * SECONDS[found[2]]

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Return examples."""
        del param
        return [CompletionItem(w, help=what) for w, what in offer("span", incomplete, ctx.params)]


def span(seconds: int) -> str:
    """Return seconds as people write them."""
    for letter, unit in SECONDS.items():
        if seconds and seconds % unit == 0:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"


DURATION = Duration()

FILE = click.Path(path_type=Path, dir_okay=False)
"""A file; whether it can be read is said when it is."""


def _keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    del param
    return [CompletionItem(w, help=what) for w, what in offer("key", incomplete, ctx.params)]


key_argument = click.argument("name", metavar="KEY", shell_complete=_keys)
"""KEY: a label, a key id, or a unique beginning of either."""

key_arguments = click.argument("names", metavar="[KEY]...", nargs=-1, shell_complete=_keys)
"""Any number of them, or none."""
