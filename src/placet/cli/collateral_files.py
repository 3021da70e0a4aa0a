"""The files of a folder of collateral: what their names say, read, and replaced whole."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from placet.attest.collateral_folder import MAX_WANTED, WANTED
from placet.cli.files import local_files
from placet.client.whole_files import write_whole
from placet.core.limits import MAX_COLLATERAL
from placet.errors import MalformedError

_INTEL = re.compile(r"intel-(sgx|tdx)-([0-9a-f]{12})-(platform|processor)\.json")
_AMD = re.compile(r"amd-(milan|genoa|turin)-([0-9a-f]{128})-([0-9a-f]{16})\.json")


@dataclass(frozen=True, slots=True)
class IntelItem:
    """Collateral of one CPU family and TEE, and of the CA that certifies its machines."""

    tee: str
    fmspc: str
    ca: str

    @property
    def name(self) -> str:
        """Return the file's name."""
        return f"intel-{self.tee}-{self.fmspc}-{self.ca}.json"

    @property
    def about(self) -> str:
        """Return it in words."""
        return f"Intel {self.tee.upper()}, FMSPC {self.fmspc}, {self.ca} CA"


@dataclass(frozen=True, slots=True)
class AmdItem:
    """The certificate of one chip at one TCB version, and what is above it."""

    product: str
    chip: bytes
    tcb: bytes

    @property
    def name(self) -> str:
        """Return the file's name."""
        return f"amd-{self.product}-{self.chip.hex()}-{self.tcb.hex()}.json"

    @property
    def about(self) -> str:
        """Return it in words."""
        return f"AMD {self.product}, chip {self.chip.hex()[:12]}, TCB {self.tcb.hex()}"


Item = IntelItem | AmdItem


def item_of(name: str) -> Item | None:
    """Return what a file's name says, if it is one of collateral."""
    if found := _INTEL.fullmatch(name):
        return IntelItem(*found.groups())
    if found := _AMD.fullmatch(name):
        return AmdItem(found[1], bytes.fromhex(found[2]), bytes.fromhex(found[3]))
    return None


def items_in(folder: Path) -> tuple[Item, ...]:
    """Return which files of collateral are in a folder, by name."""
    if not folder.exists():
        return ()
    with local_files():
        return _items(p.name for p in folder.iterdir())


def wanted_in(folder: Path) -> tuple[Item, ...]:
    """Return what vaults asked for in vain, no more than they may ask for."""
    return items_in(folder / WANTED)[:MAX_WANTED]


def no_longer_wanted(folder: Path, item: Item) -> None:
    """Take a request away, if that is allowed here; it does no harm where it is not."""
    with contextlib.suppress(OSError):
        (folder / WANTED / item.name).unlink(missing_ok=True)


def read_file(path: Path) -> bytes | None:
    """Return a file's content; nothing if there is none.

    Raises:
        MalformedError: It is longer than collateral can be.
        NotFoundError: It cannot be read.
    """
    with local_files():
        try:
            with path.open("rb") as file:
                text = file.read(MAX_COLLATERAL + 1)
        except FileNotFoundError:
            return None
    if len(text) > MAX_COLLATERAL:
        raise MalformedError(f"{path} is longer than {MAX_COLLATERAL} bytes")
    return text


def replace_file(path: Path, text: bytes) -> None:
    """Write a file, whole or not at all; whoever serves may read it."""
    with local_files():
        path.parent.mkdir(parents=True, exist_ok=True)  # with the mode that others may read
        write_whole(path, text, mode=0o644)


def _items(names: Iterable[str]) -> tuple[Item, ...]:
    found = (item_of(name) for name in sorted(names))
    return tuple(item for item in found if item is not None)
