"""Run the seeded network over many seeds: what CI runs a slice of (R8.1).

python tools/nightly.py                    # 100,000 seeds, on all processors
python tools/nightly.py --seeds 5000 --from 200000
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from placet_testing.network import simulate  # type: ignore[import-not-found]

CHUNK = 500


def main(argv: list[str]) -> int:
    """Run the seeds; return 1 if one of them broke an invariant, which its message names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100_000, help="how many")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first one")
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
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
