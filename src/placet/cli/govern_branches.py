"""The branches of a charter that forked: what each vault holds, apart from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from placet.cli.look import Look, look_at
from placet.cli.reach import clock
from placet.client.charters import CharterView, merge_charters
from placet.client.constellation import Constellation
from placet.core.messages import CharterAnswer
from placet.core.statement import UntrustedStatement, open_statement
from placet.policy.key_policy import KeyPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One branch, and the vaults on it."""

    policy: KeyPolicy
    own: tuple[UntrustedStatement, ...]
    """Its statements that not every branch has, oldest first."""
    at: tuple[int, ...]
    """Numbers of the vaults that are on it, however far."""


async def read_branches(vaults: Constellation, key: str) -> tuple[Look, tuple[Branch, ...]]:
    """Read a key's charters; return it as `look` does, and its branches, the longest first.

    What vaults are merely behind on is no branch, nor what a merge ended.

    Raises:
        KeyNotBornError, QuorumError, PlacetError: As for `look`.
    """
    found, answers = await look_at(vaults, key)
    return found, branches_of(found, answers, now=clock.now())


def branches_of(
    found: Look, answers: Mapping[str, CharterAnswer], *, now: int
) -> tuple[Branch, ...]:
    """Return the branches of a charter, the longest first; one where it has not forked."""
    views = {
        vault: merge_charters(found.policy.key, {vault: answer}, now=now)
        for vault, answer in answers.items()
        if vault in found.view.chains
    }
    tips = _tips(views, found.view)
    shared = min((_shared(a.policy.chain, b.policy.chain) for a in tips for b in tips), default=0)
    numbers = {v.vault: v.number for v in found.vaults}
    branches = [
        Branch(
            policy=tip.policy,
            own=tuple(open_statement(i.signed) for i in tip.items[shared:]),
            at=tuple(
                sorted(
                    numbers[vault]
                    for vault, view in views.items()
                    if tip.policy.chain[: view.policy.version] == view.policy.chain
                    or view.policy.head == tip.policy.head
                )
            ),
        )
        for tip in tips
    ]
    return tuple(sorted(branches, key=lambda b: (-b.policy.version, b.at)))


def _tips(views: Mapping[str, CharterView], whole: CharterView) -> list[CharterView]:
    """Return one view for each head that is no earlier part of another charter."""
    by_head = {view.policy.head: view for view in views.values()}
    by_head[whole.policy.head] = whole
    policies = [view.policy for view in by_head.values()]
    return [
        view
        for head, view in by_head.items()
        if not any(p.head != head and p.knows(head) for p in policies)
    ]


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many statements two charters have in common from the start."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count
