"""The vault's HTTP side: a bare ASGI application (spec/07, section 1).

Limits first, then the path, who may ask, parse, and the service. Every error is a problem
document (RFC 9457); what is no `PlacetError` is our fault and says nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from placet.core.buckets import network_of
from placet.core.encoding import decode, encode
from placet.core.limits import MAX_BODY
from placet.errors import (
    InternalError,
    MalformedError,
    NotFoundError,
    PlacetError,
    RoleDeniedError,
    TooLargeError,
    VaultStartingError,
)
from placet.ratls.exchange import VerifiedPeer
from placet.vault.quota import Quota
from placet.vault.routes import ROUTES, Asked, Route
from placet.vault.service import Vault
from placet.vault.turn import Turn, Turned
from placet.vault.watch import Answered, Watch, unwatched

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Soon = Callable[[float], Awaitable[bool]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PROBLEM = b"application/problem+json"
JSON = re.compile(rb"(?i:application/json(?:; *charset=\"?utf-8\"?)?)")
LENGTH = 15
"""Characters of a content-length that is read."""
OK, FORBIDDEN = 200, 403
NO_ROUTE = "none"
PATIENCE = 8.0
"""Seconds for which a request waits while answers of witnesses may be expected any moment."""
ID = 8
"""Bytes of a request id."""

log = logging.getLogger("placet.vault")


class VaultApp:
    """Answer requests of attested peers and visitors from one `Vault`.

    Args:
        vault: The service.
        watch: Is told of each request once it was answered; decides nothing.
        soon: Awaits what a vault that just started waits for, until a time by the loop's
            clock, and says whether it is worth trying again.
        turned: Is told of requests that became durable together; decides nothing.
    """

    def __init__(
        self,
        vault: Vault,
        watch: Watch = unwatched,
        soon: Soon | None = None,
        turned: Turned = lambda *_: None,
    ) -> None:
        self._vault, self._watch, self._soon = vault, watch, soon
        self._quota = Quota(time.monotonic)
        self._turn = Turn(vault.group, turned)
        self._routes = [(route, route.pattern) for route in ROUTES]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request, started = _Request(scope), time.monotonic()
        problem: PlacetError | None = None
        try:
            peer = request.attested()
            self._quota.request(peer)
            with self._quota.reading() as more:
                raw = await _body(scope, receive, more)
                self._quota.work(peer, request.network, len(raw))
                answer = encode(await self._patiently(request, peer, raw))
        except PlacetError as e:
            problem = e
        except Exception as e:  # noqa: BLE001 - whatever it is, the peer learns nothing of it
            # The class only: a message could hold what no log may hold (I13).
            log.error("request %s failed inside: %s", request.id, type(e).__name__)  # noqa: TRY400 - no locals
            problem = InternalError("the vault failed; nothing was done")
        headers = [(b"content-type", b"application/json"), (b"x-request-id", request.id.encode())]
        status = OK
        if problem is not None:
            status, answer = problem.status, _problem(problem, request.id)
            headers[0] = (b"content-type", PROBLEM)
            if isinstance(after := problem.members.get("retry_after"), int):
                headers.append((b"retry-after", str(after).encode()))
        headers.append((b"content-length", str(len(answer)).encode()))
        if status == FORBIDDEN:  # who was refused starts again from the handshake (R1.9)
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
        self._watch(request.answered(status, problem, time.monotonic() - started))

    async def _patiently(self, request: _Request, peer: VerifiedPeer, raw: bytes) -> object:
        """Answer; a vault that just started, or a key just born, may need a moment for it."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                return await self._turn.run(partial(self._answer, request, peer, raw))
            except VaultStartingError:
                if self._soon is None or not await self._soon(deadline):
                    raise

    def _answer(self, request: _Request, peer: VerifiedPeer, raw: bytes) -> object:
        route, key = self._find(request)
        # Who may ask comes before what is asked.
        if route.who != "anyone" and (peer.role != route.who or peer.identity is None):
            raise RoleDeniedError(
                f"a {peer.role} may not ask this: it takes mutual evidence",
                f"Connect as a {route.who}, from inside its TEE.",
            )
        asked = Asked(
            peer=peer,
            key=key,
            body=None if route.body is None else decode(raw, route.body),
            values=tuple(request.query(name, form) for name, form in route.query.items()),
        )
        return route.call(self._vault, asked)

    def _find(self, request: _Request) -> tuple[Route, str]:
        for route, pattern in self._routes:
            match = pattern.fullmatch(request.path)
            if match and route.method == request.method:
                request.route, request.key = route.path, match.groupdict().get("key", "")
                return route, request.key
        raise NotFoundError(f"there is no {request.method} {request.path[:200]} here")


class _Request:
    """One request as it came, and what is said of it when it was answered."""

    def __init__(self, scope: Scope) -> None:
        self.id = os.urandom(ID).hex()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.route, self.key = NO_ROUTE, ""
        self._peer = (scope.get("extensions") or {}).get("placet")
        self._query = scope["query_string"]
        self.network = network_of(scope.get("client"))

    def attested(self) -> VerifiedPeer:
        if not isinstance(self._peer, VerifiedPeer):
            raise RoleDeniedError("this connection was not attested")
        return self._peer

    def query(self, name: str, form: str) -> str:
        try:
            found = parse_qs(self._query.decode(), strict_parsing=True, max_num_fields=4)
        except ValueError as e:
            raise MalformedError("query string does not parse") from e
        values: list[str] = found.get(name, [])
        if len(values) != 1 or not re.fullmatch(form, values[0]):
            raise MalformedError(f"query needs exactly one {name} of the form {form}")
        return values[0]

    def answered(self, status: int, problem: PlacetError | None, seconds: float) -> Answered:
        return Answered(
            request=self.id,
            method=self.method,
            route=self.route,
            status=status,
            problem=None if problem is None else problem.type,
            seconds=seconds,
            role=self._peer.role if isinstance(self._peer, VerifiedPeer) else "nobody",
            key=self.key,
        )


async def _body(scope: Scope, receive: Receive, more: Callable[[int], None]) -> bytes:
    _check_head(scope)
    chunks, length = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise MalformedError("peer went away")
        chunks.append(message.get("body", b""))
        more(len(chunks[-1]))
        length += len(chunks[-1])
        if length > MAX_BODY:
            raise _too_large()
        if not message.get("more_body"):
            return b"".join(chunks)


def _check_head(scope: Scope) -> None:
    for name, value in scope["headers"]:
        # The parser refused what is no number; one of thousands of digits is left to us.
        if name == b"content-length" and (len(value) > LENGTH or int(value) > MAX_BODY):
            raise _too_large()
        if name == b"content-encoding":
            raise MalformedError("compressed bodies are not read")
        if name == b"content-type" and not JSON.fullmatch(value):
            raise MalformedError("body is not application/json")


def _too_large() -> TooLargeError:
    return TooLargeError(f"body is too large, at most {MAX_BODY} bytes are read")


def _problem(error: PlacetError, request: str) -> bytes:
    return json.dumps({**error.problem(), "request": request}, default=str).encode()
