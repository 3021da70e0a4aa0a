"""A flood of requests that are refused: bounded growth, exact counts (R7.5)."""

from __future__ import annotations

from pathlib import Path

import pytest
from placet_testing import backends
from placet_testing.charters import profile
from placet_testing.constellations import Story, begin
from placet_testing.exports import audited, export

from placet.core.limits import MAX_DENIALS
from placet.errors import NotApprovedError
from placet_audit.report import refused

MINUTES = 10


def lies(story: Story) -> int:
    """Return how many bytes the first vault's store has; the write-ahead log is part of a file."""
    path = story.folder / "vault1.db"
    if backends.chosen().name == "sqlite":
        return sum(f.stat().st_size for f in path.parent.glob(f"{path.name}*"))
    with backends.hand(path) as db:
        sizes = [
            db.execute("SELECT pg_total_relation_size(CAST(? AS regclass))", (table,)).fetchall()
            for table in backends.TABLES
        ]
    return sum(size for ((size,),) in sizes)


@pytest.mark.req("R7.5")
@pytest.mark.parametrize(
    ("backend", "flood"), [("sqlite", 100_000), ("postgresql", 20_000)], indirect=["backend"]
)
@pytest.mark.usefixtures("backend")
def test_a_flood_of_refusals_is_bounded_and_counted(tmp_path: Path, flood: int) -> None:
    """100,000 refused releases in ten minutes: eleven entries a minute, and none is lost."""
    (tmp_path / "vaults").mkdir()
    story = begin(tmp_path / "vaults")
    bench, start = story.benches[0], story.clock.time
    before = bench.log.head()[0]
    size = lies(story)
    for i in range(flood):
        if i % (flood // MINUTES) == 0:
            story.clock.time = start + 60 * (i * MINUTES // flood)
            story.clock.ticks += 60
        with pytest.raises(NotApprovedError):
            story.release(0, profile(2))
    bench.log.settle(now=story.clock.time + 60)
    story.clock.time += 60
    assert bench.log.head()[0] - before == MINUTES * (MAX_DENIALS + 1)
    assert lies(story) - size < 2**23
    export(story, tmp_path / "out")
    result = audited(tmp_path / "out")
    assert result.findings == []
    assert refused(next(iter(result.replays.values()))) == flood
    assert story.gather(profile(1))  # others are served as ever
    story.close()
