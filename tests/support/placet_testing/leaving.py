"""One vault of release 1 with a share of one key, whose owner added release 2."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from placet.client.clock import HostClock
from placet.core.encoding import b64
from placet.core.logentry import Draft
from placet.core.manifest import manifest_digest
from placet.core.messages import CourierItem, TakeRequest
from placet.core.profile import Profile, VaultMember, VaultSet
from placet.core.statement import UntrustedStatement
from placet.policy.charter import replay
from placet.sharing.key import deal
from placet.vault.records import CommittedShare
from placet_testing.charters import birth_body, composer, owner_of, person, signed
from placet_testing.handing import HandOvers, Process
from placet_testing.tee import Tee, vault_config

LINE = "00112233445566ff"
OWNER = owner_of(person("owner").signer)


def profile(number: int) -> Profile:
    """Return the profile of a vault release."""
    return Tee(vault_config(), version=number).profile()


class Leaving:
    """One vault of release 1 with a share of one key, whose owner added release 2."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.old = Process(folder / "old.db", 1)
        self.processes = [self.old]
        others = tuple(
            VaultMember(id="sha256:" + f"{i:064x}", endpoint=f"127.0.0.1:{i}", domain=None)
            for i in (1, 2)
        )
        me = VaultMember(id=self.old.id, endpoint="127.0.0.1:7000", domain=None)
        vaults = VaultSet(k=2, vaults=(me, *others), profiles=(profile(1),))
        self.statements = [
            signed(composer(HostClock().now()).birth(birth_body(OWNER, vaults=vaults)))
        ]
        self.take(self.statements[0])
        self.key = self.statements[0].digest
        self.share = self.keep_share(vaults)
        self.add(2)

    def take(self, sent: UntrustedStatement, process: Process | None = None) -> None:
        """Have a process take a statement."""
        chain = (CourierItem(signed=sent.signed(), receipts=()),)
        (process or self.old).vault.take(TakeRequest(chain=chain))

    def add(self, *numbers: int) -> None:
        """Have the owner add releases."""
        policy = replay(self.statements)
        update = composer(HostClock().now(), seed=f"{numbers}").update(
            policy, policy.rules, "newer", vault_profiles=tuple(map(profile, numbers))
        )
        self.statements.append(signed(update))
        self.take(self.statements[-1])

    def keep_share(self, vaults: VaultSet) -> str:
        """Put a committed share of a key into the old process's record, as creation does."""
        dealing = deal(
            bytes(range(32)), key=self.key, vaults=vaults.ids, k=2, generation=1, attempt=1,
            prev=None, rng=os.urandom,
        )  # fmt: skip
        share = b64(dealing.shares[self.old.id])
        vault = self.old.vault
        state = vault._keys.get(self.key)
        receipt = state.record.charter[0].receipts[0]
        committed = CommittedShare(
            manifest=dealing.manifest, share=share, certificate=(), committed=receipt
        )
        record = msgspec.structs.replace(state.record, committed=committed)
        draft = Draft(kind="committed", key=self.key, subject=manifest_digest(dealing.manifest))
        vault._replace(state, record, draft, now=HostClock().now())
        return share

    def successor(self, release: int = 2, line: str = LINE) -> Process:
        """Return a new process that has not been started before."""
        self.processes.append(Process(self.folder / f"new-{line}.db", release, line))
        return self.processes[-1]

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.close()

    def hand_over(self, new: Process | None = None) -> HandOvers:
        """Return the steps between the old process and a new one."""
        return HandOvers(self.old, new or self.successor(), self.key)
