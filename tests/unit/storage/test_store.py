"""The store on either backend: compare-and-swap, all or nothing, one vault's alone (spec/06)."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest
from placet_testing.stores import read_all
from placet_testing.wires import watch

from placet.core.encoding import digest
from placet.core.logentry import Draft
from placet.errors import ConflictError, UnavailableError, VerificationError
from placet.storage.store import Append, Batch, Delete, Put, Stored

pytestmark = pytest.mark.usefixtures("backend")

ENTRY = Append(0, "trail/k", 0, b"entry", b"n" * 32)


def put(store, name, value, expected=None):
    """Write one record."""
    store.commit(Batch((Put(name, value, expected),)))


# --- the law ------------------------------------------------------------------------------


def test_records_are_read_back_after_a_restart(files):
    """Value and version; what was deleted is gone."""
    with closing(files.store()) as store:
        put(store, "key/a", b"1")
        put(store, "key/a", b"2", 1)
        put(store, "key/b", b"1")
        store.commit(Batch((Delete("key/b", 1),), (ENTRY,)))
    with closing(files.store()) as store:
        assert store.get("key/a") == Stored(2, b"2")
        assert store.get("key/b") is None
        assert (store.size(), store.entries(0, 1)) == (1, (b"entry",))
        assert store.trail("trail/k", 0, 9) == (b"entry",)
        assert (store.nodes(0), store.nodes(1)) == (b"n" * 32, b"")


def test_records_are_counted_and_listed_by_kind(files):
    """Those that are there, over restarts."""
    with closing(files.store()) as store:
        for name in ("key/a", "key/b", "keys/c", "pending/d"):
            put(store, name, b"x")
        put(store, "key/a", b"y", 1)
        store.commit(Batch((Delete("pending/d", 1), Put("key/c", b"x"), Delete("key/c", 1))))
    with closing(files.store()) as store:
        assert [store.count(kind) for kind in ("key", "keys", "pending", "none")] == [2, 1, 0, 0]
        assert store.names("key") == ("key/a", "key/b")
        assert store.names("pending") == store.names("none") == ()
        with store.group():
            store.commit(Batch((Put("key/c", b"x"), Delete("key/a", 2))))
            assert (store.names("key"), store.count("key")) == (("key/b", "key/c"), 2)
        assert (store.names("key"), store.count("key")) == (("key/b", "key/c"), 2)


ONE_KEY = "WHERE tag IN (SELECT tag FROM records WHERE kind = 'key' LIMIT 1)"
LISTED = {
    "under another kind": ("UPDATE records SET kind = 'key' WHERE kind = 'pending'",),
    "not at all": (f"UPDATE records SET kind = 'other' {ONE_KEY}",),
    "and gone": (f"DELETE FROM records {ONE_KEY}",),
    "and torn": (f"UPDATE records SET sealed = ? {ONE_KEY}", (b"\0",)),
}


@pytest.mark.req("R2.2")
@pytest.mark.parametrize("edit", LISTED.values(), ids=LISTED.keys())
def test_list_of_a_kind_is_whole_or_refused(files, edit):
    """A pending stage must not be taken for a key, nor a key be left out."""
    with closing(files.store()) as store:
        for name in ("key/a", "key/b", "pending/c"):
            put(store, name, b"1")
    with files.hand() as db:
        db.execute(*edit)
    with closing(files.store()) as store, pytest.raises(VerificationError):
        store.names("key")


LOST_RACES = {
    "new, but it is there": Put("key/a", b"x"),
    "from an older version": Put("key/a", b"x", 1),
    "from a version that is still to come": Put("key/a", b"x", 3),
    "changed, but it is not there": Put("key/z", b"x", 1),
    "deleted at an older version": Delete("key/a", 1),
    "deleted, but it is not there": Delete("key/z", 1),
}


@pytest.mark.parametrize("change", LOST_RACES.values(), ids=LOST_RACES.keys())
def test_lost_race_changes_nothing(store, change):
    """A conflict, and nothing of the batch around it."""
    put(store, "key/a", b"1")
    put(store, "key/a", b"2", 1)
    with pytest.raises(ConflictError):
        store.commit(Batch((Put("key/new", b"x"), change, Put("key/later", b"x")), (ENTRY,)))
    assert store.get("key/a") == Stored(2, b"2")
    assert (store.get("key/new"), store.get("key/later")) == (None, None)
    assert (store.count("key"), store.size()) == (1, 0)


@pytest.mark.parametrize("index", [0, 2])
def test_entry_is_written_at_the_logs_end_or_not_at_all(store, index):
    """No two entries with one number, and no gap; nothing of the batch."""
    store.commit(Batch((), (ENTRY,)))
    entry = Append(index, "trail/j", 0, b"x", b"")
    with pytest.raises(ConflictError):
        store.commit(Batch((Put("key/new", b"x"),), (entry,)))
    assert (store.size(), store.get("key/new")) == (1, None)


def test_two_entries_of_one_place_in_a_trail_are_refused(store):
    """Whoever writes has read the trail's end: so the rows are not what was read."""
    store.commit(Batch((), (ENTRY,)))
    entry = Append(1, "trail/k", 0, b"x", b"")
    with pytest.raises(VerificationError):
        store.commit(Batch((Put("key/new", b"x"),), (entry,)))
    assert (store.size(), store.get("key/new")) == (1, None)


@pytest.mark.req("R2.2")
def test_row_that_is_not_what_was_read_leaves_all_as_it_was(store):
    """Whoever took it away did so under us: nothing around it is written, the state not either."""
    put(store, "key/a", b"1")
    store._backend._db.execute("DELETE FROM records WHERE kind = 'key'")
    before = sorted((row.tag, row.version) for row in store._backend.records())
    with pytest.raises(VerificationError):
        store.commit(Batch((Put("key/b", b"1"), Put("key/a", b"2", 1)), (ENTRY,)))
    assert sorted((row.tag, row.version) for row in store._backend.records()) == before
    assert store._backend.size() == 0


def test_writers_race_and_one_wins_each_step(store):
    """Eight threads count in one record: no step is lost."""

    def count():
        done = 0
        while done < 10:
            seen = store.get("key/n")
            try:
                put(store, "key/n", b"%d" % (int(seen.value) + 1), seen.version)
                done += 1
            except ConflictError:
                pass

    put(store, "key/n", b"0")
    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("key/n") == Stored(81, b"80")


@pytest.mark.req("I11")
def test_reader_never_sees_what_is_not_durable_yet(store):
    """A read that comes while a commit waits for the disk waits as well."""
    put(store, "key/a", b"old")
    at_commit, go_on, seen = threading.Event(), threading.Event(), []

    def slow(sql):
        if sql == "COMMIT":
            at_commit.set()
            assert go_on.wait(10)

    watch(store, slow)
    writer = threading.Thread(target=put, args=(store, "key/a", b"new", 1))
    reader = threading.Thread(target=lambda: seen.append(store.get("key/a")))
    writer.start()
    assert at_commit.wait(10)
    reader.start()
    reader.join(0.05)
    assert seen == []
    go_on.set()
    writer.join()
    reader.join()
    assert seen == [Stored(2, b"new")]


# --- what the host sees --------------------------------------------------------------------


def test_host_sees_no_name_and_no_value(files):
    """Kinds and sizes are all that can be read."""
    with closing(files.store()) as store:
        put(store, "key/sha256:secret-name", b"secret-value")
        store.commit(Batch((), (Append(0, "trail/secret-name", 0, b"secret-value", b""),)))
        assert b"secret" not in files.raw()
    assert b"secret" not in files.raw()


NAMES = [f"key/{n}" for n in range(20)]
KEYS = [digest("key", b"%d" % n) for n in range(3)]
COLUMNS = {"records": "tag", "entries": "number", "tree": "path"}


def snapshot(files):
    """Return all rows by table and key."""
    with files.hand() as db:
        return {
            (table, row[0]): tuple(row)
            for table in COLUMNS
            for row in db.execute(f"SELECT * FROM {table}").fetchall()
        }


def write(files, place, row):
    """Put a row in its place, or nothing."""
    table, key = place
    with files.hand() as db:
        db.execute(f"DELETE FROM {table} WHERE {COLUMNS[table]} = ?", (key,))
        if row is not None:
            db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


@pytest.mark.req("R2.2")
def test_mix_of_two_snapshots_is_refused(files):
    """Each row that differs put back, or taken out, alone: nothing but a whole snapshot is read."""
    with files.log() as log:
        puts = tuple(Put(name, b"1") for name in NAMES)
        log.commit(*(Draft(kind="taken", key=key) for key in KEYS), now=1, changes=puts)
    old = snapshot(files)
    with files.log() as log:
        puts = tuple(Put(name, b"2", 1) for name in NAMES[:4])
        log.commit(*(Draft(kind="promoted", key=key) for key in KEYS[:2]), now=2, changes=puts)
    new = snapshot(files)
    everything = [*NAMES, *(f"trail/{key}" for key in KEYS)]
    with closing(files.store()) as store:
        before = read_all(store, everything)
    tried = 0
    for place, row in new.items():
        for taken in (None, old.get(place)):
            if taken == row:
                continue
            write(files, place, taken)
            with pytest.raises(VerificationError), closing(files.store()) as store:
                read_all(store, everything)
            write(files, place, row)
            tried += 1
    assert tried > 40
    with closing(files.store()) as store:
        assert read_all(store, everything) == before


# --- whose it is ---------------------------------------------------------------------------


def test_store_of_another_vault_is_refused(files):
    """Two vaults of one machine have one sealing key; their stores do not mix."""
    with closing(files.store()) as store:
        put(store, "key/a", b"1")
    with pytest.raises(VerificationError):
        files.store("sha256:other")


def test_identity_is_read_before_binding_and_checked_by_it(files):
    """The vault's identity is read first; only then is the vault id known, and the root."""
    with closing(files.store("")) as store:
        assert store.get("identity/vault") is None
        store.bind("sha256:v")
        store.commit(Batch((Put("identity/vault", b"key"), Put("key/a", b"1")), boots=1))
    with closing(files.store("")) as store:
        assert store.get("identity/vault") == Stored(1, b"key")
        store.bind("sha256:v", boots=1)
        assert (store.get("identity/vault"), store.boots) == (Stored(1, b"key"), 1)
        assert store.get("key/a") == Stored(1, b"1")
        put(store, "identity/vault", b"newer", 1)


def test_older_identity_is_refused_by_binding(files):
    """It opens by itself, and is not under the root; nor is the state of another start."""
    with closing(files.store("")) as store:
        store.bind("sha256:v")
        store.commit(Batch((Put("identity/vault", b"1"),), boots=1))
    with files.hand() as db:
        ((older,),) = db.execute("SELECT sealed FROM records WHERE kind = 'identity'")
    with closing(files.store("")) as store:
        store.bind("sha256:v", boots=1)
        store.commit(Batch((Put("identity/vault", b"2", 1),), boots=2))
    with closing(files.store("")) as store, pytest.raises(VerificationError):
        store.bind("sha256:v", boots=1)
    with files.hand() as db:
        db.execute("UPDATE records SET sealed = ?, version = 1 WHERE kind = 'identity'", (older,))
    with closing(files.store("")) as store:
        assert store.get("identity/vault") == Stored(1, b"1")
        with pytest.raises(VerificationError):
            store.bind("sha256:v", boots=2)


def test_unbound_store_writes_nothing(files):
    """Nor does it read what needs a vault id."""
    with closing(files.store("")) as store:
        with pytest.raises(ValueError, match="not bound"):
            put(store, "key/a", b"1")
        with pytest.raises(ValueError, match="not bound"):
            store.count("key")


# --- when it ends --------------------------------------------------------------------------


def test_closed_store_answers_nothing(files):
    """A late request during shutdown gets an error that is safe to retry."""
    store = files.store()
    store.close()
    store.close()
    with pytest.raises(UnavailableError):
        store.get("key/a")
