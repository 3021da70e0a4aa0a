"""Run the seeded network over many seeds, visit every order of all scripts, kill at every call.

R8.1, R8.2; R7.2, R7.3. CI runs a slice of each.

python tools/nightly.py                    # 100,000 seeds, on all processors
python tools/nightly.py --seeds 5000 --from 200000
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from placet_model.explorer import SCRIPTS, Explorer  # type: ignore[import-not-found]
from placet_model.ideal import ideal  # type: ignore[import-not-found]
from placet_testing.network import simulate  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[1]
CHUNK = 500


def main(argv: list[str]) -> int:
    """Run seeds and scripts; what breaks an invariant is raised, and its message names it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100_000, help="how many")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first one")
    parser.add_argument("--states", type=int, default=2_000_000, help="most states of one script")
    arguments = parser.parse_args(argv)
    last = arguments.first + arguments.seeds
    chunks = [range(s, min(s + CHUNK, last)) for s in range(arguments.first, last, CHUNK)]
    began, total = time.monotonic(), {"seeds": 0, "taps": 0, "merged": 0, "longest": 0}
    # A process for a few thousand seeds: what it remembers of signatures stays bounded.
    with multiprocessing.Pool(os.cpu_count(), maxtasksperchild=8) as pool:
        for counts in pool.imap_unordered(simulate, chunks):
            for name, count in counts.items():
                total[name] = max(total[name], count) if name == "longest" else total[name] + count
            print(f"\r{total['seeds']} of {arguments.seeds} seeds", end="", flush=True)
    print(f"\n{total}\n{time.monotonic() - began:.0f} s")
    with ideal():
        for script in SCRIPTS:
            began, explorer = time.monotonic(), Explorer(script)
            explorer.run(arguments.states)
            took = time.monotonic() - began
            print(
                f"{script.name}: {explorer.states} states, {explorer.events} events, {took:.0f} s"
            )
    # Every point that it struck stands in build/crash-matrix.md.
    crash = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "tests/crash"]
    return subprocess.run(
        crash, cwd=ROOT, env={**os.environ, "PLACET_CRASH": "all"}, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
