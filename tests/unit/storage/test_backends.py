"""What tests do to the places of stores, as their hosts can, is really done on either."""

from __future__ import annotations

import os
from contextlib import closing

from placet_testing import backends

from placet.storage.sealed import Seal
from placet.storage.store import Batch, Put, Stored


def opened(path):
    """Open a store."""
    return closing(backends.open_store(path, Seal(b"s" * 32, "sha256:v", os.urandom)))


def test_copy_of_a_store_in_use_is_put_back(backend, tmp_path):
    """What was durable when it was copied, and nothing later."""
    path, kept = tmp_path / "vault.db", tmp_path / "kept" / "vault.db"
    assert not backends.exists(path)
    with opened(path) as store:
        store.commit(Batch((Put("key/a", b"1"),)))
        backends.copy(path, kept)
        store.commit(Batch((Put("key/a", b"2", 1), Put("key/b", b"1"))))
    with opened(path) as store:
        assert (store.get("key/a"), store.count("key")) == (Stored(2, b"2"), 2)
    backends.copy(kept, path)
    with opened(path) as store, opened(kept) as other:
        for one in (store, other):
            assert (one.get("key/a"), one.count("key")) == (Stored(1, b"1"), 1)
    with backends.hand(path) as db:
        ((kind,),) = db.execute(
            "SELECT kind FROM records WHERE kind <> ? ORDER BY kind", ("meta",)
        ).fetchall()
    assert kind == "key"
    backends.remove(path)
    assert (backends.exists(path), backends.exists(kept)) == (False, True)
    with opened(path) as store:
        assert store.count("key") == 0
    assert backend.place(path).startswith(backend.name)
