"""What a fork of `crash_zygote` can do with its life."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

from placet.storage import sqlite
from placet_testing.serving import serving


def vault(control: socket.socket, *, folder: str, number: int, settings: dict[str, Any]) -> None:
    """Serve vault ``number`` of a folder until told to stop."""
    if "checkpoint_every" in settings:
        sqlite.CHECKPOINT_EVERY = settings["checkpoint_every"]

    async def serve() -> None:
        async with serving(Path(folder), number) as served:
            control.send(json.dumps({"port": served.port, "vault": served.identity.id}).encode())
            control.settimeout(0)
            await asyncio.get_running_loop().sock_recv(control, 1)

    asyncio.run(serve())
