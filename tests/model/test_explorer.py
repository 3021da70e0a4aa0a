"""All interleavings of short scripts at three vaults, of which any two serve."""

from __future__ import annotations

import pytest
from placet_model.explorer import SCRIPTS, Explorer
from placet_model.ideal import ideal

STATES = {
    "retire and promote": 5_700,
    "delete and promote": 2_200,
}
"""What CI visits, and how many states at least; `make nightly` visits all scripts."""


@pytest.mark.req("I1", "I5", "I12", "R5.8", "R8.2")
@pytest.mark.parametrize("name", STATES)
def test_every_state_is_as_the_oracle_says(name: str) -> None:
    """No order of messages, time, restarts and receipts breaks anything."""
    script = next(s for s in SCRIPTS if s.name == name)
    with ideal():
        explorer = Explorer(script)
        explorer.run(1_000_000)
    print(f"{name}: {explorer.states} states, {explorer.events} events")  # noqa: T201 - the report
    assert explorer.states >= STATES[name]
    assert explorer.answers >= {"taken", "refused"}
