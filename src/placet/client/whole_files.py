"""Files of this machine that are written whole or not at all, and stay (I16).

A kill leaves the old file or the new one. Once a function returns, the loss of power leaves
the new one, whose name and folders are on the disk as well.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from placet.storage.folders import make_folder, sync_folder

LONGEST = 200
"""Characters of a file's name that stand in its part's; names end at 255 bytes."""


def write_whole(path: Path, data: bytes, *, mode: int = 0o600, over: bool = True) -> None:
    """Write a file, and its folders if they are missing.

    Not for two writers of one file at a time: the later one may fail.

    Args:
        path: The file; what a crash left beside it, half written, is removed.
        data: All of it.
        mode: Of a new file. The default lets only this user read it.
        over: Whether one that is there is replaced.

    Raises:
        FileExistsError: There is one, and it is not to be replaced.
        OSError: It cannot be written. What was there is there.
    """
    make_folder(path.parent)
    part = _part(path)
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if over:
        part.replace(path)
    else:
        _link(part, path)
    sync_folder(path.parent)


def settle(path: Path) -> None:
    """Complete what a killed `write_whole` began of a file that is there: its name is durable.

    Raises:
        OSError: What was left beside it cannot be removed, or the folder not be synchronised.
    """
    _part(path).unlink(missing_ok=True)
    sync_folder(path.parent)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name[:LONGEST]}.part")


def _link(part: Path, path: Path) -> None:
    """Give a file its name unless that is taken; by a look first, where there are no links."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        part.unlink()
        raise
    except OSError:
        # A memory stick's file system has one name for a file.
        if path.exists():
            with contextlib.suppress(OSError):
                part.unlink()
            raise FileExistsError(f"{path} exists") from None
        part.replace(path)
    else:
        part.unlink()
