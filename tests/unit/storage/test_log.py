"""The log: entry first, one chain for each key, one tree for all (spec/06, section 3)."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from placet_testing import backends
from placet_testing.wires import read_only

from placet.core.encoding import decode, digest, encode
from placet.core.limits import MAX_DENIALS
from placet.core.logentry import Draft, LogEntry, entry_hash, leaf_data
from placet.core.merkle import leaf_hash, verify_inclusion
from placet.errors import ConflictError, MalformedError, UnavailableError, VerificationError
from placet.storage.log import Log
from placet.storage.store import Put, Stored

pytestmark = pytest.mark.usefixtures("backend")

KEY, OTHER_KEY = digest("key", b"1"), digest("key", b"2")
STATEMENT, CODE = digest("statement", b"1"), digest("code", b"1")


@pytest.fixture
def log(store):
    """Return a new vault's log."""
    return Log(store, boot="b1", rng=os.urandom)


# --- entries and chains --------------------------------------------------------------------


def test_entry_says_what_who_why_when(log):
    """Every field of the draft, and its place."""
    draft = Draft(kind="release", key=KEY, statement=STATEMENT, subject=CODE, detail={"version": 3})
    (entry,) = log.commit(draft, now=100)
    assert entry == LogEntry(
        index=0,
        key=KEY,
        key_seq=0,
        key_prev=None,
        kind="release",
        statement=STATEMENT,
        subject=CODE,
        detail={"version": 3},
        boot="b1",
        time=100,
    )


def test_entry_hash_is_frozen():
    """Auditors compute it; if it moves, every log in the world is void."""
    entry = LogEntry(index=1, key=KEY, key_seq=0, key_prev=None, kind="taken", boot="b", time=5)
    assert (
        encode(entry).decode() == '{"boot":"b","detail":null,"index":1,"key":"' + KEY + '",'
        '"key_prev":null,"key_seq":0,"kind":"taken","schema":1,"statement":null,'
        '"subject":null,"time":5}'
    )
    assert (
        entry_hash(bytes(16), encode(entry))
        == "sha256:289992a5219807f358e7e729426c016928ad775f6c3ef7fca67704ae527f9088"
    )


def test_each_key_has_a_trail_of_its_own(filled):
    """From 0 without a gap, each naming the one before by its salted digest."""
    with filled.log() as log:
        for key, count in ((KEY, 3), (OTHER_KEY, 5)):
            trail = log.of_key(key)
            assert [one.entry.key_seq for one in trail] == list(range(count))
            assert [one.entry.key_prev for one in trail] == [
                None,
                *(entry_hash(one.salt, one.raw) for one in trail[:-1]),
            ]
        assert [one.entry.kind for one in log.of_key(None)] == ["boot"]
        assert log.of_key(digest("key", b"unknown")) == ()


def test_trail_is_read_in_pages(filled):
    """From any number on, as many as wanted."""
    with filled.log() as log:
        whole = log.of_key(OTHER_KEY)
        assert log.of_key(OTHER_KEY, 1, 2) == whole[1:3]
        assert log.of_key(OTHER_KEY, 3) == whole[3:]
        assert log.of_key(OTHER_KEY, 5) == log.of_key(OTHER_KEY, 9) == ()


def test_one_commit_takes_several_entries(log):
    """Of one key and of several: chains hold inside the batch as well."""
    entries = log.commit(
        Draft(kind="taken", key=KEY),
        Draft(kind="taken", key=OTHER_KEY),
        Draft(kind="retired", key=KEY),
        now=1,
    )
    assert [(e.index, e.key_seq) for e in entries] == [(0, 0), (1, 0), (2, 1)]
    log.verify()


def test_auditor_places_every_entry_in_the_tree(filled):
    """From salt, bytes and proof alone, under the root of the checkpoint."""
    with filled.log() as log:
        size, root = log.head()
        assert size == 9
        for one in log.entries(0, size):
            entry = decode(one.raw, LogEntry)
            leaf = leaf_hash(leaf_data(entry_hash(one.salt, one.raw)))
            verify_inclusion(leaf, entry.index, size, log.proof(entry.index), root)
        assert len({one.salt for one in log.entries(0, size)}) == size


def test_log_goes_on_after_a_restart(filled):
    """Same head, next number, the new start's boot id."""
    with filled.log() as log:
        head = log.head()
    with filled.log("b2") as log:
        assert log.head() == head
        (entry,) = log.commit(Draft(kind="release", key=KEY), now=200)
        assert (entry.index, entry.key_seq, entry.boot) == (9, 3, "b2")
        log.verify()


def test_time_never_goes_back(filled):
    """Not within a start, and not over one; the host's clock may."""
    with filled.log() as log:
        assert log.time == 104
        (entry,) = log.commit(Draft(kind="release", key=KEY), now=5)
        assert entry.time == 104
        log.commit(now=300)
    with filled.log() as log:
        assert log.commit(Draft(kind="boot"), now=5)[0].time == 300


# --- records with them ---------------------------------------------------------------------


@pytest.mark.req("I11")
def test_records_and_entries_are_one_commit(log, store):
    """A lost race of the record leaves no entry; a failing disk leaves neither."""
    log.commit(Draft(kind="taken", key=KEY), now=1, changes=(Put("key/1", b"v1"),))
    head = log.head()
    with pytest.raises(ConflictError):
        log.commit(Draft(kind="taken", key=KEY), now=2, changes=(Put("key/1", b"v2"),))
    with read_only(store), pytest.raises(UnavailableError):
        log.commit(Draft(kind="taken", key=KEY), now=2, changes=(Put("key/1", b"v2", 1),))
    assert (log.head(), store.size(), store.get("key/1")) == (head, 1, Stored(1, b"v1"))

    (entry,) = log.commit(Draft(kind="taken", key=KEY), now=2, changes=(Put("key/1", b"v2", 1),))
    assert (entry.index, entry.key_seq) == (1, 1)
    log.verify()


def test_record_that_names_an_index_gets_it_or_nothing(log):
    """A receipt holds the number of its entry: another writer in between is a conflict."""
    log.commit(Draft(kind="boot"), now=1)
    for at in (0, 2):
        with pytest.raises(ConflictError):
            log.commit(Draft(kind="taken", key=KEY), now=1, at=at)
    assert log.commit(Draft(kind="taken", key=KEY), now=1, at=1)[0].index == 1


UNREADABLE = {
    "kind too long": Draft(kind="x" * 201),
    "key is no digest": Draft(kind="taken", key="k"),
    "entry too long": Draft(kind="x", detail={f"d{n}": "x" * 200 for n in range(30)}),
}


@pytest.mark.parametrize("draft", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_nothing_is_written_that_could_not_be_read(log, draft):
    """Or one bad draft would quarantine the vault at its next start."""
    with pytest.raises(MalformedError):
        log.commit(Draft(kind="boot"), draft, now=1)
    assert log.head()[0] == 0


# --- a host that edits the file ------------------------------------------------------------
# `filled`: 0 boot; then 1, 3, 5 of KEY and 2, 4, 6, 7, 8 of OTHER_KEY.


def delete(*numbers):
    """Return an edit that drops entries."""
    return lambda db: [db.execute("DELETE FROM entries WHERE number = ?", (n,)) for n in numbers]


def change(sql, *arguments):
    """Return an edit of one statement."""
    return lambda db: db.execute(sql, arguments)


def swap(one, two):
    """Return an edit that exchanges what two entries hold."""

    def edit(db):
        rows = dict(db.execute("SELECT number, sealed FROM entries").fetchall())
        db.execute("UPDATE entries SET sealed = ? WHERE number = ?", (rows[one], two))
        db.execute("UPDATE entries SET sealed = ? WHERE number = ?", (rows[two], one))

    return edit


AT_OPENING = {
    "last entry cut off": delete(8),
    "two entries cut off": delete(7, 8),
    "all entries cut off": change("DELETE FROM entries"),
    "log state deleted": change("DELETE FROM records WHERE kind = 'meta'"),
    "an entry appended": change(
        "INSERT INTO entries SELECT 9, trail, 9, nodes, sealed FROM entries WHERE number = 8"
    ),
    "the last entry a copy of an older one": change(
        "UPDATE entries SET sealed = (SELECT sealed FROM entries WHERE number = 6) WHERE number = 8"
    ),
    "the last two exchanged": swap(7, 8),
    "the last one's bytes": change("UPDATE entries SET sealed = ? WHERE number = 8", bytes(200)),
    "a tree node on the way": change("UPDATE entries SET nodes = ? WHERE number = 7", bytes(256)),
    "tree nodes gone": change("UPDATE entries SET nodes = ? WHERE number = 7", b""),
    "log state's bytes": change("UPDATE records SET sealed = ? WHERE kind = 'meta'", bytes(99)),
    "log state's version": change("UPDATE records SET version = 2 WHERE kind = 'meta'"),
}

WHEN_READ = {
    "first entry deleted": delete(1),
    "middle entry deleted": delete(3),
    "key's last entry deleted": delete(5),
    "two of a key exchanged": swap(1, 3),
    "two of two keys exchanged": swap(1, 2),
    "duplicated over another": change(
        "UPDATE entries SET sealed = (SELECT sealed FROM entries WHERE number = 1) WHERE number = 3"
    ),
    "edited": change("UPDATE entries SET sealed = ? WHERE number = 3", bytes(200)),
    "renumbered in the trail": change("UPDATE entries SET seq = 9 WHERE number = 3"),
    "last made the first of the trail": change("UPDATE entries SET seq = -1 WHERE number = 5"),
    "moved into another trail": change(
        "UPDATE entries SET seq = 9, trail = (SELECT trail FROM entries WHERE number = 2)"
        " WHERE number = 3"
    ),
    "all moved into another trail": change(
        "UPDATE entries SET seq = seq + 9, trail = (SELECT trail FROM entries WHERE number = 2)"
        " WHERE number IN (1, 3, 5)"
    ),
    "end of the trail deleted": change("DELETE FROM records WHERE kind = 'trail'"),
    "end of the trail edited": change("UPDATE records SET version = 1 WHERE kind = 'trail'"),
}


# What touches the end of a key's trail stops that key's next entry.
AT_ITS_END = [
    WHEN_READ["key's last entry deleted"],
    WHEN_READ["last made the first of the trail"],
    WHEN_READ["all moved into another trail"],
    WHEN_READ["end of the trail deleted"],
    WHEN_READ["end of the trail edited"],
]


@pytest.mark.req("I11", "R7.4")
@pytest.mark.parametrize("edit", AT_OPENING.values(), ids=AT_OPENING.keys())
def test_log_whose_end_was_edited_is_quarantined_at_start(filled, edit):
    """Without reading the whole log."""
    with filled.hand() as db:
        edit(db)
    with pytest.raises(VerificationError) as caught, filled.log():
        pass
    assert caught.value.members == {"quarantined": True}


@pytest.mark.req("I11", "R7.4")
@pytest.mark.parametrize("edit", WHEN_READ.values(), ids=WHEN_READ.keys())
def test_log_edited_in_the_middle_is_refused_when_it_is_read(filled, edit):
    """By the key's trail, by the next entry's writer or by the whole check: no wrong answer."""
    with filled.log() as log:
        genuine = {one.hashed for one in log.entries(0, 9)}
    with filled.hand() as db:
        edit(db)
    with filled.log() as log:
        with pytest.raises(VerificationError):
            log.verify()
        with pytest.raises(VerificationError):
            log.of_key(KEY)
        with suppress(VerificationError):
            assert {one.hashed for one in log.entries(0, 9)} == genuine
        if edit in AT_ITS_END:
            with pytest.raises(VerificationError):
                log.commit(Draft(kind="release", key=KEY), now=200)


@pytest.mark.req("I11")
@pytest.mark.parametrize("with_end", [False, True], ids=["entry", "entry and end of its trail"])
@pytest.mark.parametrize("after", [0, 1], ids=["last", "last but one"])
def test_entry_of_another_life_of_this_log_is_refused(filled, with_end, after):
    """A host ran a copy of the vault for a while: its seals are genuine, its tree is not."""
    other_life = filled.path.with_name("fork.db")
    backends.copy(filled.path, other_life)
    with filled.log() as log:
        log.commit(*[Draft(kind="release", key=KEY)] * (1 + after), Draft(kind="x"), now=200)
    genuine, filled.path = filled.path, other_life
    with filled.log() as log:
        log.commit(Draft(kind="denied", key=KEY), now=200)
    with filled.hand() as db:
        ((sealed,),) = db.execute("SELECT sealed FROM entries WHERE number = 9").fetchall()
        ends = db.execute("SELECT sealed, tag, version FROM records WHERE kind = 'trail'")
        ends = ends.fetchall()
    filled.path = genuine
    with filled.hand() as db:
        db.execute("UPDATE entries SET sealed = ? WHERE number = 9", (sealed,))
        if with_end:
            for end in ends:
                db.execute("UPDATE records SET sealed = ? WHERE tag = ? AND version = ?", end)
    with filled.log() as log:
        assert log.entries(9, 10)[0].entry.kind == "denied"  # it is genuine, by its seal
        for read in (lambda: log.proof(9), log.verify, lambda: log.of_key(KEY)):
            with pytest.raises(VerificationError):
                read()


# --- denials -------------------------------------------------------------------------------


def denials(log, key):
    """Return how many entries a key's trail has, and how many denials they stand for."""
    trail = log.of_key(key, limit=10_000)
    counted = [(one.entry.detail or {}).get("suppressed", 1) for one in trail]
    return len(trail), sum(counted)


@pytest.mark.req("R7.5")
def test_flood_of_denials_is_counted_and_not_kept_one_by_one(log):
    """Bounded growth in each minute, exact count once they have passed."""
    for second in range(180):
        for _ in range(20):
            log.deny(Draft(kind="denied", key=KEY, subject=CODE), now=6000 + second)
    log.settle(now=6180)
    entries, counted = denials(log, KEY)
    assert (entries, counted) == (3 * (MAX_DENIALS + 1), 3600)
    log.verify()


def test_denials_of_one_key_do_not_hide_those_of_another(log):
    """Each has its own count."""
    for _ in range(100):
        log.deny(Draft(kind="denied", key=KEY), now=60)
    assert log.deny(Draft(kind="denied", key=OTHER_KEY), now=60)
    assert log.deny(Draft(kind="denied", key=KEY), now=61) is None
    log.settle(now=61, stopping=True)
    assert denials(log, KEY) == (MAX_DENIALS + 1, 101)
    assert denials(log, OTHER_KEY) == (1, 1)


@pytest.mark.req("R7.3", "R7.5")
def test_denial_that_cannot_be_written_is_not_forgotten(log, store):
    """The answer is an error, and the counts stay."""
    for _ in range(MAX_DENIALS + 5):
        log.deny(Draft(kind="denied", key=KEY), now=60)
    with read_only(store), pytest.raises(UnavailableError):
        log.deny(Draft(kind="denied", key=KEY), now=120)
    log.settle(now=120)
    assert denials(log, KEY) == (MAX_DENIALS + 1, MAX_DENIALS + 5)


def test_clock_that_goes_back_keeps_counting(log):
    """The host may turn it: the cap of the minute stays, and so does the count."""
    for minute in (50, 3, 49, 0):
        for _ in range(10):
            log.deny(Draft(kind="denied", key=KEY), now=minute * 60)
    log.settle(now=51 * 60)
    assert denials(log, KEY) == (MAX_DENIALS + 1, 40)
