"""Mix and match of two snapshots of one vault (R2.2): nothing but a whole snapshot is ever read.

A *whole* older snapshot is not refused here: one vault alone cannot tell (I6 does).
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placet_testing import backends
from placet_testing.stores import VAULT, MemoryBackend, Rows, memory_store, read_all

from placet.core.encoding import digest
from placet.core.logentry import Draft
from placet.core.state_tree import BUCKET, EMPTY, StateTree, record_digest
from placet.errors import VerificationError
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.storage.store import Batch, Delete, Put

KEYS = [digest("key", b"%d" % n) for n in range(3)]
NAMES = [f"{kind}/{n}" for kind in ("key", "pending") for n in range(9)]
SEAL = Seal(bytes(32), VAULT, os.urandom)
ALL = [*NAMES, "identity/vault", *(f"trail/{key}" for key in (*KEYS, ""))]


def life():
    """Return the rows of a vault at two times, and what was to be read at each."""
    backend = MemoryBackend()
    store = memory_store(backend)
    log = Log(store, boot="b", rng=os.urandom)
    store.commit(Batch((Put("identity/vault", b"1"),), boots=1))
    born = [*NAMES[:6], *NAMES[9:18]]
    log.commit(
        *(Draft(kind="taken", key=key) for key in KEYS),
        now=1,
        changes=tuple(Put(name, f"{name} 1".encode()) for name in born),
    )
    old = backend.rows.copy(), read_all(memory_store(MemoryBackend(backend.rows)), ALL)
    store.commit(Batch((Put("identity/vault", b"2", 1),), boots=2))
    changes = [Put(name, f"{name} 2".encode(), 1) for name in born[:5]]
    changes += [Delete(name, 1) for name in born[5:7]]
    changes += [Put(name, b"new") for name in NAMES[6:8]]
    drafts = (Draft(kind="boot"), *(Draft(kind="promoted", key=key) for key in KEYS[:2]))
    log.commit(*drafts, now=2, changes=tuple(changes))
    return old, (backend.rows.copy(), read_all(memory_store(MemoryBackend(backend.rows)), ALL))


(OLD, OLD_SEEN), (NEW, NEW_SEEN) = life()


def seen(rows):
    """Return all that is read of these rows by a vault that starts from them, or None: refused."""
    try:
        return read_all(memory_store(MemoryBackend(rows.copy())), ALL)
    except VerificationError as e:
        return None if e.members == {"quarantined": True} else e


def test_each_snapshot_is_read_as_it_was():
    """Also the older one, whole."""
    assert seen(OLD) == OLD_SEEN != NEW_SEEN == seen(NEW)
    assert len(NEW.tree) > 1 < BUCKET


@pytest.mark.req("R2.2")
def test_every_pair_of_records_of_two_snapshots():
    """Each place of the newer one with each record of both: moved, swapped, doubled, older."""
    tried = 0
    for tag, own in NEW.records.items():
        for other in [*OLD.records.values(), *NEW.records.values()]:
            for taken in (replace(other, tag=tag), replace(own, sealed=other.sealed)):
                if taken == own:
                    continue
                moved = NEW.copy()
                moved.records[tag] = taken
                assert seen(moved) is None, (own, other)
                if other.tag in NEW.records and other.tag != tag:  # both ways
                    moved.records[other.tag] = replace(own, tag=other.tag)
                    assert seen(moved) is None
                tried += 1
    assert tried > 1000


@pytest.mark.req("R2.2")
def test_every_record_dropped_and_every_gone_one_put_back():
    """The state too; an absent record is proven absent."""
    for rows in (OLD, NEW):
        for tag in rows.records:
            fewer = rows.copy()
            del fewer.records[tag]
            assert seen(fewer) is None
    for mine, other in ((OLD, NEW), (NEW, OLD)):
        for tag in other.records.keys() - mine.records.keys():
            more = mine.copy()
            more.records[tag] = other.records[tag]
            assert seen(more) is None


@pytest.mark.req("R2.2")
def test_every_node_of_the_tree_is_load_bearing():
    """Dropped, older or another's; what no longer hangs on the root may lie there."""
    for path, node in NEW.tree.items():
        for taken in {None, b"", OLD.tree.get(path), *NEW.tree.values()} - {node}:
            other = NEW.copy()
            if taken is None:
                del other.tree[path]
            else:
                other.tree[path] = taken
            assert seen(other) is None, path


@pytest.mark.req("R2.2")
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_mixture_of_two_snapshots_is_read(data):
    """Any rows of the one beside any rows of the other, the state among them: whole or refused."""
    mixed, picked = mixture(data)
    assert seen(mixed) in (None, OLD_SEEN, NEW_SEEN), picked


@pytest.mark.req("R2.2")
def test_no_mixture_is_read_from_a_real_backend(backend, tmp_path):
    """The rows as they lie in a file or in a database."""
    path = tmp_path / "vault.db"

    @settings(max_examples=20)
    @given(st.data())
    def refuses(data):
        mixed, picked = mixture(data)
        backend.remove(path)
        pour(mixed, path)
        assert seen_at(path) in (None, OLD_SEEN, NEW_SEEN), picked

    pour(OLD, path)
    assert seen_at(path) == OLD_SEEN
    refuses()
    backend.remove(path)
    pour(NEW, path)
    assert seen_at(path) == NEW_SEEN


def pour(rows, path):
    """Have these rows lie in a new store."""
    backends.open_store(path, SEAL).close()
    with backends.hand(path) as db:
        db.execute("BEGIN")
        for row in rows.records.values():
            values = (row.tag, rows.kinds.get(row.tag, "meta"), row.version, row.sealed)
            db.execute("INSERT INTO records VALUES (?, ?, ?, ?)", values)
        for one in rows.entries.values():
            values = (one.number, one.trail, one.seq, one.nodes, one.sealed)
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", values)
        for node in rows.tree.items():
            db.execute("INSERT INTO tree VALUES (?, ?)", node)
        db.execute("COMMIT")


def seen_at(path):
    """Return what is read there by a vault that starts."""
    try:
        with closing(backends.open_store(path, SEAL)) as store:
            return read_all(store, ALL)
    except VerificationError as e:
        return None if e.members == {"quarantined": True} else e


def mixture(data):
    """Draw some rows of the one, and the rest of the other."""
    picked = data.draw(st.integers(0, 2**16)), data.draw(st.integers(0, 3))
    mixed = Rows()
    for name in ("records", "entries", "tree"):
        old, new, into = getattr(OLD, name), getattr(NEW, name), getattr(mixed, name)
        changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
        back = data.draw(st.sets(st.sampled_from(changed)) | st.just(set(changed)) | st.just(set()))
        for key in old.keys() | new.keys():
            source = old if key in back else new
            if key in source:
                into[key] = source[key]
    return mixed, picked


@pytest.mark.req("R2.2")
def test_state_of_one_snapshot_with_records_and_log_of_the_other():
    """And each of the three with the two others."""
    state = next(t for t in NEW.records if NEW.records[t] != OLD.records.get(t) and is_state(t))
    for mine, other in ((OLD, NEW), (NEW, OLD)):
        for parts in ({"state"}, {"records"}, {"entries"}, {"state", "entries"}, {"tree"}):
            rows = mine.copy()
            if "records" in parts:
                rows.records = {**other.records, state: mine.records[state]}
            if "state" in parts:
                rows.records[state] = other.records[state]
            if "entries" in parts:
                rows.entries = dict(other.entries)
            if "tree" in parts:
                rows.tree = dict(other.tree)
            assert seen(rows) is None, parts


def is_state(tag):
    """Return whether that is the place of the state."""
    return tag == memory_store(MemoryBackend())._seal.tag("meta/state")


# --- the tree itself, against a dictionary --------------------------------------------------

TAGS = st.binary(min_size=1, max_size=2).map(lambda b: (b * 32)[:32])
STEPS = st.lists(st.dictionaries(TAGS, st.none() | st.integers(1, 99), max_size=40), max_size=6)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sets(TAGS, max_size=5))
def test_tree_holds_what_a_dictionary_holds(steps, others):
    """Over any batches of writes and removals; a reader with the root alone finds the same."""
    kept, root, model = {}, EMPTY, {}
    for step in steps:
        tree = StateTree(root, kept.get)
        batch = {t: None if v is None else record_digest(v, b"") for t, v in step.items()}
        root, nodes = tree.changed(batch)
        kept |= nodes
        tree.adopt(root, nodes)
        model |= batch
        fresh = StateTree(root, kept.get)
        for tag in model.keys() | others:
            assert tree.get(tag) == fresh.get(tag) == model.get(tag)
    if not any(model.values()):
        assert root == EMPTY


def test_root_is_frozen():
    """What a vault sealed, a later release must find again."""
    assert record_digest(3, b"sealed").hex() == (
        "d4789033671ddc6a9c162d4f87a5759ead5839593954fd34fe102d0ef321f468"
    )
    tags = {bytes([n]) * 32: record_digest(1, b"%d" % n) for n in range(40)}
    root, nodes = StateTree(EMPTY, {}.get).changed(tags)
    assert (len(nodes), root.hex()) == (
        36,
        "77041bf7dc20d3d6a2462ce93ee8f2c81685c7ec3dab3e5bc7059e575cf5ca34",
    )
