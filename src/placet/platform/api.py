"""The platform's HTTP API, for programs on the same machine.

GET    /v1/workloads             all that were started
POST   /v1/workloads             {"bundle", "key", "volume", "params"}: start one
GET    /v1/workloads/{id}        one
DELETE /v1/workloads/{id}        stop one
GET    /v1/workloads/{id}/log    what it printed, the end of it
GET    /v1/stager                the signer that stages, for owners to list
POST   /v1/stage                 {"bundle", "key", "version", "source", "security_version"}
POST   /v1/relay                 a statement request, passed to every vault as it is
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from placet.client.following import CharterCopy
from placet.client.signing import Composer, SigningKey
from placet.client.whole_files import write_whole
from placet.core.body import StageBody
from placet.core.encoding import Int, Record, Sha256, Text, encode
from placet.core.limits import MAX_BODY
from placet.core.messages import StageRequest
from placet.errors import (
    InternalError,
    MalformedError,
    NotFoundError,
    PlacetError,
    RoleDeniedError,
    TooLargeError,
)
from placet.platform.relay import Relay
from placet.platform.starter import Starter, Workload

JSON, PROBLEM = "application/json", "application/problem+json"
HOSTS = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
LOG_TAIL = 64 * 1024
Name = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,63}\Z")]
"""Of a bundle or volume: a folder's name, and never a path."""

R = TypeVar("R")
Handler = Callable[[Request], Awaitable[Response]]
log = logging.getLogger("placet.platform")


class StartWorkload(Record):
    """Start a bundle on a key's volume."""

    bundle: Name
    key: Sha256
    volume: Name
    params: dict[Text, str]
    """Besides ``key``, ``volume`` and ``charter``, which are filled in here."""


class StageVersion(Record):
    """Put a bundle forward for a key, or for all keys of its app."""

    bundle: Name
    key: Sha256 | None
    version: Text
    source: Text
    security_version: Int


class Api:
    """The requests of this module.

    Args:
        starter: The TEE.
        relay: The vaults.
        stager: Signs stages, and nothing that counts for more.
        bundles: The folder with a folder for each bundle.
        state: Where volumes, charters and logs are kept.
    """

    def __init__(
        self, *, starter: Starter, relay: Relay, stager: SigningKey, bundles: Path, state: Path
    ) -> None:
        self._starter, self._relay, self._stager = starter, relay, stager
        self._bundles, self._state = bundles, state
        self._logs: dict[str, Path] = {}
        for name in ("volumes", "charters", "logs"):
            (state / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for kept in (state / "charters").glob("*.json"):
            self._follow(kept)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/v1/workloads", self.list),
            ("POST", "/v1/workloads", self.start),
            ("GET", "/v1/workloads/{id}", self.show),
            ("DELETE", "/v1/workloads/{id}", self.stop),
            ("GET", "/v1/workloads/{id}/log", self.log),
            ("GET", "/v1/stager", self.stager),
            ("POST", "/v1/stage", self.stage),
            ("POST", "/v1/relay", self.relay),
        ]
        return Starlette(
            routes=[Route(p, _guarded(h), methods=[m]) for m, p, h in table],
            exception_handlers={HTTPException: _unknown},
        )

    async def list(self, _: Request) -> Response:
        """Return all workloads."""
        return _json({"workloads": await asyncio.to_thread(self._starter.list)})

    async def start(self, request: Request) -> Response:
        """Fetch the key's charter, then start a bundle with it."""
        wanted = await _read(request, StartWorkload)
        bundle = self._bundle(wanted.bundle)
        charter = self._state / "charters" / f"{wanted.key.removeprefix('sha256:')}.json"
        # The agent verifies it: what is written here decides nothing.
        _write(charter, encode(await self._relay.charter(wanted.key)))
        params = {
            **wanted.params,
            "key": wanted.key,
            "volume": str((self._state / "volumes" / wanted.volume).absolute()),
            "charter": str(charter.absolute()),
        }
        output = self._state / "logs" / f"{wanted.bundle}-{time.time_ns()}.log"
        started = await asyncio.to_thread(self._starter.start, bundle, params, output)
        self._logs[started.id] = output
        return _json(started, 201)

    async def show(self, request: Request) -> Response:
        """Return one workload."""
        return _json(await self._find(request))

    async def stop(self, request: Request) -> Response:
        """Stop a workload and return how it ended."""
        found = await self._find(request)
        return _json(await asyncio.to_thread(self._starter.stop, found.id))

    async def log(self, request: Request) -> Response:
        """Return the end of what a workload printed."""
        path = self._logs.get(request.path_params["id"])
        if path is None or not path.exists():
            raise NotFoundError("that workload has no log here", "See: GET /v1/workloads.")
        return Response(path.read_bytes()[-LOG_TAIL:], media_type="text/plain; charset=utf-8")

    async def stager(self, _: Request) -> Response:
        """Return the stager's public key, as a birth statement lists it."""
        return _json(self._stager.signer)

    async def stage(self, request: Request) -> Response:
        """Sign a stage with the stager's key and bring it to every vault."""
        wanted = await _read(request, StageVersion)
        bundle = self._bundle(wanted.bundle)
        profile = await asyncio.to_thread(self._starter.profile, bundle, wanted.security_version)
        body = StageBody(
            profile=profile,
            version=wanted.version,
            source=wanted.source,
            provenance=None,
            review=None,
        )
        staged = self._stager.sign(Composer(now=int(time.time())).stage(wanted.key, body))
        answers = await self._relay.send(
            "POST", "/v1/pending", encode(StageRequest(signed=staged.signed()))
        )
        return _json({"stage": staged.digest, "vaults": answers})

    async def relay(self, request: Request) -> Response:
        """Pass a body to every vault exactly as it came, and say what each answered."""
        return _json(
            {"vaults": await self._relay.send("POST", "/v1/statements", await _body(request))}
        )

    def _follow(self, kept: Path) -> None:
        """Let the relay know by a charter of before what the vaults may run now."""
        try:
            copy = msgspec.json.decode(kept.read_bytes(), type=CharterCopy)
        except (OSError, msgspec.DecodeError):
            return
        self._relay.follow(f"sha256:{kept.stem}", copy.chain)

    def _bundle(self, name: str) -> Path:
        folder = self._bundles / name
        if not folder.is_dir():
            raise NotFoundError(f"there is no bundle {name!r}", "Put its folder among the bundles.")
        return folder

    async def _find(self, request: Request) -> Workload:
        for workload in await asyncio.to_thread(self._starter.list):
            if workload.id == request.path_params["id"]:
                return workload
        raise NotFoundError("no such workload", "See: GET /v1/workloads.")


def _guarded(handler: Handler) -> Handler:
    """Keep web pages of other sites out, and turn every error into a problem document."""

    async def guarded(request: Request) -> Response:
        try:
            _check_host(request)
            return await handler(request)
        except PlacetError as e:
            return _problem(e)
        except Exception as e:  # noqa: BLE001 - whatever it is, the caller gets no trace of it
            log.error("request failed inside: %s", type(e).__name__)  # noqa: TRY400 - no trace
            return _problem(InternalError("the platform failed", "See its log."))

    return guarded


async def _unknown(request: Request, _: Exception) -> Response:
    return _problem(NotFoundError(f"there is no {request.method} {request.url.path[:200]} here"))


def _problem(error: PlacetError) -> Response:
    return Response(msgspec.json.encode(error.problem()), error.status, media_type=PROBLEM)


def _check_host(request: Request) -> None:
    # A page whose name was made to point here still sends its own name (DNS rebinding).
    if not HOSTS.fullmatch(request.headers.get("host", "")):
        raise RoleDeniedError("this API is for this machine only", "Ask it by 127.0.0.1.")


async def _body(request: Request) -> bytes:
    # A page of another site cannot send this type without being asked first (CORS).
    if request.headers.get("content-type", "").partition(";")[0] != JSON:
        raise MalformedError(f"body is not {JSON}", f"Send content-type: {JSON}.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLargeError(f"body is too large, at most {MAX_BODY} bytes are read")
    return bytes(body)


async def _read(request: Request, shape: type[R]) -> R:
    try:
        return msgspec.json.decode(await _body(request), type=shape)
    except msgspec.DecodeError as e:
        raise MalformedError(f"body does not parse: {e}"[:300]) from e


def _write(path: Path, content: bytes) -> None:
    write_whole(path, content, mode=0o644)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=JSON)
