"""Whom a vault asks: the vault sets of its keys, also of those stored before it asked anybody."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from placet_testing.charters import birth_body, composer, signed, vault_name
from placet_testing.constellations import run_of
from placet_testing.tee import Tee, vault_config

from placet.core.profile import VaultMember, VaultSet
from placet.errors import VaultStartingError
from placet.storage.sealed import Seal
from placet.storage.sqlite import SqliteStore
from placet.storage.store import Batch, Delete
from placet.vault.main import open_vault
from placet.vault.service import Vault
from placet.vault.standing import Standing

OTHERS = (vault_name(8), vault_name(9))


@contextlib.contextmanager
def started(folder: Path) -> Iterator[tuple[Vault, SqliteStore, str]]:
    """Start a vault that asks its real peers, of which there are none."""
    tee = Tee(vault_config(), boot=f"boot-{os.urandom(4).hex()}")
    seal = Seal(tee.sealing_key(), "", os.urandom)
    with contextlib.closing(SqliteStore(folder / "vault.db", seal)) as store:
        vault, identity, *_ = open_vault(tee, store, int(time.time()), Standing)
        yield vault, store, identity.id


@pytest.mark.req("I6")
def test_a_key_that_was_stored_without_its_vault_set_has_others_asked_all_the_same(
    tmp_path: Path,
) -> None:
    """By an earlier release: the next start finds the set, and does not stand alone."""
    with started(tmp_path) as (vault, store, own):
        members = tuple(
            VaultMember(id=one, endpoint=f"127.0.0.1:{n}", domain=None)
            for n, one in enumerate((own, *OTHERS), 1)
        )
        releases = (Tee(vault_config()).profile(),)
        body = birth_body(vaults=VaultSet(k=2, vaults=members, profiles=releases))
        birth = signed(composer(int(time.time())).birth(body))
        vault.take(run_of(birth))
        [name] = store.names("circle")
        stored = store.get(name)
        assert stored is not None
        store.commit(Batch((Delete(name, stored.version),)))
    with started(tmp_path) as (vault, store, _):
        assert list(store.names("circle")) == [name]
        report = vault.standing.report()
        assert (report.state, set(report.waiting)) == ("starting", set(OTHERS))
        with pytest.raises(VaultStartingError):
            vault.take(run_of(birth))
    with started(tmp_path) as (vault, store, _):
        assert list(store.names("circle")) == [name]
        assert vault.standing.report().state == "starting"
