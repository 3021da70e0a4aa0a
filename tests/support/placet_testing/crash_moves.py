"""Steps of the story in a database: the rows that lie in a file, as they are."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from placet.storage.postgresql import PostgresqlBackend
from placet_testing.backends import TABLES, Postgresql, Sqlite
from placet_testing.clients import memory_folder
from placet_testing.crash_story import Story


def lay(story: Story, step: str, number: int, backend: Postgresql, to: Path) -> None:
    """Put a vault's rows at a step into a database, in place of what is there."""
    place = story.folder / step / f"served{number}.db"
    if backend.place(place) not in story.moved:
        _move(place, backend)
        story.moved.add(backend.place(place))
    backend.copy(place, to)


def _move(place: Path, backend: Postgresql) -> None:
    with memory_folder() as folder:
        # A copy: who opens a file with a write-ahead log may fold it.
        file = folder / place.name
        Sqlite().copy(place, file)
        with Sqlite().hand(file) as old:
            rows = {name: old.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES}
    with closing(PostgresqlBackend(backend.place(place))) as tables:
        tables.open()
    with backend.hand(place) as new:
        for name, found in rows.items():
            for row in found:
                new.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
