"""A vault's store and log on a real file, opened as often as a test likes."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing, contextmanager

import pytest
from placet_testing import backends

from placet.core.encoding import digest
from placet.core.logentry import Draft
from placet.storage.log import Log
from placet.storage.sealed import Seal

SEALING_KEY = hashlib.sha256(b"a TEE's sealing key").digest()
VAULT = digest("vault", b"1")
KEY, OTHER_KEY = digest("key", b"1"), digest("key", b"2")


class Files:
    """One vault's folder."""

    def __init__(self, folder):
        self.path = folder / "vault.db"

    def store(self, vault=VAULT):
        """Open the store; the test closes it."""
        return backends.open_store(self.path, Seal(SEALING_KEY, vault, os.urandom))

    @contextmanager
    def log(self, boot="b1"):
        """Open store and log for a while."""
        with closing(self.store()) as store:
            yield Log(store, boot=boot, rng=os.urandom)

    def hand(self):
        """Edit it as its host can, while the vault is off."""
        return backends.hand(self.path)

    def raw(self):
        """Return all that its host can read."""
        return backends.raw(self.path)


@pytest.fixture
def files(tmp_path):
    """Return an empty folder of a vault."""
    return Files(tmp_path)


@pytest.fixture
def store(files):
    """Return an open store."""
    with closing(files.store()) as opened:
        yield opened


@pytest.fixture
def filled(files):
    """Return a vault's folder after a short life of two keys."""
    with files.log() as log:
        log.commit(Draft(kind="boot"), now=100)
        for number in range(3):
            log.commit(Draft(kind="release", key=KEY, detail={"n": number}), now=101 + number)
            log.commit(Draft(kind="taken", key=OTHER_KEY), now=101 + number)
        log.commit(Draft(kind="taken", key=OTHER_KEY), Draft(kind="taken", key=OTHER_KEY), now=104)
    return files
