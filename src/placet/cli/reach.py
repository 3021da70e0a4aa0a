"""Reach a key's vaults as a visitor, and say of each how far it is."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from rich.status import Status

from placet.attest.collateral_folder import CollateralFolder, completed_by
from placet.attest.trust import TrustAnchor
from placet.cli.output import err, plain, short
from placet.cli.settings import Home, KnownKey
from placet.client.charters import open_birth
from placet.client.clock import HostClock
from placet.client.constellation import Constellation
from placet.client.fan_out import Outcomes
from placet.client.vault_client import Connector, VaultClient, renewed_contexts
from placet.core.profile import VaultSet
from placet.errors import (
    InternalError,
    MalformedError,
    PlacetError,
    UnavailableError,
)
from placet.ratls.context import self_test
from placet.ratls.exchange import ExpectVault

T = TypeVar("T")
clock = HostClock()

SILENCE = (UnavailableError, InternalError, MalformedError)
"""What is no answer of a vault; all else that it raises is its answer: no."""


@dataclass(frozen=True, slots=True)
class Target:
    """A key that is known here, and its vaults as its birth statement names them."""

    known: KnownKey
    vault_set: VaultSet
    trust: tuple[TrustAnchor, ...]

    @property
    def key(self) -> str:
        """Return the key id."""
        return self.known.key

    @property
    def name(self) -> str:
        """Return label and short id, as a heading shows it."""
        return f"{plain(self.known.label)} ({short(self.known.key)})"

    @property
    def argument(self) -> str:
        """Return it as a shell takes it."""
        return shlex.quote(plain(self.known.label))

    @classmethod
    def find(cls, home: Home, name: str) -> Target:
        """Return the key of that label, id or prefix."""
        known = home.key(name)
        born = open_birth(known.key, known.birth)
        file = home.constellation(known.constellation)
        # The owner signed who the vaults are; where they are now, the vaults file may say.
        moved = {m.id: m.endpoint for m in file.vaults}
        members = tuple(
            msgspec.structs.replace(m, endpoint=moved.get(m.id, m.endpoint))
            for m in born.vault_set.vaults
        )
        vault_set = msgspec.structs.replace(born.vault_set, vaults=members)
        return cls(known, vault_set, file.trust)

    def visit(self, act: Callable[[Constellation], Awaitable[T]], doing: str) -> T:
        """Do something with the key's vaults."""
        return visit(self.vault_set, self.trust, act, doing)


class _Watched(Constellation):
    """Counts answers on the terminal while they come in."""

    status: Status | None = None
    doing: str = ""

    async def fan_out(
        self,
        call: Callable[[VaultClient], Awaitable[T]],
        *,
        enough: int | Callable[[Outcomes[T]], bool] | None = None,
        only: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> Outcomes[T]:
        """Call every vault, and show how many have answered."""
        asked = self.vault_set.n if only is None else len(only)
        done = {"yes": 0, "no": 0}

        async def watched(vault: VaultClient) -> T:
            said = "no"
            try:
                value = await call(vault)
                said = "yes"
            finally:
                done[said] += 1
                self._show(asked, done["yes"], done["no"])
            return value

        self._show(asked, 0, 0)
        return await super().fan_out(watched, enough=enough, only=only, deadline=deadline)

    def _show(self, asked: int, yes: int, no: int) -> None:
        if self.status is not None:
            tail = f", {no} did not" if no else ""
            self.status.update(f"{self.doing}: {yes} of {asked} vaults answered{tail}")


def connector() -> Connector:
    """Return how a visitor connects.

    Collateral that a vault does not staple is looked for in this user's folder for it.
    """
    folder = CollateralFolder(Home.find().data / "collateral")
    return Connector(
        prover=None,
        clock=clock,
        rng=os.urandom,
        contexts=renewed_contexts(clock),
        verify=completed_by(folder),
    )


def visit(
    vault_set: VaultSet,
    trust: tuple[TrustAnchor, ...],
    act: Callable[[Constellation], Awaitable[T]],
    doing: str,
) -> T:
    """Do something with the vaults of a set; progress is shown on a terminal.

    Args:
        vault_set: From the owner or a birth statement.
        trust: What may vouch for the vaults.
        act: What to do; gets a constellation of attested connections.
        doing: What the terminal says meanwhile.
    """

    async def visited() -> T:
        calls = connector()
        clients = [
            calls.vault(m.endpoint, ExpectVault(id=m.id, profiles=vault_set.profiles, trust=trust))
            for m in vault_set.vaults
        ]
        vaults = _Watched(vault_set, clients, clock=clock, rng=os.urandom)
        vaults.doing = doing
        try:
            if not err.is_terminal:
                return await act(vaults)
            with err.status(doing) as vaults.status:
                return await act(vaults)
        finally:
            vaults.close()

    self_test(now=clock.now())
    return asyncio.run(visited())


def all_or_raise(outcomes: Outcomes[T]) -> Outcomes[T]:
    """Return the outcomes, if every vault answered.

    Raises:
        PlacetError: A vault's refusal, which goes before silence; all are named.
    """
    if not outcomes.errors:
        return outcomes
    silence = outcomes.quorum_error(len(outcomes.each))
    refusal = outcomes.refusal(len(outcomes.each))
    if refusal is None:
        raise silence
    raised: PlacetError = type(refusal)(
        refusal.detail, refusal.hint, vaults=silence.members["vaults"]
    )
    raise raised
