"""``placet audit export``: a key's trail at every vault, in files that an auditor reads.

The verdict is of another distribution, ``placet-audit``, which shares no code with this
one: ``placet audit verify``.
"""

from __future__ import annotations

import base64
import os
import re
from collections import defaultdict
from collections.abc import Awaitable
from pathlib import Path

import click

from placet.cli.arguments import key_argument
from placet.cli.files import local_files
from placet.cli.output import DONE, TOO_FEW, answer, brief, hint, json_option, print_json, reported
from placet.cli.output import short as brief_id
from placet.cli.reach import Target, clock
from placet.cli.settings import Home
from placet.client.constellation import Constellation
from placet.client.export import Fetched, fetch, lines
from placet.client.fan_out import Outcomes
from placet.client.vault_client import VaultClient

PROOFS = 16
"""Earlier visits to one vault from which its log is shown to have grown."""

_NAME = re.compile(r"vault-([0-9]+)-([0-9]+)-[0-9a-f]{12}\.jsonl")


@click.command("export")
@key_argument
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write to; what earlier visits wrote there stays.",
)
@click.option(
    "--no-hashes", is_flag=True, help="Leave out the hashes of other keys' entries: 32 bytes each."
)
@json_option
@reported
def export(*, name: str, folder: Path, no_hashes: bool, as_json: bool) -> int:
    """Fetch a key's trail from every vault, with proofs, for an audit.

    One file a vault and visit. By the hashes of all entries a later visit is compared with
    an earlier one: keep the folder, and export into it again. Nothing is verified here.
    """
    target = Target.find(Home.find(), name)
    outcomes, written = write_visits(target, folder, hashes=not no_hashes)
    enough = len(outcomes.values) > target.vault_set.n - target.vault_set.k
    if as_json:
        print_json({"key": target.key, "files": written, "errors": _errors(outcomes)})
    else:
        for path in written:
            answer(path)
        for vault, why in _errors(outcomes).items():
            answer(f"vault {brief_id(vault)} gave nothing: {why}")
        hint(f"placet audit verify {folder}")
    return DONE if enough else TOO_FEW


def write_visits(
    target: Target, folder: Path, *, hashes: bool = True
) -> tuple[Outcomes[Fetched], list[str]]:
    """Visit every vault of a key, and write what each shows; return the files' names.

    A log of the same size and root is written over: it says nothing new.
    """
    earlier = _earlier(folder)

    async def visit(vaults: Constellation) -> Outcomes[Fetched]:
        def one(vault: VaultClient) -> Awaitable[Fetched]:
            before = earlier[target.vault_set.ids.index(vault.id) + 1]
            return fetch(vault, target.key, hashes=hashes, before=before)

        return await vaults.fan_out(one)

    outcomes = target.visit(visit, "exporting logs")
    written = []
    with local_files():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number, outcome in enumerate(outcomes.each, 1):
            if outcome.value is None:
                continue
            path = folder / _file(number, outcome.value)
            part = path.with_name(f".{path.name}.part")
            with part.open("wb") as file:
                file.writelines(lines(outcome.value, at=clock.now()))
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            written.append(str(path))
    return outcomes, written


def export_to(name: str, folder: Path) -> int:
    """Export a key into a folder, for a program that has only its name.

    Returns:
        The number of vaults that gave nothing.
    """
    outcomes, _ = write_visits(Target.find(Home.find(), name), folder)
    return len(outcomes.errors)


def _file(number: int, found: Fetched) -> str:
    # By the root too: of two histories of one size neither is written over.
    root = base64.b64decode(found.first.checkpoint.split("\n")[2]).hex()
    return f"vault-{number}-{found.trail.size:09}-{root[:12]}.jsonl"


def _earlier(folder: Path) -> dict[int, list[int]]:
    """Return the newest sizes of each vault's log of which this folder has a visit."""
    found: dict[int, set[int]] = defaultdict(set)
    for path in folder.glob("vault-*.jsonl"):
        if match := _NAME.fullmatch(path.name):
            found[int(match[1])].add(int(match[2]))
    return defaultdict(list, {n: sorted(sizes)[-PROOFS:] for n, sizes in found.items()})


def _errors(outcomes: Outcomes[Fetched]) -> dict[str, str]:
    return {vault: brief(error) for vault, error in outcomes.errors.items()}
