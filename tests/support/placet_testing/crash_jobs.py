"""What a fork of `crash_zygote` can do with its life."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from importlib import import_module
from pathlib import Path
from typing import Any

from placet.agent import main as agent_main
from placet.cli.main import OWN, cli
from placet.client import constellation
from placet.storage import sqlite
from placet.storage.postgresql import PostgresqlStore
from placet.vault import main as vault_main
from placet_testing import serving as serving_module
from placet_testing.crash_plants import PLANTS
from placet_testing.serving import serving
from placet_testing.tee import Tee, vault_config, workload_config

# Commands and the driver are imported when they are asked for: here, once for all lives.
for where in [*OWN.values(), "psycopg"]:
    import_module(where.partition(":")[0])


def vault(control: socket.socket, *, folder: str, number: int, settings: dict[str, Any]) -> None:
    """Serve vault ``number`` of a folder until told to stop."""
    if "checkpoint_rows" in settings:
        sqlite.CHECKPOINT_ROWS = settings["checkpoint_rows"]
    if uri := settings.get("store"):
        serving_module.open_store = lambda _, seal: PostgresqlStore(uri, seal)
    planted = settings.get("plant")
    if planted and planted != "hasty":
        PLANTS[planted]()

    async def serve() -> None:
        async with serving(Path(folder), number, port=settings.get("port", 0)) as served:
            if planted == "hasty":
                PLANTS[planted]()
            control.send(json.dumps({"port": served.port, "vault": served.identity.id}).encode())
            control.settimeout(0)
            await asyncio.get_running_loop().sock_recv(control, 1)

    asyncio.run(serve())


def program(control: socket.socket, *, folder: str, number: int, settings: dict[str, Any]) -> int:
    """Run ``placet vault serve`` itself; tell when it is ready, and how it ended."""
    assert number == 1, "its file has no number"

    class Ready(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if str(record.msg).startswith("vault %s ready") and isinstance(record.args, tuple):
                vault, at, boots = record.args
                port = int(str(at).rpartition(":")[2])
                control.send(json.dumps({"port": port, "vault": vault, "boots": boots}).encode())

    logging.getLogger("placet.vault").addHandler(Ready())
    tee = Tee(vault_config(), boot=f"boot-{os.urandom(4).hex()}")
    if "sealing_key" in settings:
        tee.sealing_key = lambda: bytes.fromhex(settings["sealing_key"])  # type: ignore[method-assign]
    vault_main.open_producer = lambda: tee
    if "plant" in settings:
        PLANTS[settings["plant"]]()
    listen = f"127.0.0.1:{settings['port']}"
    store = settings.get("store", vault_main.SQLITE)
    code = vault_main.main(["--listen", listen, "--data", folder, "--store", store])
    control.send(json.dumps({"code": code}).encode())
    return code


def command(
    control: socket.socket,
    *,
    arguments: list[str],
    environment: dict[str, str],
    out: str,
    plant: str = "",
) -> int:
    """Run ``placet`` with these arguments; what it prints goes to the file ``out``."""
    if plant:
        PLANTS[plant]()
    os.environ.update(environment)
    # No vault has witnesses here that a report could wait for: each is alone in its process.
    constellation.GLANCE = 0
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
