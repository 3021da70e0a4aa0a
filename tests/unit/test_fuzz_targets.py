"""Every fuzz target over its saved corpus and mutations of it, without the fuzzer.

A target lets errors of ours pass and nothing else, so an input that merely returns is a
test that passed. `make fuzz` searches for more of them.
"""

from __future__ import annotations

import random
import sys
import time
import tracemalloc
from importlib import import_module
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
CORPUS = sorted(d for d in (FUZZ / "corpus").iterdir() if d.is_dir())
MAX_CORPUS = 1 << 20
LONGEST = 64 * 1024
STEPS = 30


@pytest.fixture(scope="module", name="targets")
def _targets():
    """Give the targets by name; the fuzzer's folder is no package."""
    sys.path.insert(0, str(FUZZ))
    try:
        return import_module("targets").TARGETS
    finally:
        sys.path.remove(str(FUZZ))


def saved(folder):
    """Return the saved inputs of a target."""
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def mutations(data, chance):
    """Yield truncations, flipped bits, and bytes overwritten, cut out, doubled and put in."""
    for _ in range(STEPS):
        at = chance.randrange(len(data) + 1)
        length = chance.randrange(9)
        yield data[:at]
        yield data[at:]
        yield data[:at] + data[at + length :]
        yield data[:at] + data[at : at + length] * 2 + data[at + length :]
        yield data[:at] + chance.randbytes(length) + data[at + length :]
        yield (
            data[:at]
            + bytes(b ^ 1 << chance.randrange(8) for b in data[at : at + 1])
            + data[at + 1 :]
        )


def test_each_target_has_a_corpus_and_the_other_way_round(targets):
    """A target without seeds searches in the dark; a folder without a target is forgotten."""
    assert [d.name for d in CORPUS] == sorted(targets)
    assert all(saved(folder) for folder in CORPUS)


def test_the_corpus_is_small():
    """It travels with every clone."""
    sizes = [path.stat().st_size for folder in CORPUS for path in folder.iterdir()]
    assert sum(sizes) <= MAX_CORPUS
    assert max(sizes) <= LONGEST


@pytest.mark.req("R1.7")
@pytest.mark.parametrize("folder", CORPUS, ids=[d.name for d in CORPUS])
def test_only_our_own_errors_leave(targets, folder):
    """Saved inputs, and what lies near them, end in nothing or in an error of ours."""
    run, chance = targets[folder.name], random.Random(folder.name)
    inputs = saved(folder)
    for data in inputs:
        run(data)
    for data in chance.sample(inputs, min(len(inputs), 12)):
        for mutation in mutations(data, chance):
            run(mutation)


@pytest.mark.req("R1.7")
@pytest.mark.parametrize("folder", CORPUS, ids=[d.name for d in CORPUS])
def test_no_64_kib_take_long_or_much_memory(targets, folder):
    """Whatever is 64 KiB long is answered within a second and 16 MiB."""
    run, inputs = targets[folder.name], saved(folder)
    longest = max(inputs, key=len)
    hostile = [
        bytes(LONGEST),
        b"\xff" * LONGEST,
        b"[" * LONGEST,
        b'{"a":' * (LONGEST // 5),
        b"\x81" * LONGEST,
        b"\x30\x80" * (LONGEST // 2),
        longest.ljust(LONGEST, b"\0"),
        (longest * (LONGEST // len(longest) + 1))[:LONGEST],
    ]
    run(longest)  # what is made once is made before
    for data in hostile:
        began = time.process_time()
        run(data)
        assert time.process_time() - began < 1
    tracemalloc.start()
    try:
        for data in hostile:
            run(data)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_what_is_no_error_of_ours_would_be_seen(targets):
    """The check above can fail: a target hides nothing but our own errors."""
    harness = sys.modules["harness"]

    def broken(data):
        raise KeyError(data)

    try:
        with pytest.raises(KeyError):
            harness.target(broken)(b"")
    finally:
        del targets["broken"]
