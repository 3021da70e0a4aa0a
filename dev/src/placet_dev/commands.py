"""``placet demo`` and ``placet dev``: contributed to the command by entry points."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from placet.cli.output import exit_code, show_error
from placet.cli.settings import Home
from placet.core.profile import code_id
from placet.errors import MalformedError, NotFoundError, PlacetError
from placet_dev import local, play
from placet_dev.apps import Refusal
from placet_dev.constellation import LocalConstellation
from placet_dev.demo.run import run_demo
from placet_dev.demo.stage import Silence, Stage
from placet_dev.local import Part
from placet_dev.notes.builds import EDITIONS, LABEL
from placet_dev.vaults import SQLITE
from placet_dev.waiting import written

P = ParamSpec("P")
FINDINGS = 1
INTERRUPTED = 130
LINES = 40
VERSION = click.Choice(sorted(EDITIONS))

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and only that.")
state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=local.default_state,
    show_default="XDG state folder",
    help="Folder of the constellation.",
)


def _ending(command: Callable[P, int]) -> Callable[P, None]:
    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except PlacetError as e:
            show_error(e)
            code = exit_code(e)
        sys.exit(code)

    return run


@click.command()
@json_option
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Empty folder to use, and to leave with all logs.",
)
@_ending
def demo(*, as_json: bool, keep: Path | None) -> int:
    """Run the upgrade story end to end, on a software TEE on this machine.

    Five vaults, a platform and an app that keeps notes, each a process. Version 2 of the
    app is refused, whatever the platform tries, until its owner approves it.
    """
    try:
        if as_json:
            report = run_demo(Silence(), keep)
            click.echo(json.dumps(report.plain(), indent=2))
        else:
            with Stage(Console(highlight=False)) as stage:
                report = run_demo(stage, keep)
                stage.summary(report)
    except KeyboardInterrupt:
        click.echo("placet demo: interrupted; everything was ended", err=True)
        return INTERRUPTED
    return 0 if report.ok else FINDINGS


@click.group()
def dev() -> None:
    """Keep a local constellation running for play: five vaults, a platform, a software TEE."""


@dev.command()
@state_option
@click.option("--port", default=local.PORT, show_default=True, help="First vault's port.")
@click.option(
    "--store",
    default=SQLITE,
    show_default=True,
    help="Where new vaults keep their records: sqlite, or postgresql://.../NAME{vault} for"
    " databases that are there, one a vault.",
)
@json_option
@_ending
def up(*, state: Path, port: int, store: str, as_json: bool) -> int:
    """Start what does not run yet."""
    parts = local.up(state.absolute(), port, store)
    _show(parts, as_json=as_json)
    if not as_json:
        file = state.absolute() / "vaults.json"
        click.echo(f"\nvaults file: {file}")
        click.echo("next: placet owner init; placet dev build 1")
    return 0


@dev.command()
@state_option
@json_option
@_ending
def status(*, state: Path, as_json: bool) -> int:
    """Show what runs; the exit code is 1 if something does not."""
    parts = local.status(state.absolute())
    _show(parts, as_json=as_json)
    return 0 if all(p.running for p in parts) else FINDINGS


@dev.command()
@click.argument("name", required=False)
@click.option("-n", "lines", default=LINES, show_default=True, help="Lines of each log.")
@state_option
@_ending
def logs(*, name: str | None, lines: int, state: Path) -> int:
    """Print the end of the logs, or of the one of NAME (tee, vault-1, platform, ...)."""
    parts = local.status(state.absolute())
    chosen = [p for p in parts if name in (None, p.name)]
    if not chosen:
        raise NotFoundError(
            f"there is no {name}", f"There are: {', '.join(p.name for p in parts)}."
        )
    for part in chosen:
        click.secho(f"== {part.name}: {part.log}", bold=True)
        click.echo("\n".join(written(part.log).splitlines()[-lines:]))
    return 0


@dev.command()
@state_option
@click.option("--wipe", is_flag=True, help="Remove its folder as well: keys, shares, data.")
@_ending
def down(*, state: Path, wipe: bool) -> int:
    """End all processes; what they stored stays for the next `up`."""
    local.down(state.absolute())
    if wipe:
        shutil.rmtree(state)
    click.echo(f"down; {state} {'is gone' if wipe else 'stays'}")
    return 0


@dev.command("vault-upgrade")
@click.argument("which", required=False, metavar="[N|all]")
@click.option("--release", type=int, help="Which release.  [default: the newest, or the second]")
@state_option
@_ending
def vault_upgrade(*, which: str | None, release: int | None, state: Path) -> int:
    """Build a newer release of the vaults; or have it take over from vault N, or from all.

    Without an argument it is built, and what owners have to add is written to a file. A
    vault's older process goes on with the keys whose owners have not added the release.
    """
    found = LocalConstellation.find(state.absolute())
    number = release or max(2, *found.releases)
    if which is None:
        file = found.build_release(number)
        click.echo(
            f"release {number} of the vaults is built: code {code_id(found.profile(number))}"
        )
        click.echo(f"profile: {file}")
        click.echo(f"next: placet key update KEY --add-vault-release {file} --reason '...'")
        click.echo("      placet dev vault-upgrade all")
        return 0
    if number not in found.releases:
        raise NotFoundError(f"release {number} is not built", "placet dev vault-upgrade")
    numbers = range(1, len(found.vaults) + 1)
    if which != "all":
        if not which.isdecimal() or int(which) not in numbers:
            raise MalformedError(f"there is no vault {which!r}", f"There are 1 to {len(numbers)}.")
        numbers = range(int(which), int(which) + 1)
    stay = 0
    for i in numbers:
        if found.vaults[i - 1].release >= number:
            click.echo(f"vault {i}: runs release {found.vaults[i - 1].release} already")
            continue
        kept = found.upgrade(i, number)
        stay = max(stay, kept)
        how = f"{kept} keys stay with the older release" if kept else "the older release has ended"
        click.echo(f"vault {i}: release {number} has taken over; {how}")
    if stay:
        click.echo("next: their owners add the release, then: placet dev vault-upgrade all")
    return 0


@dev.command()
@click.argument("version", type=VERSION)
@state_option
@_ending
def build(*, version: str, state: Path) -> int:
    """Build VERSION of the notes app for the owner that `placet owner init` made."""
    built = play.build(state.absolute(), version, Home.find().owner().fingerprint)
    click.echo(f"notes {version} is built: code {built.code}\nprofile: {built.profile}")
    if version == "1":
        click.echo(f"next: placet key new {LABEL} --vaults {state.absolute() / 'vaults.json'} \\")
        click.echo(f"        --profile {built.profile} --stager {built.stager}")
        click.echo(f"      placet dev start 1 {LABEL}")
    else:
        click.echo(f"next: placet dev stage {version} {LABEL}; placet dev start {version} {LABEL}")
    return 0


@dev.command()
@click.argument("version", type=VERSION)
@click.argument("key")
@state_option
@_ending
def stage(*, version: str, key: str, state: Path) -> int:
    """Have the platform put VERSION of notes forward for KEY (label or id)."""
    count = play.stage(state.absolute(), version, Home.find().key(key).key)
    click.echo(f"pending at {count} vaults; next: placet pending {key}")
    return 0


@dev.command()
@click.argument("version", type=VERSION)
@click.argument("key")
@state_option
@_ending
def start(*, version: str, key: str, state: Path) -> int:
    """Have the platform stop what runs and start VERSION of notes on the volume of KEY."""
    found = play.start(state.absolute(), version, Home.find().key(key).key)
    if isinstance(found, Refusal):
        click.echo(f"refused with {found.code}: {found.type}: {found.said}", err=True)
        if found.hint:
            click.echo(f"next: {found.hint}", err=True)
        return found.code
    click.echo(f"notes {found.version} serves on http://{found.address}/")
    return 0


def _show(parts: Sequence[Part], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(p) for p in parts], indent=2, default=str))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("part", "", "endpoint", "probes", "vault id"):
        table.add_column(column, overflow="fold")
    for part in parts:
        how = "[green]runs[/]" if part.running else "[red]down[/]"
        table.add_row(part.name, how, escape(part.endpoint), part.probe, part.id[:19])
    Console(highlight=False).print(table)
