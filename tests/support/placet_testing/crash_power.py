"""What a disk holds when the power goes: only what was synchronised, names and contents apart.

The strictest reading of POSIX: a file's bytes are there as of its last fsync; a name is there
if its folder was synchronised since it was made. What a kill leaves is more than that.
"""

from __future__ import annotations

import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Disk:
    """What of a folder would survive, kept up by whoever sees its calls.

    Args:
        root: The folder; all that is in it now counts as written long ago.
    """

    root: Path
    _names: dict[Path, dict[str, int]] = field(default_factory=dict)
    _folders: dict[int, Path] = field(default_factory=dict)
    _content: dict[int, bytes] = field(default_factory=dict)
    _syncing: Path | None = None

    def __post_init__(self) -> None:
        """Take stock."""
        for path in [self.root, *self.root.rglob("*")]:
            self._sync(path)

    def before(self, path: Path, *, sync: bool) -> None:
        """Be told of a call before it happens; the one before has happened by now."""
        if self._syncing is not None and self._syncing.exists():
            self._sync(self._syncing)
        self._syncing = path if sync and path.is_relative_to(self.root) else None

    def lose(self) -> None:
        """Leave in the folder only what survives; nobody may have it open."""
        names, folders, content = self._names, self._folders, self._content
        shutil.rmtree(self.root)

        def lay(where: Path, kept: dict[str, int]) -> None:
            where.mkdir(mode=0o700)
            for name, inode in kept.items():
                if inode in folders:
                    lay(where / name, names.get(folders[inode], {}))
                else:
                    (where / name).write_bytes(content.get(inode, b""))

        lay(self.root, names[self.root])

    def _sync(self, path: Path) -> None:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            inside = {p.name: p.stat() for p in path.iterdir()}
            self._names[path] = {name: s.st_ino for name, s in inside.items()}
            for name, s in inside.items():
                if stat.S_ISDIR(s.st_mode):
                    self._folders[s.st_ino] = path / name
        else:
            self._content[about.st_ino] = path.read_bytes()
