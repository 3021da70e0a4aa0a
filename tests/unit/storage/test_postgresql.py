"""The store on PostgreSQL: one writer, a hostile or failing server (ADR 0021).

What holds of every store is in test_store.py.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing

import psycopg
import pytest
from placet_testing import backends, postgresql
from placet_testing.stores import read_all
from placet_testing.wires import break_at, read_only, watch

import placet.storage.postgresql
from placet.core.encoding import digest
from placet.core.logentry import Draft
from placet.errors import UnavailableError, VerificationError
from placet.storage.log import Log
from placet.storage.postgresql import PostgresqlBackend, PostgresqlStore
from placet.storage.sealed import Seal
from placet.storage.store import Append, Batch, Put, Stored
from placet_dev.waiting import wait_for

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["postgresql"], indirect=True),
]

VAULT, KEY = digest("vault", b"1"), digest("key", b"1")
ENTRY = Append(0, "trail/k", 0, b"entry", b"n" * 32)


def opened(uri, vault=VAULT):
    """Open the store at an address."""
    return PostgresqlStore(uri, Seal(b"s" * 32, vault, os.urandom))


def put(store, name, value, expected=None):
    """Write one record."""
    store.commit(Batch((Put(name, value, expected),)))


# --- one writer ----------------------------------------------------------------------------


def test_second_writer_wins_and_the_first_is_out(files):
    """By compare-and-swap of the state, without any lock; and it is told why."""
    first = files.store()
    put(first, "key/a", b"1")
    second = files.store()
    put(second, "key/a", b"2", 1)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="somebody else"):
            put(first, "key/b", b"x")
        with pytest.raises(UnavailableError, match="somebody else"):
            first.get("key/a")
    assert (second.get("key/a"), second.get("key/b")) == (Stored(2, b"2"), None)
    first.close()
    second.close()


def vanish(store):
    """Have a store's process go away within a transaction, where nobody tells the server."""
    db = store._backend._db
    db.execute("BEGIN")
    db.execute("UPDATE records SET sealed = sealed")


@pytest.mark.req("R7.3")
def test_row_that_another_has_is_not_waited_for(files, monkeypatch):
    """Refused, safe to retry: a vault that hangs tells nobody why."""
    monkeypatch.setattr(placet.storage.postgresql, "LOCKED", "50ms")
    with closing(files.store()) as first:
        put(first, "key/a", b"1")
        with closing(files.store()) as second:
            vanish(first)
            for _ in range(2):
                with pytest.raises(UnavailableError, match="LockNotAvailable"):
                    put(second, "key/a", b"2", 1)
            assert second.get("key/a") == Stored(1, b"1")


@pytest.mark.req("R7.2", "I16")
def test_transaction_of_a_forerunner_that_vanished_ends(files, monkeypatch):
    """Nothing of it is there, and who came after it goes on."""
    monkeypatch.setattr(placet.storage.postgresql, "LOCKED", "20s")
    monkeypatch.setattr(placet.storage.postgresql, "ABANDONED", "50ms")
    with closing(files.store()) as first:
        put(first, "key/a", b"1")
        with closing(files.store()) as second:
            vanish(first)
            put(second, "key/a", b"2", 1)
            assert second.get("key/a") == Stored(2, b"2")
        with pytest.raises(UnavailableError):
            put(first, "key/a", b"x", 1)


# --- a server that forgets, or tells ---------------------------------------------------------


@pytest.mark.req("R7.3")
@pytest.mark.parametrize("word", ["off", "local", "remote_write"])
def test_database_that_forgets_is_refused(server, word):
    """Commits that are answered before they are durable would be lost shares."""
    uri = postgresql.fresh(server.uri)
    name = uri.split("/")[3].partition("?")[0]
    with closing(psycopg.connect(uri, autocommit=True)) as db:
        db.execute(f"ALTER DATABASE {name} SET synchronous_commit = {word}")
    with pytest.raises(UnavailableError, match="synchronous_commit"):
        opened(uri)


@pytest.mark.req("R7.3")
def test_server_that_is_told_to_forget_meanwhile_does_not_for_us(files, server):
    """Its settings are read again while sessions live; ours keeps what it was opened under."""
    show = "SHOW synchronous_commit"
    with (
        closing(psycopg.connect(server.uri, autocommit=True)) as db,
        closing(files.store()) as ours,
    ):
        try:
            db.execute("ALTER SYSTEM SET synchronous_commit = off")
            db.execute("SELECT pg_reload_conf()")
            wait_for(lambda: db.execute(show).fetchone() == ("off",) or None, "the new settings")
            put(ours, "key/a", b"1")
            assert ours._backend._db.execute(show).fetchone() == ("on",)
        finally:
            db.execute("ALTER SYSTEM RESET synchronous_commit")
            db.execute("SELECT pg_reload_conf()")
            wait_for(lambda: db.execute(show).fetchone() == ("on",) or None, "the old settings")


def test_later_schema_is_refused(files):
    """Not guessed at."""
    files.store().close()
    with files.hand() as db:
        db.execute("UPDATE placet_schema SET version = 3")
    with pytest.raises(UnavailableError, match="schema"):
        files.store()


def test_what_is_told_of_a_failure_holds_no_password():
    """Nor the address: an error may be shown to anybody."""
    with pytest.raises(UnavailableError) as refused:
        opened("postgresql://vault:hunter2@127.0.0.1:1/vault")
    assert "hunter2" not in f"{refused.value.detail}{refused.value.hint}{refused.value.__cause__}"


WRONG_CELLS = {
    "no tag": ("records", "tag", "BYTEA", "NULL"),
    "no version": ("records", "version", "BIGINT", "NULL"),
    "no bytes": ("records", "sealed", "BYTEA", "NULL"),
    "a tag of text": ("records", "tag", "TEXT", "'text'"),
    "a version of text": ("records", "version", "TEXT", "'text'"),
    "a version that is no whole number": ("records", "version", "NUMERIC", "2.5"),
    "a version without end": ("records", "version", "NUMERIC", "'Infinity'"),
    "bytes of text": ("records", "sealed", "TEXT", "'text'"),
    "an entry of text": ("entries", "sealed", "TEXT", "'text'"),
    "no entry": ("entries", "sealed", "BYTEA", "NULL"),
    "no entry's number": ("entries", "number", "BIGINT", "NULL"),
    "an entry's number of text": ("entries", "number", "TEXT", "'text'"),
    "an entry's nodes of text": ("entries", "nodes", "TEXT", "'text'"),
    "no node": ("tree", "node", "BYTEA", "NULL"),
    "a node of text": ("tree", "node", "TEXT", "'text'"),
}


@pytest.mark.parametrize("wrong", WRONG_CELLS.values(), ids=WRONG_CELLS.keys())
def test_cells_of_any_type_are_refused(files, wrong):
    """Whoever has the database alters its tables, and writes what they like."""
    table, column, kind, cell = wrong
    with files.log() as log:
        names = [f"key/{n}" for n in range(20)]
        puts = tuple(Put(name, b"1") for name in names)
        log.commit(*[Draft(kind="taken", key=KEY)] * 3, now=1, changes=puts)
    with files.hand() as db:
        key = {"records": "tag", "entries": "number", "tree": "path"}[table]
        db.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")
        db.execute(f"ALTER TABLE {table} ALTER {column} DROP NOT NULL")
        db.execute(f"ALTER TABLE {table} ALTER {column} TYPE {kind} USING NULL")
        assert db.execute(f"UPDATE {table} SET {column} = {cell}").rowcount
        assert db.execute(f"SELECT {key} FROM {table}").fetchall()
    with pytest.raises((VerificationError, UnavailableError)), closing(files.store()) as store:
        read_all(store, names)


@pytest.mark.parametrize("answers", [[], [(None,)], [("1",)], [(1, 1)], [(0,), (0,)]])
def test_answers_that_no_database_gives_are_refused(files, answers):
    """To what always has one: a size, or whether there is anything."""

    class Lying:
        def execute(self, *_):
            return self

        def fetchall(self):
            return answers

        def close(self):
            pass

    backend = PostgresqlBackend(backends.place(files.path))
    with closing(backend):
        backend.open()
        backend._db.close()
        backend._db = Lying()
        for read in (backend.size, backend.empty):
            with pytest.raises(VerificationError):
                read()


# --- a connection that breaks ----------------------------------------------------------------

BATCH = Batch((Put("key/a", b"new", 1), Put("key/b", b"x")), (ENTRY,))
STATEMENTS = ["BEGIN", "UPDATE records", "INSERT INTO records", "INSERT INTO entries"]
STATEMENTS += ["INSERT INTO tree", "COMMIT"]


@pytest.mark.req("R7.3", "I11")
@pytest.mark.parametrize("at", STATEMENTS)
def test_connection_that_breaks_at_any_statement_leaves_nothing_half_done(files, at):
    """Refused once; then all is read again, by a connection of its own, and goes on."""
    with closing(files.store()) as store:
        put(store, "key/a", b"old")
        broke = break_at(store, at)
        with pytest.raises(UnavailableError):
            store.commit(BATCH)
        assert broke()
        assert store.get("key/a") == Stored(1, b"old")
        assert (store.get("key/b"), store.size()) == (None, 0)
        store.commit(BATCH)
    with closing(files.store()) as store:
        assert (store.get("key/a"), store.size()) == (Stored(2, b"new"), 1)


@pytest.mark.req("R7.3")
def test_connection_that_breaks_while_reading_is_made_anew(files):
    """A read is refused once, and is no lie the next time."""
    with closing(files.store()) as store:
        put(store, "key/a", b"1")
        broke = break_at(store, "SELECT tag")
        with pytest.raises(UnavailableError):
            store.get("key/a")
        assert broke()
        assert store.get("key/a") == Stored(1, b"1")


@pytest.mark.req("R7.3")
def test_database_that_takes_no_writes_refuses(files):
    """A standby, for instance: nothing is written, and reading goes on."""
    with closing(files.store()) as store:
        put(store, "key/a", b"old")
        with read_only(store), pytest.raises(UnavailableError, match="ReadOnlySqlTransaction"):
            put(store, "key/a", b"new", 1)
        assert store.get("key/a") == Stored(1, b"old")


@pytest.mark.req("R7.2", "I11")
@pytest.mark.parametrize("durable", [False, True])
def test_commit_of_unknown_end_is_read_again(files, durable):
    """The answer to COMMIT is lost: it is durable or not, and the next entry follows what is."""
    with closing(files.store()) as store:
        log = Log(store, boot="b", rng=os.urandom)
        log.commit(Draft(kind="taken", key=KEY), now=1)
        real = store._backend._db

        def lose(sql):
            if sql == "COMMIT":
                if durable:
                    real.execute(sql)
                raise psycopg.OperationalError("connection lost")

        watch(store, lose)
        with pytest.raises(UnavailableError):
            log.commit(Draft(kind="release", key=KEY), now=2)
        assert log.head()[0] == 1 + durable
        (entry,) = log.commit(Draft(kind="release", key=KEY), now=3)
        assert entry.index == 1 + durable
        log.verify()


def test_database_that_went_back_under_a_running_vault_is_refused(files):
    """After a reconnect, for instance: what was durable once stays so."""
    with closing(files.store()) as store:
        put(store, "key/a", b"1")
        backends.copy(files.path, files.path.with_name("old.db"))
        put(store, "key/a", b"2", 1)
        backends.copy(files.path.with_name("old.db"), files.path)
        store._lose()
        for _ in range(2):
            with pytest.raises(VerificationError):
                store.get("key/a")


@pytest.mark.parametrize(("more", "timeout"), [("", "15000"), ("&tcp_user_timeout=700", "700")])
def test_silence_of_the_network_is_bounded_unless_the_uri_says_otherwise(server, more, timeout):
    """The kernel's own patience is a quarter of an hour, in which a vault would answer nobody."""
    backend = PostgresqlBackend(f"{server.uri}{more}")
    with closing(backend):
        backend.open()
        said = backend._db.info.get_parameters()
        assert (said["tcp_user_timeout"], said["keepalives_idle"]) == (timeout, "5")


def test_server_that_is_away_is_not_asked_at_every_request(tmp_path):
    """A request must not wait for a connection that a moment ago could not be made."""
    now = 100.0
    away = PostgresqlBackend(f"postgresql://vault@/vault?host={tmp_path}", lambda: now)
    with pytest.raises(UnavailableError, match="OperationalError"):
        away.open()
    now += 2.9
    with pytest.raises(UnavailableError, match="a moment ago"):
        away.open()
    now += 0.2
    with pytest.raises(UnavailableError, match="OperationalError"):
        away.open()


# --- the whole of it -------------------------------------------------------------------------


@pytest.mark.req("I1", "I11")
def test_vaults_serve_from_it(tmp_path):
    """Births, creation, a promote and releases, in turns; over a restart too."""
    from placet_testing import constellations
    from placet_testing.charters import profile

    with closing(constellations.begin(tmp_path)) as story:
        story.promote(profile(2))
        assert story.gather(profile(2)) == story.gather(profile(1)) == constellations.SECRET
        story.restart(0)
        assert story.gather(profile(2)) == constellations.SECRET
        log = story.benches[0].log
        log.verify()
        assert {"taken", "committed", "release"} <= {
            one.entry.kind for one in log.of_key(story.key)
        }


def test_main_program_opens_what_it_is_told(files, tmp_path):
    """`--store`: a file by default, else the database; the sealing key is the same."""
    from placet.vault.main import SQLITE, open_store

    seal, uri = Seal(b"s" * 32, VAULT, os.urandom), backends.place(files.path)
    for where, kind in ((SQLITE, "SqliteStore"), (uri, "PostgresqlStore")):
        with closing(open_store(tmp_path, where, seal)) as store:
            assert type(store).__name__ == kind
            assert store.get("key/a") is None
    assert (tmp_path / "vault.db").exists()


def test_image_without_the_driver_says_so(monkeypatch):
    """Most vaults have no use for it: it is an extra, and part of what is measured."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UnavailableError, match="built without the PostgreSQL backend"):
        opened("postgresql://vault@/vault")


def test_backend_that_was_never_opened_answers_nothing(files):
    """Nor one that is closed, which is not opened again."""
    backend = PostgresqlBackend(backends.place(files.path))
    with pytest.raises(UnavailableError, match="not connected"):
        backend.record(b"")
    backend.close()
    with pytest.raises(UnavailableError, match="closed"):
        backend.open()
