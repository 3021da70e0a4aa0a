"""What witnesses have seen of a vault, checked by their own signatures (spec/10, section 6).

A retire that n - k + 1 vaults took could be undone by putting all of them back to before it,
unless enough others have seen a log that holds it. So whoever reports one looks for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from placet.client.fan_out import Outcomes
from placet.core.continuity import Witnessed
from placet.core.dsse import Signed, open_signed, vault_id
from placet.core.encoding import decode, unb64
from placet.core.messages import Status, Taken
from placet.core.profile import VaultSet
from placet.errors import MalformedError, VerificationError
from placet.policy.continuity import Circle

WAIT = 8.0
"""Seconds for which a report waits for witnesses: vaults ask them at once."""
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


def seen(status: Status, vault: str, index: int) -> frozenset[str]:
    """Return who signed that it saw a log of this vault that holds entry ``index``."""
    found = set()
    for signed in status.witnessed:
        try:
            witness = vault_id(unb64(signed.vault_key))
            said = open_signed(signed, Witnessed, vault=witness)
        except (VerificationError, MalformedError):
            continue
        if (said.witness, said.vault) == (witness, vault) and said.size > index:
            found.add(witness)
    return frozenset(found)


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
    index = {v: decode(unb64(r.payload), Taken).index for v, r in taken.items()}
    lacking = {vault: circle.others(vault) for vault in taken}
    end = loop.time() + wait
    while lacking:
        outcomes = await ask(tuple(lacking))
        for vault, status in outcomes.values.items():
            who = seen(status, vault, index[vault])
            if circle.stands(vault, who):
                del lacking[vault]
            else:
                lacking[vault] = tuple(o for o in circle.others(vault) if o not in who)
        if loop.time() >= end:
            break
        if lacking:
            await asyncio.sleep(PAUSE)
    return lacking
