"""Any instant may be the last: kill -9 and torn files, then open again (I11, I16)."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import closing, suppress

import pytest

from placet.core.encoding import digest
from placet.core.logentry import Draft
from placet.errors import VerificationError
from placet.storage.store import Put

# Commits entry and record together, and says so only then: what a vault's answer does.
WRITER = """
import os, sys
from pathlib import Path
from placet.core.logentry import Draft
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.storage.sqlite import SqliteStore
from placet.storage.store import Put
path, sealing_key, vault, key = sys.argv[1:]
store = SqliteStore(Path(path), Seal(bytes.fromhex(sealing_key), vault, os.urandom))
log = Log(store, boot=str(os.getpid()), rng=os.urandom)
while True:
    seen = store.get("key/n")
    value, at = b"%d" % log.head()[0], seen.version if seen else None
    (entry,) = log.commit(
        Draft(kind="release", key=key), now=1,
        changes=(Put("key/n", value, at),),
    )
    print(entry.index, log.head()[1].hex(), flush=True)
"""

KEY = digest("key", b"1")
SEALING_KEY = "2b" * 32
VAULT = "sha256:v"


def opened(path):
    """Open the log as the writer does."""
    from placet.storage.log import Log
    from placet.storage.sealed import Seal
    from placet.storage.sqlite import SqliteStore

    store = SqliteStore(path, Seal(bytes.fromhex(SEALING_KEY), VAULT, os.urandom))
    return store, Log(store, boot="after", rng=os.urandom)


@pytest.mark.req("I11", "I16")
def test_killed_at_any_instant_the_log_holds_what_was_answered(tmp_path):
    """Eight lives of one vault: each answer has its entry, each record its newest answer."""
    path = tmp_path / "vault.db"
    arguments = [sys.executable, "-c", WRITER, str(path), SEALING_KEY, VAULT, KEY]
    answered = {}
    dice = random.Random(7)
    for _ in range(8):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(dice.randrange(1, 60)):
                index, root = writer.stdout.readline().split()
                answered[int(index)] = root
            writer.send_signal(signal.SIGKILL)
            # What it said before it died counts as well.
            for line in writer.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    index, root = line.split()
                    answered[int(index)] = root

        store, log = opened(path)
        size, root = log.head()
        log.verify()
        newest = max(answered)
        assert sorted(answered) == list(range(newest + 1))
        assert size in {newest + 1, newest + 2}  # the last may be durable and not answered
        if size == newest + 1:
            assert root.hex() == answered[newest]
        assert [one.entry.index for one in log.of_key(KEY, limit=10**6)] == list(range(size))
        assert store.get("key/n").value == b"%d" % (size - 1)
        store.close()
        if size == newest + 2:
            answered[newest + 1] = root.hex()


@pytest.mark.req("I16")
def test_write_ahead_log_torn_anywhere_gives_an_earlier_whole_state(tmp_path):
    """Power loss while it was written: a prefix of the commits, records and entries alike."""
    path = tmp_path / "vault.db"
    store, log = opened(path)
    roots = {}
    for number in range(12):
        seen = store.get("key/n")
        change = Put("key/n", b"%d" % number, seen.version if seen else None)
        log.commit(Draft(kind="release", key=KEY), now=number, changes=(change,))
        roots[number + 1] = log.head()[1]
    # The files as they are while the vault lives: closing it would fold them together.
    whole = (tmp_path / "vault.db-wal").read_bytes()
    kept = tmp_path / "kept.db"
    shutil.copy(path, kept)
    store.close()

    seen_sizes, dice = set(), random.Random(3)
    for cut in [0, 31, 32, len(whole) - 1, len(whole), *dice.choices(range(len(whole)), k=60)]:
        torn = tmp_path / f"torn-{cut}"
        torn.mkdir(exist_ok=True)
        shutil.copy(kept, torn / "vault.db")
        (torn / "vault.db-wal").write_bytes(whole[:cut] + dice.randbytes(min(cut % 3, 1) * 700))
        store, log = opened(torn / "vault.db")
        size, root = log.head()
        log.verify()
        if size:
            assert root == roots[size]
            assert store.get("key/n").value == b"%d" % (size - 1)
        seen_sizes.add(size)
        store.close()
        shutil.rmtree(torn)
    assert {0, 12} < seen_sizes


def test_log_that_lost_an_answered_entry_with_its_state_is_an_older_log(tmp_path):
    """Said plainly: a whole older file opens. Only others can tell (I6, not this room)."""
    path = tmp_path / "vault.db"
    store, log = opened(path)
    log.commit(Draft(kind="taken", key=KEY), now=1)
    store.close()
    older = path.read_bytes()
    store, log = opened(path)
    log.commit(Draft(kind="retired", key=KEY), now=2)
    store.close()
    newer = path.read_bytes()

    path.write_bytes(older)
    store, log = opened(path)
    assert log.head()[0] == 1
    store.close()
    assert older != newer


def test_write_ahead_log_of_another_time_gives_no_mixed_state(tmp_path):
    """Put back beside a newer file: refused, or a whole state of that time (I6 again)."""
    path = tmp_path / "vault.db"
    store, log = opened(path)
    heads, wals = [log.head()], []
    for number in range(120):
        log.commit(Draft(kind="taken", key=KEY, detail={"n": number}), now=2)
        heads.append(log.head())
        if number == 60:
            store._backend._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if number % 10 == 0:
            wals.append((tmp_path / "vault.db-wal").read_bytes())
    store.close()
    newest = path.read_bytes()
    opens = 0
    for wal in wals:
        path.write_bytes(newest)
        (tmp_path / "vault.db-wal").write_bytes(wal)
        with suppress(VerificationError):
            store, log = opened(path)
            with closing(store):
                log.verify()
                assert log.head() in heads
                opens += 1
    assert opens
