"""Take a thing and its floor in turns, and say how far apart they are."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

WARM_UP = 3
LEAST, LONGEST = 20, 7.0
"""Rounds that are always run, and seconds after which a slow machine runs no more."""
PER_UNIT = {"us": 1e6, "ms": 1e3}
"""Units of a duration by how many of them are a second; every other unit is a rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One thing to measure, beside the library calls that it cannot do without.

    Args:
        name: Its name in the results.
        unit: A key of `PER_UNIT`, or ``something/s``.
        thing: Does the work once and returns the seconds it took, tidying up not included.
        floor: Does the library calls alone.
        calls: Those calls by name, for the reader.
        work: How many units one round is; a round's time is divided by it.
        rounds: How often each of the two is measured, if the time suffices.
    """

    name: str
    unit: str
    thing: Callable[[], Awaitable[float]]
    floor: Callable[[], object]
    calls: str
    work: float = 1.0
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came out. ``p99`` is the value that 99 of 100 rounds were no worse than."""

    median: float
    p99: float
    unit: str
    floor: float
    """Median."""
    ratio_to_floor: float
    """Time over time, whatever the unit: 1 is as fast as the libraries, more is slower."""


def timed(call: Callable[[], object]) -> Callable[[], Awaitable[float]]:
    """Return a thing that times a plain call."""

    async def thing() -> float:
        return _seconds(call)

    return thing


async def measure(bench: Bench) -> Result:
    """Measure thing and floor in turns, so that whatever else the machine does hits both."""
    for _ in range(WARM_UP):
        await bench.thing()
        bench.floor()
    things, floors = list[float](), list[float]()
    ends = time.monotonic() + LONGEST
    for number in range(bench.rounds):
        if number >= LEAST and time.monotonic() > ends:
            break
        # Neither always comes first, or runs in caches that the other has just warmed.
        if number % 2:
            floors.append(_seconds(bench.floor))
        things.append(await bench.thing())
        if not number % 2:
            floors.append(_seconds(bench.floor))
    things.sort()
    median, floor = statistics.median(things), statistics.median(floors)
    return Result(
        median=_in_unit(bench, median),
        p99=_in_unit(bench, things[math.ceil(0.99 * len(things)) - 1]),
        unit=bench.unit,
        floor=_in_unit(bench, floor),
        ratio_to_floor=round(median / floor, 2),
    )


def _in_unit(bench: Bench, seconds: float) -> float:
    scale = PER_UNIT.get(bench.unit)
    value = bench.work / seconds if scale is None else seconds / bench.work * scale
    return float(f"{value:.4g}")


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
