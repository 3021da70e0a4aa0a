"""The store against a plain dictionary, and sealed values out of their place.

That a record is the newest of its name, or missing, is in test_state_root_property.py (R2.2).
"""

from __future__ import annotations

import os
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placet_testing import backends

from placet.core.encoding import digest
from placet.core.logentry import Draft
from placet.errors import ConflictError, VerificationError
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.storage.store import Append, Batch, Delete, Put, Stored

KEYS = [digest("key", b"%d" % n) for n in range(3)]
NAMES = [f"{kind}/{n}" for kind in ("key", "pending") for n in range(3)]


@contextmanager
def opened(folder):
    """Open a vault's store for a while."""
    path = Path(folder) / "vault.db"
    with closing(backends.open_store(path, Seal(bytes(32), "sha256:v", os.urandom))) as store:
        yield store


def edited(folder, sql, *arguments):
    """Edit the store while the vault is off."""
    with backends.hand(Path(folder) / "vault.db") as db:
        done = db.execute(sql, arguments)
        return done.fetchall() if sql.startswith("SELECT") else []


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["put", "delete"]),
        st.sampled_from(NAMES),
        st.none() | st.integers(1, 4),
        st.binary(max_size=40),
    ),
    min_size=1,
    max_size=4,
)


def on(backend, sqlite, postgresql):
    """Return settings with so many examples: each start takes longer over a connection."""
    return settings(max_examples=sqlite if backend.name == "sqlite" else postgresql)


def test_store_does_what_a_dictionary_with_versions_does(backend):
    """Each batch whole or not at all, over restarts; every read as it was written."""
    on(backend, 40, 10)(given(st.lists(CHANGES, max_size=12))(does_as_a_dictionary))()


def does_as_a_dictionary(batches):
    """Write these batches to both."""
    model: dict[str, Stored] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, batch in enumerate(batches):
            after, fits = dict(model), True
            changes = []
            for act, name, expected, value in batch:
                old = after[name].version if name in after else None
                if act == "delete":
                    changes.append(Delete(name, expected or 1))
                    fits = fits and old == (expected or 1)
                    after.pop(name, None)
                else:
                    changes.append(Put(name, value, expected))
                    fits = fits and old == expected
                    after[name] = Stored((expected or 0) + 1, value)
            with opened(folder) as store:
                entry = Append(store.size(), "t", store.size(), b"%d" % number, b"")
                try:
                    store.commit(Batch(tuple(changes), (entry,)))
                    assert fits
                    model = after
                except ConflictError:
                    assert not fits
                assert {n: store.get(n) for n in NAMES if store.get(n)} == model
                assert store.count("key") == sum(name[:3] == "key" for name in model)


def two_snapshots(folder):
    """Fill a vault twice over; return the rows of both times."""
    rows = []
    with opened(folder) as store:
        log = Log(store, boot="b", rng=os.urandom)
        for version in (None, 1):
            changes = tuple(Put(name, f"{name} {version}".encode(), version) for name in NAMES)
            log.commit(*(Draft(kind="taken", key=key) for key in KEYS), now=1, changes=changes)
            rows.append([(r.tag, r.version, r.sealed) for r in store._backend.records()])
    return rows


def test_no_record_opens_in_another_ones_place(tmp_path):
    """R2.2 over all pairs of two snapshots: blob alone, and blob with its version."""
    old, new = two_snapshots(tmp_path)
    refused = 0
    with opened(tmp_path) as store:
        for tag, version, own in new:
            for from_tag, from_version, sealed in old + new:
                if sealed == own:
                    continue
                for claimed in {version, from_version}:
                    if (from_tag, from_version) == (tag, claimed):
                        continue  # the record's own older self, whole: see below
                    with pytest.raises(VerificationError):
                        store._seal.open(tag, claimed, sealed)
                    refused += 1
    assert refused > 150


def test_no_log_entry_opens_in_another_ones_place(tmp_path):
    """Every ordered pair of entries, and every entry as a record and the other way."""
    two_snapshots(tmp_path)
    rows = edited(tmp_path, "SELECT number, sealed FROM entries")
    records = edited(tmp_path, "SELECT tag, sealed FROM records")
    with opened(tmp_path) as store:
        for number, _ in rows:
            for other, sealed in rows:
                if number != other:
                    with pytest.raises(VerificationError):
                        store._seal.open(store._seal.tag(f"log/{number}"), 1, sealed)
            for _, sealed in records:
                with pytest.raises(VerificationError):
                    store._seal.open(store._seal.tag(f"log/{number}"), 1, sealed)


@pytest.mark.req("R2.2")
def test_older_log_records_beside_newer_ones_are_refused(backend):
    """Roll back any part of the log's own records and rows, but not all: a refusal.

    Within reach are state, ends of trails and entries. Nothing wrong is ever read.
    """
    on(backend, 40, 10)(given(st.data())(refuses_older_records))()


def refuses_older_records(data):
    """Roll back what is drawn."""
    with tempfile.TemporaryDirectory() as folder:
        with opened(folder) as store:
            log = Log(store, boot="b", rng=os.urandom)
            log.commit(*(Draft(kind="a", key=key) for key in KEYS), now=1)
        records = "SELECT tag, version, sealed FROM records WHERE kind IN ('meta', 'trail')"
        old = edited(folder, records)
        with opened(folder) as store:
            log = Log(store, boot="b", rng=os.urandom)
            log.commit(*(Draft(kind="b", key=key) for key in KEYS), now=2)
            head = log.head()
        size = len(edited(folder, "SELECT number FROM entries"))
        back = data.draw(st.sets(st.sampled_from(old), min_size=1))
        for tag, version, sealed in back:
            edited(
                folder,
                "UPDATE records SET version = ?, sealed = ? WHERE tag = ?",
                *(version, sealed, tag),
            )
        # Cutting entries off as well makes the state fit: then the trails must not.
        cut = data.draw(st.integers(0, 3))
        edited(folder, "DELETE FROM entries WHERE number >= ?", size - cut)
        if len(back) == len(old) and cut == 3:
            return  # all of it: an older log as a whole

        with pytest.raises(VerificationError):
            use(folder, head)


def use(folder, head):
    """Start, check everything, and write once more to every key's trail."""
    with opened(folder) as store:
        log = Log(store, boot="b", rng=os.urandom)
        log.verify()
        assert log.head() == head
        log.commit(*(Draft(kind="c", key=key) for key in KEYS), now=3)
