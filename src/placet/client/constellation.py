"""A key's vaults together: ask them all, count what they say, carry what some of them lack.

No vault alone is believed, none alone can stop what k can do, and whatever is reported
names the vaults that it does not hold for (I7, I9, I12).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from placet.attest.trust import TrustAnchor
from placet.client.charters import CharterView, merge_charters
from placet.client.fan_out import Outcomes, at_least, fan_out
from placet.client.following import Reach, followed, located
from placet.client.vault_client import Connector, VaultClient
from placet.client.witnesses import GLANCE, WAIT, unwitnessed
from placet.core.dsse import Signed
from placet.core.encoding import encode, unb64
from placet.core.limits import KIB, MAX_BODY, MAX_CHAIN
from placet.core.messages import CharterAnswer, CourierItem, Status
from placet.core.profile import VaultSet
from placet.core.statement import Birth, Chained, Delete, Retire, SignedStatement, open_statement
from placet.errors import (
    AncestorMissingError,
    HandedOverError,
    KeyCheckError,
    KeyNotBornError,
    PlacetError,
    QuorumError,
    ShareMissingError,
    VaultReleaseError,
)
from placet.policy.charter import effective_at
from placet.ratls.exchange import Clock
from placet.sharing.key import Answer, Recovered, combine

T = TypeVar("T")
NONCE = 32
MOVES = 3
"""How often a vault may have let go of a key, to one newer process after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectReport:
    """At how many vaults a statement is in force, and where it is not (I12)."""

    statement: str
    needed: int
    """Vaults at which it must be in force to be effective, if none of them lies."""
    confirmed: Mapping[str, Signed]
    """By vault: its `Taken` receipt."""
    missing: Mapping[str, PlacetError]
    """By vault: why it has not confirmed."""
    unwitnessed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By vault that confirmed and that could be put back to before it unseen, the witnesses that
    have not seen it yet. Not looked for after a birth."""
    takes_away: bool = False
    """Whether such a vault does not count: put back, it would let in again what this shut out."""

    @property
    def uncounted(self) -> Mapping[str, tuple[str, ...]]:
        """Return the vaults that confirmed and do not count (yet), and whom they wait for."""
        return self.unwitnessed if self.takes_away else {}

    @property
    def counted(self) -> int:
        """Return how many vaults count."""
        return len(self.confirmed) - len(self.uncounted)

    @property
    def effective(self) -> bool:
        """Say whether it is effective."""
        return self.counted >= self.needed

    @property
    def tolerated(self) -> int:
        """Return how many of the vaults that count may lie and it still is effective."""
        return max(0, self.counted - self.needed)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Release:
    """What one vault let go, under which version and head, and its receipt for it."""

    answer: Answer
    version: int
    head: str
    receipt: Signed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gathered:
    """A key that was recovered and checked, and what was seen on the way."""

    recovered: Recovered
    released: Mapping[str, Release]
    """By vault that released: the charter under which it did, and its receipt."""
    outcomes: Outcomes[Release]

    @property
    def uncommitted(self) -> tuple[str, ...]:
        """Return the vaults that have no share: creation of this key is to be finished."""
        errors = self.outcomes.errors
        return tuple(v for v, e in errors.items() if isinstance(e, ShareMissingError))

    @property
    def lagging(self) -> tuple[str, ...]:
        """Return the vaults whose charter was seen to be behind: a case for the courier."""
        behind = (AncestorMissingError, KeyNotBornError)
        newest = max(r.version for r in self.released.values())
        return tuple(v for v, r in self.released.items() if r.version < newest) + tuple(
            v for v, e in self.outcomes.errors.items() if isinstance(e, behind)
        )


class Constellation:
    """The vaults of one vault set.

    Args:
        vault_set: From a verified charter or from the owner; never from the platform.
        vaults: A client of each, in its order.
        clock: To judge what came in time.
        rng: Cryptographically secure; for nonces.
        deadline: Seconds that anything here may wait for a vault.
        reach: How vaults are reached once a charter names other endpoints or releases of
            theirs; ``None``: that is not followed.
        key: The key whose charter is read if a vault runs a release that is not known here.
    """

    patience = WAIT
    """Seconds for which a report of what takes away waits for witnesses."""

    def __init__(
        self,
        vault_set: VaultSet,
        vaults: Sequence[VaultClient],
        *,
        clock: Clock,
        rng: Callable[[int], bytes],
        deadline: float = 15.0,
        reach: Reach | None = None,
        key: str | None = None,
    ) -> None:
        if tuple(v.id for v in vaults) != vault_set.ids:
            raise ValueError("vaults: not the members of the vault set, in its order")
        self.vault_set = vault_set
        self.vaults = tuple(vaults)
        self.view: CharterView | None = None
        """The newest charter that was read here."""
        self._clock, self._rng, self._deadline = clock, rng, deadline
        self._reach, self._key, self._lock = reach, key, asyncio.Lock()
        self._unread = True
        self._left: tuple[VaultClient, ...] = ()
        self._signed = vault_set
        """As charters name it; where a vault let go of the key, ``vault_set`` says where it is."""
        self._background: set[asyncio.Task[Any]] = set()

    @classmethod
    def connect(
        cls,
        vault_set: VaultSet,
        connector: Connector,
        *,
        trust: tuple[TrustAnchor, ...],
        deadline: float = 15.0,
        moved: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Self:
        """Return the constellation as ``connector`` reaches it; nothing is connected yet.

        Args:
            vault_set: As for the class.
            connector: Who connects.
            trust: What may vouch for the vaults.
            deadline: As for the class.
            moved: Endpoints that count before those of ``vault_set``, by vault id.
            key: As for the class.
        """
        reach = Reach(connector=connector, trust=trust, moved=moved or {})
        found = located(vault_set, reach.moved)
        return cls(
            found,
            reach.clients(found),
            clock=connector.clock,
            rng=connector.rng,
            deadline=deadline,
            reach=reach,
            key=key,
        )

    def close(self) -> None:
        """Give up what is still under way and close all connections."""
        for task in self._background:
            task.cancel()
        for vault in (*self.vaults, *self._left):
            vault.close()

    async def fan_out(
        self,
        call: Callable[[VaultClient], Awaitable[T]],
        *,
        enough: int | Callable[[Outcomes[T]], bool] | None = None,
        only: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> Outcomes[T]:
        """Call every vault (or ``only`` these) at once; see `placet.client.fan_out.fan_out`.

        Calls that nobody waits for any longer finish in the background. A vault whose
        release is not known here is asked again, if the key's charter names that release;
        one that let go of the key, where it says that its newer process is.
        """

        async def asked(vault: VaultClient) -> T:
            try:
                return await self._where(vault, call)
            except VaultReleaseError:
                if (other := await self._other_client(vault)) is None:
                    raise
                return await self._where(other, call)

        return await self._fan_out(asked, enough=enough, only=only, deadline=deadline)

    async def _where(self, vault: VaultClient, call: Callable[[VaultClient], Awaitable[T]]) -> T:
        """Call a vault, or the process of it that has the key now: attested like the first."""
        for _ in range(MOVES):
            try:
                return await call(vault)
            except HandedOverError as e:
                endpoint = e.members.get("endpoint")
                if self._reach is None or not isinstance(endpoint, str):
                    raise
                vault = self._moved(vault, endpoint)
        return await call(vault)

    def _moved(self, vault: VaultClient, endpoint: str) -> VaultClient:
        """Reach a vault elsewhere from now on. Where that is decides nothing."""
        found = next((v for v in self.vaults if v.id == vault.id), vault)
        if self._reach is None or found.endpoint == endpoint:
            return found
        self.vault_set = located(self.vault_set, {vault.id: endpoint})
        member = next(m for m in self.vault_set.vaults if m.id == vault.id)
        new = self._reach.client(self.vault_set, member)
        self.vaults = tuple(new if v.id == vault.id else v for v in self.vaults)
        self._left += (found,)
        return new

    async def _fan_out(
        self,
        call: Callable[[VaultClient], Awaitable[T]],
        *,
        enough: int | Callable[[Outcomes[T]], bool] | None = None,
        only: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> Outcomes[T]:
        return await fan_out(
            [v for v in self.vaults if only is None or v.id in only],
            call,
            enough=at_least(enough) if isinstance(enough, int) else enough,
            deadline=self._deadline if deadline is None else deadline,
            background=self._background,
        )

    # --- charters ----------------------------------------------------------------------

    async def read_charter(self, key: str, *, enough: int | None = None) -> CharterView:
        """Return the newest charter that verifies, of those that vaults show.

        Args:
            key: The key id.
            enough: Vaults to wait for; ``None`` waits for all. Fewer than k may all be old.

        Raises:
            KeyNotBornError: All vaults answered, and none has heard of that key.
            QuorumError: No charter was seen, and not all vaults answered.
            PlacetError: Charters were seen, and none verifies.
        """
        return (await self.read_charters(key, enough=enough))[0]

    async def read_charters(
        self, key: str, *, enough: int | None = None
    ) -> tuple[CharterView, Outcomes[CharterAnswer]]:
        """Return also what each vault said; see `read_charter`.

        If the charter names other releases or endpoints of the vaults, they are reached
        by these from now on, and those that had not answered are asked again.
        """

        async def ask(vault: VaultClient) -> CharterAnswer:
            return await self._where(vault, lambda v: v.charter(key))

        outcomes = await self._fan_out(ask, enough=enough)
        view = self._merged(key, outcomes)
        while enough is None and (again := self._follow(view, outcomes)):
            outcomes = outcomes.replaced(await self._fan_out(ask, only=again))
            view = self._merged(key, outcomes)
        self.view = view
        return view, outcomes

    def _merged(self, key: str, outcomes: Outcomes[CharterAnswer]) -> CharterView:
        if not outcomes.values:
            unknown = [e for e in outcomes.errors.values() if isinstance(e, VaultReleaseError)]
            raise next(iter(unknown), None) or outcomes.refusal(1) or outcomes.quorum_error(1)
        view = merge_charters(key, outcomes.values, now=self._clock.now())
        errors = outcomes.errors
        return view.with_unborn(v for v, e in errors.items() if isinstance(e, KeyNotBornError))

    def _follow(self, view: CharterView, outcomes: Outcomes[Any]) -> Sequence[str]:
        """Reach the vaults as a charter says now; return those of them that had not answered."""
        if self._reach is None:
            return ()
        newer = located(followed(self._signed, view.policy.vault_set), self._reach.moved)
        if newer == self._signed:
            return ()
        self._signed = newer
        # What is under way goes on over the clients of before.
        self._left += self.vaults
        self.vault_set, self.vaults, self._unread = newer, self._reach.clients(newer), True
        return [v for v in outcomes.errors if v in newer.ids]

    async def _other_client(self, vault: VaultClient) -> VaultClient | None:
        """Return the client by which a vault is reached since its charter was read."""
        async with self._lock:
            if self._key is not None and self._unread:
                self._unread = False
                with contextlib.suppress(PlacetError):  # that vault's refusal stands
                    await self.read_charters(self._key)
        return next((v for v in self.vaults if v.id == vault.id and v is not vault), None)

    async def courier(self, key: str) -> tuple[CharterView, Outcomes[dict[str, Signed]]]:
        """Bring every lagging vault the statements that it lacks.

        Forks are reported in the view and left alone: only the owner can merge them.

        Raises:
            PlacetError: As for `read_charter`. What a vault refused is its outcome.
        """
        view = await self.read_charter(key)
        return view, await self._bring(view.items, view.lagging, view)

    async def submit(
        self, signed: SignedStatement, receipts: tuple[Signed, ...] = ()
    ) -> EffectReport:
        """Bring a signed statement to all vaults, and to laggards what they lack before it.

        Repeating it is safe. Nothing is raised for what vaults refuse: the report says
        where the statement is in force and why not elsewhere.

        Raises:
            MalformedError: It is no statement.
            TypeError: It has no place in a charter.
        """
        sent = open_statement(signed)
        if not isinstance(sent.statement, Chained):
            raise TypeError("signed: a stage or revoke-pending is not submitted to a charter")
        item = CourierItem(signed=signed, receipts=receipts)
        outcomes = await self._bring((item,))
        errors = outcomes.errors
        behind = [v for v, e in errors.items() if isinstance(e, AncestorMissingError)]
        if behind:
            outcomes = outcomes.replaced(await self._bring_after(sent.key, item, behind))
        taken = {v: r[sent.digest] for v, r in outcomes.values.items() if sent.digest in r}
        takes_away = isinstance(sent.statement, Retire | Delete)
        wait = self.patience if takes_away else min(self.patience, GLANCE)
        asked = {} if isinstance(sent.statement, Birth) else taken
        return EffectReport(
            statement=sent.digest,
            needed=effective_at(sent.statement, self.vault_set),
            confirmed=taken,
            missing=outcomes.errors,
            unwitnessed=await self._unwitnessed(asked, wait) if asked else {},
            takes_away=takes_away,
        )

    async def _unwitnessed(
        self, taken: Mapping[str, Signed], wait: float
    ) -> Mapping[str, tuple[str, ...]]:
        def ask(vaults: tuple[str, ...]) -> Awaitable[Outcomes[Status]]:
            return self.fan_out(lambda v: v.standing(self._rng(NONCE)), only=vaults)

        return await unwitnessed(self.vault_set, taken, ask, wait=wait)

    async def _bring_after(
        self, key: str, item: CourierItem, behind: Sequence[str]
    ) -> Outcomes[dict[str, Signed]]:
        """Bring laggards a statement in one run with those before it, which it vouches for."""
        try:
            view = await self.read_charter(key)
        except PlacetError as e:
            failure = e

            async def fail(_: VaultClient) -> dict[str, Signed]:
                raise failure

            return await self.fan_out(fail, only=behind)
        before = itertools.takewhile(lambda i: i.signed.payload != item.signed.payload, view.items)
        return await self._bring((*before, item), behind, view)

    async def _bring(
        self,
        items: Sequence[CourierItem],
        to: Sequence[str] | None = None,
        view: CharterView | None = None,
    ) -> Outcomes[dict[str, Signed]]:
        """Bring each vault what follows on its head, at least the last; return the receipts."""

        async def bring(vault: VaultClient) -> dict[str, Signed]:
            taken: dict[str, Signed] = {}
            for run in _runs(_from(view, vault.id, items)):
                answer = await vault.take(run)
                digests = (open_statement(i.signed).digest for i in run)
                taken.update(zip(digests, answer.taken, strict=True))
            return taken

        return await self.fan_out(bring, only=to)

    # --- the key -----------------------------------------------------------------------

    async def gather(self, key: str, *, head: str | None = None) -> Gathered:
        """Recover the data key from any k vaults. Take a workload's constellation.

        If too few release it, vaults that lack statements are brought them and asked again.

        A denial is never taken for absence (I9): `ShareMissingError` is raised only when
        every vault answered and none of them refused.

        Args:
            key: The key id.
            head: The newest charter head that is known: vaults that lack it refuse.

        Raises:
            NotApprovedError: So many vaults deny it that k cannot be reached.
            ShareMissingError, KeyNotBornError: All vaults say that there is no such key yet.
            QuorumError: Too few vaults; it names what became of each (R8.3).
            KeyCheckError: Enough answered and their shares give no key; it names who lied.
            PlacetError: Another refusal, by so many vaults that k cannot be reached.
        """
        nonce, k, reached = self._rng(NONCE), self.vault_set.k, self.vaults
        found: list[Recovered] = []
        failed: list[KeyCheckError] = []
        before: Outcomes[Release] = Outcomes(())

        async def ask(vault: VaultClient) -> Release:
            said = await vault.release(key, nonce, head)
            answer = Answer(vault=vault.id, manifest=said.manifest, share=unb64(said.share))
            return Release(
                answer=answer, version=said.version, head=said.head, receipt=said.receipt
            )

        def settled(outcomes: Outcomes[Release]) -> bool:
            merged = before.replaced(outcomes) if before.each else outcomes
            answers = [release.answer for release in merged.values.values()]
            try:
                found.append(combine(answers, k=k, key=key, vaults=self.vault_set.ids))
            except QuorumError:
                return False
            except KeyCheckError as e:
                failed.append(e)
                return False
            return True

        outcomes = await self.fan_out(ask, enough=settled)
        if not found:
            # Vaults that were away may not have heard yet of what lets this code in.
            before, told = outcomes, await self._tell(key)
            if self.vaults is not reached:  # and others may be elsewhere, or run another release
                told = (*told, *outcomes.errors)
            outcomes = before.replaced(await self.fan_out(ask, enough=settled, only=told))
        if not found:
            raise self._why_not(outcomes, failed)
        return Gathered(
            recovered=found[0],
            released=outcomes.values,
            outcomes=outcomes,
        )

    async def _tell(self, key: str) -> Sequence[str]:
        """Bring statements to vaults that lack them; return who took some."""
        with contextlib.suppress(PlacetError):  # what vaults said to us stands
            _, brought = await self.courier(key)
            return tuple(brought.values)
        return ()

    def _why_not(self, outcomes: Outcomes[Any], failed: Sequence[KeyCheckError]) -> PlacetError:
        k, errors = self.vault_set.k, outcomes.errors
        refusal = outcomes.refusal(k)
        absent = all(isinstance(e, ShareMissingError) for e in errors.values())
        if refusal is not None and (absent or not isinstance(refusal, ShareMissingError)):
            return refusal
        if failed and len(outcomes.values) >= k:
            return failed[-1]
        return outcomes.quorum_error(k)


def _from(
    view: CharterView | None, vault: str, items: Sequence[CourierItem]
) -> Sequence[CourierItem]:
    """Return the part of a run that follows on what a vault has; at least the last."""
    lacks = view.missing(vault) if view is not None else ()
    start = next((i for i, item in enumerate(items) if lacks and item == lacks[0]), None)
    if start is None:
        has = len(view.chains.get(vault, ())) if view is not None else 0
        start = min(has, len(items) - 1)
    return items[start:]


def _runs(items: Sequence[CourierItem]) -> list[tuple[CourierItem, ...]]:
    """Cut a charter into requests that a vault takes: as few as its limits allow."""
    runs: list[tuple[CourierItem, ...]] = []
    run: tuple[CourierItem, ...] = ()
    size = 0
    for item in items:
        length = len(encode(item)) + 1
        if run and (len(run) == MAX_CHAIN or size + length > MAX_BODY - KIB):
            runs.append(run)
            run, size = (), 0
        run, size = (*run, item), size + length
    return [*runs, run] if run else runs
