"""Fuzz every target of ``fuzz/`` for a bounded time and print what became of each.

``FUZZ_SECONDS=60 make fuzz`` runs longer. With ``--merge`` what a run found and what adds
coverage is put into the saved corpus.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN, CORPUS, FOUND = ROOT / "fuzz" / "run.py", ROOT / "fuzz" / "corpus", ROOT / "build" / "fuzz"
PROCESSES = 2
MAX_MERGED = 6 * 1024
"""Bytes of an input that is put into the saved corpus; a larger one stays in ``build``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one target."""

    target: str
    stats: dict[str, int]
    crashed: bool
    artifact: Path | None
    log: str

    def row(self) -> str:
        """Return its line of the table."""
        names = ("number_of_executed_units", "average_exec_per_sec", "new_units_added")
        done, speed, new = (self.stats.get(name, 0) for name in names)
        memory = self.stats.get("peak_rss_mb", 0)
        return f"{self.target:15}{done:12,}{speed:10,}{new:8,}{memory:9}{int(self.crashed):9}"


def fuzz(target: str, seconds: int, *, real: bool = False) -> Outcome:
    """Fuzz one target and return what became of it."""
    folder = FOUND / target
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    log = folder / "log.txt"
    command = [sys.executable, str(RUN), target, "--seconds", str(seconds)]
    command += ["--real"] * real
    with log.open("w") as out:
        code = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
    text = log.read_text(errors="replace")
    stats = {name: int(n) for name, n in re.findall(r"^stat::(\w+):\s+(\d+)$", text, re.MULTILINE)}
    new = [p for p in sorted(set(folder.iterdir()) - before) if p.is_file() and p != log]
    return Outcome(
        target=target,
        stats=stats,
        crashed=code != 0,
        artifact=new[0] if new else None,
        log=text[-3000:],
    )


def merge(target: str) -> None:
    """Put into the saved corpus what was found and adds coverage, if it is small."""
    saved, small = CORPUS / target, FOUND / target / "small"
    small.mkdir(exist_ok=True)
    for path in (FOUND / target / "corpus").iterdir():
        if path.stat().st_size <= MAX_MERGED:
            (small / path.name).write_bytes(path.read_bytes())
    command = [
        sys.executable,
        str(RUN),
        target,
        "--",
        "-merge=1",
        "-use_counters=0",
        str(saved),
        str(small),
    ]
    subprocess.run(command, check=True, capture_output=True)


def main(argv: Sequence[str]) -> int:
    """Fuzz all targets, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", "5")))
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("--real", action="store_true", help="start from ../shared/vectors too")
    arguments = parser.parse_args(argv)
    if find_spec("atheris") is None:
        required = bool(os.environ.get("PLACET_REQUIRE_ALL"))
        print("fuzz: not run: atheris is not installed, it has no wheel for this machine")
        return int(required)
    targets = arguments.targets or sorted(d.name for d in CORPUS.iterdir())
    print(f"{'target':15}{'executions':>12}{'exec/s':>10}{'new':>8}{'peak MB':>9}{'crashes':>9}")
    findings = []
    with ThreadPoolExecutor(PROCESSES) as pool:
        for outcome in pool.map(lambda t: fuzz(t, arguments.seconds, real=arguments.real), targets):
            print(outcome.row(), flush=True)
            if outcome.crashed:
                findings.append(outcome)
    for outcome in findings:
        print(f"\n--- {outcome.target}\n{outcome.log}")
        if outcome.artifact is not None:
            print(f"repeat: {sys.executable} {RUN} {outcome.target} --repeat {outcome.artifact}")
    if arguments.merge and not findings:
        for target in targets:
            merge(target)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
