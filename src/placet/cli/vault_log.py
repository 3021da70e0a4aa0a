"""``placet vault log``: a vault's whole log as JSON lines, for a collector that follows it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from placet.cli.arguments import FILE
from placet.cli.files import local_files
from placet.cli.lines import LineWriter
from placet.cli.live import address, listed_vaults
from placet.cli.output import DONE, reported
from placet.cli.reach import clock
from placet.cli.vault_follow import Run, Told, until_told
from placet.errors import ConflictError, NotFoundError, PlacetError
from placet.ratls.context import self_test
from placet.storage.folders import make_folder


@click.command("log")
@click.argument("url", metavar="HOST:PORT")
@click.option(
    "--since",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Index of the first entry, unless --state knows better.",
)
@click.option("--follow", is_flag=True, help="Go on with what comes, until told to end.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.05),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to ask for more, with --follow.",
)
@click.option(
    "--state", type=FILE, metavar="FILE", help="Remember here what was written, and go on there."
)
@click.option("--vaults", type=FILE, metavar="FILE", help="A vaults file that lists the vault.")
@click.option("--constellation", metavar="NAME", help="The same, by its name in config.toml.")
@click.option(
    "--json", "as_json", is_flag=True, help="Notices and problems as JSON lines too, on stderr."
)
@reported
def log(
    *,
    url: str,
    since: int,
    follow: bool,
    every: float,
    state: Path | None,
    vaults: Path | None,
    constellation: str | None,
    as_json: bool,
) -> int:
    r"""Print a vault's log as JSON lines, from an entry on, and check it.

    Entries about the vault itself come in full, those of keys as salted hashes (their
    owners have placet log KEY). Checked for every page: no index is missing, and the entries
    are those of the log that the vault signs, which only grew. Exit code 3 when they are not;
    what proves that it was put back or forked is kept in a file.

    With --state each entry is written once, whatever is stopped in between; after a kill
    (or a loss of power) the last ones may come again. --follow waits for a vault that is
    away, and ends with exit code 0 when it is told to (SIGINT, SIGTERM) or nobody reads.

    \b
    Examples:
      placet vault log vault1.example:7443 --since 1000
      placet vault log vault1.example:7443 --follow --state vault1.state >> vault1.jsonl
    """
    told = Told(as_json=as_json)
    try:
        run = Run(
            endpoint=address(url)[0],
            listed=listed_vaults(vaults, constellation),
            since=since,
            state=state,
            out=LineWriter(sys.stdout.buffer),
            told=told,
        )
        self_test(now=clock.now())
        with _locked(state):
            asyncio.run(until_told(run, every) if follow else run.once())
    except BrokenPipeError:
        return DONE
    except PlacetError as e:
        return told.problem(e)
    except OSError as e:
        return told.problem(NotFoundError(f"standard output: {e.strerror}"))
    return DONE


@contextlib.contextmanager
def _locked(state: Path | None) -> Iterator[None]:
    """Refuse a second run on one state: both would write the same lines."""
    if state is None:
        yield
        return
    with local_files():
        make_folder(state.absolute().parent)
        lock = os.open(state.with_name(f".{state.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as e:
        raise ConflictError(f"another run goes on from {state} already") from e
    finally:
        os.close(lock)
