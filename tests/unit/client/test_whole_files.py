"""Files that are written whole or not at all; tests/crash kills and takes the power meanwhile."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from placet.client.whole_files import write_whole


def names(folder):
    """Return what is in a folder."""
    return [p.name for p in folder.iterdir()]


def test_a_file_is_written_replaced_and_only_ours(tmp_path):
    """Folders are made; the mode is the narrow one; nothing is left beside it."""
    path = tmp_path / "a" / "b" / "file.json"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert names(path.parent) == ["file.json"]


def test_what_a_crash_left_is_in_nobodys_way(tmp_path):
    """A half-written part of before is replaced, also when its name was cut to fit."""
    for name in ("file", "f" * 255):
        (tmp_path / f".{name[:200]}.part").write_bytes(b"half")
        write_whole(tmp_path / name, b"whole")
        assert (tmp_path / name).read_bytes() == b"whole"
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_is_there_stays(tmp_path, monkeypatch, links):
    """Not replaced unless that is asked for, on file systems without links as well."""
    if not links:

        def refuse(*_):
            raise PermissionError(1, "no links here")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "key.pem"
    write_whole(path, b"one", over=False)
    with pytest.raises(FileExistsError):
        write_whole(path, b"two", over=False)
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["key.pem"]


def test_what_cannot_be_written_leaves_the_old_one(tmp_path):
    """A folder in the way, a folder that is a file: an error, and nothing changed."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_whole(tmp_path / "taken", b"x")
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "file" / "inside", b"x")
    assert (tmp_path / "file").read_bytes() == b"old"
