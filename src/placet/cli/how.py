"""What every command that signs a decision is told: how it is shown, signed and sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path

import click

from placet.cli.arguments import DURATION, FILE
from placet.cli.output import json_option, reported
from placet.client.signing import DAY

reason_option = click.option("--reason", required=True, help="For those who read the statement.")
_key_file = click.option(
    "--key-file", type=FILE, metavar="FILE", help="Sign with this key; else the owner's."
)
_expires = click.option(
    "--expires",
    type=DURATION,
    help="Vaults take it until then.  [default: 1d, more where it waits, less where rules say]",
)
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_out = click.option(
    "--out", type=FILE, metavar="FILE", help="Only write the signed statement to FILE."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a decision is shown, signed and sent."""

    title: str = ""
    yes: bool
    out: Path | None
    as_json: bool
    expires: int | None = None
    """Seconds for which vaults may take it; ``None``: whatever fits."""
    usual: int = DAY
    """What fits, where nothing waits and no rule says less."""
    key_file: Path | None = None
    sentence: str | None = None
    """What a person types instead of y: for what must not be done by habit."""
    typed: str | None = None
    """What was typed on the command line already."""
    urgent: bool = False
    """It ends whatever else was signed on the same head: not to be held up by that."""

    def about(
        self,
        title: str,
        *,
        usual: int = DAY,
        sentence: str | None = None,
        typed: str | None = None,
        urgent: bool = False,
    ) -> How:
        """Return the same for one decision: what stands above it, and what else is special."""
        return replace(
            self, title=title, usual=usual, sentence=sentence, typed=typed, urgent=urgent
        )


def decides(*, key_file: bool = False) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Give a command the options of every decision; it is called with them as one ``how``.

    Args:
        key_file: It may be signed with another key than the owner's.
    """

    def around(command: Callable[..., int]) -> Callable[..., None]:
        @wraps(command)
        def run(
            *,
            yes: bool,
            out: Path | None,
            as_json: bool,
            expires: int | None,
            key_file: Path | None = None,
            **rest: object,
        ) -> int:
            how = How(yes=yes, out=out, as_json=as_json, expires=expires, key_file=key_file)
            return command(how=how, **rest)

        told: Callable[..., None] = reported(run)
        for option in (json_option, _out, _yes, _expires):
            told = option(told)
        return _key_file(told) if key_file else told

    return around
