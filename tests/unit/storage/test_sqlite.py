"""The embedded store: one process, and a hostile or failing disk.

What holds of every store is in test_store.py.
"""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest
from placet_testing.wires import read_only, watch

from placet.errors import UnavailableError, VerificationError
from placet.storage.sqlite import CHECKPOINT_ROWS
from placet.storage.store import Append, Batch, Put, Stored

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["sqlite"], indirect=True),
]

ENTRY = Append(0, "trail/k", 0, b"entry", b"n" * 32)


def put(store, name, value, expected=None):
    """Write one record."""
    store.commit(Batch((Put(name, value, expected),)))


# --- what the disk shows -------------------------------------------------------------------


def test_writes_wait_for_the_disk(store):
    """The settings that make a commit durable, as SQLite reports them."""
    pragmas = ("journal_mode", "synchronous", "locking_mode")
    found = [store._backend._db.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    assert found == ["wal", 2, "exclusive"]


def test_write_ahead_log_is_folded_into_the_file(files, store):
    """Every so many rows, so that it stays bounded."""
    empty = files.path.stat().st_size
    store._backend._folded -= CHECKPOINT_ROWS - 20
    for number in range(20):
        put(store, f"key/{number}", b"x" * 1000)
    assert files.path.stat().st_size > empty + 19_000


# --- one process ---------------------------------------------------------------------------


def test_second_process_is_refused(files):
    """While the first lives, and not a moment longer."""
    code = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from placet.storage.sqlite import SqliteStore\n"
        "from placet.storage.sealed import Seal\n"
        "from placet.errors import UnavailableError\n"
        "try:\n"
        "    SqliteStore(Path(sys.argv[1]), Seal(bytes(32), '', os.urandom)).close()\n"
        "except UnavailableError as e:\n"
        "    sys.exit(str(e))\n"
    )
    second = [sys.executable, "-c", code, str(files.path)]
    with closing(files.store()):
        ran = subprocess.run(second, capture_output=True, text=True, check=False)
        assert (ran.returncode, "another process" in ran.stderr) == (1, True)
    assert subprocess.run(second, check=False).returncode == 0


# --- a hostile disk ------------------------------------------------------------------------

PLANTED = {
    "trigger": "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM records; END",
    "view": "CREATE VIEW v AS SELECT 1",
    "table": "CREATE TABLE more (a)",
    "dropped index": "DROP INDEX entries_by_trail",
    "dropped table": "DROP TABLE records",
}


@pytest.mark.parametrize("sql", PLANTED.values(), ids=PLANTED.keys())
def test_tables_that_are_not_ours_are_refused(files, sql):
    """Somebody else's trigger would be code inside the vault's writes."""
    files.store().close()
    with files.hand() as db:
        db.execute(sql)
    with pytest.raises(VerificationError):
        files.store()


def test_store_of_a_later_release_is_refused(files):
    """Not guessed at, and not quarantined either."""
    files.store().close()
    with files.hand() as db:
        db.execute("PRAGMA user_version=3")
    with pytest.raises(UnavailableError, match="schema 3"):
        files.store()


def test_file_that_is_no_database_is_refused(files):
    """Nothing is made in its place."""
    files.path.write_bytes(b"not a database, and long enough for a header" * 100)
    with pytest.raises(VerificationError):
        files.store()
    assert files.path.read_bytes().startswith(b"not a database")


def test_torn_pages_are_refused(files):
    """A read of damaged pages ends in our error tree, whatever it hits."""
    with closing(files.store()) as store:
        for number in range(40):
            put(store, f"key/{number}", b"x" * 500)
    whole = files.path.read_bytes()
    refused = 0
    for page in range(1, len(whole) // 4096):
        files.path.write_bytes(whole[: page * 4096] + b"\xa5" * 4096 + whole[(page + 1) * 4096 :])
        try:
            with closing(files.store()) as store:
                assert store.count("key") == 40
                assert all(store.get(f"key/{n}").value == b"x" * 500 for n in range(40))
        except (VerificationError, UnavailableError):
            refused += 1
    assert refused >= 3


WRONG_CELLS = ["NULL", "2.5", "'text'", "x''", "x'00'", "-1", "zeroblob(50)"]


@pytest.mark.parametrize("cell", WRONG_CELLS)
@pytest.mark.parametrize("column", ["tag", "version", "sealed"])
def test_cells_of_any_type_are_refused(files, column, cell):
    """The host writes what it likes where a blob or number should be."""
    with closing(files.store()) as store:
        put(store, "key/a", b"1")
        put(store, "key/b", b"1")
    with loosened(files) as db:
        db.execute(f"UPDATE records SET {column} = {cell} WHERE rowid = 2")
    with pytest.raises(VerificationError), closing(files.store()) as store:
        assert [store.get(name) for name in ("key/a", "key/b")]


@pytest.mark.parametrize("cell", ["NULL", "1.5", "'text'", "x''"])
def test_tree_nodes_of_any_type_are_bytes(files, cell):
    """They are not authenticated; the proof made of them is checked."""
    with closing(files.store()) as store:
        store.commit(Batch((), (ENTRY,)))
    with loosened(files) as db:
        db.execute(f"UPDATE entries SET nodes = {cell}")
    with closing(files.store()) as store:
        assert isinstance(store.nodes(0), bytes)


@contextmanager
def loosened(files):
    """Edit rows without the column types, as an editor of the file's bytes could."""
    with files.hand() as db:
        tables = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
        rewrite(db, [(n, q.replace(" NOT NULL", "").replace(" STRICT", "")) for n, q in tables])
    with files.hand() as db:
        yield db
    with files.hand() as db:
        rewrite(db, tables)


def rewrite(db, tables):
    """Put these texts into the schema table."""
    db.execute("PRAGMA writable_schema=ON")
    for name, sql in tables:
        db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, name))


# --- a failing disk ------------------------------------------------------------------------


class Broken:
    """A disk that fails once, at one statement; the rest is SQLite's own."""

    def __init__(self, at, name="SQLITE_IOERR_FSYNC"):
        self.at, self.name = at, name

    def __call__(self, sql):
        """Let it run, or fail."""
        if self.at and sql.startswith(self.at):
            self.at = None
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = self.name
            raise error


BATCH = Batch((Put("key/a", b"new", 1), Put("key/b", b"x")), (ENTRY,))
STATEMENTS = ["BEGIN", "UPDATE records", "INSERT INTO records", "INSERT INTO entries"]
STATEMENTS += ["INSERT OR REPLACE INTO tree", "COMMIT"]


@pytest.mark.req("R7.3")
@pytest.mark.parametrize("at", STATEMENTS)
@pytest.mark.parametrize("name", ["SQLITE_FULL", "SQLITE_IOERR_FSYNC", "SQLITE_READONLY"])
def test_failure_at_any_statement_leaves_nothing_half_done(files, at, name):
    """After it, and after a restart; a full disk may recover, a failing one must not."""
    with closing(files.store()) as store:
        put(store, "key/a", b"old")
        broken = Broken(at, name)
        watch(store, broken)
        with pytest.raises(UnavailableError):
            store.commit(BATCH)
        assert broken.at is None
        assert store.get("key/a") == Stored(1, b"old")
        assert (store.get("key/b"), store.size()) == (None, 0)
        if name == "SQLITE_IOERR_FSYNC":
            with pytest.raises(UnavailableError, match="store failed"):
                store.commit(BATCH)
    with closing(files.store()) as store:
        assert (store.get("key/a"), store.size()) == (Stored(1, b"old"), 0)
        store.commit(BATCH)
        assert (store.get("key/a"), store.size()) == (Stored(2, b"new"), 1)


def test_failing_checkpoint_stops_the_store_before_the_commit(store):
    """SQLite alone would not report it, and a second fsync may lie."""
    store._backend._folded -= CHECKPOINT_ROWS
    watch(store, Broken("PRAGMA wal_checkpoint"))
    with pytest.raises(UnavailableError):
        put(store, "key/a", b"x")
    with pytest.raises(UnavailableError, match="store failed"):
        put(store, "key/a", b"x")
    assert store.get("key/a") is None


def test_full_disk_refuses_and_goes_on_when_there_is_room(store):
    """SQLite's own page limit: half of the batch fits, none of it stays."""
    put(store, "key/a", b"old")
    (pages,) = store._backend._db.execute("PRAGMA page_count").fetchone()
    store._backend._db.execute(f"PRAGMA max_page_count={pages + 2}")
    big = Batch((Put("key/a", b"new", 1), Put("key/b", b"x" * 100_000)), (ENTRY,))
    with pytest.raises(UnavailableError, match="full"):
        store.commit(big)
    assert (store.get("key/a"), store.get("key/b"), store.size()) == (Stored(1, b"old"), None, 0)
    store._backend._db.execute("PRAGMA max_page_count=100000")
    store.commit(big)
    assert store.get("key/a") == Stored(2, b"new")


def test_read_only_disk_refuses(store):
    """Nothing is written, and reading goes on."""
    put(store, "key/a", b"old")
    with read_only(store), pytest.raises(UnavailableError, match="readonly"):
        put(store, "key/a", b"new", 1)
    assert store.get("key/a") == Stored(1, b"old")


@contextmanager
def no_file_longer_than(size):
    """Let the kernel refuse writes beyond ``size`` bytes of any file, mid-write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [1, 100, 4096, 4200, 9000])
def test_write_that_the_kernel_cuts_off_leaves_nothing_half_done(files, room):
    """A real torn write of the write-ahead log, then a restart."""
    with closing(files.store()) as store:
        put(store, "key/a", b"old")
        wal = files.path.with_name("vault.db-wal")
        with no_file_longer_than(wal.stat().st_size + room), pytest.raises(UnavailableError):
            store.commit(Batch((Put("key/a", b"new", 1), Put("key/b", b"x" * 50_000)), (ENTRY,)))
        assert store.get("key/a") == Stored(1, b"old")
    with closing(files.store()) as store:
        assert (store.get("key/a"), store.get("key/b")) == (Stored(1, b"old"), None)
        put(store, "key/a", b"newer", 1)


def test_folder_that_is_not_there_is_unavailable(tmp_path, files):
    """Our error, not the system's."""
    files.path = tmp_path / "none" / "vault.db"
    with pytest.raises(UnavailableError):
        files.store()
