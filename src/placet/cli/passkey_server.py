"""One page on loopback, served for one answer: where a browser is asked for a passkey.

Who may answer is not decided here: an answer counts by its signature. These walls keep
other pages and programs from wasting the owner's tap, or from reading what it is about:
only loopback is bound, both its addresses; the path starts with a random token; ``Host``
and ``Origin`` must be the page's own; no script, style or request but the page's own is
allowed; one answer ends it, and so does time.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from placet.errors import ConflictError, MalformedError, PlacetError, PolicyDeniedError

T = TypeVar("T")
Judge = Callable[[Mapping[str, object]], T]

MAX_ANSWER = 16 * 1024
"""Bytes of an answer: clientDataJSON, authenticator data and a signature, in base64url."""
PATIENCE = 10
"""Seconds for one request to arrive."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ("publickey-credentials-get=(self), publickey-credentials-create=(self)"),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
STATIC = {"page.js": "text/javascript; charset=utf-8", "page.css": "text/css; charset=utf-8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the page is: its origin, and the loopback port behind that."""

    origin: str
    port: int

    @property
    def host(self) -> str:
        """Return the one ``Host`` that is answered."""
        return urlsplit(self.origin).netloc


@dataclass(slots=True, kw_only=True)
class _Session(Generic[T]):
    """What all requests share."""

    site: Site
    token: str
    page: bytes
    judge: Judge[T]
    answers: queue.Queue[T | PlacetError] = field(default_factory=queue.Queue)
    once: threading.Lock = field(default_factory=threading.Lock)


def ask(
    site: Site,
    page: bytes,
    judge: Judge[T],
    *,
    token: str,
    seconds: float,
    announce: Callable[[str], None],
) -> T:
    """Serve a page until it is answered once, and return what the answer was judged to be.

    Args:
        site: Where.
        page: HTML; its script and style are ``page.js`` and ``page.css`` beside it.
        judge: Turns the members of an answer into the result, or raises.
        token: Random; the path starts with it.
        seconds: For how long it is served.
        announce: Told the address once the page can be opened.

    Raises:
        ConflictError: Somebody listens on the port already.
        PolicyDeniedError: No answer in time.
        PlacetError: What ``judge`` raised.
    """
    session = _Session(site=site, token=token, page=page, judge=judge)
    with _listening(session):
        announce(f"{site.origin}/{token}/")
        try:
            answer = session.answers.get(timeout=seconds)
        except queue.Empty:
            raise PolicyDeniedError(
                f"the page was not answered within {seconds:.0f} seconds: nothing was signed",
                "Run the command again.",
            ) from None
    if isinstance(answer, PlacetError):
        raise answer
    return answer


@contextlib.contextmanager
def _listening(session: _Session[T]) -> Iterator[None]:
    """Serve on both loopback addresses: a browser may try either for ``localhost``."""
    handler = type("Handler", (_Handler,), {"session": session})
    with contextlib.ExitStack() as stack:
        for server_class, address in ((_Four, "127.0.0.1"), (_Six, "::1")):
            try:
                server = server_class((address, session.site.port), handler)
            except OSError as e:
                if server_class is _Six and e.errno in {
                    errno.EAFNOSUPPORT,
                    errno.EADDRNOTAVAIL,
                }:
                    continue  # This machine has no IPv6, so no browser finds anybody there.
                raise ConflictError(
                    f"{address} port {session.site.port} cannot be served: {e.strerror}",
                    "Another placet may wait for its answer there: finish it, and repeat. "
                    "The port belongs to the passkey's origin.",
                ) from e
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            thread.start()
        yield


class _Four(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


class _Six(_Four):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        # Never IPv4 as well: the other server has that.
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    session: _Session[object]
    timeout = PATIENCE
    server_version, sys_version = "placet", ""

    def do_GET(self) -> None:
        """Send the page, its script or its style."""
        name = self._name()
        if name == "":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.session.page)
        elif name in STATIC:
            content = files("placet.cli").joinpath("passkey_page", name).read_bytes()
            self._send(HTTPStatus.OK, STATIC[name], content)
        elif name is not None:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing of that name here")

    def do_POST(self) -> None:
        """Take the answer, once."""
        name = self._name()
        if name is None:
            return
        if name != "answer":
            self._refuse(HTTPStatus.NOT_FOUND, "nothing of that name here")
        elif self.headers.get_all("Origin") != [self.session.site.origin]:
            self._refuse(HTTPStatus.FORBIDDEN, "the answer comes from another page")
        elif self.headers.get("Content-Type") != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the answer is no JSON")
        elif (raw := self._body()) is None:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the answer is too long")
        elif not self.session.once.acquire(blocking=False):
            self._refuse(HTTPStatus.GONE, "this page was answered already")
        else:
            self._judge(raw)

    def _judge(self, raw: bytes) -> None:
        answer: object
        try:
            answer = self.session.judge(_members(raw))
            self._send(HTTPStatus.OK, "application/json", b"{}")
        except PlacetError as e:
            answer = e
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, e.detail)
        self.session.answers.put(answer)

    def _name(self) -> str | None:
        """Return what is asked for below the token; or refuse, and return nothing."""
        if self.headers.get_all("Host") != [self.session.site.host]:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "this is not the host you asked for")
            return None
        _, token, *rest = (*self.path.split("/", 2), "")
        if not hmac.compare_digest(token.encode(), self.session.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND, "nothing of that name here")
            return None
        return rest[0]

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length[:9]) > MAX_ANSWER:
            return None
        return self.rfile.read(int(length))

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, "application/json", json.dumps({"detail": why}).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        # A browser that hangs up has answered all the same.
        with contextlib.suppress(OSError):
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name above
        """Say nothing: the token is in the path."""


def _members(raw: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise MalformedError("the page's answer does not parse") from e
    if not isinstance(found, dict):
        raise MalformedError("the page's answer is no object")
    return found
