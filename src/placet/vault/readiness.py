"""Why a vault should get no requests now: asked by load balancers, never by the vault itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from placet.core.encoding import Record
from placet.errors import PlacetError, VerificationError
from placet.storage.log import Log
from placet.vault.standing_rule import StandingRule


class Reason(Record):
    """One reason not to be ready. Programs read ``reason``, people ``detail``."""

    reason: str
    detail: str


Source = Callable[[], Iterable[Reason]]


class Readiness:
    """Reasons of all parts of a vault, asked afresh each time.

    It decides nothing: whether a vault may release, its own rules say (I17).
    """

    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._draining = ""

    def add(self, source: Source) -> None:
        """Ask this part as well."""
        self._sources.append(source)

    def drain(self, why: str) -> None:
        """Say from now on that this vault is about to end."""
        self._draining = why

    def reasons(self) -> tuple[Reason, ...]:
        """Return what there is against sending requests here; nothing if all is well."""
        found = list[Reason]()
        for source in self._sources:
            try:
                found += source()
            except PlacetError as e:
                found.append(_broken(e))  # it cannot say: that is no yes
        if self._draining:
            found.append(Reason(reason="draining", detail=self._draining))
        return tuple(dict.fromkeys(found))


def store_reasons(log: Log) -> Source:
    """Return a source that reads the last log entry, and whether the tree still holds it."""

    def look() -> Iterable[Reason]:
        try:
            if size := log.head()[0]:
                log.proof(size - 1)
        except PlacetError as e:
            yield _broken(e)

    return look


def _broken(e: PlacetError) -> Reason:
    reason = "quarantined" if isinstance(e, VerificationError) else "store"
    return Reason(reason=reason, detail=e.detail)


def standing_reasons(standing: StandingRule) -> Source:
    """Return a source that says why this vault does not stand, if it does not (I6)."""

    def look() -> Iterable[Reason]:
        report = standing.report()
        if report.state != "standing":
            told = f"{report.state}: {report.reason}, {report.witnessed} entries were witnessed"
            names = f", waits for {', '.join(report.waiting)}" if report.waiting else ""
            yield Reason(reason=report.state, detail=f"{told} of {report.size}{names}")

    return look
