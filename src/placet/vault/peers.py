"""Ask the other vaults and witnesses, again and again, and take what is newer (spec/10).

One task a peer, one request at a time; nothing here makes a request of a client wait. What
comes back decides nothing by itself: `Standing` judges it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from placet.attest.trust import TrustAnchor
from placet.attest.verify import EvidenceVerifier
from placet.core.continuity import News, WitnessAnswer, WitnessRequest
from placet.core.encoding import Record, decode, encode
from placet.core.limits import BEAT_EVERY
from placet.core.messages import CharterAnswer
from placet.errors import (
    InternalError,
    MalformedError,
    PlacetError,
    QuarantinedError,
    UnavailableError,
    VaultStartingError,
    from_problem,
)
from placet.ratls.certificate import make_certificate
from placet.ratls.context import AttestedContext, make_context
from placet.ratls.exchange import ClientExchange, Clock, ExpectVault, VerifiedPeer
from placet.ratls.http import Answer, AttestedConnection, ConnectionPool
from placet.vault.circles import Peer
from placet.vault.following import Follower, Following
from placet.vault.standing import Standing

R = TypeVar("R", bound=Record)

TIMEOUT = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds to wait after a failure, the first and any later one."""
ROUNDS = 4
"""Beats in a row until an answer counts: to learn a size, and once more if it grew."""
CONTEXT_LIFETIME = 7 * 24 * 3600
MAX_AGE = 300
"""Seconds after which a connection to a vault is not used again."""

_ENDPOINT = re.compile(r"\[?([^\[\]]+)\]?:([0-9]{1,5})")

log = logging.getLogger("placet.vault")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How other vaults are reached.

    Args:
        trust: Roots of the measured config: what may vouch for them.
        verify: Verifies their evidence.
        clock: Of this vault.
        rng: Cryptographically secure.
    """

    trust: Sequence[TrustAnchor]
    verify: EvidenceVerifier
    clock: Clock
    rng: Callable[[int], bytes]


class Peers:
    """All peers of one vault.

    Args:
        standing: Is told what they answer.
        follower: Takes what they know to be newer.
        line: How they are reached.
    """

    def __init__(self, standing: Standing, follower: Follower, line: Line) -> None:
        self._standing, self._following, self._line = standing, Following(follower), line
        self._tasks = dict[str, asyncio.Task[None]]()
        self._wakes = dict[str, asyncio.Event]()
        self._news = asyncio.Event()
        self._made: tuple[int, AttestedContext] | None = None
        standing.changed, standing.stood = self.wake, self._stood

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask all peers for as long as the context lasts."""
        try:
            self.wake(p.id for p in self._standing.peers())
            yield
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def wake(self, peers: Iterable[str]) -> None:
        """Ask these peers now."""
        for peer in peers:
            if peer not in self._tasks:
                self._wakes[peer] = asyncio.Event()
                self._tasks[peer] = asyncio.create_task(self._keep(peer))
            self._wakes[peer].set()

    async def soon(self, deadline: float) -> bool:
        """Wait until an answer came in; say whether it is worth trying again.

        Args:
            deadline: By the loop's clock.
        """
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0 or not self._standing.young():
            return False
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._news.wait()
                return True
        return False

    def _stood(self) -> None:
        self._news.set()

    async def _keep(self, peer: str) -> None:
        """Ask one peer again and again; whatever goes wrong with it stays here."""
        talk, failures = _Talk(self, peer), 0
        wake = self._wakes[peer]
        try:
            while True:
                wake.clear()
                try:
                    caught_up = await self._round(talk)
                    failures = 0 if caught_up else failures + 1
                except QuarantinedError as e:
                    log.error("quarantined: %s", e.detail)  # noqa: TRY400 - no traceback is needed
                    return
                except PlacetError as e:
                    failures += 1
                    log.info("witness %s: %s: %s", peer, e.type, e.detail)
                    talk.turn()
                await self._pause(wake, failures)
        finally:
            talk.close()

    async def _pause(self, wake: asyncio.Event, failures: int) -> None:
        jitter = 0.8 + self._line.rng(1)[0] / 1280
        pause = BEAT_EVERY if not failures else min(FIRST_PAUSE * 2**failures, LONGEST_PAUSE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause * jitter):
                await wake.wait()
        # Many statements at once are told of together.
        await asyncio.sleep(FIRST_PAUSE * jitter if failures else 0)

    async def _round(self, talk: _Talk) -> bool:
        """Beat until the answer counts, then take what is newer; say whether all of it was."""
        while True:
            answer = await self._beat(talk)
            for news in answer.news:
                try:
                    await self._follow(talk, news)
                except VaultStartingError:
                    return False  # Others have to answer first: it will be told again.
                except PlacetError as e:
                    log.info("witness %s: key %s: %s", talk.peer, news.key, e.type)
            if answer.cursor == talk.cursor:
                self._standing.catch_up(talk.peer)
                return True
            talk.cursor = answer.cursor

    async def _beat(self, talk: _Talk) -> WitnessAnswer:
        for _ in range(ROUNDS):
            asked = self._standing.ask(talk.peer, talk.cursor)
            answer = await talk.beat(asked.request)
            if not self._standing.hear(talk.peer, asked, answer):
                return answer
        raise UnavailableError("it answered and never knew this vault's newest head")

    async def _follow(self, talk: _Talk, news: News) -> None:
        """Fetch a charter that is further there, and take what this vault lacks."""
        if self._following.lacks(news):
            self._following.bring(news.key, await talk.charter(news.key))

    def connection(self, peer: Peer, endpoint: str) -> _Connection:
        """Return a way to a peer at one of its endpoints; nothing is connected yet."""
        found = _ENDPOINT.fullmatch(endpoint)
        host, port = (found[1], int(found[2])) if found else (endpoint, 0)
        port = port if port < 2**16 else 0
        if peer.outside:
            return _Plain(host, port)
        line = self._line
        exchange = ClientExchange(
            expect=ExpectVault(id=peer.id, profiles=peer.profiles, trust=tuple(line.trust)),
            prover=None,
            clock=line.clock,
            rng=line.rng,
            verify=line.verify,
        )
        pool = ConnectionPool(
            host, port, self._context, exchange,
            size=1, max_age=MAX_AGE, timeout=TIMEOUT, clock=line.clock.monotonic,
        )  # fmt: skip
        return _Attested(pool)

    def peer(self, peer: str) -> Peer:
        """Return what is known of a peer by now."""
        return self._standing.peer(peer)

    def _context(self) -> AttestedContext:
        now = self._line.clock.now()
        if self._made is None or now >= self._made[0] + CONTEXT_LIFETIME // 2:
            pair = make_certificate(now=now, lifetime=CONTEXT_LIFETIME)
            self._made = now, make_context(*pair, server=False)
        return self._made[1]


class _Connection(Protocol):
    async def request(self, method: str, path: str, body: bytes) -> Answer: ...

    def close(self) -> None: ...


class _Attested:
    """To another vault, which proves itself on every new connection."""

    def __init__(self, pool: ConnectionPool[VerifiedPeer]) -> None:
        self._pool = pool

    async def request(self, method: str, path: str, body: bytes) -> Answer:
        async with self._pool.acquire() as connection:
            return await connection.request(method, path, body, timeout=TIMEOUT)

    def close(self) -> None:
        self._pool.close()


class _Plain:
    """To an outside witness: what it says is signed over our nonce, and nothing is secret."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._open: AttestedConnection[None] | None = None

    async def request(self, method: str, path: str, body: bytes) -> Answer:
        if self._open is None or self._open.closed:
            host, port = self._address
            name = f"{host}:{port}"
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(TIMEOUT):
                    _, self._open = await loop.create_connection(
                        lambda: AttestedConnection(None, name), host, port
                    )
            except (TimeoutError, OSError) as e:
                raise UnavailableError(f"{name} cannot be reached: {type(e).__name__}") from e
        return await self._open.request(method, path, body, timeout=TIMEOUT)

    def close(self) -> None:
        if self._open is not None:
            self._open.close()


class _Talk:
    """The requests to one peer, at the first of its endpoints that answers."""

    def __init__(self, peers: Peers, peer: str) -> None:
        self.peer, self.cursor = peer, 0
        self._peers, self._turn = peers, 0
        self._connection: _Connection | None = None
        self._known: Peer | None = None

    def turn(self) -> None:
        """Try the next endpoint, and forget the connection."""
        self.close()
        self._turn += 1

    def close(self) -> None:
        """Close what is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def beat(self, request: WitnessRequest) -> WitnessAnswer:
        """Send a beat."""
        return await self._ask("POST", "/v1/witness", WitnessAnswer, request)

    async def charter(self, key: str) -> CharterAnswer:
        """Fetch a charter. Nothing in it is verified here."""
        return await self._ask("GET", f"/v1/keys/{key}/charter", CharterAnswer)

    async def _ask(self, method: str, path: str, shape: type[R], body: Record | None = None) -> R:
        peer = self._peers.peer(self.peer)
        if self._connection is None or peer != self._known:
            self.close()
            self._known = peer
            endpoint = peer.endpoints[self._turn % len(peer.endpoints)]
            self._connection = self._peers.connection(peer, endpoint)
        raw = b"" if body is None else encode(body)
        try:
            return _read(await self._connection.request(method, path, raw), shape)
        except (ValueError, TypeError) as e:
            # Whatever an endpoint in a charter makes of itself, it takes nobody else down.
            raise InternalError(f"request to {self.peer} failed: {type(e).__name__}") from e


def _read(answer: Answer, shape: type[R]) -> R:
    if answer.status == 200:  # noqa: PLR2004 - RFC 9110, section 15.3.1
        return decode(answer.body, shape)
    try:
        problem = msgspec.json.decode(answer.body, type=dict[str, object])
    except (msgspec.DecodeError, ValueError, RecursionError) as e:
        raise MalformedError(f"peer answered {answer.status} without a problem document") from e
    raise from_problem(problem)
