"""The embedded volume: formatted once, opened by its key only, never over anything (spec/08)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from placet.agent.memory import MEMORY
from placet.agent.volume import CHARTER, HEADER, EmbeddedVolume
from placet.errors import PlacetError, PolicyDeniedError, UnavailableError, VerificationError

KEY, OTHER = "sha256:" + "01" * 32, "sha256:" + "02" * 32
SECRET = bytearray(b"d" * 32)


def made(folder: Path) -> EmbeddedVolume:
    """Return a formatted volume."""
    volume = EmbeddedVolume(folder)
    volume.format(SECRET, key=KEY, generation=1)
    return volume


def test_what_is_derived_is_the_same_at_every_boot_and_never_the_data_key(tmp_path: Path) -> None:
    """One volume, one secret; another volume of the same key has another."""
    first = made(tmp_path / "a").unlock(SECRET, key=KEY)
    assert EmbeddedVolume(tmp_path / "a").unlock(SECRET, key=KEY).secret == first.secret
    assert made(tmp_path / "b").unlock(SECRET, key=KEY).secret != first.secret
    assert first.secret != bytes(SECRET)
    assert "secret" not in repr(first)


@pytest.mark.req("I9")
@pytest.mark.parametrize("name", ["notes.db", ".hidden", "folder", HEADER + ".bak"])
def test_a_folder_that_holds_anything_is_never_formatted(tmp_path: Path, name: str) -> None:
    """Not a file, not a hidden one, not an empty folder."""
    (tmp_path / name).mkdir() if name == "folder" else (tmp_path / name).write_text("x")
    volume = EmbeddedVolume(tmp_path)
    for step in (volume.state, lambda: volume.format(SECRET, key=KEY, generation=1)):
        with pytest.raises(PolicyDeniedError) as refused:
            step()
        assert refused.value.members["reason"] == "volume-foreign"
    assert {p.name for p in tmp_path.iterdir()} == {name}


def test_a_formatted_volume_is_not_formatted_again(tmp_path: Path) -> None:
    """Whatever the key."""
    volume = made(tmp_path)
    whole = (tmp_path / HEADER).read_bytes()
    with pytest.raises(PolicyDeniedError):
        volume.format(SECRET, key=OTHER, generation=1)
    assert (tmp_path / HEADER).read_bytes() == whole


def test_what_a_platform_or_a_crash_left_is_nobodys_data(tmp_path: Path) -> None:
    """A charter, or a header that was not renamed yet: the volume is still empty."""
    (tmp_path / CHARTER).write_text("{}")
    (tmp_path / f".{HEADER}.part").write_text("half")
    assert EmbeddedVolume(tmp_path).state() == "empty"
    assert made(tmp_path).state() == "formatted"


EDITS = {
    "another key's id": lambda raw: raw.replace(b"01" * 32, b"02" * 32),
    "another generation": lambda raw: raw.replace(b'"generation":1', b'"generation":2'),
    "another salt": lambda raw: raw.replace(b'"salt":"', b'"salt":"A', 1),
    "no mac": lambda raw: raw[: raw.index(b'"mac":"') + 7] + raw[raw.index(b'","remembers') :],
    "cut": lambda raw: raw[:-1],
    "another driver": lambda raw: raw.replace(b"embedded", b"null"),
    "a field more": lambda raw: raw.replace(b'{"driver"', b'{"cipher":"none","driver"'),
    "too long": lambda raw: raw + b" " * 5000,
    "empty": lambda _: b"",
}


@pytest.mark.req("I9")
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edited_header_opens_nothing(tmp_path: Path, edit: object) -> None:
    """One changed field, and the volume stays shut; the file is left as it was."""
    volume = made(tmp_path)
    header = tmp_path / HEADER
    edited = edit(header.read_bytes())  # type: ignore[operator]
    header.write_bytes(edited)
    for key in (KEY, OTHER):
        with pytest.raises(PlacetError):
            volume.unlock(SECRET, key=key)
    assert header.read_bytes() == edited


def test_another_data_key_opens_nothing(tmp_path: Path) -> None:
    """The header's MAC is the first thing that a wrong key meets (I7)."""
    volume = made(tmp_path)
    with pytest.raises(VerificationError):
        volume.unlock(bytearray(32), key=KEY)


def test_a_disk_that_fails_is_said_so(tmp_path: Path) -> None:
    """A file in place of the folder: typed, with the reason of the system."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnavailableError):
        EmbeddedVolume(tmp_path / "file").state()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_killed_while_formatting_the_volume_is_empty_or_whole(tmp_path: Path, call: str) -> None:
    """SIGKILL before each step that makes it durable: the next boot formats, or opens."""
    code = f"""
import os, signal, sys, pathlib
sys.path[:0] = {sys.path!r}
from placet.agent.volume import EmbeddedVolume
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
target = os if {call!r} == "fsync" else pathlib.Path
setattr(target, {call!r}, die)
EmbeddedVolume(pathlib.Path({str(tmp_path)!r})).format(b"d" * 32, key={KEY!r}, generation=1)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    volume = EmbeddedVolume(tmp_path)
    if volume.state() == "empty":
        volume.format(SECRET, key=KEY, generation=1)
    assert volume.unlock(SECRET, key=KEY).secret
    assert {p.name for p in tmp_path.iterdir()} == {HEADER, MEMORY}
