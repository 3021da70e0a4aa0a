"""`VaultClient`s of vault services in this process: real requests, real answers, no sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from placet.client.constellation import Constellation
from placet.client.vault_client import Session, VaultClient
from placet.core.attestation import AttestedIdentity
from placet.core.profile import VaultSet
from placet.errors import UnavailableError
from placet.ratls.http import Answer
from placet.vault.http import VaultApp
from placet_testing.charters import seeded, vault_name
from placet_testing.vaults import Bench, peer


@dataclass
class Link:
    """What lies between a client and one vault, and can be bad.

    Each fault is a number of requests that it hits; ``down`` lasts.
    """

    bench: Bench
    down: bool = False
    lose_request: int = 0
    lose_answer: int = 0
    silent: bool = False
    """Requests are taken and never answered."""
    tamper: Callable[[str, bytes], bytes] | None = None
    """Path and answer to another answer."""
    before: Callable[[str], Any] | None = None
    """Called with each path before the vault gets the request; may raise, may be awaited."""
    after: Callable[[str], Any] | None = None
    """The same, once the vault has answered."""
    sent: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Method, path and body of every request that was sent."""
    connections: int = 0


class Connection:
    """One attested connection: good until it breaks."""

    def __init__(self, link: Link, session: Session) -> None:
        self.link, self.peer, self.closed = link, session, False

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        timeout: float = 10.0,  # noqa: ASYNC109, ARG002 - as the real one has it
    ) -> Answer:
        """Carry one request to the vault's application and its answer back."""
        link = self.link
        link.sent.append((method, path, body))
        if link.before is not None and (waited := link.before(path)) is not None:
            await waited
        if link.silent:
            await asyncio.Event().wait()
        if link.down or self.closed or link.lose_request:
            link.lose_request = max(0, link.lose_request - 1)
            self.close()
            raise UnavailableError("peer closed the connection")
        status, answer = await serve_once(link.bench, self.peer.peer, method, path, body)
        if link.after is not None and (waited := link.after(path)) is not None:
            await waited
        if link.lose_answer:
            link.lose_answer -= 1
            self.close()
            raise UnavailableError("peer closed the connection")
        self.closed = status == 403
        return Answer(status, {}, link.tamper(path, answer) if link.tamper else answer)

    def close(self) -> None:
        """Close it."""
        self.closed = True


class Pool:
    """Stands for a `ConnectionPool`: keeps what is not closed."""

    def __init__(self, link: Link, identity: AttestedIdentity | None, keys: tuple[str, ...]):
        self.link, self.identity, self.keys = link, identity, keys
        self.idle: list[Connection] = []

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """Lend a connection: an idle one, else a new one."""
        connection = self.idle.pop() if self.idle else self._connect()
        try:
            yield connection
        finally:
            if not connection.closed:
                self.idle.append(connection)

    def _connect(self) -> Connection:
        if self.link.down:
            raise UnavailableError("no connection")
        self.link.connections += 1
        end = peer(self.identity, self.keys, at=self.link.bench.clock.ticks)
        vault = self.link.bench.vault._identity.id
        return Connection(self.link, Session(peer=end, vault=vault, own_spki=end.spki))

    def close(self) -> None:
        """Forget the idle ones."""
        self.idle.clear()


def client_of(
    link: Link, number: int, identity: AttestedIdentity | None = None, keys: tuple[str, ...] = ()
) -> VaultClient:
    """Return a client of test vault ``number``, as a visitor or as this workload."""
    pool: Any = Pool(link, identity, keys)
    return VaultClient(vault_name(number), f"127.0.0.1:{9000 + number}", pool)


def constellation_of(
    links: list[Link],
    vaults: VaultSet,
    identity: AttestedIdentity | None = None,
    keys: tuple[str, ...] = (),
    *,
    deadline: float = 5.0,
) -> Constellation:
    """Return the constellation of these links, the first being test vault 1."""
    clients = [client_of(link, i, identity, keys) for i, link in enumerate(links, 1)]
    clock = links[0].bench.clock
    return Constellation(vaults, clients, clock=clock, rng=seeded("nonces"), deadline=deadline)


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """Lend a folder in memory where there is one: for tests that are not about durability."""
    memory = Path("/dev/shm")  # noqa: S108 - a fresh folder in it, for this user only
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


async def serve_once(
    bench: Bench, end: Any, method: str, path: str, body: bytes
) -> tuple[int, bytes]:
    """Have a vault's application answer one request; return status and body."""
    status, _, answer = await serve_whole(bench, end, method, path, body)
    return status, answer


async def serve_whole(
    bench: Any,
    end: Any,
    method: str,
    path: str,
    body: bytes,
    *,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> tuple[int, dict[str, str], bytes]:
    """Return the headers of the answer as well; ``bench`` is anything that has a vault."""
    route, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": route,
        "query_string": query.encode(),
        "headers": list(headers),
        "extensions": {"placet": end},
    }
    messages: list[Any] = []
    chunks = itertools.chain([{"type": "http.request", "body": body}])

    async def receive() -> Any:
        return next(chunks)

    async def send(message: Any) -> None:
        messages.append(message)

    # So that requests to several vaults mix, as they do over sockets.
    await asyncio.sleep(0)
    await VaultApp(bench.vault)(scope, receive, send)
    await asyncio.sleep(0)
    said = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return messages[0]["status"], said, messages[1]["body"]
