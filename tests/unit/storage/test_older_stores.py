"""Stores that earlier releases left open under this one, on both backends (spec/06, 1.9)."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from placet_testing import backends
from placet_testing.stores import check_contents

from placet.core.encoding import decode
from placet.core.logentry import Draft
from placet.errors import UnavailableError, VerificationError
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.vault.records import IdentityRecord

RELEASES = Path(__file__).resolve().parents[3] / "vectors" / "releases"
LEFT = {"sqlite": ("store-1", "store-2"), "postgresql": ("store-2",)}
"""PostgreSQL came with schema 2."""
EACH = [(backend, store) for backend, stores in LEFT.items() for store in stores]


@pytest.fixture
def was(backend, request, tmp_path):
    """Return what was in a store, and lay it out where stores lie."""
    folder = RELEASES / request.param
    if backend.name == "sqlite":
        shutil.copy(folder / "vault.db", tmp_path / "vault.db")
    else:
        backend.place(tmp_path / "vault.db")
        with backend.hand(tmp_path / "vault.db") as db:
            db.execute((folder / "postgresql.sql").read_text())
    return json.loads((folder / "contents.json").read_text())


def opened(was, path, vault=None):
    """Open it on the machine that wrote it."""
    key = bytes.fromhex(was["sealing_key"])
    return closing(
        backends.open_store(path, Seal(key, was["vault"] if vault is None else vault, os.urandom))
    )


@pytest.mark.parametrize(("backend", "was"), EACH, indirect=True)
def test_store_of_an_earlier_release_goes_on(was, tmp_path):
    """All that was in it is there, by its own vault, and it can be written; then again."""
    path = tmp_path / "vault.db"
    with opened(was, path, "") as store:  # as a start does: the identity first
        assert decode(store.get("identity/vault").value, IdentityRecord).boots == was["boots"]
        store.bind(was["vault"], boots=was["boots"])
        log = check_contents(store, was)
        log.commit(Draft(kind="release", key=was["keys"][0]), now=was["time"])
    with opened(was, path) as store:
        log = Log(store, boot="again", rng=os.urandom)
        log.verify()
        assert log.head()[0] == was["size"] + 1


@pytest.mark.parametrize(("backend", "was"), EACH, indirect=True)
def test_store_of_a_later_release_is_refused_and_left_alone(backend, was, tmp_path):
    """Its tables may mean something else."""
    path = tmp_path / "vault.db"
    later = (
        "PRAGMA user_version=99"
        if backend.name == "sqlite"
        else "UPDATE placet_schema SET version = 99"
    )
    with backend.hand(path) as db:
        db.execute(later)
    before = backend.raw(path)
    with pytest.raises(UnavailableError, match="schema"), opened(was, path):
        pass
    assert backend.raw(path) == before


@pytest.mark.parametrize(("backend", "was"), EACH, indirect=True)
def test_another_machine_reads_nothing_of_an_earlier_store(backend, was, tmp_path):
    """No seal of its opens."""
    path = tmp_path / "vault.db"
    before = backend.raw(path)
    with pytest.raises(VerificationError), opened(was | {"sealing_key": "00" * 32}, path) as store:
        store.get("identity/vault")
    assert backend.raw(path) == before
