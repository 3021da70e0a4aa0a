"""Steps of the demo, and what came of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from placet.errors import PlacetError

W = TypeVar("W")
Kind = Literal["works", "refused"]


class StepFailedError(Exception):
    """A step did not end as it must: what works was refused, or what is refused worked."""


@dataclass(frozen=True, slots=True)
class Step(Generic[W]):
    """One thing that happens. ``act`` returns what was seen, or raises."""

    name: str
    kind: Kind
    act: Callable[[W], str]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a step; the JSON output has exactly these members."""

    name: str
    kind: Kind
    ok: bool
    seconds: float
    detail: str


def run_steps(
    world: W, steps: Sequence[Step[W]], begin: Callable[[Step[W]], None] = lambda _: None
) -> Iterator[Result]:
    """Do steps in order and yield each result; after a failure the rest is not done.

    Args:
        world: What the steps act on.
        steps: In order.
        begin: Is told before each.
    """
    failed = ""
    for step in steps:
        if failed:
            yield Result(step.name, step.kind, ok=False, seconds=0.0, detail=f"not done: {failed}")
            continue
        begin(step)
        start = time.monotonic()
        try:
            ok, detail = True, step.act(world)
        except PlacetError as e:
            ok, detail = False, f"{e.type}: {e.detail} {e.hint}".strip()
        except StepFailedError as e:
            ok, detail = False, str(e)
        except Exception as e:  # noqa: BLE001 - whatever it is, the demo says so and cleans up
            ok, detail = False, f"{type(e).__name__}: {e}"
        if not ok:
            failed = f"{step.name!r} failed"
        seconds = round(time.monotonic() - start, 2)
        yield Result(step.name, step.kind, ok=ok, seconds=seconds, detail=detail)
