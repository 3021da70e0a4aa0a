"""How a vault carries load and size: many connections, a long log, many keys.

    .venv/bin/python bench/scale.py                      all of it, stores of 1,000 and 100,000 keys
    .venv/bin/python bench/scale.py --full               and of 1,000,000, which takes long to fill
    .venv/bin/python bench/scale.py --only connections   or log, or keys
    .venv/bin/python bench/scale.py --on sqlite          or postgresql; both if nothing is said
    .venv/bin/python bench/scale.py --stores FOLDER      keep filled stores for the next time

Each figure stands beside what it is to be compared with, taken in the same run: one connection
beside 64, an fsync of its own beside a shared one, a small store beside a large one, SQLite beside
a PostgreSQL server on the same disk. What is written, the vault's own code wrote (`filled.py`).
``build/scale.json`` has the figures. The 1,000,000 are for SQLite only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import placet  # noqa: F401 - first of all: it configures OpenSSL, once for the process

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

import msgspec  # noqa: E402
from filled import fill, is_filled, open_at, settle, written  # noqa: E402
from machine import machine  # noqa: E402
from placet_testing import backends, postgresql  # noqa: E402
from vaults import World, vault_processes, with_key  # noqa: E402

from placet.core.logentry import Draft  # noqa: E402
from placet.storage.log import Log  # noqa: E402

Figures = dict[str, float]
CONNECTIONS = (1, 64)
SECONDS = 8.0
APPENDS = 640
BLOCK = 4096
OPENINGS, RELEASES = 9, 300
SIZES = (1_000, 100_000)


async def connections(world: World) -> Figures:
    """Ask one vault for releases, over few connections and over many, as fast as it answers."""
    figures: Figures = {}
    for count in CONNECTIONS:
        took: list[float] = []
        vaults = [world.vault(world.connector()) for _ in range(count)]
        for vault in vaults:  # connected before the clock runs
            await vault.release(world.key, os.urandom(32))
        began = time.perf_counter()
        await asyncio.gather(*(_ask(world, vault, began + SECONDS, took) for vault in vaults))
        rate = len(took) / (time.perf_counter() - began)
        for vault in vaults:
            vault.close()
        figures[f"releases_per_second_{count}"] = rate
        figures[f"release_p50_ms_{count}"] = 1e3 * statistics.median(took)
        figures[f"release_p99_ms_{count}"] = 1e3 * _p99(took)
    few, many = (figures[f"releases_per_second_{count}"] for count in CONNECTIONS)
    figures["releases_64_beside_1"] = many / few
    return figures


async def _ask(world: World, vault: object, ends: float, took: list[float]) -> None:
    while (began := time.perf_counter()) < ends:
        await vault.release(world.key, os.urandom(32))  # type: ignore[attr-defined]
        took.append(time.perf_counter() - began)


def log(folder: Path) -> Figures:
    """Append to a log, each entry by itself and 64 together, beside bare writes with fsync."""
    opened = open_at(folder / "log")
    store, journal = opened.store, opened.log

    def together() -> None:
        for _ in range(APPENDS // 64):
            with store.group():
                _append(journal, 64)

    rates = {
        "fsyncs_per_second": _rate(lambda: _fsyncs(folder / "bare")),
        "appends_per_second": _rate(lambda: _append(journal, APPENDS)),
        "appends_per_second_64_together": _rate(together),
    }
    store.close()
    one = rates["appends_per_second"]
    return rates | {
        "append_beside_fsync": rates["fsyncs_per_second"] / one,
        "appends_64_beside_1": rates["appends_per_second_64_together"] / one,
    }


def _append(journal: Log, count: int) -> None:
    for _ in range(count):
        journal.commit(Draft(kind="bench"), now=int(time.time()))


def _fsyncs(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(APPENDS):
            file.write(bytes(BLOCK))
            os.fdatasync(file.fileno())


def _rate(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return APPENDS / (time.perf_counter() - began)


def keys(folder: Path, sizes: tuple[int, ...]) -> Figures:
    """Start on, and release from, stores of few keys and of many, from the disk and again."""
    figures: Figures = {}
    for size in sizes:
        at = folder / f"keys-{size}"
        began, filled = time.perf_counter(), is_filled(at)
        whole = fill(at, size)
        if not filled:
            figures[f"fill_seconds_{size}"] = time.perf_counter() - began
        figures[f"bytes_per_key_{size}"] = written(at) / size
        if settle(at):
            figures[f"start_from_disk_ms_{size}"] = 1e3 * _start(at)
            figures[f"release_from_disk_p50_ms_{size}"] = 1e3 * statistics.median(
                _release(at, whole)
            )
        else:
            _release(at, whole)
        took = _release(at, whole)
        figures[f"start_ms_{size}"] = 1e3 * statistics.median(_start(at) for _ in range(OPENINGS))
        figures[f"release_p50_ms_{size}"] = 1e3 * statistics.median(took)
        figures[f"release_p99_ms_{size}"] = 1e3 * _p99(took)
    for what, size in product(("start_ms", "release_p50_ms"), sizes[1:]):
        few, many = figures[f"{what}_{sizes[0]}"], figures[f"{what}_{size}"]
        figures[f"{what}_{size}_beside_{sizes[0]}"] = many / few
    return figures


def _start(at: Path) -> float:
    """Return the seconds until a vault over this store could serve."""
    began = time.perf_counter()
    opened = open_at(at)
    took = time.perf_counter() - began
    opened.store.close()
    return took


def _release(at: Path, whole: tuple[str, ...]) -> list[float]:
    """Return what the first release of each of many keys took, in one life of the vault."""
    opened, took = open_at(at), []
    for key in whole[:RELEASES]:
        began = time.perf_counter()
        opened.release(key)
        took.append(time.perf_counter() - began)
    opened.store.close()
    return took


def _p99(took: list[float]) -> float:
    """Return what 99 of 100 were no worse than."""
    return sorted(took)[math.ceil(0.99 * len(took)) - 1]


def main() -> int:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="a store of 1,000,000 keys as well")
    parser.add_argument("--only", choices=("connections", "log", "keys"))
    parser.add_argument("--on", choices=backends.NAMES)
    parser.add_argument("--stores", type=Path, help="folder of filled stores, to use them again")
    options = parser.parse_args()
    figures: dict[str, Figures] = {}
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    # Not in /tmp, which may be no disk.
    with tempfile.TemporaryDirectory(prefix="scale-", dir=build) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database server runs as somebody else
        print("\n".join(machine(folder)), end="\n\n")
        for kind in (options.on,) if options.on else backends.NAMES:
            with _backend(kind, folder):
                figures[kind] = _measured(folder / kind, options)
    print(f"{'':<40}", *(f"{kind:>12}" for kind in figures))
    for what in dict.fromkeys(what for own in figures.values() for what in own):
        cells = (own.get(what) for own in figures.values())
        print(f"{what:<40}", *(f"{'' if cell is None else f'{cell:,.2f}':>12}" for cell in cells))
    (build / "scale.json").write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    return 0


@contextlib.contextmanager
def _backend(kind: str, folder: Path) -> Iterator[None]:
    """Have stores lie there; the server commits to the disk, as one of yours does."""
    if kind == "sqlite":
        with backends.use(backends.Sqlite()):
            yield
        return
    with postgresql.serving(folder, ()) as server:
        if server is None:
            raise SystemExit("no PostgreSQL server can be run here: --on sqlite")
        with backends.use(backends.Postgresql(server.uri)) as place:
            with place.hand(folder) as db:
                (version,) = db.execute("SHOW server_version").fetchone()
            print(f"postgresql {version}, fsync=on, on the same disk\n")
            yield


def _measured(folder: Path, options: argparse.Namespace) -> Figures:
    folder.mkdir()
    figures: Figures = {}
    if options.only in {None, "connections"}:
        with vault_processes(folder) as world:
            figures |= asyncio.run(_connections(world))
    if options.only in {None, "log"}:
        figures |= log(folder)
    if options.only in {None, "keys"}:
        files = backends.chosen().name == "sqlite"
        stores = options.stores if files and options.stores else folder
        stores.mkdir(parents=True, exist_ok=True)
        figures |= keys(stores, (*SIZES, *((1_000_000,) if options.full and files else ())))
    return figures


async def _connections(world: World) -> Figures:
    return await connections(await with_key(world))


if __name__ == "__main__":
    sys.exit(main())
