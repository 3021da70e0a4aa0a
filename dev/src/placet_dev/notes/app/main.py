"""Start notes: read the key, open the store, serve."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from .edition import VERSION
from .store import KEY_SIZE, NoteStore, StoreError
from .web import Web


def main(argv: list[str]) -> int:
    """Serve until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="notes", description="Keeps notes.")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    host, _, port = parser.parse_args(argv).listen.rpartition(":")
    try:
        store = NoteStore(Path(os.environ["PLACET_VOLUME"]), _read_key())
        listener = socket.create_server((host, int(port)))
    except KeyError as e:
        return _give_up(f"{e.args[0]} is not set: start it by `placet run`")
    except (StoreError, OSError, ValueError) as e:
        return _give_up(str(e))
    # Connections wait in the socket from here on, so this line may be believed.
    print(f"notes {VERSION} ready on {host}:{listener.getsockname()[1]}", flush=True)  # noqa: T201
    config = uvicorn.Config(Web(store).app(), log_level="warning", ws="none", server_header=False)
    # uvicorn raises the signal that ended it once more; this start then ends by itself.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listener])
    store.close()
    return 0


def _read_key() -> bytes:
    """Read the key to its end, and close what it came by."""
    with os.fdopen(int(os.environ["PLACET_KEY_FD"]), "rb") as f:
        key = f.read(KEY_SIZE + 1)
    if len(key) != KEY_SIZE:
        raise StoreError(f"key is not {KEY_SIZE} bytes")
    return key


def _give_up(why: str) -> int:
    print(f"notes: {why}", file=sys.stderr)  # noqa: T201 - a program's last words
    return 1
