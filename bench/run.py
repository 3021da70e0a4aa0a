"""Measure, beside the same library calls done in process. `make bench` runs this.

How to read what comes out: bench/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import msgspec

import placet  # noqa: F401 - first of all: it configures OpenSSL, once for the process

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))  # the software TEE in process: `Tee`, `serving`

from benches import benches  # noqa: E402
from machine import machine  # noqa: E402
from measure import Bench, Result, measure  # noqa: E402
from vaults import World, vault_processes, with_key  # noqa: E402

COLUMNS = "{:<22} {:>9} {:>9} {:>9} {:<6} {:>6}"


def main() -> int:
    """Run the benches, print the table and write ``build/bench.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="run only the benches whose name begins so")
    parser.add_argument("--output", type=Path, help="default: build/bench.json, if all are run")
    options = parser.parse_args()
    started = time.monotonic()
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    # Not in /tmp, which may be no disk.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=build) as name:
        folder = Path(name)
        print("\n".join(machine(folder)), end="\n\n")
        with vault_processes(folder) as world:
            measured = asyncio.run(_run(world, folder, tuple(options.only)))
    print()
    for bench, _ in measured:
        calls = textwrap.fill(bench.calls, 78, subsequent_indent="  ")
        print(f"floor of {bench.name}:\n  {calls}")
    output = options.output or (None if options.only else build / "bench.json")
    results = {bench.name: dataclasses.asdict(result) for bench, result in measured}
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    print(f"\n{output or 'nothing'} written, after {time.monotonic() - started:.0f} s")
    return 0


async def _run(world: World, folder: Path, only: tuple[str, ...]) -> list[tuple[Bench, Result]]:
    chosen = [
        b
        for b in await benches(await with_key(world), folder)
        if not only or b.name.startswith(only)
    ]
    print(COLUMNS.format("", "median", "p99", "floor", "", "ratio"))
    measured = []
    for bench in chosen:
        result = await measure(bench)
        row = (result.median, result.p99, result.floor, result.unit, result.ratio_to_floor)
        print(COLUMNS.format(bench.name, *row), flush=True)
        measured.append((bench, result))
    return measured


if __name__ == "__main__":
    sys.exit(main())
