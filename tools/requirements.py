"""Print which requirement is proven by how many tests (after ``make requirements`` ran them).

Where both backends are asked for, by how many on each.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NONE = {"tests": 0, "passed": 0}


def main() -> int:
    """Print the table; return 1 when a proven requirement has no passing test."""
    spec = tomllib.loads((ROOT / "spec" / "requirements.toml").read_text())
    found = json.loads((ROOT / "build" / "requirements.json").read_text())
    width = max(map(len, spec["text"].values()))
    print(f"{'id':<6} | {'text':<{width}} | tests | passed | sqlite | postgresql")
    for name in spec["proven"] + spec["coming"]:
        row = found.get(name, NONE)
        note = "" if name in spec["proven"] else "  (coming)"
        on = f"{row.get('sqlite', ''):>6} | {row.get('postgresql', ''):>10}"
        print(
            f"{name:<6} | {spec['text'][name]:<{width}} | {row['tests']:>5} "
            f"| {row['passed']:>6} | {on}{note}"
        )
    missing = [
        i
        for i in spec["proven"]
        if not all(found.get(i, NONE).values())  # passed, and on each backend that is asked for
    ]
    print(f"{len(spec['proven']) - len(missing)} of {len(spec['proven'])} proven")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
