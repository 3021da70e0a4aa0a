"""Receipts that an app keeps: what the vaults signed when they let their shares go (spec/08, 4)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from placet.core.dsse import Signed
from placet.core.encoding import encode
from placet.core.limits import KIB
from placet.errors import UnavailableError
from placet.storage.folders import sync_folder

RECEIPTS = "placet-receipts.jsonl"
MOST = 1024 * KIB
"""Bytes of one file; what came before is in the one that ends in ``.old``."""


def keep_receipts(folder: Path, receipts: Sequence[Signed]) -> None:
    """Append receipts to the volume's file, durably, one canonical JSON object a line.

    They hold no secret, and prove against a vault what its log has to say; whoever has the
    volume can take them away. A line that a crash left half written is nobody's receipt.

    Args:
        folder: The volume.
        receipts: `Released`, each as its vault signed it.

    Raises:
        UnavailableError: They cannot be written.
    """
    if not receipts:
        return
    path = folder / RECEIPTS
    lines = b"".join(encode(receipt) + b"\n" for receipt in receipts)
    try:
        if path.exists() and path.stat().st_size + len(lines) > MOST:
            path.replace(folder / f"{RECEIPTS}.old")
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                # What was cut off by a crash ends here, and spoils no line that follows.
                lines = lines if file.read(1) == b"\n" else b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
    except OSError as e:
        raise UnavailableError(
            f"receipts cannot be kept in {path}: {e.strerror}", "Make room, or make it writable."
        ) from e
