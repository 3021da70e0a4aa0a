"""The owner of the demo: the real command line, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from placet_dev.demo.steps import StepFailedError
from placet_dev.platform_process import PLACET

TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said."""

    code: int
    answer: Any
    """Its JSON."""
    text: str
    """All its output."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Runs ``placet`` as the owner would, with ``--json``.

    Args:
        home: ``$PLACET_HOME``: key file and settings.
    """

    home: Path

    def placet(self, *arguments: str, expect: Sequence[int] = (0,)) -> Said:
        """Run a command and return what it said.

        Raises:
            StepFailedError: It ended with another code than those expected.
        """
        done = subprocess.run(
            [*PLACET, *arguments, "--json"],
            env={**os.environ, "PLACET_HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        text = f"{done.stdout}{done.stderr}".strip()
        if done.returncode not in expect:
            raise StepFailedError(
                f"`placet {' '.join(arguments)}` ended with {done.returncode}: {text[-800:]}"
            )
        try:
            answer = json.loads(done.stdout)
        except ValueError as e:
            raise StepFailedError(f"`placet {' '.join(arguments)}` printed no JSON: {text}") from e
        return Said(done.returncode, answer, text)
