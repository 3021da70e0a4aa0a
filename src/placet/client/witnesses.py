"""What witnesses have seen of a vault, checked by their own signatures (spec/10, section 6).

A retire that n - k + 1 vaults took could be undone by putting all of them back to before it,
unless enough others have seen a log that holds it. So whoever reports one looks for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from placet.client.fan_out import Outcomes
from placet.core.checkpoint import line_of
from placet.core.continuity import Witnessed
from placet.core.dsse import Signed, open_signed, vault_id
from placet.core.encoding import decode, unb64
from placet.core.messages import Status, StatusBody, Taken
from placet.core.profile import VaultSet
from placet.errors import MalformedError, VerificationError
from placet.policy.continuity import Circle

WAIT = 8.0
"""Seconds for which a report waits for witnesses: vaults ask them at once."""
GLANCE = 1.0
"""The same, where the report does not rest on them."""
PAUSE = 0.25


class Asked(Protocol):
    """A vault that can be asked how it stands."""

    @property
    def id(self) -> str:
        """Return the vault id."""

    async def standing(self, nonce: bytes) -> Status:
        """Return its whole status."""


Ask = Callable[[tuple[str, ...]], Awaitable[Outcomes[Status]]]
"""Asks these vaults for their status."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How much of the log of one process of a vault each witness signed that it saw."""

    line: str
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, status: Status, vault: str) -> Self:
        """Return what holds of what a vault shows; who signed for another is passed over.

        Raises:
            MalformedError: It is no status.
        """
        sizes: dict[str, int] = {}
        for signed in status.witnessed:
            try:
                witness = vault_id(unb64(signed.vault_key))
                said = open_signed(signed, Witnessed, vault=witness)
            except (VerificationError, MalformedError):
                continue
            if (said.witness, said.vault) == (witness, vault):
                sizes[witness] = max(said.size, sizes.get(witness, 0))
        body = decode(unb64(status.status.payload), StatusBody)
        return cls(line_of(body.checkpoint, vault), sizes)

    def who(self, taken: Taken, circle: Circle) -> frozenset[str]:
        """Return who of a circle saw a log that holds what a vault took.

        What an older process of the vault took counts as seen by all: it let go of the key
        later, and only after its witnesses saw that (spec/12, section 3).
        """
        others = circle.others(taken.vault)
        if (taken.line or "") != self.line:
            return frozenset(others)
        return frozenset(w for w in others if self.sizes.get(w, 0) > taken.index)


async def unwitnessed(
    vault_set: VaultSet, taken: Mapping[str, Signed], ask: Ask, *, wait: float = WAIT
) -> Mapping[str, tuple[str, ...]]:
    """Return the vaults of which too few witnesses saw what they took, and whom they wait for.

    Args:
        vault_set: Says who witnesses.
        taken: By vault, its verified `Taken` receipt.
        ask: Asks vaults for their status.
        wait: Seconds to wait at most; not at all once enough saw all of them.
    """
    circle, loop = Circle.of(vault_set), asyncio.get_running_loop()
    receipts = {v: decode(unb64(r.payload), Taken) for v, r in taken.items()}
    lacking = {vault: circle.others(vault) for vault in taken}
    end = loop.time() + wait
    while lacking:
        outcomes = await ask(tuple(lacking))
        for vault, status in outcomes.values.items():
            who = Seen.of(status, vault).who(receipts[vault], circle)
            if circle.stands(vault, who):
                del lacking[vault]
            else:
                lacking[vault] = tuple(o for o in circle.others(vault) if o not in who)
        if loop.time() >= end:
            break
        if lacking:
            await asyncio.sleep(PAUSE)
    return lacking
