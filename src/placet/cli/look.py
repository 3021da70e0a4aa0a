"""A key's charter as its vaults show it, and how far each of them is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from placet.cli.output import bad, good, odd, plain, short
from placet.client.charters import CharterView, Fork
from placet.client.constellation import NONCE, Constellation
from placet.client.fan_out import Outcomes
from placet.client.witnesses import Seen
from placet.core.encoding import Record, decode, unb64
from placet.core.messages import CharterAnswer, Taken
from placet.core.profile import code_id
from placet.core.statement import open_statement
from placet.errors import ConflictError, KeyNotBornError, QuorumError
from placet.policy.charter import TakenStatement
from placet.policy.continuity import Circle
from placet.policy.key_policy import KeyPolicy
from placet.policy.match import code_of

Standing = Literal["current", "behind", "unborn", "fork", "unbelievable", "silent"]


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
    witnessed: int | None = None
    """How many of its circle saw a log of it that holds the newest statement it took; not asked
    but by ``placet key show``."""
    stands: bool | None = None
    """Whether they are enough (spec/10, section 1), so that it cannot be put back unseen."""
    release: int | None = None
    """Which of the vault set's releases it runs, from 1; not asked while there is only one."""


@dataclass(frozen=True, slots=True)
class Look:
    """A key's charter, and where each vault stands."""

    view: CharterView
    vaults: tuple[VaultState, ...]
    seen: Mapping[str, Seen] = field(default_factory=dict)
    """By vault: what witnesses signed of it; empty if nobody asked."""

    @property
    def circle(self) -> Circle:
        """Return who witnesses."""
        return Circle.of(self.policy.vault_set)

    def witnesses(self, vault: str, statement: str) -> frozenset[str]:
        """Return who saw a log of a vault that holds a statement; nobody if it has no receipt."""
        receipt, seen = self.view.confirmed(statement).get(vault), self.seen.get(vault)
        if receipt is None or seen is None:
            return frozenset()
        return seen.who(decode(unb64(receipt.payload), Taken), self.circle)

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

    @property
    def fork(self) -> Fork | None:
        """Return a fork of which no branch has k vaults: the owner ends it."""
        k = self.policy.vault_set.k
        for fork in self.view.forks:
            # A branch that k vaults have wins (DESIGN section 4).
            mine = (c for c in fork.children if c in self.policy.chain)
            if not any(len(self.view.confirmed(c)) >= k for c in mine):
                return fork
        return None

    def heard(self) -> Look:
        """Return this, if so many vaults answered that not all of them may be old.

        Raises:
            QuorumError: Fewer than k did.
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
        return self

    def decidable(self) -> Look:
        """Return this, if a statement can be written on its head.

        Raises:
            QuorumError: Fewer than k vaults answered; all of them may be old.
            ConflictError: The charter has two branches, and neither has k vaults.
        """
        self.heard()
        if (fork := self.fork) is not None:
            label = shlex.quote(plain(self.policy.label))
            raise ConflictError(
                f"two statements stand on {short(fork.prev)}: "
                + ", ".join(map(short, fork.children)),
                f"See what each says, and end it: placet merge {label}",
            )
        return self


async def look(vaults: Constellation, key: str) -> Look:
    """Read a key's charter from all vaults.

    Raises:
        KeyNotBornError: All vaults answered, and none has heard of that key.
        QuorumError: No charter was seen, and not all vaults answered.
    """
    return (await look_at(vaults, key))[0]


async def look_whole(vaults: Constellation, key: str) -> Look:
    """Look, and ask each vault that answered what its witnesses signed.

    Raises:
        KeyNotBornError, QuorumError: As for `look`.
    """
    found = await look(vaults, key)
    answered = [v.vault for v in found.vaults if v.head is not None]
    asked = await vaults.fan_out(lambda v: v.standing(os.urandom(NONCE)), only=answered)
    found = replace(found, seen={v: Seen.of(status, v) for v, status in asked.values.items()})

    def witnessed(state: VaultState) -> VaultState:
        if state.head is None or state.vault not in found.seen:
            return state
        who = found.witnesses(state.vault, state.head)
        return msgspec.structs.replace(
            state, witnessed=len(who), stands=found.circle.stands(state.vault, who)
        )

    return replace(found, vaults=tuple(map(witnessed, found.vaults)))


async def look_at(vaults: Constellation, key: str) -> tuple[Look, Mapping[str, CharterAnswer]]:
    """Read a key's charter from all vaults; return also what each of them said, by its id.

    Raises:
        KeyNotBornError, QuorumError: As for `look`.
    """
    try:
        view, outcomes = await vaults.read_charters(key)
    except KeyNotBornError as e:
        raise KeyNotBornError(
            f"no vault has taken the birth of key {key} yet",
            f"Bring it to them: placet key sync {short(key)}",
        ) from e
    running = await _releases(vaults, view)
    # Where it was found in the end: a vault may have sent us on to its newer process.
    at = {m.id: m.endpoint for m in vaults.vault_set.vaults}
    states = tuple(
        msgspec.structs.replace(s, release=running.get(s.vault), endpoint=at[s.vault])
        for s in _states(view, outcomes)
    )
    return Look(view, states), outcomes.values


async def _releases(vaults: Constellation, view: CharterView) -> Mapping[str, int]:
    """Return which release each vault proves to run, where the owner named several."""
    codes = [code_id(p) for p in view.policy.vault_set.profiles]
    if len(codes) == 1:
        return {}
    met = await vaults.fan_out(lambda v: v.meet())
    running = {v: code_of(p.identity) for v, p in met.values.items() if p.identity is not None}
    return {v: codes.index(code) + 1 for v, code in running.items() if code in codes}


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
    if not chain:
        return "unborn"
    # After a merge it may have come to this head by another branch.
    if chain[-1] == view.policy.head:
        return "current"
    return "behind" if chain == view.policy.chain[: len(chain)] else "fork"


STANDING = {
    "current": good("up to date"),
    "behind": odd("behind"),
    "unborn": odd("not born here"),
    "fork": bad("another branch"),
    "unbelievable": bad("not believed"),
    "silent": odd("no answer"),
}
"""How a person reads it."""
