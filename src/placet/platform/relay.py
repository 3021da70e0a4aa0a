"""Carry bytes to every vault, and their answers back.

The platform is a visitor and a courier. Bodies are passed on exactly as they came: it
does not parse what owners signed, and could neither mend nor change it (I2).
"""

from __future__ import annotations

import asyncio
import os

import msgspec

from placet.client.clock import HostClock
from placet.client.vault_client import renewed_contexts
from placet.client.vaults_file import VaultsFile
from placet.core.limits import MAX_CHAIN
from placet.core.messages import CharterAnswer, TakeRequest
from placet.core.profile import VaultMember
from placet.errors import KeyNotBornError, PlacetError, UnavailableError, from_problem
from placet.ratls.exchange import ClientExchange, ExpectVault, VerifiedPeer
from placet.ratls.http import Answer, ConnectionPool

OK = 200
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
        clock = HostClock()
        contexts = renewed_contexts(clock)

        def pool(member: VaultMember) -> ConnectionPool[VerifiedPeer]:
            expect = ExpectVault(id=member.id, profiles=vaults.profiles, trust=vaults.trust)
            exchange = ClientExchange(expect=expect, prover=None, clock=clock, rng=os.urandom)
            host, _, port = member.endpoint.rpartition(":")
            return ConnectionPool(
                host, int(port), contexts, exchange, max_age=MAX_AGE, clock=clock.monotonic
            )

        self._vaults = tuple((m, pool(m)) for m in vaults.vaults)

    async def send(self, method: str, path: str, body: bytes = b"") -> tuple[VaultAnswer, ...]:
        """Send one request to every vault at once; silence is an answer of status 503."""

        async def one(member: VaultMember, pool: ConnectionPool[VerifiedPeer]) -> VaultAnswer:
            try:
                got = await _ask(pool, method, path, body)
                status, answer = got.status, got.body
            except PlacetError as e:
                status, answer = e.status, msgspec.json.encode(e.problem())
            return VaultAnswer(
                vault=member.id, endpoint=member.endpoint, status=status, answer=msgspec.Raw(answer)
            )

        return tuple(await asyncio.gather(*(one(*v) for v in self._vaults)))

    async def charter(self, key: str) -> TakeRequest:
        """Return the longest charter of a key that a vault shows. *Nothing* in it is verified.

        Of a very long one the oldest statements: an agent starts at the birth statement and
        learns what came later from the vaults.

        Raises:
            KeyNotBornError: No vault has one.
            UnavailableError: No vault answers.
        """
        answers = await self.send("GET", f"/v1/keys/{key}/charter")
        charters = [
            msgspec.json.decode(a.answer, type=CharterAnswer).charter
            for a in answers
            if a.status == OK
        ]
        if charters:
            return TakeRequest(chain=max(charters, key=len)[:MAX_CHAIN])
        problems = [from_problem(msgspec.json.decode(a.answer)) for a in answers]
        if all(isinstance(p, UnavailableError) for p in problems):
            raise UnavailableError(
                f"none of {len(answers)} vaults answers", "Bring them back, then try again."
            )
        raise KeyNotBornError(
            f"no vault knows key {key}", "Relay the owner's birth statement first."
        )

    def close(self) -> None:
        """Close the connections."""
        for _, pool in self._vaults:
            pool.close()


async def _ask(pool: ConnectionPool[VerifiedPeer], method: str, path: str, body: bytes) -> Answer:
    """Ask once more if a kept connection turns out to be dead; all requests may be repeated."""
    try:
        async with pool.acquire() as connection:
            return await connection.request(method, path, body)
    except UnavailableError:
        async with pool.acquire() as connection:
            return await connection.request(method, path, body)
