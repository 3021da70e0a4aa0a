"""Reach a key's vaults as a visitor, and say of each how far it is."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec
from rich.status import Status

from placet.attest.trust import TrustAnchor
from placet.cli.output import bad, err, good, odd, plain, short
from placet.cli.settings import Home, KnownKey
from placet.client.charters import CharterView, merge_charters, open_birth
from placet.client.clock import HostClock
from placet.client.constellation import Constellation
from placet.client.fan_out import Outcomes
from placet.client.vault_client import Connector, VaultClient, renewed_contexts
from placet.core.encoding import Record
from placet.core.messages import CharterAnswer
from placet.core.profile import VaultSet
from placet.core.statement import open_statement
from placet.errors import (
    ConflictError,
    InternalError,
    KeyNotBornError,
    MalformedError,
    PlacetError,
    QuorumError,
    UnavailableError,
)
from placet.policy.charter import TakenStatement
from placet.policy.key_policy import KeyPolicy
from placet.ratls.context import self_test
from placet.ratls.exchange import ExpectVault, UnsafeExpectAnyVault

T = TypeVar("T")
clock = HostClock()

SILENCE = (UnavailableError, InternalError, MalformedError)
"""What is no answer of a vault; all else that it raises is its answer: no."""

Standing = Literal["current", "behind", "unborn", "fork", "unbelievable", "silent"]


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


class VaultState(Record):
    """How far one vault is with a key."""

    number: int
    """Its place in the vault set, from 1."""
    vault: str
    endpoint: str
    state: Standing
    version: int | None
    head: str | None
    share: str | None
    """Digest of the key manifest under which it committed a share."""
    why: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """A key's charter, and where each vault stands."""

    view: CharterView
    vaults: tuple[VaultState, ...]

    @property
    def policy(self) -> KeyPolicy:
        """Return the newest policy that verifies."""
        return self.view.policy

    @property
    def answered(self) -> int:
        """Return how many vaults said something that is believed."""
        return sum(v.state not in ("silent", "unbelievable") for v in self.vaults)

    @property
    def taken(self) -> tuple[TakenStatement, ...]:
        """Return the statements in force."""
        return tuple(TakenStatement(sent=open_statement(i.signed)) for i in self.view.items)

    def decidable(self) -> Look:
        """Return this, if a statement can be written on its head.

        Raises:
            QuorumError: Fewer than k vaults answered; all of them may be old.
            ConflictError: The charter has two branches.
        """
        k = self.policy.vault_set.k
        if self.answered < k:
            silent = [v for v in self.vaults if v.state in ("silent", "unbelievable")]
            raise QuorumError(
                f"{self.answered} of {len(self.vaults)} vaults answered, {k} are needed to know "
                "that no newer statement stands",
                "Trying again is safe. Bring back the vaults named here, or wait for them.",
                vaults=[
                    {"vault": v.vault, "endpoint": v.endpoint, "became": v.state, "why": v.why}
                    for v in silent
                ],
            )
        if self.view.forks:
            fork = self.view.forks[0]
            raise ConflictError(
                f"two statements stand on {short(fork.prev)}: "
                + ", ".join(map(short, fork.children)),
                f"See which vault has which: placet key show {self.policy.label}",
            )
        return self


async def look(vaults: Constellation, key: str) -> Look:
    """Read a key's charter from all vaults.

    Raises:
        KeyNotBornError: All vaults answered, and none has heard of that key.
        QuorumError: No charter was seen, and not all vaults answered.
    """
    outcomes = await vaults.fan_out(lambda v: v.charter(key))
    if not outcomes.values:
        raise outcomes.refusal(1) or outcomes.quorum_error(1)
    view = merge_charters(key, outcomes.values, now=clock.now())
    unborn = [v for v, e in outcomes.errors.items() if isinstance(e, KeyNotBornError)]
    view = view.with_unborn(unborn)
    return Look(view, tuple(_states(view, outcomes)))


def _states(view: CharterView, outcomes: Outcomes[CharterAnswer]) -> list[VaultState]:
    states = []
    for number, outcome in enumerate(outcomes.each, 1):
        chain = view.chains.get(outcome.vault)
        why = view.wrong.get(outcome.vault) or outcome.error
        states.append(
            VaultState(
                number=number,
                vault=outcome.vault,
                endpoint=outcome.endpoint,
                state=_standing(view, outcome.vault),
                version=None if chain is None else len(chain),
                head=chain[-1] if chain else None,
                share=view.manifests.get(outcome.vault),
                why=why.detail if why and chain is None else None,
            )
        )
    return states


def _standing(view: CharterView, vault: str) -> Standing:
    chain = view.chains.get(vault)
    if chain is None:
        return "unbelievable" if vault in view.wrong else "silent"
    if chain == view.policy.chain:
        return "current"
    if not chain:
        return "unborn"
    return "behind" if vault in view.lagging else "fork"


STANDING = {
    "current": good("up to date"),
    "behind": odd("behind"),
    "unborn": odd("not born here"),
    "fork": bad("another branch"),
    "unbelievable": bad("not believed"),
    "silent": odd("no answer"),
}
"""How a person reads it."""


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
    """Return how a visitor connects."""
    return Connector(prover=None, clock=clock, rng=os.urandom, contexts=renewed_contexts(clock))


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


def visit_any(
    endpoint: str,
    trust: tuple[TrustAnchor, ...],
    act: Callable[[VaultClient], Awaitable[T]],
) -> T:
    """Do something with whatever genuine vault answers: a look, not trust."""

    async def visited() -> T:
        vault = connector().vault(endpoint, UnsafeExpectAnyVault(trust=trust))
        try:
            return await act(vault)
        finally:
            vault.close()

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
