"""``placet platform serve``: start, stage and relay, for one operator on one machine.

It has no authority: with everything that it holds (the stager's key, the TEE's control
socket, all volumes and charters) no vault lets it in, and nothing that it changes counts.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from placet.client.signing import SigningKey
from placet.client.vaults_file import read_vaults
from placet.errors import MalformedError, PlacetError, UnavailableError
from placet.platform.api import Api
from placet.platform.relay import Relay
from placet.platform.starter import load_starter

LOCAL = ("127.0.0.1", "localhost", "::1")
STAGER = "platform"


def main(argv: Sequence[str]) -> int:
    """Run ``placet platform serve`` and return its exit code."""
    parser = argparse.ArgumentParser(prog="placet platform serve", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:7460", metavar="HOST:PORT")
    parser.add_argument("--state", type=Path, required=True, help="volumes, charters, logs, key")
    parser.add_argument("--bundles", type=Path, required=True, help="folder of bundles")
    parser.add_argument("--vaults", type=Path, required=True, help="vaults file")
    parser.add_argument("--starter", default="software-tee", help="kind of TEE")
    parser.add_argument("--tee", required=True, help="its address: a control socket")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    try:
        asyncio.run(_serve(options))
    except PlacetError as e:
        print(f"placet platform: {e.detail}\n{e.hint}".rstrip(), file=sys.stderr)  # noqa: T201
        return 2 if isinstance(e, MalformedError) else 4
    return 0


async def _serve(options: argparse.Namespace) -> None:
    listener = _listen(options.listen)
    starter = load_starter(options.starter, options.tee)
    relay = Relay(read_vaults(options.vaults))
    api = Api(
        starter=starter,
        relay=relay,
        stager=_stager(options.state / "stager.pem"),
        bundles=options.bundles,
        state=options.state,
    )
    config = uvicorn.Config(api.app(), log_level="warning", ws="none", server_header=False)
    host, port = listener.getsockname()[:2]
    # Connections wait in the socket from here on, so this line may be believed.
    logging.getLogger("placet.platform").info("platform ready on %s:%d", host, port)
    # uvicorn raises the signal that ended it once more; the end shall be an orderly one.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        relay.close()


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if host.strip("[]") not in LOCAL or not port.isdigit():
        raise MalformedError(
            f"--listen is {address!r}; this API is for this machine only", "Try 127.0.0.1:7460."
        )
    try:
        return socket.create_server((host.strip("[]"), int(port)))
    except (OSError, OverflowError) as e:
        raise UnavailableError(
            f"cannot listen on {address}: {e}",
            f"See who does: ss -ltnp 'sport = :{port}'. Stop that, or name another --listen.",
        ) from e


def _stager(path: Path) -> SigningKey:
    if not path.exists():
        SigningKey.generate(STAGER, "ed25519").save(path)
    return SigningKey.load(STAGER, path)
