"""Reach a key's vaults as a visitor, and say of each how far it is."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.status import Status

from placet.attest.collateral_folder import CollateralFolder, completed_by
from placet.attest.trust import TrustAnchor
from placet.cli.memory import look_back
from placet.cli.output import err, plain, short
from placet.cli.settings import Home, KnownKey
from placet.client.charters import open_birth
from placet.client.clock import HostClock
from placet.client.constellation import Constellation
from placet.client.fan_out import Outcomes
from placet.client.following import located, moved_by, open_charter
from placet.client.vault_client import Connector, VaultClient, renewed_contexts
from placet.core.profile import VaultSet
from placet.errors import (
    InternalError,
    MalformedError,
    PlacetError,
    UnavailableError,
)
from placet.ratls.context import self_test

T = TypeVar("T")
clock = HostClock()

SILENCE = (UnavailableError, InternalError, MalformedError)
"""What is no answer of a vault; all else that it raises is its answer: no."""


@dataclass(slots=True)
class Target:
    """A key that is known here, and its vaults as the newest charter names them.

    That is the newest one that was seen here: vaults may show a newer one, and `visit`
    follows that and keeps it.
    """

    home: Home
    known: KnownKey
    vault_set: VaultSet
    trust: tuple[TrustAnchor, ...]
    moved: Mapping[str, str]
    """Endpoints that the vaults file gives otherwise than the birth, by vault id."""

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
        policy = open_charter(known.key, home.charter(known), now=clock.now())
        file = home.constellation(known.constellation)
        # The owner signed who the vaults are; where they are now, the vaults file may say.
        moved = moved_by(born.vault_set.vaults, file.vaults)
        return cls(home, known, located(policy.vault_set, moved), file.trust, moved)

    def visit(self, act: Callable[[Constellation], Awaitable[T]], doing: str) -> T:
        """Do something with the key's vaults."""

        async def acted(vaults: Constellation) -> T:
            try:
                return await act(vaults)
            finally:
                self._keep(vaults)

        return visit(self.vault_set, self.trust, acted, doing, moved=self.moved, key=self.key)

    def _keep(self, vaults: Constellation) -> None:
        """Remember what was learned about where the vaults are and what they may run."""
        self.vault_set = vaults.vault_set
        born = open_birth(self.key, self.known.birth).vault_set
        if vaults.view is not None and vaults.view.policy.vault_set != born:
            self.home.keep_charter(self.known, vaults.view.items)


class _Watched(Constellation):
    """Counts answers on the terminal while they come in."""

    status: Status | None = None
    doing: str = ""

    async def _fan_out(
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
        return await super()._fan_out(watched, enough=enough, only=only, deadline=deadline)

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
    *,
    moved: Mapping[str, str] | None = None,
    key: str | None = None,
) -> T:
    """Do something with the vaults of a set; progress is shown on a terminal.

    Args:
        vault_set: From the owner or a charter that verified.
        trust: What may vouch for the vaults.
        act: What to do; gets a constellation of attested connections.
        doing: What the terminal says meanwhile.
        moved: Endpoints that the vaults file gives otherwise, by vault id.
        key: The key whose charter says which newer releases the vaults may run.
    """

    async def visited() -> T:
        vaults = _Watched.connect(vault_set, connector(), trust=trust, moved=moved, key=key)
        vaults.doing = doing
        try:
            if not err.is_terminal:
                done = await act(vaults)
            else:
                with err.status(doing) as vaults.status:
                    done = await act(vaults)
            vaults.status = None
            await look_back(vaults, Home.find())
            return done
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
