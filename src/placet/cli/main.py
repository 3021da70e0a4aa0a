"""``placet``: one command, to which the rooms contribute theirs by entry points.

The group ``placet.commands`` holds click commands, or callables that take the rest of
the command line and return an exit code. A name with a dot is a command in a group, as
in ``vault.serve``. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

import click

from placet import __version__
from placet.cli.output import USAGE, err, exit_code, show_error
from placet.errors import PlacetError

GROUP = "placet.commands"

OWN = {
    "owner": "placet.cli.owner:owner",
    "key": "placet.cli.keys:key",
    "stage": "placet.cli.staging:stage",
    "pending": "placet.cli.staging:pending",
    "revoke": "placet.cli.staging:revoke",
    "review": "placet.cli.review:review",
    "promote": "placet.cli.approve:promote",
    "retire": "placet.cli.approve:retire",
    "sign": "placet.cli.courier:sign_file",
    "deliver": "placet.cli.courier:deliver",
    "log": "placet.cli.log:log",
    "vault.show": "placet.cli.vault:show",
}
"""Commands of this room."""

HINTS = {"demo": "placet-dev", "dev": "placet-dev"}
"""Commands that come with another distribution, named where it is missing."""

SUMMARIES = {
    "demo": "Run the upgrade story end to end, on a software TEE.",
    "dev": "Keep a local constellation running for play.",
    "run": "Attest, gather the key, unlock the volume, run a command.",
    "vault": "Serve a vault, or show what one proves.",
    "platform": "Serve a platform: start, stage, relay; no authority.",
    "owner": "Make the key that approves.",
    "key": "Give birth to keys, and look at them.",
    "stage": "Put a version forward; changes no access.",
    "pending": "List what is put forward.",
    "revoke": "Take back what was put forward.",
    "review": "Show what a promote would let in.",
    "promote": "Approve a version.",
    "retire": "End a version's approval.",
    "sign": "Add a signature to a statement in a file.",
    "deliver": "Bring a signed statement in a file to the vaults.",
    "log": "Show the trail of a key at each vault.",
}


class Commands(click.Group):
    """A group whose commands are found by name and imported when they are run."""

    def __init__(self, prefix: str = "", **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self._prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names below this group."""
        del ctx
        return sorted(
            {
                name.removeprefix(self._prefix).partition(".")[0]
                for name in (*OWN, *_contributed(), *HINTS)
                if name.startswith(self._prefix)
            }
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing what it needs."""
        del ctx
        name = self._prefix + cmd_name
        contributed = _contributed()
        if name in OWN:
            module, _, attribute = OWN[name].partition(":")
            return _command(cmd_name, getattr(import_module(module), attribute))
        if name in contributed:
            return _command(cmd_name, contributed[name].load())
        if any(other.startswith(f"{name}.") for other in (*OWN, *contributed)):
            return Commands(f"{name}.", name=cmd_name, help=SUMMARIES.get(name))
        return _missing(name) if name in HINTS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands by their one-line summaries, without importing any."""
        names = self.list_commands(ctx)
        rows = [(n, SUMMARIES[n]) for n in names if n in SUMMARIES]
        if self._prefix or not rows:
            super().format_commands(ctx, formatter)
            return
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _contributed() -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=GROUP)}


def _command(name: str, found: object) -> click.Command:
    if isinstance(found, click.Command):
        return found
    if not callable(found):
        raise click.ClickException(f"command {name} is no command")
    return _passed_on(name, found)


def _passed_on(name: str, call: Callable[[Sequence[str]], int]) -> click.Command:
    """Return a command that hands its whole command line to a callable."""

    def run(call: Callable[[Sequence[str]], int], arguments: tuple[str, ...]) -> None:
        sys.exit(call(list(arguments)))

    return click.Command(
        name,
        callback=partial(run, call),
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
        add_help_option=False,
        help=SUMMARIES.get(name),
    )


def _missing(name: str) -> click.Command:
    def run(arguments: tuple[str, ...]) -> None:
        del arguments
        err.print(f"[bold red]placet:[/] {name} comes with the distribution {HINTS[name]}")
        err.print(f"[dim]next:[/] pip install {HINTS[name]}")
        sys.exit(USAGE)

    return click.Command(
        name,
        callback=run,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        add_help_option=False,
        help=SUMMARIES[name],
    )


@click.command(
    cls=Commands,
    help="Upgrade a confidential app without handing anybody its data.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="placet")
def cli() -> None:
    """Find and run a command."""


def main() -> None:
    """Run ``placet``."""
    try:
        cli(prog_name="placet")
    except PlacetError as e:
        show_error(e)
        sys.exit(exit_code(e))
