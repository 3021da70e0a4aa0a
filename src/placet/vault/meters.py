"""Numbers for whoever runs a vault, in Prometheus' text format (version 0.0.4).

Our own sixty lines in place of a client library: docs/adr/0027. Names and labels are fixed
words of this code, so that no key, label or peer can come in by a number's name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from placet.errors import PlacetError
from placet.vault.watch import Answered

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
RELEASE = "/v1/keys/{key}/release"
OTHER = "other"

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Histogram:
    """How often what was measured was no more than each of some bounds."""

    name: str
    about: str
    bounds: tuple[float, ...] = SECONDS
    _counts: list[int] = field(default_factory=list)
    _sum: float = 0.0

    def __post_init__(self) -> None:
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one measurement."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += value

    def lines(self) -> list[str]:
        """Return it as text."""
        found, total = _head(self.name, self.about, "histogram"), 0
        for bound, count in zip((*map(_number, self.bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append(f'{self.name}_bucket{{le="{bound}"}} {total}')
        return [*found, f"{self.name}_sum {_number(self._sum)}", f"{self.name}_count {total}"]


class Meters:
    """All that one vault counts. Not for use by several threads."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[str, Counter[Labels]]] = {}
        self._gauges: dict[str, tuple[str, Callable[[], float | Mapping[str, float] | None]]] = {}
        self._histograms: list[Histogram] = []
        self.releases = self.histogram(
            "placet_release_seconds", "Time from a release's arrival to its answer."
        )

    def histogram(self, name: str, about: str, bounds: tuple[float, ...] = SECONDS) -> Histogram:
        """Return a histogram that is shown from now on."""
        self._histograms.append(Histogram(name, about, bounds))
        return self._histograms[-1]

    def gauge(
        self, name: str, about: str, read: Callable[[], float | Mapping[str, float] | None]
    ) -> None:
        """Show what ``read`` returns when somebody asks: a number, some by ``kind``, or nothing."""
        self._gauges[name] = about, read

    def count(self, name: str, about: str, **labels: str) -> None:
        """Count one event."""
        _, counts = self._counts.setdefault(name, (about, Counter()))
        counts[tuple(labels.items())] += 1

    def answered(self, answered: Answered) -> None:
        """Count one request."""
        outcome = answered.problem or "ok"
        method = answered.method if answered.method in {"GET", "POST"} else OTHER
        self.count(
            "placet_requests_total",
            "Requests answered, by route and problem type.",
            method=method, route=answered.route, role=answered.role, outcome=outcome,
        )  # fmt: skip
        if answered.status == 403:  # noqa: PLR2004 - RFC 9110, 15.5.4
            self.count("placet_denials_total", "Requests refused, by problem type.", type=outcome)
        if answered.route == RELEASE:
            self.releases.observe(answered.seconds)

    def render(self) -> str:
        """Return all of it as text."""
        lines = []
        for name, (about, counts) in sorted(self._counts.items()):
            lines += _head(name, about, "counter")
            lines += [f"{name}{_labels(labels)} {n}" for labels, n in sorted(counts.items())]
        for name, (about, read) in sorted(self._gauges.items()):
            value = None
            with suppress(PlacetError):  # while the store is away, the rest is still told
                value = read()
            if value is None:
                continue
            lines += _head(name, about, "gauge")
            if isinstance(value, Mapping):
                lines += [f'{name}{{kind="{k}"}} {_number(v)}' for k, v in sorted(value.items())]
            else:
                lines.append(f"{name} {_number(value)}")
        for histogram in self._histograms:
            lines += histogram.lines()
        return "\n".join(lines) + "\n"


def _head(name: str, about: str, kind: str) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}"


def _number(value: float) -> str:
    return repr(round(value, 9)).removesuffix(".0")
