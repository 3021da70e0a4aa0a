"""The vault's HTTP side: a bare ASGI application (spec/07, section 1).

Limits first, then who may ask, then parse, then the service. Every error is a problem
document (RFC 9457); what is no `PlacetError` is our fault and says nothing.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar
from urllib.parse import parse_qs

from placet.core.encoding import Record, decode, encode
from placet.core.limits import MAX_BODY
from placet.core.messages import (
    CommitRequest,
    HoldRequest,
    PromiseRequest,
    RecoverRequest,
    ReleaseRequest,
    StageRequest,
    TakeRequest,
)
from placet.errors import (
    InternalError,
    MalformedError,
    NotFoundError,
    PlacetError,
    RoleDeniedError,
    TooLargeError,
)
from placet.ratls.exchange import VerifiedPeer
from placet.vault.service import Vault

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

R = TypeVar("R")
PROBLEM = b"application/problem+json"
KEY = r"(?P<key>sha256:[0-9a-f]{64})"
NONCE = re.compile(r"[A-Za-z0-9_-]{43}")
NUMBER = re.compile(r"0|[1-9][0-9]{0,14}")
SCOPE = re.compile(r"[ -~]{1,200}")

log = logging.getLogger("placet.vault")


class VaultApp:
    """Answer requests of attested peers and visitors from one `Vault`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        visitor, workload = self._visitor, self._workload
        table: list[tuple[str, str, Callable[..., Record]]] = [
            ("GET", r"/v1/status", visitor(self._status)),
            ("POST", r"/v1/statements", visitor(lambda r: vault.take(r.body(TakeRequest)))),
            ("POST", r"/v1/pending", visitor(lambda r: vault.stage(r.body(StageRequest)))),
            ("GET", r"/v1/pending", visitor(lambda r: vault.pending(r.query("scope", SCOPE)))),
            ("GET", rf"/v1/keys/{KEY}/charter", visitor(lambda r: vault.charter(r.key))),
            (
                "GET",
                rf"/v1/keys/{KEY}/log",
                visitor(lambda r: vault.log(r.key, r.number("since"))),
            ),
            (
                "GET",
                rf"/v1/keys/{KEY}/audit",
                visitor(lambda r: vault.audit(r.key, r.number("since"), r.number("size"))),
            ),
            ("GET", rf"/v1/keys/{KEY}/dropped", visitor(lambda r: vault.dropped(r.key))),
            ("GET", r"/v1/log", visitor(lambda r: vault.journal(r.number("since")))),
            ("GET", r"/v1/log/hashes", visitor(lambda r: vault.hashes(r.number("since")))),
            ("POST", rf"/v1/keys/{KEY}/release", workload(vault.release, ReleaseRequest)),
            ("POST", rf"/v1/keys/{KEY}/shares/promise", workload(vault.promise, PromiseRequest)),
            ("POST", rf"/v1/keys/{KEY}/shares/recover", workload(vault.recover, RecoverRequest)),
            ("POST", rf"/v1/keys/{KEY}/shares/prepare", workload(vault.hold, HoldRequest)),
            ("POST", rf"/v1/keys/{KEY}/shares/commit", workload(vault.commit, CommitRequest)),
        ]
        self._routes = [(method, re.compile(path), call) for method, path, call in table]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            request = _Request(scope, await _body(scope, receive))
            status, kind, answer = 200, b"application/json", encode(self._find(request)(request))
        except PlacetError as e:
            status, kind, answer = e.status, PROBLEM, _problem(e)
        except Exception as e:  # noqa: BLE001 - whatever it is, the peer learns nothing of it
            # The class only: a message could hold what no log may hold (I13).
            log.error("request failed inside: %s", type(e).__name__)  # noqa: TRY400 - no locals
            failure = InternalError("the vault failed; nothing was done")
            status, kind, answer = failure.status, PROBLEM, _problem(failure)
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(answer)).encode()),
        ]
        if status == 403:  # noqa: PLR2004 - who was refused starts again from the handshake (R1.9)
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _find(self, request: _Request) -> Callable[[_Request], Record]:
        for method, path, call in self._routes:
            match = path.fullmatch(request.path)
            if match and method == request.method:
                request.key = match.groupdict().get("key", "")
                return call
        raise NotFoundError(f"there is no {request.method} {request.path[:200]} here")

    @staticmethod
    def _visitor(call: Callable[[_Request], Record]) -> Callable[[_Request], Record]:
        return call

    @staticmethod
    def _workload(
        call: Callable[[VerifiedPeer, str, Any], Record], shape: type[Record]
    ) -> Callable[[_Request], Record]:
        def checked(request: _Request) -> Record:
            # Who may ask comes before what is asked.
            if request.peer.role != "workload" or request.peer.identity is None:
                raise RoleDeniedError(
                    f"a {request.peer.role} may not ask this: it takes mutual evidence",
                    "Connect as a workload, from inside its TEE.",
                )
            return call(request.peer, request.key, request.body(shape))

        return checked

    def _status(self, request: _Request) -> Record:
        return self._vault.status(request.query("nonce", NONCE))


class _Request:
    """One request whose size was checked."""

    def __init__(self, scope: Scope, raw: bytes) -> None:
        peer = (scope.get("extensions") or {}).get("placet")
        if not isinstance(peer, VerifiedPeer):
            raise RoleDeniedError("this connection was not attested")
        self.peer = peer
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.key = ""
        self._raw, self._query = raw, scope["query_string"]

    def body(self, shape: type[R]) -> R:
        return decode(self._raw, shape)

    def query(self, name: str, form: re.Pattern[str]) -> str:
        try:
            found = parse_qs(self._query.decode(), strict_parsing=True, max_num_fields=4)
        except ValueError as e:
            raise MalformedError("query string does not parse") from e
        values: list[str] = found.get(name, [])
        if len(values) != 1 or not form.fullmatch(values[0]):
            raise MalformedError(f"query needs exactly one {name} of the form {form.pattern}")
        return values[0]

    def number(self, name: str) -> int:
        return int(self.query(name, NUMBER))


async def _body(scope: Scope, receive: Receive) -> bytes:
    too_large = TooLargeError(f"body is too large, at most {MAX_BODY} bytes are read")
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > MAX_BODY:
            raise too_large
        if name == b"content-encoding":
            raise MalformedError("compressed bodies are not read")
    chunks, length = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise MalformedError("peer went away")
        chunks.append(message.get("body", b""))
        length += len(chunks[-1])
        if length > MAX_BODY:
            raise too_large
        if not message.get("more_body"):
            return b"".join(chunks)


def _problem(error: PlacetError) -> bytes:
    return json.dumps(error.problem(), default=str).encode()
