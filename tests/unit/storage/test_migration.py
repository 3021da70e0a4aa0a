"""A store of schema 1 is verified, and put under a root by one transaction (spec/06, 1.9)."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from placet_testing.stores import check_contents

from placet.core.encoding import decode, unb64
from placet.core.logentry import Draft
from placet.errors import UnavailableError, VerificationError
from placet.storage.log import Log
from placet.storage.migration import migrate
from placet.storage.sealed import Seal
from placet.storage.sealed_store import SealedStore
from placet.storage.sqlite import SqliteBackend, SqliteStore
from placet.vault.records import IdentityRecord

FIXTURE = Path(__file__).resolve().parents[3] / "vectors" / "releases" / "store-1"
WAS = json.loads((FIXTURE / "contents.json").read_text())


def seal(vault=WAS["vault"]):
    """Return the seal of the machine that wrote it."""
    return Seal(bytes.fromhex(WAS["sealing_key"]), vault, os.urandom)


@pytest.fixture
def path(tmp_path):
    """Return a copy of the store that the release of schema 1 left."""
    shutil.copy(FIXTURE / "vault.db", tmp_path / "vault.db")
    return tmp_path / "vault.db"


def schema(path):
    """Return the schema that the file says it has."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


def hand(path, sql, *arguments):
    """Edit the file as its host can."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(sql, arguments).fetchall()


def test_store_of_schema_1_goes_on_as_schema_2(path):
    """All that was in it, and it can be written; the second opening finds nothing to do."""
    assert schema(path) == 1
    with closing(SqliteStore(path, seal())) as store:
        log = check_contents(store, WAS)
        log.commit(Draft(kind="release", key=WAS["keys"][0]), now=WAS["time"])
    assert schema(path) == 2
    with closing(SqliteStore(path, seal())) as store:
        log = Log(store, boot="again", rng=os.urandom)
        log.verify()
        assert log.head()[0] == WAS["size"] + 1


def test_vault_of_schema_1_finds_who_it_is(path):
    """As a start does: the identity first, then the migration, with its count of starts."""
    with closing(SqliteStore(path, seal(""))) as store:
        identity = decode(store.get("identity/vault").value, IdentityRecord)
        assert len(unb64(identity.private_key)) == 32
        store.bind(WAS["vault"], boots=identity.boots)
        assert store.boots == WAS["boots"] == 2
        check_contents(store, WAS)
    with closing(SqliteStore(path, seal(""))) as store, pytest.raises(VerificationError):
        store.bind(WAS["vault"], boots=1)


DAMAGED = {
    "entry gone": "DELETE FROM entries WHERE number = 7",
    "last entry gone": "DELETE FROM entries WHERE number = 51",
    "state gone": "DELETE FROM records WHERE kind = 'meta'",
    "record moved": "UPDATE records SET sealed = (SELECT sealed FROM records WHERE kind = 'marks')"
    " WHERE kind = 'pending'",
    "record torn": "UPDATE records SET sealed = zeroblob(80) WHERE kind = 'beside' OR kind = 'key'",
    "trail's end gone": "DELETE FROM records WHERE kind = 'trail'",
    "version turned back": "UPDATE records SET version = version + 1 WHERE kind = 'stager'",
}


@pytest.mark.parametrize("sql", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_store_of_schema_1_is_not_put_under_a_root(path, sql):
    """Whatever schema 1 would have refused, now or later; and it stays as it is."""
    hand(path, sql)
    with pytest.raises(VerificationError) as refused:
        SqliteStore(path, seal())
    assert refused.value.members == {"quarantined": True}
    assert schema(path) == 1


def test_another_machine_migrates_nothing(path):
    """No seal opens: refused, and it stays as it is."""
    with pytest.raises(VerificationError):
        SqliteStore(path, Seal(bytes(32), WAS["vault"], os.urandom))
    assert schema(path) == 1


class Failing:
    """A connection that fails at its so-and-so-manieth statement of a kind."""

    def __init__(self, db, start):
        self.db, self.start = db, start

    def __getattr__(self, name):
        return getattr(self.db, name)

    def execute(self, sql, *arguments):
        """Run or fail."""
        if sql.strip().startswith(self.start):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_WRITE"
            raise error
        return self.db.execute(sql, *arguments)


STEPS = ["BEGIN", "CREATE", "PRAGMA user_version=", "INSERT INTO records", "DELETE"]
STEPS += ["INSERT OR REPLACE INTO tree", "COMMIT"]


@pytest.mark.req("R7.3", "I16")
@pytest.mark.parametrize("start", STEPS)
def test_migration_that_fails_anywhere_leaves_schema_1(path, start):
    """Whole; and the next start migrates it."""
    backend = SqliteBackend(path)
    backend.open()
    backend._db = Failing(backend._db, start)
    with pytest.raises(UnavailableError):
        SealedStore(backend, seal(), upgrade=migrate)
    assert schema(path) == 1
    with closing(SqliteStore(path, seal())) as store:
        check_contents(store, WAS)
    assert schema(path) == 2


@pytest.mark.req("I16")
def test_migration_killed_anywhere_leaves_schema_1_or_2(path, tmp_path):
    """Power lost while its pages were written: cut the write-ahead log at any place."""
    backend = SqliteBackend(path)
    store = SealedStore(backend, seal(), upgrade=migrate)
    whole = path.with_name("vault.db-wal").read_bytes()
    store.close()
    found = set()
    for cut in [0, 32, len(whole) - 1, len(whole), *range(1000, len(whole), 60_000)]:
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        shutil.copy(FIXTURE / "vault.db", folder / "vault.db")
        (folder / "vault.db-wal").write_bytes(whole[:cut])
        backend = SqliteBackend(folder / "vault.db")
        found.add(backend.open())
        with closing(SealedStore(backend, seal(), upgrade=migrate)) as store:
            check_contents(store, WAS)
    assert found == {1, 2}
