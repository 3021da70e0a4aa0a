"""One target for each parser that meets hostile bytes, by name.

A target takes any bytes and lets `PlacetError` pass in silence. Whatever else leaves it is
a finding: another exception, too much memory, too much time. `run.py` drives one with
atheris, `tests/unit/test_fuzz_targets.py` all of them over the saved corpus without it.
"""

from __future__ import annotations

import evidence as _evidence
import messages as _messages
from harness import TARGETS

__all__ = ["TARGETS"]

_ = _evidence, _messages  # imported for what they register
