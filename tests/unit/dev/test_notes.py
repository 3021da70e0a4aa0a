"""The notes app: what it keeps is encrypted, and outlives a crash, a restart and an upgrade."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("sqlcipher3")

from placet.errors import NotFoundError
from placet_dev.notes import builds
from placet_dev.notes.app.page import render
from placet_dev.notes.app.store import Note, NoteStore, StoreError

KEY = b"k" * 32


def _filled(folder: Path) -> None:
    store = NoteStore(folder, KEY)
    store.add("Buy milk")
    store.add("Call the bank")
    store.close()


def test_notes_outlive_a_restart(tmp_path: Path) -> None:
    """What was added is there again, in order, and is found whatever its case."""
    _filled(tmp_path)
    store = NoteStore(tmp_path, KEY)
    assert [n.text for n in store.find()] == ["Buy milk", "Call the bank"]
    assert store.find("MILK") == (Note(1, "Buy milk"),)
    store.close()


def test_nothing_on_the_disk_is_readable(tmp_path: Path) -> None:
    """No file holds a note, the key it was given, or SQLite's own header."""
    store = NoteStore(tmp_path, KEY)
    store.add("Buy milk")
    on_disk = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    store.close()
    assert b"milk" not in on_disk
    assert b"SQLite format" not in on_disk
    assert KEY not in on_disk
    assert KEY.hex().encode() not in on_disk


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda f: (f / "notes.key").unlink(), id="key file removed"),
        pytest.param(lambda f: (f / "notes.key").write_bytes(b"{}"), id="key file emptied"),
        pytest.param(lambda f: (f / "notes.key").write_bytes(b"\xff"), id="key file garbled"),
        pytest.param(
            lambda f: (
                os.truncate(f / "notes.db", 4096) or (f / "notes.db").write_bytes(b"x" * 8192)
            ),
            id="database overwritten",
        ),
    ],
)
def test_a_damaged_folder_is_refused_and_never_made_anew(tmp_path: Path, damage) -> None:
    """Damage is an error; it is no reason to start with an empty database."""
    _filled(tmp_path)
    damage(tmp_path)
    before = (tmp_path / "notes.db").read_bytes()
    with pytest.raises(StoreError):
        NoteStore(tmp_path, KEY)
    assert (tmp_path / "notes.db").read_bytes() == before


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    """The database's key is wrapped by the one that the agent hands over."""
    _filled(tmp_path)
    with pytest.raises(StoreError, match="another key"):
        NoteStore(tmp_path, b"x" * 32)


def test_a_crash_while_the_key_is_written_leaves_no_half_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the rename there is no key; the next start draws one and goes on."""

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            NoteStore(tmp_path, KEY)
    assert not (tmp_path / "notes.key").exists()
    _filled(tmp_path)
    store = NoteStore(tmp_path, KEY)
    assert len(store.find()) == 2
    store.close()


def test_a_crash_before_the_database_loses_nothing(tmp_path: Path) -> None:
    """A key file alone is a store that is still empty."""
    _filled(tmp_path)
    for name in ("notes.db", "notes.db-wal", "notes.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    store = NoteStore(tmp_path, KEY)
    assert store.find() == ()
    store.close()


def test_the_page_escapes_what_it_shows() -> None:
    """A note is text, whatever it looks like."""
    page = render([Note(1, "<script>")], version="2", search=True, wanted='"><b>')
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page


def test_images_of_two_versions_differ_in_the_edition_only(tmp_path: Path) -> None:
    """The demo's two versions are one file apart."""
    one = builds.write_image(tmp_path / "one", "1")
    two = builds.write_image(tmp_path / "two", "2")
    files = {p.relative_to(one).as_posix() for p in one.rglob("*") if p.is_file()}
    assert files == {p.relative_to(two).as_posix() for p in two.rglob("*") if p.is_file()}
    assert {f for f in files if (one / f).read_bytes() != (two / f).read_bytes()} == {
        "notes/edition.py"
    }


def test_an_unknown_version_is_named(tmp_path: Path) -> None:
    """There is no version 3."""
    with pytest.raises(NotFoundError, match="no version 3"):
        builds.write_image(tmp_path / "three", "3")
