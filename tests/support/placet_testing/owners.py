"""Keys at real ports under policy files: everybody's keys in files, and who signs what."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from placet.core.statement import SignedStatement, UntrustedStatement, open_statement
from placet_testing.charters import person
from placet_testing.passkey import SoftwarePasskey

PAGE = SoftwarePasskey(name="page", screen="page")
PEOPLE = ("laptop", "tablet", "platform", "m1", "m2", "g1", "g2", "heir")
SOLO = {"owner": '{ any = ["phone", "laptop", "page"] }', "stagers": '["platform"]'}
PATIENCE = 60.0
"""Seconds after which a condition that does not come is a failure."""


class Owners:
    """A house whose owner is a phone (the home's own key), a laptop and a page.

    Args:
        house: Of tests/cli, with vaults.
    """

    def __init__(self, house: Any) -> None:
        self.house = house
        house.run("owner", "init", "--label", "phone")
        house.run("owner", "show", "--out", house.folder / "phone.json")
        for name in PEOPLE:
            person(name).save(self.pem(name))
            self.public(name).write_bytes(msgspec.json.encode(person(name).signer))
        self.public("page").write_bytes(msgspec.json.encode(PAGE.signer))

    def pem(self, name: str) -> Path:
        """Return the file of a private key."""
        return self.house.folder / f"{name}.pem"

    def public(self, name: str) -> Path:
        """Return the file of a public signer."""
        return self.house.folder / f"{name}.json"

    def policy(self, name: str = "policy", more: str = "", **top: str) -> Path:
        """Write a policy file: the plain one, with keys at the top changed and tables added."""
        path = self.house.folder / f"{name}.toml"
        rows = [f"{key} = {value}" for key, value in {**SOLO, **top}.items()]
        people = [f'[signers.{who}]\nfrom = "{who}.json"' for who in ("phone", "page", *PEOPLE)]
        path.write_text("\n".join(["schema = 1", *rows, more, *people]))
        return path

    def born(self, policy: Path) -> str:
        """Have a key born; return its id."""
        files = ("--vaults", self.house.folder / "vaults.json", "--profile", self.house.profile(1))
        new = ("key", "new", "notes", *files, "--policy", policy, "--yes")
        key: str = self.house.json(*new)["key"]
        return key

    def sign(self, file: Path, *names: str) -> dict[str, Any]:
        """Have others sign a statement in a file; return what the last one was told."""
        said: dict[str, Any] = {}
        for name in names:
            said = self.house.json("sign", file, "--key-file", self.pem(name), "--yes")
        return said

    def on_page(self, sent: UntrustedStatement, name: str = "page") -> Path:
        """Write a statement that the page alone signed, as somebody's platform would."""
        path = self.house.folder / f"{name}-statement.json"
        path.write_bytes(msgspec.json.encode(PAGE.sign(sent).signed()))
        return path

    def forget(self) -> None:
        """Forget what was signed here, as another device does not know of it."""
        shutil.rmtree(self.house.home / "outbox", ignore_errors=True)

    def state(self) -> dict[str, Any]:
        """Return what vaults show of the key."""
        shown: dict[str, Any] = self.house.json("key", "show", "notes", code=None)
        return shown

    def log(self, number: int = 1) -> list[dict[str, Any]]:
        """Return the key's entries in a vault's log, which must be a chain."""
        vault = self.house.json("log", "notes")["vaults"][number - 1]
        assert vault["verified"]
        entries: list[dict[str, Any]] = vault["entries"]
        return entries


def statement(file: Path) -> UntrustedStatement:
    """Return the statement in a file."""
    return open_statement(msgspec.json.decode(file.read_bytes(), type=SignedStatement))


def wait_for(condition: Callable[[], bool]) -> None:
    """Ask until it is so; each time is a whole command."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came"
