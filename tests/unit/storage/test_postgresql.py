"""The store on PostgreSQL: the same law, the same root, one writer, nothing readable (ADR 0021)."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager

import pytest
from placet_testing import postgresql
from placet_testing.stores import read_all

from placet.core.encoding import digest
from placet.core.logentry import Draft
from placet.errors import ConflictError, UnavailableError, VerificationError
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.storage.store import Append, Batch, Delete, Put, Stored

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
from placet.storage.postgresql import PostgresqlBackend, PostgresqlStore  # noqa: E402

VAULT = digest("vault", b"1")
KEYS = [digest("key", b"%d" % n) for n in range(3)]
NAMES = [f"key/{n}" for n in range(20)]
ENTRY = Append(0, "trail/k", 0, b"entry", b"n" * 32)


@pytest.fixture
def uri(server):
    """Return a fresh database."""
    return postgresql.fresh(server.uri)


def opened(uri, vault=VAULT):
    """Open the store."""
    return PostgresqlStore(uri, Seal(b"s" * 32, vault, os.urandom))


@contextmanager
def hand(uri):
    """Edit the database as its host can."""
    with psycopg.connect(uri, autocommit=True) as db:
        yield db


def put(store, name, value, expected=None):
    """Write one record."""
    store.commit(Batch((Put(name, value, expected),)))


def test_records_and_entries_are_read_back(uri):
    """After a restart; counted and listed; what was deleted is gone."""
    with closing(opened(uri)) as store:
        put(store, "key/a", b"1")
        put(store, "key/a", b"2", 1)
        put(store, "key/b", b"1")
        store.commit(Batch((Delete("key/b", 1),), (ENTRY,)))
    with closing(opened(uri)) as store:
        assert (store.get("key/a"), store.get("key/b")) == (Stored(2, b"2"), None)
        assert (store.size(), store.entries(0, 1)) == (1, (b"entry",))
        assert store.trail("trail/k", 0, 9) == (b"entry",)
        assert (store.nodes(0), store.nodes(1)) == (b"n" * 32, b"")
        assert (store.names("key"), store.count("key")) == (("key/a",), 1)


LOST_RACES = {
    "new, but it is there": Put("key/a", b"x"),
    "from an older version": Put("key/a", b"x", 1),
    "changed, but it is not there": Put("key/z", b"x", 1),
    "deleted, but it is not there": Delete("key/z", 1),
}


@pytest.mark.parametrize("change", LOST_RACES.values(), ids=LOST_RACES.keys())
def test_lost_race_changes_nothing(uri, change):
    """A conflict, and nothing of the batch around it."""
    with closing(opened(uri)) as store:
        put(store, "key/a", b"1")
        put(store, "key/a", b"2", 1)
        with pytest.raises(ConflictError):
            store.commit(Batch((Put("key/new", b"x"), change), (ENTRY,)))
        assert (store.get("key/a"), store.get("key/new")) == (Stored(2, b"2"), None)
        assert store.size() == 0


def test_database_shows_no_name_and_no_value(uri):
    """Kinds and sizes are all that can be read."""
    with closing(opened(uri)) as store:
        put(store, "key/secret-name", b"secret-value")
        store.commit(Batch((), (Append(0, "trail/secret", 0, b"secret-value", b""),)))
    with hand(uri) as db:
        for table in ("records", "entries", "tree"):
            assert "secret" not in repr(db.execute(f"SELECT * FROM {table}").fetchall())


def test_second_writer_wins_and_the_first_is_out(uri):
    """By compare-and-swap of the state, without any lock; and it is told why."""
    first = opened(uri)
    put(first, "key/a", b"1")
    second = opened(uri)
    put(second, "key/a", b"2", 1)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="somebody else"):
            put(first, "key/b", b"x")
        with pytest.raises(UnavailableError, match="somebody else"):
            first.get("key/a")
    assert (second.get("key/a"), second.get("key/b")) == (Stored(2, b"2"), None)
    first.close()
    second.close()


@pytest.mark.req("R7.3")
def test_database_that_forgets_is_refused(uri):
    """Commits that are answered before they are durable would be lost shares."""
    name = uri.split("/")[3].partition("?")[0]
    with hand(uri) as db:
        db.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with pytest.raises(UnavailableError, match="synchronous_commit"):
        opened(uri)


def test_later_schema_is_refused(uri):
    """Not guessed at."""
    opened(uri).close()
    with hand(uri) as db:
        db.execute("UPDATE placet_schema SET version = 3")
    with pytest.raises(UnavailableError, match="schema"):
        opened(uri)


def test_what_is_told_of_a_failure_holds_no_password():
    """Nor the address: an error may be shown to anybody."""
    with pytest.raises(UnavailableError) as refused:
        opened("postgresql://vault:hunter2@127.0.0.1:1/vault")
    assert "hunter2" not in f"{refused.value.detail}{refused.value.hint}{refused.value.__cause__}"


@pytest.mark.req("R7.3", "I11")
def test_connection_that_breaks_is_made_anew(uri):
    """Refused once; then all is read again, and goes on."""
    with closing(opened(uri)) as store:
        log = Log(store, boot="b", rng=os.urandom)
        log.commit(Draft(kind="taken", key=KEYS[0]), now=1)
        with hand(uri) as db:
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        with pytest.raises(UnavailableError):
            log.commit(Draft(kind="release", key=KEYS[0]), now=2)
        log.commit(Draft(kind="release", key=KEYS[0]), now=3)
        log.verify()
        assert [one.entry.kind for one in log.of_key(KEYS[0])] == ["taken", "release"]


@pytest.mark.req("R7.2", "I11")
@pytest.mark.parametrize("durable", [False, True])
def test_commit_of_unknown_end_is_read_again(uri, durable):
    """The answer to COMMIT is lost: it is durable or not, and the next entry follows what is."""
    with closing(opened(uri)) as store:
        log = Log(store, boot="b", rng=os.urandom)
        log.commit(Draft(kind="taken", key=KEYS[0]), now=1)
        backend = store._backend
        real = backend._db

        class Lost:
            def __getattr__(self, name):
                return getattr(real, name)

            def execute(self, sql, *arguments):
                if sql != "COMMIT":
                    return real.execute(sql, *arguments)
                if durable:
                    real.execute(sql)
                raise psycopg.OperationalError("connection lost")

        backend._db = Lost()
        with pytest.raises(UnavailableError):
            log.commit(Draft(kind="release", key=KEYS[0]), now=2)
        assert log.head()[0] == 1 + durable
        (entry,) = log.commit(Draft(kind="release", key=KEYS[0]), now=3)
        assert entry.index == 1 + durable
        log.verify()


def snapshot(uri):
    """Return all rows by table and key."""
    with hand(uri) as db:
        return {
            (table, row[0]): row
            for table in ("records", "entries", "tree")
            for row in db.execute(f"SELECT * FROM {table}").fetchall()
        }


@pytest.mark.req("R2.2")
def test_mix_of_two_snapshots_is_refused(uri):
    """Each row that differs put back, or taken out, alone: nothing but a whole snapshot is read."""
    with closing(opened(uri)) as store:
        log = Log(store, boot="b", rng=os.urandom)
        puts = tuple(Put(name, b"1") for name in NAMES)
        log.commit(*(Draft(kind="taken", key=key) for key in KEYS), now=1, changes=puts)
        old = snapshot(uri)
        puts = tuple(Put(name, b"2", 1) for name in NAMES[:4])
        log.commit(*(Draft(kind="promoted", key=key) for key in KEYS[:2]), now=2, changes=puts)
        new = snapshot(uri)
        before = read_all(store, NAMES)
    tried = 0
    for place, row in new.items():
        for taken in (None, old.get(place)):
            if taken == row:
                continue
            with hand(uri) as db:
                write(db, place, taken)
            with pytest.raises(VerificationError), closing(opened(uri)) as store:
                read_all(store, [*NAMES, *(f"trail/{key}" for key in KEYS)])
            with hand(uri) as db:
                write(db, place, row)
            tried += 1
    assert tried > 40
    with closing(opened(uri)) as store:
        assert read_all(store, NAMES) == before


def write(db, place, row):
    """Put a row in its place, or nothing."""
    table, key = place
    column = {"records": "tag", "entries": "number", "tree": "path"}[table]
    db.execute(f"DELETE FROM {table} WHERE {column} = %s", (key,))
    if row is not None:
        db.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", row)


def test_database_that_went_back_under_a_running_vault_is_refused(uri):
    """After a reconnect, for instance: what was durable once stays so."""
    with closing(opened(uri)) as store:
        put(store, "key/a", b"1")
        old = snapshot(uri)
        put(store, "key/a", b"2", 1)
        with hand(uri) as db:
            for place in snapshot(uri):
                write(db, place, old.get(place))
        store._lose()
        for _ in range(2):
            with pytest.raises(VerificationError):
                store.get("key/a")


@pytest.mark.req("I1", "I11")
def test_vaults_serve_from_it(server, tmp_path):
    """Births, creation, a promote and releases, in turns; over a restart too."""
    from placet_testing import backends, constellations
    from placet_testing.charters import profile

    lies = backends.use(backends.Postgresql(server.uri))
    with lies, closing(constellations.begin(tmp_path)) as story:
        story.promote(profile(2))
        assert story.gather(profile(2)) == story.gather(profile(1)) == constellations.SECRET
        story.restart(0)
        assert story.gather(profile(2)) == constellations.SECRET
        log = story.benches[0].log
        log.verify()
        assert {"taken", "committed", "release"} <= {
            one.entry.kind for one in log.of_key(story.key)
        }


def test_main_program_opens_what_it_is_told(uri, tmp_path):
    """`--store`: a file by default, else the database; the sealing key is the same."""
    from placet.vault.main import SQLITE, open_store

    seal = Seal(b"s" * 32, VAULT, os.urandom)
    for where, kind in ((SQLITE, "SqliteStore"), (uri, "PostgresqlStore")):
        with closing(open_store(tmp_path, where, seal)) as store:
            assert type(store).__name__ == kind
            assert store.get("key/a") is None
    assert (tmp_path / "vault.db").exists()


def test_closed_store_answers_nothing(uri):
    """A late request during shutdown gets an error that is safe to retry."""
    store = opened(uri)
    store.close()
    with pytest.raises(UnavailableError):
        store.get("key/a")
    with pytest.raises(UnavailableError):
        PostgresqlBackend(uri).record(b"")
