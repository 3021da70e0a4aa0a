"""Where the time goes: profile connecting or releasing, client and vault in one process.

    .venv/bin/python bench/hot.py connect
    .venv/bin/python bench/hot.py release

A profiler makes many small calls look dearer than few large ones: use it to find, and
`run.py` to measure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import placet  # noqa: F401 - first of all: it configures OpenSSL, once for the process

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from placet_testing.serving import serving, vault_set_of  # noqa: E402
from vaults import K, N, World, with_key, workload  # noqa: E402


def main() -> int:
    """Profile one path and print what costs most."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", choices=("connect", "release"))
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "build") as folder:
        asyncio.run(_profile(Path(folder), options.path, options.count))
    return 0


async def _profile(folder: Path, path: str, count: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        served = [await stack.enter_async_context(serving(folder, n)) for n in range(1, N + 1)]
        world = await with_key(workload(vault_set_of(*served, k=K)))
        once = _connect(world) if path == "connect" else _release(world)
        await once()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            await once()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{path}: {wall / count * 1e3:.2f} ms, of which CPU {cpu / count * 1e3:.2f} ms")
        with cProfile.Profile() as profile:
            for _ in range(count):
                await once()
    stats = pstats.Stats(profile)
    stats.sort_stats("tottime").print_stats(25)
    stats.sort_stats("cumtime").print_stats("src/placet", 40)


def _connect(world: World) -> Callable[[], Awaitable[None]]:
    connector = world.connector()

    async def once() -> None:
        client = world.vault(connector)
        await client.meet()
        client.close()

    return once


def _release(world: World) -> Callable[[], Awaitable[None]]:
    client = world.vault(world.connector())

    async def once() -> None:
        await client.release(world.key, os.urandom(32))

    return once


if __name__ == "__main__":
    sys.exit(main())
