"""Print ``N passed, N failed`` from a JUnit file, as the last line of a CI run."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def tally(path: Path) -> tuple[int, int]:
    """Return how many tests passed and failed; a run that left no record failed once."""
    if not path.exists():
        return 0, 1
    suites = ET.parse(path).getroot().iter("testsuite")  # noqa: S314 - pytest wrote it just now
    passed = failed = 0
    for suite in suites:
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        failed += bad
        passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
    return passed, failed


def main(argv: list[str]) -> int:
    """Print the line."""
    passed, failed = tally(Path(argv[0]))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
