"""Run the story from the beginning to the summary, and clean up whatever happens."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from placet.errors import ConflictError
from placet_dev.demo.steps import Result, Step, run_steps
from placet_dev.demo.story import STORY
from placet_dev.demo.world import World


class Audience(Protocol):
    """Who is told how it goes."""

    def begin(self, number: int, step: Step[World]) -> None:
        """A step begins; they are counted from 1."""

    def end(self, result: Result) -> None:
        """A step ended, or was not done."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of the whole demo."""

    results: tuple[Result, ...]
    seconds: float
    logs: Path | None
    """Where the logs are, if they were kept."""

    @property
    def ok(self) -> bool:
        """Say whether every step ended as it must."""
        return all(r.ok for r in self.results)

    def plain(self) -> dict[str, object]:
        """Return what ``--json`` prints."""
        return {
            "ok": self.ok,
            "seconds": self.seconds,
            "steps": [asdict(r) for r in self.results],
        }


def run_demo(audience: Audience, keep: Path | None = None) -> Report:
    """Run the demo; end all its processes and remove its folder, unless a step failed.

    Args:
        audience: Is told of every step.
        keep: New or empty folder to use, and to leave as it is at the end.

    Raises:
        ConflictError: ``keep`` holds something.
    """
    start = time.monotonic()
    results: list[Result] = []
    with _folder(keep) as state, _interruptible():
        world = World(state=state)
        try:
            for result in run_steps(world, STORY, _told(audience, STORY)):
                results.append(result)
                audience.end(result)
        finally:
            world.close()
        kept = keep is not None or any(not r.ok for r in results)
        if not kept:
            shutil.rmtree(state, ignore_errors=True)
    seconds = round(time.monotonic() - start, 2)
    return Report(tuple(results), seconds, state if kept else None)


def _told(audience: Audience, steps: Sequence[Step[World]]) -> Callable[[Step[World]], None]:
    numbers = {step.name: i for i, step in enumerate(steps, 1)}
    return lambda step: audience.begin(numbers[step.name], step)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Lend a private folder; remove it if an exception passes."""
    if keep is not None:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise ConflictError(f"{keep} is not empty", "Name a new folder.")
        yield keep.absolute()
        return
    state = Path(tempfile.mkdtemp(prefix="placet-demo-"))
    try:
        yield state
    except BaseException:
        shutil.rmtree(state, ignore_errors=True)
        raise


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end us the way Ctrl-C does: with all processes ended."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
