"""What a host can do to one vault, in every order: no stale process serves for long (spec/10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from placet_model.continuity import BrokenError, Model

from placet.policy import continuity

SCOPES = {
    "n=3 k=2, one process after two others": Model(n=3, k=2, outside=0, starts=3),
    "n=3 k=2, with a witness from outside": Model(n=3, k=2, outside=1),
    "n=5 k=3": Model(n=5, k=3, outside=0, lossy=False),
}


@pytest.mark.req("I6", "R2.1", "R2.3", "R2.8")
@pytest.mark.parametrize("scope", SCOPES)
def test_no_stale_process_serves_past_a_lease(scope: str) -> None:
    """Every state; among them are processes that served after another one, or stopped for it."""
    model = SCOPES[scope]
    model.run()
    assert model.served_again
    assert {"rolled-back", "displaced"} <= model.refused
    assert ("cloned" in model.refused) == (model.starts > 2)


receive = continuity.receive


def _forgetful(_seen: Any, request: Any, *, own: str) -> Any:
    return receive(None, request, own=own)


def _later_start_is_enough(seen: Any, request: Any, *, own: str) -> Any:
    heard = receive(None, request, own=own)
    return heard if seen and heard.seen.boots > seen.boots else receive(seen, request, own=own)


def _any_start(seen: Any, request: Any, *, own: str) -> Any:
    heard = receive(None, request, own=own)
    same = seen and (heard.seen.size, heard.seen.root) == (seen.size, seen.root)
    return heard if same else receive(seen, request, own=own)


BUGS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "a witness remembers nothing": (continuity, "receive", _forgetful),
    "a later start may have a shorter log": (continuity, "receive", _later_start_is_enough),
    "each copy of a start is the newest": (continuity, "receive", _any_start),
    "k - 1 others are enough": (continuity, "quorum", lambda _n, k, _m: k - 1),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a state in which an invariant does not hold, told with the steps to it."""
    where, name, new = BUGS[bug]
    monkeypatch.setattr(where, name, new)
    with pytest.raises(BrokenError) as broken:
        Model(n=3, k=2, outside=0, starts=3).run()
    print(f"{bug}: {broken.value}")  # noqa: T201 - what found it, with -rP


def test_an_answer_that_counts_for_ever_is_found() -> None:
    """Without leases two processes serve for as long as their host likes."""
    with pytest.raises(BrokenError, match="two processes serve"):
        Model(n=3, k=2, outside=0, trust_answer_forever=True).run()
