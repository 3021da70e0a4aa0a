"""Vaults against what the app saw of them before (spec/08, section 5)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from msgspec import UNSET

from placet.agent.memory import (
    STATUS_LIMIT,
    Memory,
    Seen,
    SeenLog,
    keep_proof,
    open_memory,
    remembered,
)
from placet.agent.volume import Unlocked
from placet.client import heads
from placet.client.constellation import NONCE, Constellation
from placet.client.fan_out import Outcomes
from placet.client.heads import Head, Proof
from placet.client.vault_client import VaultClient
from placet.core.dsse import Signed
from placet.core.encoding import decode, encode, unb64
from placet.core.messages import Released
from placet.errors import (
    AncestorMissingError,
    EvidenceError,
    MalformedError,
    NotApprovedError,
    PlacetError,
    RolledBackError,
    TooLargeError,
    UnavailableError,
    VerificationError,
)

Tell = Callable[[str], object]
TRIES = 32
"""How often what was seen is compared again because another instance remembered more meanwhile."""
HINT = (
    "These vaults were put back to an older state than this app has seen. Do not start it with "
    "them: have their operators attach the newest disks, or bring them the statements that they "
    "lack with 'placet key sync' (docs/continuity.md)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What one vault showed with a release of this start."""

    version: int
    head: str
    line: str
    """Which log of the vault has the release; empty for its first."""
    index: int
    """Where in that log."""

    @classmethod
    def of(cls, version: int, head: str, receipt: Signed) -> Self:
        """Return what is in a release whose receipt was verified: by `VaultClient.release`."""
        released = decode(unb64(receipt.payload), Released)
        return cls(version=version, head=head, line=released.line or "", index=released.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The outcome: vaults that are as far as the app saw them, and those that are not."""

    seen: Mapping[str, Seen]
    behind: tuple[str, ...]
    """They showed that they are not; who was silent is in neither."""


async def compare(
    key: str,
    vaults: Constellation,
    shown: Mapping[str, Shown],
    unlocked: Unlocked,
    *,
    rng: Callable[[int], bytes],
    tell: Tell,
) -> None:
    """Compare what vaults showed with what is remembered, and remember what was seen.

    Args:
        key: The key id.
        vaults: A workload's, for releases of the key.
        shown: By vault, what it showed with its release.
        unlocked: The volume that remembers.
        rng: Cryptographically secure; for nonces.
        tell: Gets lines for a person: who is behind, where a proof is.

    Raises:
        RolledBackError, NotApprovedError, QuorumError: See `Comparing.compare`.
        VerificationError: The memory was changed or taken away.
        UnavailableError: It cannot be read, or others write there all the time.
    """
    folder, mac_key, named = unlocked.path, unlocked.memory_key, set[str]()

    def keep(proof: Proof) -> None:
        try:
            where = f"the proof is in {keep_proof(folder, proof)}"
        except UnavailableError as e:
            where = e.detail
        tell(f"vault {proof.vault} {heads.what_it_shows(proof)}: {where}")

    for _ in range(TRIES):
        memory = open_memory(folder, key, mac_key, expected=unlocked.remembers)
        comparing = Comparing(memory=memory, vaults=vaults, rng=rng, keep=keep)
        compared = await comparing.compare(shown)
        for vault in compared.behind:
            if vault not in named:
                tell(f"vault {vault} is behind what this app saw of it")
        named.update(compared.behind)
        new = memory.with_seen(compared.seen, k=vaults.vault_set.k)
        try:
            if remembered(folder, memory, new, mac_key):
                return
        except UnavailableError as e:
            tell(e.detail)
            return
    raise UnavailableError("other instances of this app start all the time", "Try again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing:
    """One look at the vaults of a key.

    Args:
        memory: Read before anything is asked here.
        vaults: A workload's, for releases of the key.
        rng: Cryptographically secure; for nonces.
        keep: Gets what a vault signed against itself.
    """

    memory: Memory
    vaults: Constellation
    rng: Callable[[int], bytes]
    keep: Callable[[Proof], object]

    async def compare(self, shown: Mapping[str, Shown]) -> Compared:
        """Return k vaults that are not behind the memory, and those that are.

        If the vaults that let their shares go are not k that show just the remembered head and a
        log that grew, that may be well: newer statements, say. Then all are asked again.

        Args:
            shown: By vault, what it showed with its release.

        Raises:
            RolledBackError: Fewer than k are as far as the app saw. It names who is behind.
            NotApprovedError: Those that are as far do not let this code in.
            QuorumError: Too few answered, and none is behind.
        """
        # 5.2 Who let its share go shows that its log holds that, and all that was seen of it.
        looked = await self.vaults.fan_out(
            lambda vault: self._look(vault, shown[vault.id]), only=tuple(shown)
        )
        good, head = looked.values, self.memory.head
        same = head is None or all(one.head == head for one in good.values())
        # Who just created the key was let go no share yet, and remembers nothing.
        if (same and len(good) >= self.vaults.vault_set.k) or not (shown or head):
            return Compared(seen=good, behind=_behind(looked))
        return await self._confirm(_behind(looked))

    async def _confirm(self, before: tuple[str, ...]) -> Compared:
        """Tell each vault the remembered head, which it refuses if it does not know it.

        Vaults that merely lack statements are brought them first.
        """
        # 5.4 All are asked again, with the remembered head.
        memory, vaults = self.memory, self.vaults
        with contextlib.suppress(PlacetError):  # what vaults say below stands
            await vaults.courier(memory.key)
        nonce, k = self.rng(NONCE), vaults.vault_set.k

        async def ask(vault: VaultClient) -> Seen:
            said = await vault.release(memory.key, nonce, memory.head)
            return await self._look(vault, Shown.of(said.version, said.head, said.receipt))

        outcomes = await vaults.fan_out(ask, enough=k)
        good, behind = outcomes.values, _behind(outcomes)
        if len(good) >= k:
            # Who was not waited for this time was seen to be behind a moment ago.
            return Compared(
                seen=good,
                behind=tuple(v for v in vaults.vault_set.ids if v in {*before, *behind} - {*good}),
            )
        # 5.5 Fewer than k: behind, if one showed that; else nobody knows.
        refusal = outcomes.refusal(k)
        if behind and not isinstance(refusal, NotApprovedError):
            raise RolledBackError(
                f"{len(good)} of {vaults.vault_set.n} vaults are as far as this app saw "
                f"them (version {memory.version}), {k} are needed; behind: {', '.join(behind)}",
                HINT,
                behind=list(behind),
                version=memory.version,
                head=memory.head,
            )
        raise refusal or outcomes.quorum_error(k)

    async def _look(self, vault: VaultClient, shown: Shown) -> Seen:
        """Return what a vault says of its log, which holds its release and all that was seen.

        Raises:
            RolledBackError: It shows that it does not, or shows nothing that it could not forge.
            PlacetError: It does not answer: nobody knows.
        """
        status = (await vault.standing(self.rng(NONCE))).status
        if len(encode(status)) > STATUS_LIMIT:
            raise TooLargeError(f"vault's status has more than {STATUS_LIMIT} bytes")
        now = Head.of(status, vault.id)
        if now.line != shown.line:
            raise UnavailableError("another process of this vault answers than released")
        if now.checkpoint.size <= shown.index:
            raise RolledBackError("its log ends before the release that it signed")
        before = [log for log in self.memory.logs if log.vault == vault.id]
        same = [log for log in before if (log.line or "") == now.line]
        if same and same[0] is not before[-1]:
            raise RolledBackError("a newer process of this vault had the key, and never gives back")
        for log in same:
            await self._grown(Head.of(log.status, vault.id), now, vault)
        log = SeenLog(vault=vault.id, line=now.line or UNSET, status=status)
        return Seen(version=shown.version, head=shown.head, log=log)

    async def _grown(self, before: Head, now: Head, vault: VaultClient) -> None:
        try:
            proof = await heads.compare(before, now, vault.consistency)
        except EvidenceError:  # it did not get as far as to be asked
            raise
        except (VerificationError, MalformedError) as e:
            raise RolledBackError(f"does not show that its log only grew: {e.detail}") from e
        if proof is not None:
            # 5.3 Its own signatures prove it to anyone.
            self.keep(proof)
            raise RolledBackError("its log is not what it was, as it signed itself")


def _behind(outcomes: Outcomes[Seen]) -> tuple[str, ...]:
    older = (AncestorMissingError, RolledBackError)
    return tuple(v for v, e in outcomes.errors.items() if isinstance(e, older))
