"""Carry bytes to every vault, and their answers back.

The platform is a visitor and a courier. Bodies are passed on exactly as they came: it
does not parse what owners signed, and could neither mend nor change it (I2).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence

import msgspec

from placet.client.charters import merge_charters
from placet.client.clock import HostClock
from placet.client.following import CharterCopy, open_charter
from placet.client.vault_client import renewed_contexts
from placet.client.vaults_file import VaultsFile
from placet.core.messages import CharterAnswer, CourierItem
from placet.core.profile import VaultMember
from placet.errors import (
    HandedOverError,
    KeyNotBornError,
    PlacetError,
    UnavailableError,
    VaultReleaseError,
    from_problem,
)
from placet.ratls.exchange import ClientExchange, ExpectVault, VerifiedPeer
from placet.ratls.http import Answer, ConnectionPool

OK = 200
MAX_MOVED = 64
"""Newer processes of vaults that connections are kept to."""
_ENDPOINT = re.compile(r"\[?[^\[\]\s]{1,255}\]?:[0-9]{1,5}")
MAX_LEARNED = 256
"""Vault releases that are known to this relay."""
MAX_AGE = 300.0
"""Seconds for which a connection is used; a visitor's evidence cannot become stale."""


class VaultAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one vault."""

    vault: str
    endpoint: str
    status: int
    answer: msgspec.Raw
    """Its JSON, byte for byte; a problem of our own if it did not answer."""


class Relay:
    """Attested connections to the vaults of one file. On one event loop only.

    Args:
        vaults: Where they are, and what they must prove.
    """

    def __init__(self, vaults: VaultsFile) -> None:
        self._clock = HostClock()
        self._contexts = renewed_contexts(self._clock)
        self._trust, self._set = vaults.trust, vaults.vault_set
        self._vaults = tuple((m, self._pool(m)) for m in self._set.vaults)
        self._moved: dict[VaultMember, ConnectionPool[VerifiedPeer]] = {}

    def _pool(self, member: VaultMember) -> ConnectionPool[VerifiedPeer]:
        expect = ExpectVault(id=member.id, profiles=self._set.profiles, trust=self._trust)
        exchange = ClientExchange(expect=expect, prover=None, clock=self._clock, rng=os.urandom)
        host, _, port = member.endpoint.rpartition(":")
        return ConnectionPool(
            host, int(port), self._contexts, exchange, max_age=MAX_AGE, clock=self._clock.monotonic
        )

    def _at(self, member: VaultMember, endpoint: str) -> ConnectionPool[VerifiedPeer]:
        """Return the way to a newer process of a vault, which is attested like the first."""
        moved = msgspec.structs.replace(member, endpoint=endpoint)
        if moved not in self._moved:
            if len(self._moved) >= MAX_MOVED:
                self._moved.pop(next(iter(self._moved))).close()
            self._moved[moved] = self._pool(moved)
        return self._moved[moved]

    def follow(self, key: str, items: Sequence[CourierItem]) -> bool:
        """Carry to what a key's owner says that its vaults run; say whether that was news.

        Args:
            key: The key id.
            items: Its charter, from wherever: it is verified.
        """
        try:
            named = open_charter(key, items, now=self._clock.now()).vault_set
        except PlacetError:
            return False
        # Whose keys these vaults keep is no affair of the platform's; only who they are is.
        mine = tuple(p for p in named.profiles if set(named.ids) & set(self._set.ids))
        profiles = tuple(dict.fromkeys((*self._set.profiles, *mine)))[:MAX_LEARNED]
        if set(profiles) == set(self._set.profiles):
            return False
        before, moved, self._moved = self._vaults, self._moved, {}
        self._set = msgspec.structs.replace(self._set, profiles=profiles)
        self._vaults = tuple((m, self._pool(m)) for m in self._set.vaults)
        for pool in (*(p for _, p in before), *moved.values()):
            pool.close()
        return True

    async def send(self, method: str, path: str, body: bytes = b"") -> tuple[VaultAnswer, ...]:
        """Send one request to every vault at once; silence is an answer of status 503."""

        async def one(member: VaultMember, pool: ConnectionPool[VerifiedPeer]) -> VaultAnswer:
            try:
                got = await _ask(pool, method, path, body)
                if (elsewhere := _elsewhere(got)) is not None:
                    got = await _ask(self._at(member, elsewhere), method, path, body)
                status, answer = got.status, got.body
            except PlacetError as e:
                status, answer = e.status, msgspec.json.encode(e.problem())
            return VaultAnswer(
                vault=member.id, endpoint=member.endpoint, status=status, answer=msgspec.Raw(answer)
            )

        return tuple(await asyncio.gather(*(one(*v) for v in self._vaults)))

    async def charter(self, key: str) -> CharterCopy:
        """Return a key's newest charter that verifies, with the receipts of all vaults.

        An agent believes none of it; by the receipts it knows newer releases of the vaults.

        Raises:
            KeyNotBornError: No vault has one.
            UnavailableError: No vault answers.
        """
        copy = await self._charter(key)
        if self.follow(key, copy.chain):
            copy = await self._charter(key)
        return copy

    async def _charter(self, key: str) -> CharterCopy:
        answers = await self.send("GET", f"/v1/keys/{key}/charter")
        charters = {
            a.vault: msgspec.json.decode(a.answer, type=CharterAnswer)
            for a in answers
            if a.status == OK
        }
        if charters:
            try:
                view = merge_charters(key, charters, now=self._clock.now())
            except PlacetError:  # what they show, for the agent to judge
                longest = max((c.charter for c in charters.values()), key=len)
                return CharterCopy(chain=longest)
            return CharterCopy(chain=view.items)
        problems = [from_problem(msgspec.json.decode(a.answer)) for a in answers]
        if all(isinstance(p, UnavailableError) for p in problems):
            raise UnavailableError(
                f"none of {len(answers)} vaults answers", "Bring them back, then try again."
            )
        unknown = next((p for p in problems if isinstance(p, VaultReleaseError)), None)
        if unknown is not None:
            raise unknown
        raise KeyNotBornError(
            f"no vault knows key {key}", "Relay the owner's birth statement first."
        )

    def close(self) -> None:
        """Close the connections."""
        for pool in (*(p for _, p in self._vaults), *self._moved.values()):
            pool.close()


def _elsewhere(answer: Answer) -> str | None:
    """Return where a vault says that its newer process has the key."""
    if answer.status != HandedOverError.status:
        return None
    try:
        problem = from_problem(msgspec.json.decode(answer.body, type=dict[str, object]))
    except (msgspec.DecodeError, ValueError):
        return None
    endpoint = problem.members.get("endpoint")
    if not isinstance(endpoint, str) or not _ENDPOINT.fullmatch(endpoint):
        return None
    return endpoint if int(endpoint.rpartition(":")[2]) < 2**16 else None


async def _ask(pool: ConnectionPool[VerifiedPeer], method: str, path: str, body: bytes) -> Answer:
    """Ask once more if a kept connection turns out to be dead; all requests may be repeated."""
    try:
        async with pool.acquire() as connection:
            return await connection.request(method, path, body)
    except UnavailableError:
        async with pool.acquire() as connection:
            return await connection.request(method, path, body)
