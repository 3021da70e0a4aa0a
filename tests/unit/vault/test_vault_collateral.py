"""What a vault adds to verifying evidence: its folder, and marks that outlive a restart."""

from __future__ import annotations

import os
import time

import pytest
from placet_testing.tee import Tee, dev_pki, workload_config

from placet.attest.collateral_folder import CollateralFolder
from placet.core.attestation import Evidence
from placet.core.encoding import b64
from placet.errors import EvidenceError
from placet.storage.sealed import Seal
from placet.storage.sqlite import SqliteStore
from placet.vault.collateral import RECORD, MarkedVerifier
from placet_dev.tee.pki import DAY, Flaws

NOW = int(time.time())
OWNER = "sha256:" + "0e" * 32
QUOTE = Tee(workload_config(OWNER))
NAME = "intel-tdx-de7e57de7e57-platform.json"


class World:
    """A store, a folder and a vault's verifier over both."""

    def __init__(self, folder):
        self.folder = folder / "collateral"
        self.folder.mkdir()
        self.path = folder / "vault.db"
        self.key = os.urandom(32)
        self.store = self.open()
        self.verifier = MarkedVerifier(self.store, CollateralFolder(self.folder))

    def open(self):
        """Open the store, as a start does."""
        store = SqliteStore(self.path, Seal(self.key, "", os.urandom))
        store.bind("sha256:" + "aa" * 32)
        return store

    def restart(self):
        """Start again on the same disk."""
        self.store.close()
        self.store = self.open()
        self.verifier = MarkedVerifier(self.store, CollateralFolder(self.folder))

    def write(self, **flaws):
        """Put collateral into the folder."""
        found = dev_pki().collateral("tdx", NOW, Flaws(**flaws))
        (self.folder / NAME).write_bytes(found)

    def verify(self, *, now=NOW, grace=0, **stapled):
        """Verify a quote, with collateral stapled if its flaws are named, else with none."""
        evidence = QUOTE.quoter(QUOTE.bundle.measurement, bytes(64))
        own = b64(dev_pki().collateral("tdx", NOW, Flaws(**stapled))) if stapled else None
        sent = Evidence(family="tdx", quote=evidence.quote, collateral=own)
        return self.verifier(sent, trust=[dev_pki().anchor()], now=now, grace=grace)

    def refused(self, **given):
        """Return the name of the check that refuses."""
        with pytest.raises(EvidenceError) as refusal:
            self.verify(**given)
        return refusal.value.members["check"]


@pytest.fixture
def world(tmp_path):
    """Give a fresh one."""
    made = World(tmp_path)
    yield made
    made.store.close()


def test_a_quote_without_collateral_is_completed_from_the_folder(world):
    """Missing: refused and asked for. There: verified like what is stapled."""
    assert world.refused() == "collateral"
    assert (world.folder / "wanted" / NAME).exists()
    world.write(status="OutOfDate")
    assert world.verify().tcb.status == "OutOfDate"


@pytest.mark.req("R8.5")
def test_an_outage_is_bridged_by_the_folder_until_the_end_and_the_grace(world):
    """With the vendor away for a day, a month, and for longer than anybody allowed."""
    world.write(ends=NOW + 2 * DAY, crl_ends=NOW + 2 * DAY)
    assert world.verify(now=NOW + DAY).overdue == 0
    assert world.verify(now=NOW + 3 * DAY, grace=2 * DAY).overdue == DAY + 1
    assert world.refused(now=NOW + 3 * DAY) == "collateral-ended"
    assert world.refused(now=NOW + 5 * DAY, grace=2 * DAY) == "collateral-ended"


@pytest.mark.req("R3.1")
def test_marks_only_rise_and_survive_a_restart(world):
    """An older set that still counts by its own dates is refused, stapled or from the folder."""
    world.write(evaluation=21)
    assert world.verify().tcb.evaluation == 21
    for _ in range(2):
        assert world.refused(evaluation=20) == "collateral-older"
        world.write(evaluation=20)
        assert world.refused() == "collateral-older"
        world.restart()
    world.write(evaluation=22)
    assert world.verify().tcb.evaluation == 22
    assert world.refused(evaluation=21) == "collateral-older"


def test_a_stranger_cannot_raise_the_evaluation_of_others(world):
    """Early collateral that a peer staples is his own; dates within a number only rise."""
    assert world.verify(evaluation=23).tcb.evaluation == 23
    assert world.verify(evaluation=20, issued=NOW - 60).tcb.evaluation == 20
    assert world.verify(evaluation=20, issued=NOW - 30).tcb.evaluation == 20


def test_what_does_not_verify_raises_no_mark(world):
    """A set by a foreign signer leaves the store as it was."""
    world.write(signer="pck", evaluation=99)
    assert world.refused() == "issuer-chain"
    assert world.store.get(RECORD) is None


def test_known_collateral_is_not_read_again_and_writes_nothing(world):
    """One durable write for each time that a mark rises."""
    world.write(evaluation=21)
    world.verify()
    version = world.store.get(RECORD).version
    for _ in range(3):
        world.verify()
        world.verify(evaluation=21)
    assert world.store.get(RECORD).version == version == 1
