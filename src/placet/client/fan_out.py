"""Ask many vaults at once, and say of each what became of it.

Nobody's silence delays what others can settle, and nobody's silence is forgotten: every
vault has an `Outcome`, and too few of them are a `QuorumError` that names them all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from placet.errors import (
    InternalError,
    MalformedError,
    PlacetError,
    QuorumError,
    UnavailableError,
)

T = TypeVar("T")

_SILENCE = (UnavailableError, InternalError, MalformedError)
"""What is no answer. Everything else that a vault raises is its answer: no."""


class Addressed(Protocol):
    """Something with a vault's id and address."""

    @property
    def id(self) -> str:
        """Return the vault id."""

    @property
    def endpoint(self) -> str:
        """Return ``host:port``."""


V = TypeVar("V", bound=Addressed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """What became of one vault: a value or an error."""

    vault: str
    endpoint: str
    value: T | None
    error: PlacetError | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcomes(Generic[T]):
    """What became of each vault, in the order of the set."""

    each: tuple[Outcome[T], ...]

    @property
    def values(self) -> Mapping[str, T]:
        """Return what vaults answered, by vault id."""
        return {o.vault: o.value for o in self.each if o.value is not None}

    @property
    def errors(self) -> Mapping[str, PlacetError]:
        """Return why others did not, by vault id."""
        return {o.vault: o.error for o in self.each if o.error is not None}

    def replaced(self, newer: Outcomes[T]) -> Outcomes[T]:
        """Return these, with the outcomes of vaults that were asked again."""
        again = {o.vault: o for o in newer.each}
        return Outcomes(tuple(again.get(o.vault, o) for o in self.each))

    def refusal(self, needed: int) -> PlacetError | None:
        """Return the one answer because of which ``needed`` vaults can never be reached.

        Vaults that are silent do not count: of them nobody knows what they would say.
        """
        said = [e for e in self.errors.values() if not isinstance(e, _SILENCE)]
        if not said:
            return None
        [(kind, count)] = Counter(type(e) for e in said).most_common(1)
        if count <= len(self.each) - needed:
            return None
        return next(e for e in said if type(e) is kind)

    def quorum_error(self, needed: int) -> QuorumError:
        """Return the error that names what became of each vault."""
        named = [
            {
                "vault": o.vault,
                "endpoint": o.endpoint,
                "became": o.error.type,
                "why": o.error.detail,
            }
            for o in self.each
            if o.error is not None
        ]
        listed = ", ".join(f"{v['endpoint']} {v['became']}" for v in named)
        good, n = len(self.values), len(self.each)
        return QuorumError(
            f"{good} of {n} vaults answered, {needed} are needed: {listed}",
            "Trying again is safe. Bring back the vaults named here, or wait for them.",
            needed=needed,
            answered=good,
            vaults=named,
        )


def at_least(count: int) -> Callable[[Outcomes[T]], bool]:
    """Return the test whether that many vaults answered."""
    return lambda outcomes: len(outcomes.values) >= count


async def fan_out(
    vaults: Sequence[V],
    call: Callable[[V], Awaitable[T]],
    *,
    enough: Callable[[Outcomes[T]], bool] | None = None,
    deadline: float,
    background: set[asyncio.Task[Outcome[T]]] | None = None,
) -> Outcomes[T]:
    """Call every vault at the same time; wait for enough of them, or for the deadline.

    Args:
        vaults: Whom to ask.
        call: What to ask; a `PlacetError` is that vault's outcome, others come out here.
        enough: Called after every answer. ``None``: wait for all.
        deadline: Seconds. Who has not answered by then is given up.
        background: Where calls go that nobody waits for any longer: they finish, so
            that their connection can be used again. ``None``: they are cancelled.
    """
    started = asyncio.get_running_loop().time()
    tasks = {asyncio.create_task(_ask(v, call, started)): v for v in vaults}
    pending = set(tasks)
    try:
        while pending:
            left = started + deadline - asyncio.get_running_loop().time()
            done, pending = await asyncio.wait(
                pending, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                return _so_far(tasks, f"no answer within {deadline:g} seconds", started)
            outcomes = _so_far(tasks, "was not waited for: others were enough", started)
            if enough is not None and enough(outcomes):
                if background is not None:
                    background |= pending
                    for task in pending:
                        task.add_done_callback(background.discard)
                    pending = set()
                return outcomes
        return _so_far(tasks, "", started)
    finally:
        for task in pending:
            task.cancel()


async def _ask(vault: V, call: Callable[[V], Awaitable[T]], started: float) -> Outcome[T]:
    try:
        return _outcome(vault, started, value=await call(vault))
    except PlacetError as e:
        return _outcome(vault, started, error=e)


def _so_far(
    tasks: Mapping[asyncio.Task[Outcome[T]], Addressed], silent: str, started: float
) -> Outcomes[T]:
    return Outcomes(
        tuple(
            t.result() if t.done() else _outcome(v, started, error=UnavailableError(silent))
            for t, v in tasks.items()
        )
    )


def _outcome(
    vault: Addressed, started: float, *, value: T | None = None, error: PlacetError | None = None
) -> Outcome[T]:
    seconds = asyncio.get_running_loop().time() - started
    return Outcome(
        vault=vault.id, endpoint=vault.endpoint, value=value, error=error, seconds=seconds
    )
