"""``placet``: one command, to which the rooms contribute theirs by entry points.

The group ``placet.commands`` holds click commands, or callables that take the rest of
the command line and return an exit code. A name with a dot is a command in a group, as
in ``vault.serve``. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import click

from placet import __version__
from placet.cli.completion_shells import ASKED, answer

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

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
    "void": "placet.cli.govern_void:void",
    "merge": "placet.cli.merge:merge",
    "migrate": "placet.cli.govern_migrate:migrate",
    "recover": "placet.cli.recover:recover",
    "sign": "placet.cli.courier:sign_file",
    "oidc": "placet.cli.oidc:oidc",
    "deliver": "placet.cli.courier:deliver",
    "log": "placet.cli.log:log",
    "doctor": "placet.cli.doctor:doctor",
    "audit.export": "placet.cli.audit:export",
    "policy": "placet.cli.policy:policy",
    "witness.serve": "placet.cli.witness:serve",
    "vault.show": "placet.cli.vault:show",
    "vault.log": "placet.cli.vault_log:log",
    "attest": "placet.cli.attest:attest",
    "evidence": "placet.cli.evidence:evidence",
    "profile": "placet.cli.profile:profile",
    "collateral": "placet.cli.collateral:collateral",
    "completion": "placet.cli.completion:completion",
}
"""Commands of this room."""

HINTS = {"demo": "placet-dev", "dev": "placet-dev", "audit.verify": "placet-audit"}
"""Commands that come with another distribution, named where it is missing."""

SUMMARIES = {
    "demo": "Run the upgrade story end to end, on a software TEE.",
    "dev": "Keep a local constellation running for play.",
    "run": "Attest, gather the key, unlock the volume, run a command.",
    "vault": "Serve a vault, show what one proves, follow its log.",
    "vault.log": "Print a vault's log as JSON lines, and follow it.",
    "vault.serve": "Serve a vault inside its TEE.",
    "witness": "Serve an outside witness of vaults.",
    "witness.serve": "Remember how far vaults are, as one small process.",
    "platform.serve": "Serve a platform for one machine.",
    "platform": "Serve a platform: start, stage, relay; no authority.",
    "owner": "Make what approves: passkeys, security keys, key files.",
    "key": "Give birth to keys, look at them, change who may do what.",
    "stage": "Put a version forward; changes no access.",
    "pending": "List what is put forward, and what waits.",
    "revoke": "Take back what was put forward.",
    "review": "Show what a promote would let in.",
    "promote": "Approve a version.",
    "retire": "End a version's approval.",
    "void": "Say no to what waits, or to a recovery.",
    "merge": "End a fork of a key's charter.",
    "migrate": "Let a version in by the auto-migrate clause.",
    "recover": "Put a new owner in place of one who lost every signer.",
    "sign": "Add a signature to a statement in a file.",
    "oidc": "Approve by a sign-in at an identity provider, as a factor.",
    "deliver": "Bring a signed statement in a file to the vaults.",
    "attest": "Attest a live vault or app: what it runs, and who vouches for it.",
    "evidence": "Look at attestation evidence, and verify it offline.",
    "profile": "Make a profile from evidence, and compare two.",
    "collateral": "Fetch what vendors sign about platforms.",
    "log": "Show the trail of a key at each vault.",
    "doctor": "Look for what could go wrong with keys soon.",
    "audit": "Export a key's logs, and verify them independently.",
    "audit.export": "Fetch a key's trail from every vault, with proofs.",
    "audit.verify": "Decide every entry of exported logs again, offline.",
    "policy": "Write a key's rules, check them, and ask who could do what.",
    "completion": "Have a shell complete commands, options, keys and files.",
}


SECTIONS = {
    "Owners": (
        "owner",
        "policy",
        "key",
        "pending",
        "review",
        "promote",
        "retire",
        "void",
        "merge",
        "recover",
        "log",
        "doctor",
        "sign",
        "oidc",
    ),
    "Stagers and couriers": ("stage", "revoke", "migrate", "deliver"),
    "Anybody": ("audit", "attest", "evidence", "profile", "collateral", "completion"),
    "Machines": ("run", "vault", "witness", "platform"),
    "To try it": ("demo", "dev"),
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
            return _command(name, getattr(import_module(module), attribute))
        if name in contributed:
            return _command(name, contributed[name].load())
        if any(other.startswith(f"{name}.") for other in (*OWN, *contributed)):
            return Commands(f"{name}.", name=cmd_name, help=SUMMARIES.get(name))
        return _missing(name) if name in HINTS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands by who needs them, without importing any."""
        if self._prefix:
            super().format_commands(ctx, formatter)
            return
        names = self.list_commands(ctx)
        placed = {n for found in SECTIONS.values() for n in found}
        for title, listed in (
            *SECTIONS.items(),
            ("Others", tuple(n for n in names if n not in placed)),
        ):
            rows = [(n, SUMMARIES.get(n, "")) for n in listed if n in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _contributed() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - see main

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
        name.rpartition(".")[2],
        callback=partial(run, call),
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
        add_help_option=False,
        help=SUMMARIES.get(name),
    )


def _missing(name: str) -> click.Command:
    def run(arguments: tuple[str, ...]) -> None:
        from placet.cli.output import USAGE, err  # noqa: PLC0415 - see main

        del arguments
        err.print(
            f"[bold red]placet:[/] {name.replace('.', ' ')} comes with the distribution "
            f"{HINTS[name]}"
        )
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


HELP = """Upgrade a confidential app without handing anybody its data.

The app's data key is split over vaults. A new version gets it back only when the owner
of the data says so: who builds and deploys it has no say, and nobody else either.

\b
An owner's day:
  placet owner init                          make the key that approves
  placet key new LABEL --vaults FILE ...     give birth to a key
  placet pending KEY                         see what is put forward
  placet review KEY STAGE                    see what it would change
  placet promote KEY STAGE                   let it in

\b
Exit codes: 0 done, 1 findings, 2 usage or unreadable input, 3 refused,
4 too few vaults, 5 partly effective, 6 conflict.

\b
Files are in $PLACET_HOME, or in the XDG folders (~/.config/placet,
~/.local/share/placet). To complete commands, options and keys with TAB:
  placet completion install
"""


@click.command(cls=Commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="placet")
def cli() -> None:
    """Find and run a command."""


def main() -> None:
    """Run ``placet``, or answer a shell that completes a command line."""
    if ASKED in os.environ:
        # Not by print: a shell that went away must not get a traceback from a late flush.
        with suppress(OSError):
            os.write(1, answer(os.environ, cli).encode())
        return
    # Imported when needed, as every command is: they cost half of what a TAB may.
    from placet.cli.output import exit_code, show_error  # noqa: PLC0415
    from placet.errors import PlacetError  # noqa: PLC0415

    try:
        cli(prog_name="placet")
    except PlacetError as e:
        show_error(e)
        sys.exit(exit_code(e))
