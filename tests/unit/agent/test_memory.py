"""What an app remembers of its vaults: only rises, and whoever edits it is noticed (spec/08, 5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from placet.agent.memory import (
    MEMORY,
    Memory,
    SeenLog,
    Shown,
    open_memory,
    remember,
    shorter,
    write_memory,
)
from placet.agent.volume import HEADER, EmbeddedVolume, Unlocked
from placet.core.encoding import encode
from placet.errors import UnavailableError, VerificationError

KEY = "sha256:" + "01" * 32
A, B, C = (f"sha256:{n:064x}" for n in (10, 11, 12))
OLD, NEW, OTHER = (f"sha256:{n:064x}" for n in (20, 21, 22))
MAC = b"m" * 32
DATA_KEY = bytearray(b"d" * 32)


def shown(head: str, version: int, **indices: int) -> dict[str, Shown]:
    """Return what vaults show, by the names above."""
    names = {"a": A, "b": B, "c": C}
    return {
        names[n]: Shown(version=version, head=head, log=SeenLog(vault=names[n], index=index))
        for n, index in indices.items()
    }


def read(folder: Path, *, expected: bool = True) -> Memory:
    """Return what is remembered."""
    return open_memory(folder, KEY, MAC, expected=expected)


def test_what_is_remembered_only_rises(tmp_path: Path) -> None:
    """A newer head of k vaults and longer logs replace what was there; older ones never do."""
    first = read(tmp_path, expected=False)
    assert (first.head, first.logs) == (None, ())
    remember(tmp_path, first, shown(OLD, 1, a=4, b=7), MAC, k=2)
    second = read(tmp_path)
    assert (second.version, second.head) == (1, OLD)
    remember(tmp_path, second, shown(NEW, 2, a=5, b=9), MAC, k=2)
    # Another instance, that began before and ends later.
    remember(tmp_path, second, shown(OLD, 1, a=6, b=8, c=1), MAC, k=2)
    third = read(tmp_path)
    assert (third.version, third.head) == (2, NEW)
    assert {log.vault: log.index for log in third.logs} == {A: 6, B: 9, C: 1}


def test_a_head_of_fewer_than_k_is_not_remembered(tmp_path: Path) -> None:
    """It may be on a branch that loses, and would keep the app out for ever."""
    remember(tmp_path, Memory(key=KEY), shown(OLD, 1, a=1, b=1), MAC, k=2)
    split = {**shown(NEW, 2, a=2), **shown(OTHER, 2, b=2)}
    remember(tmp_path, read(tmp_path), split, MAC, k=2)
    assert (read(tmp_path).version, read(tmp_path).head) == (1, OLD)


def test_a_log_is_shorter_only_than_itself() -> None:
    """The same number again is no growth; another process of a vault has a log of its own."""
    memory = Memory(key=KEY, logs=(SeenLog(vault=A, index=5), SeenLog(vault=B, index=5)))
    assert shorter(memory, shown(OLD, 1, a=5, b=6, c=0)) == (A,)
    line = Shown(version=1, head=OLD, log=SeenLog(vault=A, line="0" * 16, index=0))
    assert shorter(memory, {A: line}) == ()


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "an older version": lambda raw: raw.replace(b'"version":2', b'"version":1'),
    "another head": lambda raw: raw.replace(NEW.encode(), OLD.encode()),
    "a shorter log": lambda raw: raw.replace(b'"index":9', b'"index":0'),
    "another key": lambda raw: raw.replace(KEY.encode(), OTHER.encode()),
    "no mac": lambda raw: raw[: raw.index(b'"mac":"') + 7] + raw[raw.index(b'","schema') :],
    "cut": lambda raw: raw[:-1],
    "too long": lambda raw: raw + b" " * 70_000,
    "empty": lambda _: b"",
    "a new one without a mac": lambda _: encode(Memory(key=KEY)),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edited_memory_is_refused(tmp_path: Path, edit: Callable[[bytes], bytes]) -> None:
    """By who reads it, and by who is about to write over it."""
    before = Memory(key=KEY, version=2, head=NEW, logs=(SeenLog(vault=A, index=9),))
    write_memory(tmp_path, before, MAC)
    path, good = tmp_path / MEMORY, read(tmp_path)
    edited = edit(path.read_bytes())
    assert edited != path.read_bytes()
    path.write_bytes(edited)
    for step in (
        lambda: read(tmp_path),
        lambda: remember(tmp_path, good, shown(NEW, 2, a=10), MAC, k=1),
    ):
        with pytest.raises(VerificationError) as refused:
            step()
        assert refused.value.members["reason"] == "memory"
    assert path.read_bytes() == edited


def test_a_memory_that_was_taken_away_is_missed(tmp_path: Path) -> None:
    """Where the header says that there is one, or there was one a moment ago."""
    with pytest.raises(VerificationError, match="missing"):
        read(tmp_path)
    write_memory(tmp_path, Memory(key=KEY), MAC)
    good = read(tmp_path)
    (tmp_path / MEMORY).unlink()
    with pytest.raises(VerificationError, match="missing"):
        remember(tmp_path, good, shown(NEW, 2, a=1), MAC, k=1)


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    """And leaves what was there."""
    (tmp_path / MEMORY).mkdir()
    with pytest.raises(UnavailableError, match="cannot be"):
        remember(tmp_path, Memory(key=KEY), shown(OLD, 1, a=1), MAC, k=1)


# --- the volume ---------------------------------------------------------------------------------


def unlocked(folder: Path) -> Unlocked:
    """Format a volume and unlock it."""
    volume = EmbeddedVolume(folder)
    volume.format(DATA_KEY, key=KEY, generation=1)
    return volume.unlock(DATA_KEY, key=KEY)


@pytest.mark.req("I16")
def test_a_formatted_volume_has_a_memory_from_its_first_moment(tmp_path: Path) -> None:
    """A kill between memory and header leaves an empty volume, which is formatted again."""
    first = unlocked(tmp_path / "a")
    assert first.remembers
    empty = open_memory(first.path, KEY, first.memory_key, expected=True)
    assert (empty.head, empty.logs) == (None, ())
    (first.path / HEADER).unlink()
    assert EmbeddedVolume(first.path).state() == "empty"
    again = unlocked(first.path)
    assert open_memory(again.path, KEY, again.memory_key, expected=True).head is None


def test_a_memory_belongs_to_one_volume(tmp_path: Path) -> None:
    """That of another volume of the same key does not fit, and no child gets its key."""
    one, two = unlocked(tmp_path / "a"), unlocked(tmp_path / "b")
    assert one.memory_key not in (one.secret, bytes(DATA_KEY), two.memory_key)
    (two.path / MEMORY).write_bytes((one.path / MEMORY).read_bytes())
    with pytest.raises(VerificationError):
        open_memory(two.path, KEY, two.memory_key, expected=True)
