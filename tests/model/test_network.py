"""R8.1: whatever the network does to messages, nothing breaks, and healed everything converges."""

from __future__ import annotations

import pytest
from placet_testing.network import simulate


@pytest.mark.req("R8.1", "R8.2", "I1", "I5", "I12")
def test_a_slice_of_the_seeds() -> None:
    """300 seeds; `make nightly` runs a hundred thousand."""
    counts = simulate(range(300))
    assert counts["seeds"] == 300
    # The slice is worth something: it forks, merges and goes on.
    assert counts["merged"] >= 20
    assert counts["longest"] >= 5
