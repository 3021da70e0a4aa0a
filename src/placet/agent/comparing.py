"""Vaults against what the app saw of them before (spec/08, section 5)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from placet.agent.memory import Memory, Shown, shorter
from placet.client.constellation import NONCE, Constellation
from placet.client.fan_out import Outcomes
from placet.client.vault_client import VaultClient
from placet.errors import AncestorMissingError, NotApprovedError, PlacetError, RolledBackError

HINT = (
    "These vaults were put back to an older state than this app has seen. Do not start it with "
    "them: have their operators attach the newest disks, or bring them the statements that they "
    "lack with 'placet key sync' (docs/continuity.md)."
)


def at_remembered(memory: Memory, shown: Mapping[str, Shown]) -> bool:
    """Say whether every vault that let its share go shows just what is remembered, or more log.

    If not, that may be well: newer statements, or another instance at the same time. `confirm`
    asks.
    """
    if memory.head is None:
        return True
    same = all(one.head == memory.head for one in shown.values())
    return same and not shorter(memory, shown)


async def confirm(
    memory: Memory, vaults: Constellation, *, rng: Callable[[int], bytes]
) -> tuple[Mapping[str, Shown], tuple[str, ...]]:
    """Return what k vaults show that are not behind the memory, and those that are.

    Each is told the remembered head, and refuses if it does not know it; vaults that merely
    lack statements are brought them first.

    Args:
        memory: Read before this is called.
        vaults: A workload's, for releases of the key.
        rng: Cryptographically secure; for a nonce.

    Raises:
        RolledBackError: Fewer than k are as far as the app saw. It names who is behind.
        NotApprovedError: Those that are as far do not let this code in.
        QuorumError: Too few answered, and none is behind.
    """
    with contextlib.suppress(PlacetError):  # what vaults say below stands
        await vaults.courier(memory.key)
    nonce, k = rng(NONCE), vaults.vault_set.k

    async def ask(vault: VaultClient) -> Shown:
        said = await vault.release(memory.key, nonce, memory.head)
        shown = Shown.of(said.version, said.head, said.receipt)
        if shorter(memory, {vault.id: shown}):
            raise RolledBackError(f"its log has {shown.log.index} entries, and had more")
        return shown

    outcomes: Outcomes[Shown] = await vaults.fan_out(ask, enough=k)
    errors = outcomes.errors
    older = (AncestorMissingError, RolledBackError)
    behind = tuple(v for v, e in errors.items() if isinstance(e, older))
    if len(outcomes.values) >= k:
        return outcomes.values, behind
    refusal = outcomes.refusal(k)
    if behind and not isinstance(refusal, NotApprovedError):
        raise RolledBackError(
            f"{len(outcomes.values)} of {vaults.vault_set.n} vaults are as far as this app saw "
            f"them (version {memory.version}), {k} are needed; behind: {', '.join(behind)}",
            HINT,
            behind=list(behind),
            version=memory.version,
            head=memory.head,
        )
    raise refusal or outcomes.quorum_error(k)
