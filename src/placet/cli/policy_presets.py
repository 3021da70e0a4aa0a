"""Policy files to start from: who signs is filled in, or left with a name to fill in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from string import Template

from placet.cli.policy_people import read_signer
from placet.cli.policy_toml import Table, near
from placet.errors import MalformedError

ROLES = ("owner", "manager", "guardian", "stager", "auditor")
"""Roles that can be filled in, as the options are called."""
TO_FILL: dict[str, dict[str, tuple[str, ...]]] = {
    "solo": {"owner": ("phone", "laptop"), "stager": ("builder",)},
    "team": {
        "owner": ("phone", "laptop"),
        "manager": ("manager-1", "manager-2", "manager-3"),
        "guardian": ("guardian-1", "guardian-2", "guardian-3"),
        "stager": ("builder",),
    },
    "regulated": {
        "owner": ("phone", "laptop", "token"),
        "manager": ("manager-1", "manager-2", "manager-3"),
        "guardian": ("guardian-1", "guardian-2", "guardian-3"),
        "stager": ("builder",),
        "auditor": ("auditor",),
    },
    "sandbox": {"owner": ("phone", "laptop"), "stager": ("builder",)},
}
"""Names that stand for nobody yet, by preset and role. All take a list, so may be more."""
CLAUSE_LIFE = 90 * 86400
"""Seconds for which the clause of a new sandbox counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A preset with its signers."""

    text: str
    missing: tuple[str, ...]
    """Files that are named and must still be made."""


def fill(preset: str, given: Mapping[str, tuple[Path, ...]], *, folder: Path, now: int) -> Filled:
    """Return a policy file out of a preset.

    Args:
        preset: One of `TO_FILL`.
        given: Public signers' files by role, in place of the names to fill in.
        folder: Where the policy file will be: files inside it are named from there.
        now: Unix seconds; a clause ends some time after it.

    Raises:
        MalformedError: A file is no public signer, two have one name, or the preset has
            no such role.
    """
    wanted = TO_FILL[preset]
    named: dict[str, tuple[str, str]] = {}
    lists: dict[str, str] = {}
    for role, files in given.items():
        if files and role not in wanted:
            raise MalformedError(
                f"{preset} has no {role}: --{role} means nothing there", near(role, wanted)
            )
    for role, names in wanted.items():
        files = given.get(role) or tuple(folder / f"{name}.json" for name in names)
        mine = [_name(f) for f in files]
        for name, file in zip(mine, files, strict=True):
            if name in named:
                raise MalformedError(
                    f"two files would both be called {name!r}: {named[name][1]} and {file}",
                    "Rename one: a signer's name is its file's, without the ending.",
                )
            named[name] = (_from(file, folder), str(file))
            if given.get(role):
                read_signer(name, Table(file, "", {"from": str(file.absolute())}))
        lists[role] = ", ".join(json.dumps(name) for name in mine)
    signers = "\n\n".join(f"[signers.{n}]\nfrom = {json.dumps(f)}" for n, (f, _) in named.items())
    until = datetime.fromtimestamp(now + CLAUSE_LIFE, UTC).strftime("%Y-%m-%dT00:00:00Z")
    form = resources.files("placet.cli").joinpath("presets", f"{preset}.toml").read_text("utf-8")
    text = Template(form).substitute(lists, signers=signers, expires_at=until)
    made = (folder / file for file, _ in named.values())
    missing = tuple(str(path) for path in made if not path.exists())
    return Filled(text=text, missing=missing)


def _name(file: Path) -> str:
    """Return a signer's name out of its file's: what TOML takes without quotes."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", file.stem) or "signer"


def _from(file: Path, folder: Path) -> str:
    whole, base = file.absolute(), folder.absolute()
    return str(whole.relative_to(base) if whole.is_relative_to(base) else whole)
