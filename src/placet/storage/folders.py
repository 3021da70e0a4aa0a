"""Folders whose names stay when the power goes (I16)."""

from __future__ import annotations

import os
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user only.

    One that is there already is left as it is, durable or not.

    Raises:
        OSError: The disk does not let us.
    """
    above = folder.parent
    if folder.is_dir() or above == folder:
        return
    make_folder(above)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(above)


def sync_folder(folder: Path) -> None:
    """Make durable which names are in a folder.

    Raises:
        OSError: The disk does not let us.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
