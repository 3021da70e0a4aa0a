"""What an app remembers of its vaults: only rises, and whoever edits it is noticed (spec/08, 5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from placet.agent.memory import MEMORY, Memory, Seen, SeenLog, open_memory, remembered, write_memory
from placet.agent.volume import HEADER, EmbeddedVolume, Header, Unlocked, _mac
from placet.core.dsse import Signed
from placet.core.encoding import b64, decode, encode
from placet.errors import UnavailableError, VerificationError

KEY = "sha256:" + "01" * 32
A, B, C = (f"sha256:{n:064x}" for n in (10, 11, 12))
OLD, NEW, OTHER = (f"sha256:{n:064x}" for n in (20, 21, 22))
MAC = b"m" * 32
DATA_KEY = bytearray(b"d" * 32)


def status(number: int) -> Signed:
    """Return something that a vault signed; nothing here opens it."""
    return Signed(payload=b64(bytes([number])), vault_key=b64(bytes(32)), signature=b64(bytes(64)))


def log(vault: str, number: int) -> SeenLog:
    """Return what a vault said of its log at a moment."""
    return SeenLog(vault=vault, status=status(number))


def seen(head: str, version: int, **numbers: int) -> dict[str, Seen]:
    """Return what vaults show, by the names above."""
    names = {"a": A, "b": B, "c": C}
    return {
        names[n]: Seen(version=version, head=head, log=log(names[n], number))
        for n, number in numbers.items()
    }


def read(folder: Path, *, expected: bool = True) -> Memory:
    """Return what is remembered."""
    return open_memory(folder, KEY, MAC, expected=expected)


def add(folder: Path, memory: Memory, found: dict[str, Seen], *, k: int = 2) -> bool:
    """Remember what was found to be as far as a memory."""
    return remembered(folder, memory, memory.with_seen(found, k=k), MAC)


def test_what_is_remembered_only_rises(tmp_path: Path) -> None:
    """What was compared replaces what it was compared with, and nothing else."""
    first = read(tmp_path, expected=False)
    assert (first.head, first.logs) == (None, ())
    assert add(tmp_path, first, seen(OLD, 1, a=4, b=7))
    second = read(tmp_path)
    assert (second.version, second.head) == (1, OLD)
    assert add(tmp_path, second, seen(NEW, 2, a=5, b=9))
    third = read(tmp_path)
    assert (third.version, third.head) == (2, NEW)
    # Another instance, that began before and ends later: it looks again.
    for late in (first, second):
        assert not add(tmp_path, late, seen(OLD, 1, a=6, b=8, c=1))
    assert read(tmp_path) == third
    assert add(tmp_path, third, seen(OLD, 1, a=6, c=1))
    last = read(tmp_path)
    assert (last.version, last.head) == (2, NEW)
    assert last.logs == (log(B, 9), log(A, 6), log(C, 1))


def test_a_head_of_fewer_than_k_is_not_remembered(tmp_path: Path) -> None:
    """It may be on a branch that loses, and would keep the app out for ever."""
    assert add(tmp_path, Memory(key=KEY), seen(OLD, 1, a=1, b=1))
    assert add(tmp_path, read(tmp_path), {**seen(NEW, 2, a=2), **seen(OTHER, 2, b=2)})
    assert (read(tmp_path).version, read(tmp_path).head) == (1, OLD)


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "an older version": lambda raw: raw.replace(b'"version":2', b'"version":1'),
    "another head": lambda raw: raw.replace(NEW.encode(), OLD.encode()),
    "another log": lambda raw: raw.replace(status(9).payload.encode(), status(0).payload.encode()),
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
    before = Memory(key=KEY, version=2, head=NEW, logs=(log(A, 9),))
    write_memory(tmp_path, before, MAC)
    path, good = tmp_path / MEMORY, read(tmp_path)
    edited = edit(path.read_bytes())
    assert edited != path.read_bytes()
    path.write_bytes(edited)
    for step in (
        lambda: read(tmp_path),
        lambda: add(tmp_path, good, seen(NEW, 2, a=10)),
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
        add(tmp_path, good, seen(NEW, 2, a=1))


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    """And leaves what was there."""
    (tmp_path / MEMORY).mkdir()
    with pytest.raises(UnavailableError, match="cannot be"):
        add(tmp_path, Memory(key=KEY), seen(OLD, 1, a=1))


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


def test_a_volume_of_before_remembers_from_its_next_start(tmp_path: Path) -> None:
    """It has no memory, and its header asks for none: until there is one."""
    first = unlocked(tmp_path)
    header = decode((tmp_path / HEADER).read_bytes(), Header)
    bare = replace(header, remembers=UNSET, mac="")
    old = encode(replace(bare, mac=b64(_mac(DATA_KEY, bare))))
    (tmp_path / HEADER).write_bytes(old)
    (tmp_path / MEMORY).unlink()

    def start() -> Unlocked:
        return EmbeddedVolume(tmp_path).unlock(DATA_KEY, key=KEY)

    for _ in range(2):  # the second: the first was killed before it remembered anything
        started = start()
        assert (started.secret, started.remembers) == (first.secret, False)
        empty = open_memory(tmp_path, KEY, started.memory_key, expected=False)
    assert remembered(
        tmp_path, empty, empty.with_seen(seen(OLD, 1, a=1, b=1), k=2), started.memory_key
    )
    assert (tmp_path / HEADER).read_bytes() == old
    again = start()
    assert (again.secret, again.remembers) == (first.secret, True)
    assert open_memory(tmp_path, KEY, again.memory_key, expected=True).head == OLD
    # From here on it is missed.
    (tmp_path / MEMORY).unlink()
    with pytest.raises(VerificationError, match="missing"):
        open_memory(tmp_path, KEY, again.memory_key, expected=start().remembers)
