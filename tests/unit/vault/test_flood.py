"""A flood of requests that are refused: bounded growth, exact counts (R7.5)."""

from __future__ import annotations

from pathlib import Path

import pytest
from placet_testing.charters import profile
from placet_testing.constellations import begin
from placet_testing.exports import audited, export

from placet.core.limits import MAX_DENIALS
from placet.errors import NotApprovedError
from placet_audit.report import refused

FLOOD, MINUTES = 100_000, 10


@pytest.mark.req("R7.5")
def test_a_flood_of_refusals_is_bounded_and_counted(tmp_path: Path) -> None:
    """100,000 refused releases in ten minutes: eleven entries a minute, and none is lost."""
    (tmp_path / "vaults").mkdir()
    story = begin(tmp_path / "vaults")
    bench, start = story.benches[0], story.clock.time
    before = bench.log.head()[0]
    size = sum(f.stat().st_size for f in story.folder.glob("vault1.db*"))
    for i in range(FLOOD):
        if i % (FLOOD // MINUTES) == 0:
            story.clock.time = start + 60 * (i * MINUTES // FLOOD)
            story.clock.ticks += 60
        with pytest.raises(NotApprovedError):
            story.release(0, profile(2))
    bench.log.settle(now=story.clock.time + 60)
    story.clock.time += 60
    assert bench.log.head()[0] - before == MINUTES * (MAX_DENIALS + 1)
    # The write-ahead log included, which is cut back now and then.
    assert sum(f.stat().st_size for f in story.folder.glob("vault1.db*")) - size < 2**23
    export(story, tmp_path / "out")
    result = audited(tmp_path / "out")
    assert result.findings == []
    assert refused(next(iter(result.replays.values()))) == FLOOD
    assert story.gather(profile(1))  # others are served as ever
    story.close()
