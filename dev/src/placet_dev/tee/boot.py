"""The first code of every bundle; a measured copy lies in it as ``runtime/boot.py``.

    python -I -S -B runtime/boot.py MODULE:FUNCTION [ARGUMENT...]

puts the bundle's files on the path, calls the function with the list of arguments and
exits with what it returns. Of the host only the interpreter with its standard library is
used. ``image`` stands last on the path: an app's module hides none of the agent's.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Call ``argv[0]``, a ``module:function``, with the rest of ``argv``."""
    runtime = Path(__file__).resolve().parent
    sys.path[:] = [str(runtime), *sys.path, str(runtime.parent / "image")]
    module, _, function = argv[0].partition(":")
    sys.argv = list(argv)
    code: int | None = getattr(importlib.import_module(module), function)(argv[1:])
    return code or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
