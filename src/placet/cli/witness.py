"""``placet witness serve``: remember how far vaults are, for owners who name you."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
from pathlib import Path

import click

from placet.cli.output import answer, hint, reported
from placet.cli.witness_server import Witness, witnessing

VAULT = re.compile(r"sha256:[0-9a-f]{64}")


@click.command()
@click.option(
    "--listen", required=True, metavar="HOST:PORT", help="Address to answer on, in plain HTTP."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Folder of its key and its memory. Never put back an older copy of it.",
)
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    metavar="ID",
    help="Remember this vault and no others; repeatable. Without it any, up to 10,000.",
)
@reported
def serve(*, listen: str, data: Path, allowed: tuple[str, ...]) -> None:
    r"""Be an outside witness: one small process that owners and other operators can run.

    It remembers of each vault its newest start and how long its log is, and signs that. A
    vault whose disk was put back, or that was copied, finds out here. It needs no TEE, keeps
    no share and lets nobody in; its key file is all that is secret. Its worth is that it runs
    where the vaults' operators have no say. See docs/continuity.md.

    \b
    Examples:
      placet witness serve --listen 0.0.0.0:7600 --data /var/lib/placet-witness
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 2**16:
        raise click.UsageError(f"--listen is {listen!r}, not host:port")
    for vault in allowed:
        if not VAULT.fullmatch(vault):
            raise click.UsageError(f"--allow is {vault!r}, not a vault id")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    witness = Witness(data, frozenset(allowed))
    try:
        asyncio.run(_serve(witness, host.strip("[]"), int(port)))
    except OSError as e:
        raise click.ClickException(f"{listen}: {e.strerror or e}") from e
    finally:
        witness.close()


async def _serve(witness: Witness, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with witnessing(witness, host, port) as bound:
        answer(f"witness {witness.id} ready on {host}:{bound}")
        hint(f"placet key new LABEL --witness {witness.id}@{host}:{bound} ...   (owners)")
        await stop.wait()
