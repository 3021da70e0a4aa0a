"""What a fork of `crash_zygote` can do with its life."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from importlib import import_module
from pathlib import Path
from typing import Any

from placet.agent import main as agent_main
from placet.cli.main import OWN, cli
from placet.storage import sqlite
from placet_testing.serving import serving
from placet_testing.tee import Tee, workload_config

# Commands are imported when they are asked for: here, once for all lives.
for where in OWN.values():
    import_module(where.partition(":")[0])


def vault(control: socket.socket, *, folder: str, number: int, settings: dict[str, Any]) -> None:
    """Serve vault ``number`` of a folder until told to stop."""
    if "checkpoint_rows" in settings:
        sqlite.CHECKPOINT_ROWS = settings["checkpoint_rows"]

    async def serve() -> None:
        async with serving(Path(folder), number, port=settings.get("port", 0)) as served:
            control.send(json.dumps({"port": served.port, "vault": served.identity.id}).encode())
            control.settimeout(0)
            await asyncio.get_running_loop().sock_recv(control, 1)

    asyncio.run(serve())


def command(
    control: socket.socket, *, arguments: list[str], environment: dict[str, str], out: str
) -> int:
    """Run ``placet`` with these arguments; what it prints goes to the file ``out``."""
    os.environ.update(environment)
    code = 1
    with Path(out).open("w", encoding="utf-8") as said, contextlib.redirect_stdout(said):
        try:
            cli.main(arguments, prog_name="placet")
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 1
    control.send(json.dumps({"code": code}).encode())
    return code


def workload(control: socket.socket, *, arguments: list[str], owner: str, version: int) -> int:
    """Run ``placet run`` as a version of the app that may open an owner's key."""
    tee = Tee(workload_config(owner), version=version, boot=f"boot-{os.urandom(4).hex()}")
    agent_main.open_producer = lambda: tee
    code = agent_main.main(arguments)
    control.send(json.dumps({"code": code}).encode())
    return code
