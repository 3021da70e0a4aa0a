"""Vaults on hosts that stop them, put their disks back, copy them and set their clocks.

Everything is real - sealed stores, logs, standings, clocks, signatures - but the network:
beats are carried by calls, so that a test says who reaches whom, and when.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.client.signing import promote_body
from placet.core.continuity import WitnessAnswer, WitnessRequest
from placet.core.dsse import vault_id
from placet.core.encoding import b64
from placet.core.manifest import manifest_digest
from placet.core.messages import (
    CommitRequest,
    HoldRequest,
    PromiseRequest,
    ReleaseAnswer,
    ReleaseRequest,
    TakeAnswer,
)
from placet.core.profile import Profile, VaultMember, VaultSet, WitnessMember, code_id
from placet.core.statement import UntrustedStatement
from placet.errors import PlacetError, UnavailableError, VaultStartingError
from placet.policy.charter import replay
from placet.policy.key_policy import KeyPolicy
from placet.sharing.key import deal
from placet.storage.log import Log
from placet.storage.sealed import Seal
from placet.vault.clock import VaultClock
from placet.vault.following import Following
from placet.vault.main import open_vault
from placet.vault.service import Vault
from placet.vault.standing import Standing
from placet.vault.witnessing import Witnessing
from placet_testing import backends
from placet_testing.charters import NOW, birth_body, composer, identity, profile, signed
from placet_testing.constellations import run_of
from placet_testing.tee import Tee, vault_config
from placet_testing.vaults import peer

SECRET = b"the 32 bytes of a data key here!"


@dataclass
class HostClock:
    """What a host says the time is, and what really passes."""

    wall: float = NOW
    running: float = 1000.0

    def passes(self, seconds: float) -> None:
        """Let time pass, for both."""
        self.wall += seconds
        self.running += seconds


@dataclass
class OutsideWitness:
    """A witness elsewhere; `lies` makes it repeat whatever it is told."""

    folder: Path
    clock: HostClock
    lies: bool = False
    up: bool = True
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self) -> None:
        """Open its memory."""
        self.id = vault_id(self.key.public_key().public_bytes_raw())
        self.open()

    def open(self) -> None:
        """Open its memory; an empty one for every beat, if it lies."""
        path = self.folder / f"witness-{self.id[7:15]}.db"
        self.store = backends.open_store(path, Seal(b"w" * 32, self.id, os.urandom))

    def answer(self, request: WitnessRequest) -> WitnessAnswer:
        """Answer a beat."""
        store = self.store
        if self.lies:
            path = self.folder / f"lie-{os.urandom(8).hex()}.db"
            store = backends.open_store(path, Seal(b"w" * 32, self.id, os.urandom))
        try:
            said = Witnessing(store, self.key, lambda: int(self.clock.wall), lambda _: True)
            return said.answer(request)
        finally:
            if self.lies:
                store.close()


class Machine:
    """One vault and its disk. `start` again after `stop`; `disk` and `put_back` are the host's."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.clock = folder, name, HostClock()
        self.path = folder / f"{name}.db"
        self.running = False
        self.cursors: dict[str, int] = {}
        self.start()
        self.id = self.standing.id

    def start(self) -> None:
        """Start the vault on what its disk holds."""
        tee = Tee(vault_config(), boot=f"boot-{os.urandom(4).hex()}")
        self.store = backends.open_store(self.path, Seal(tee.sealing_key(), "", os.urandom))
        clock_of = partial(
            VaultClock, wall=lambda: self.clock.wall, running=lambda: self.clock.running
        )
        self.vault: Vault
        self.log: Log
        self.vault, self.identity, _, self.log, self.time = open_vault(
            tee, self.store, 0, clock_of=clock_of
        )
        assert isinstance(self.vault.standing, Standing)
        self.standing: Standing = self.vault.standing
        self.running, self.cursors = True, {}
        self.following = Following(self.vault)

    def stop(self) -> None:
        """End it, as a power failure would."""
        if self.running:
            self.store.close()
        self.running = False

    def disk(self, to: Path) -> Path:
        """Copy the disk away."""
        backends.copy(self.path, to / self.path.name)
        return to

    def put_back(self, disk: Path) -> None:
        """Put an earlier disk in place and start on it."""
        self.stop()
        backends.copy(disk / self.path.name, self.path)
        self.start()

    def copy(self, folder: Path) -> Machine:
        """Start a second vault from a copy of this disk: a clone."""
        self.disk(folder)
        made = Machine.__new__(Machine)
        made.folder, made.name, made.clock = folder, self.name, self.clock
        made.path, made.running, made.cursors = folder / self.path.name, False, {}
        made.start()
        made.id = made.standing.id
        return made


@dataclass
class Ring:
    """A key, the machines of its vaults, and outside witnesses."""

    folder: Path
    machines: list[Machine]
    witnesses: list[OutsideWitness]
    k: int
    statements: list[UntrustedStatement] = field(default_factory=list)
    now: int = NOW

    @classmethod
    def make(cls, folder: Path, n: int = 5, k: int = 3, m: int = 0) -> Ring:
        """Start n vaults and m outside witnesses; no key is born."""
        machines = [Machine(folder, f"vault{i}") for i in range(n)]
        clock = machines[0].clock
        for machine in machines:
            machine.clock = HostClock(clock.wall, clock.running)
        witnesses = [OutsideWitness(folder, HostClock()) for _ in range(m)]
        return cls(folder, machines, witnesses, k)

    def close(self) -> None:
        """Stop everything."""
        for machine in self.machines:
            machine.stop()
        for witness in self.witnesses:
            witness.store.close()

    @property
    def vault_set(self) -> VaultSet:
        """Return the set of these vaults and witnesses."""
        return VaultSet(
            k=self.k,
            vaults=tuple(
                VaultMember(id=m.id, endpoint=f"127.0.0.1:{9000 + i}", domain=None)
                for i, m in enumerate(self.machines)
            ),
            profiles=(profile(0, app="placet-vault"),),
            witnesses=tuple(
                WitnessMember(id=w.id, endpoint=f"127.0.0.1:{9500 + i}")
                for i, w in enumerate(self.witnesses)
            ),
        )

    @property
    def key(self) -> str:
        """Return the key id."""
        return self.statements[0].digest

    @property
    def policy(self) -> KeyPolicy:
        """Return the policy after all statements."""
        return replay(self.statements)

    def passes(self, seconds: float) -> None:
        """Let time pass everywhere."""
        self.now += int(seconds)
        for clock in {id(m.clock): m.clock for m in (*self.machines, *self.witnesses)}.values():
            clock.passes(seconds)

    # --- beats -------------------------------------------------------------------------

    def beat(self, sender: Machine, to: Machine | OutsideWitness) -> bool:
        """Have one ask another until the answer counts; say whether it did."""
        up = to.running if isinstance(to, Machine) else to.up
        if not up or not sender.running or not sender.standing.knows(to.id):
            return False
        for _ in range(4):
            asked = sender.standing.ask(to.id, sender.cursors.get(to.id, 0))
            said = to.vault.witness if isinstance(to, Machine) else to.answer
            answer = said(asked.request)
            if sender.standing.hear(to.id, asked, answer):
                continue
            for news in answer.news:
                if sender.following.lacks(news) and isinstance(to, Machine):
                    try:
                        sender.following.bring(news.key, to.vault.charter(news.key))
                    except VaultStartingError:
                        return False
                    except PlacetError:
                        continue
            sender.cursors[to.id] = answer.cursor
            sender.standing.catch_up(to.id)
            return True
        return False

    def beats(
        self,
        senders: Sequence[Machine] | None = None,
        to: Collection[Machine | OutsideWitness] | None = None,
        rounds: int = 2,
    ) -> None:
        """Have vaults ask all others that they can reach; what they refuse stays refused."""
        everyone = [*self.machines, *self.witnesses] if to is None else list(to)
        for _ in range(rounds):
            for sender in self.machines if senders is None else senders:
                for other in everyone:
                    if other.id != sender.id:
                        with suppress(PlacetError):
                            self.beat(sender, other)

    # --- a key's life ------------------------------------------------------------------

    def bear(self, *, created: bool = True, body: object = None) -> Ring:
        """Have the key born at all vaults, and created."""
        birth = signed(composer(self.now).birth(body or birth_body(vaults=self.vault_set)))  # type: ignore[arg-type]
        self.statements = [birth]
        for machine in self.machines:
            machine.vault.take(run_of(birth))
        self.beats()
        if created:
            self._create()
            self.beats()
        return self

    def _create(self) -> None:
        vault_set, ids = self.vault_set, self.vault_set.ids
        dealt = deal(
            SECRET, key=self.key, generation=1, attempt=1, k=vault_set.k, vaults=ids,
            prev=None, rng=os.urandom,
        )  # fmt: skip
        who = identity(profile(1), (self.key,), purpose="create")
        for m in self.machines:
            m.vault.promise(self._peer(m, who), self.key, PromiseRequest(attempt=1))
        held = tuple(
            m.vault.hold(
                self._peer(m, who),
                self.key,
                HoldRequest(
                    attempt=1, manifest=dealt.manifest, share=b64(dealt.shares[m.id]), finishing=()
                ),
            ).held
            for m in self.machines
        )
        request = CommitRequest(attempt=1, manifest=manifest_digest(dealt.manifest), held=held)
        for m in self.machines:
            m.vault.commit(self._peer(m, who), self.key, request)

    def _peer(self, machine: Machine, who: object) -> object:
        return peer(who, (self.key,), at=machine.clock.running)  # type: ignore[arg-type]

    def promote(self, what: Profile, at: Sequence[Machine] | None = None) -> UntrustedStatement:
        """Have the owner promote a profile."""
        body = promote_body(self.policy, what)
        return self._send(signed(composer(self.now).promote(self.policy, body)), at)

    def retire(self, what: Profile, at: Sequence[Machine] | None = None) -> UntrustedStatement:
        """Have the owner retire a profile."""
        return self._send(signed(composer(self.now).retire(self.policy, code_id(what), "old")), at)

    def _send(self, sent: UntrustedStatement, at: Sequence[Machine] | None) -> UntrustedStatement:
        for machine in self.machines if at is None else at:
            machine.vault.take(run_of(sent))
        self.statements.append(sent)
        return sent

    def take(self, machine: Machine, sent: UntrustedStatement) -> TakeAnswer:
        """Bring one vault a statement."""
        return machine.vault.take(run_of(sent))

    def release(self, machine: Machine, what: Profile) -> ReleaseAnswer:
        """Ask one vault for its share, as code of this profile."""
        if not machine.running:
            raise UnavailableError("it is down")
        who = peer(identity(what, (self.key,)), (self.key,), at=machine.clock.running)
        request = ReleaseRequest(nonce=b64(os.urandom(32)), head=None)
        return machine.vault.release(who, self.key, request)

    def shares(self, what: Profile) -> int:
        """Return how many vaults let their share go to this code."""
        count = 0
        for machine in self.machines:
            with suppress(PlacetError):
                self.release(machine, what)
                count += 1
        return count
