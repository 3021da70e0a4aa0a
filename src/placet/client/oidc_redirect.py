"""Where a browser comes back after a sign-in: a loopback port, for one answer (RFC 8252).

Any program of this machine may ask here, so an answer counts by its ``state``, which only
the provider and the owner's tool know. All others are turned away, and the wait goes on.
"""

from __future__ import annotations

import contextlib
import hmac
import queue
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from placet.errors import PolicyDeniedError, UnavailableError

PATH = "/signed-in"
MAX_QUERY = 8 * 1024
"""Characters of the answer in the address."""
MAX_FIELDS = 16
PATIENCE = 10
"""Seconds for one request to arrive."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Content-Type": "text/plain; charset=utf-8",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
DONE = (
    "placet has the answer of the sign-in. You can close this page and go back to the terminal.\n"
)


class Redirect:
    """One listening port, and the one answer that it waits for."""

    def __init__(
        self, server: ThreadingHTTPServer, answers: queue.Queue[Mapping[str, str]]
    ) -> None:
        self.uri = f"http://127.0.0.1:{server.server_port}{PATH}"
        self._answers = answers

    def wait(self, seconds: float) -> Mapping[str, str]:
        """Return the members of the answer; nothing of it but ``state`` is checked.

        Raises:
            PolicyDeniedError: None came in time.
        """
        try:
            return self._answers.get(timeout=seconds)
        except queue.Empty:
            raise PolicyDeniedError(
                f"nobody signed in within {seconds:.0f} seconds: nothing was signed",
                "Run the command again.",
            ) from None


@contextlib.contextmanager
def listening(state: str) -> Iterator[Redirect]:
    """Listen on a random loopback port for the answer that bears this state.

    Raises:
        UnavailableError: No port can be had.
    """
    answers: queue.Queue[Mapping[str, str]] = queue.Queue()
    handler = type("Handler", (_Handler,), {"state": state, "answers": answers, "once": _Once()})
    try:
        server = _Server(("127.0.0.1", 0), handler)
    except OSError as e:
        raise UnavailableError(f"no loopback port can be opened: {e.strerror}") from e
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield Redirect(server, answers)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    # Browsers open connections that they may never use; those must hold up nobody.
    daemon_threads = True
    block_on_close = False


class _Once:
    """Lets the first one through."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def first(self) -> bool:
        return self._lock.acquire(blocking=False)


class _Handler(BaseHTTPRequestHandler):
    state: str
    answers: queue.Queue[Mapping[str, str]]
    once: _Once
    timeout = PATIENCE
    server_version, sys_version = "placet", ""

    def do_GET(self) -> None:
        """Take the answer of the sign-in, once."""
        path, _, query = self.path.partition("?")
        if self.headers.get_all("Host") != [f"127.0.0.1:{self.server.server_port}"]:  # type: ignore[attr-defined]
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "this is not the host you asked for\n")
        elif path != PATH:
            self._say(HTTPStatus.NOT_FOUND, "nothing of that name here\n")
        elif (members := _members(query)) is None or not self._is_ours(members):
            self._say(HTTPStatus.BAD_REQUEST, "this is no answer to a sign-in of this placet\n")
        elif not self.once.first():
            self._say(HTTPStatus.GONE, "this sign-in was answered already\n")
        else:
            self._say(HTTPStatus.OK, DONE)
            self.answers.put(members)

    def _is_ours(self, members: Mapping[str, str]) -> bool:
        return hmac.compare_digest(members.get("state", "").encode(), self.state.encode())

    def _say(self, status: HTTPStatus, text: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        # A browser that hangs up has answered all the same.
        with contextlib.suppress(OSError):
            self.end_headers()
            self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name above
        """Say nothing: the code is in the address."""


def _members(query: str) -> Mapping[str, str] | None:
    """Return the members of an answer, or nothing if one is there twice or they are too many."""
    if len(query) > MAX_QUERY:
        return None
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        return None
    members = dict(pairs)
    return members if len(members) == len(pairs) else None
