"""The owner of the demo: a key file, and what is signed with it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from placet.client.clock import HostClock
from placet.client.constellation import Constellation, EffectReport
from placet.client.signing import Composer, SigningKey, promote_body
from placet.client.vault_client import Connector, renewed_contexts
from placet.client.vaults_file import VaultsFile, read_vaults
from placet.core.profile import Profile, code_id
from placet.core.statement import (
    BirthBody,
    KeySigner,
    PolicyTable,
    Stage,
    Threshold,
    UntrustedStatement,
    open_statement,
    owner_fingerprint,
)
from placet.errors import NotFoundError
from placet.policy.key_policy import KeyPolicy
from placet_dev.demo.steps import StepFailedError

T = TypeVar("T")


@dataclass(slots=True)
class Owner:
    """Signs with a key file, and reaches the vaults directly.

    Args:
        home: Folder of the key file.
    """

    home: Path
    _key: SigningKey = field(init=False)
    _vaults: VaultsFile = field(init=False)

    def init(self) -> None:
        """Make the key file."""
        self._key = SigningKey.generate("owner", "ed25519")
        self._key.save(self.home / "owner.pem")

    @property
    def principal(self) -> Threshold:
        """Return who must sign."""
        return Threshold(label="owner", threshold=1, of=(self._key.signer,))

    def fingerprint(self) -> str:
        """Return what a workload's config names this owner by."""
        return owner_fingerprint(self.principal)

    def sign(self, sent: UntrustedStatement) -> UntrustedStatement:
        """Sign a statement that was composed here."""
        return self._key.sign(sent)

    def new_key(self, *, label: str, vaults: Path, profile: Profile, stager: KeySigner) -> str:
        """Sign the birth of a key and bring it to all vaults; return the key id."""
        self._vaults = read_vaults(vaults)
        table = PolicyTable(
            owner=self.principal,
            stagers=(stager,),
            profiles=(profile,),
            security_version_floor=0,
        )
        body = BirthBody(label=label, policy=table, vault_set=self._vaults.vault_set)
        birth = self.sign(_composer().birth(body))
        self._submit(birth)
        return birth.digest

    def pending(self, key: str) -> dict[str, Profile]:
        """Return what is staged for a key, by code id."""

        async def read(vaults: Constellation) -> dict[str, Profile]:
            answers = await vaults.fan_out(lambda v: v.pending(key))
            staged = [open_statement(s) for a in answers.values.values() for s in a.pending]
            profiles = [s.statement.body.profile for s in staged if isinstance(s.statement, Stage)]
            return {code_id(p): p for p in profiles}

        return self._visit(read)

    def review(self, key: str, code: str) -> Profile:
        """Return what a promote would let in."""
        pending = self.pending(key)
        if code not in pending:
            raise NotFoundError(f"code {code} is not staged")
        return pending[code]

    def promote(self, key: str, code: str) -> tuple[int, set[str]]:
        """Approve what is staged; return how many vaults confirmed, and who did not."""
        policy = self._policy(key)
        body = promote_body(policy, self.review(key, code))
        report = self._submit(self.sign(_composer().promote(policy, body)))
        return len(report.confirmed), set(report.missing)

    def retire(self, key: str, code: str) -> int:
        """End an approval; return how many vaults confirmed."""
        statement = _composer().retire(self._policy(key), code, "replaced by version 2")
        return len(self._submit(self.sign(statement)).confirmed)

    def show(self, key: str) -> None:
        """Look at a key; who lacks statements is brought them."""
        self._visit(lambda vaults: vaults.courier(key))

    def _policy(self, key: str) -> KeyPolicy:
        async def read(vaults: Constellation) -> KeyPolicy:
            return (await vaults.read_charter(key)).policy

        return self._visit(read)

    def _submit(self, sent: UntrustedStatement) -> EffectReport:
        report = self._visit(lambda vaults: vaults.submit(sent.signed()))
        if not report.effective:
            raise StepFailedError(f"taken by {len(report.confirmed)} vaults: {report.missing}")
        return report

    def _visit(self, act: Callable[[Constellation], Awaitable[T]]) -> T:
        clock = HostClock()
        connector = Connector(
            prover=None, clock=clock, rng=os.urandom, contexts=renewed_contexts(clock)
        )

        async def visited() -> T:
            vaults = Constellation.connect(
                self._vaults.vault_set, connector, trust=self._vaults.trust
            )
            try:
                return await act(vaults)
            finally:
                vaults.close()

        return asyncio.run(visited())


def _composer() -> Composer:
    return Composer(now=int(time.time()), rng=os.urandom)
