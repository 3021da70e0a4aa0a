"""HTTP to an identity provider: two methods, no redirects, every size and time bounded.

What it says is believed as far as TLS goes, and decides nothing: which keys count is for
the owner to pin, and a token counts by its signature.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import (
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

import msgspec

from placet.core.limits import KIB
from placet.errors import MalformedError, TooLargeError, UnavailableError

MAX_ANSWER = 256 * KIB
"""Bytes of one answer."""
PATIENCE = 20
"""Seconds for one answer."""

_URL = re.compile(
    r"(?:https://[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|http://localhost|http://127\.0\.0\.1)"
    r"(?::[1-9][0-9]{0,4})?(?:/[!$-;=?-Z_a-z~]*)?"
)
_LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """A JSON object, and the status with which it came."""

    status: int
    members: Mapping[str, object]


class _NoRedirects(HTTPRedirectHandler):
    """A provider's addresses are those in its metadata, and no others."""

    def redirect_request(  # noqa: PLR0917 - the signature is urllib's
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow nothing: the redirect becomes an answer that is no success."""


class ProviderWeb:
    """Asks a provider.

    Proxies are those of the environment, except to this machine.

    Args:
        timeout: Seconds for one answer.
        clock: Monotonic seconds.
    """

    def __init__(
        self, *, timeout: float = PATIENCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeout, self._clock = timeout, clock

    def get(self, url: str) -> Mapping[str, object]:
        """Return the JSON object at a URL.

        Raises:
            UnavailableError: No whole answer in time, or another status than 200.
            MalformedError: No address of a provider, or no JSON object.
            TooLargeError: The answer is too long.
        """
        answer = self._ask(Request(checked(url), headers={"Accept": "application/json"}))  # noqa: S310 - http(s), see `checked`
        if answer.status != 200:  # noqa: PLR2004 - RFC 9110, 15.3.1
            raise UnavailableError(f"{url} says {answer.status}")
        return answer.members

    def post(self, url: str, form: Mapping[str, str]) -> JsonAnswer:
        """Send a form, and return the JSON object that answers it, whatever its status.

        Raises:
            UnavailableError, MalformedError, TooLargeError: As for `get`.
        """
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        body = urlencode(form).encode("ascii")
        return self._ask(Request(checked(url), data=body, headers=headers))  # noqa: S310 - http(s), see `checked`

    def _ask(self, request: Request) -> JsonAnswer:
        url = request.full_url
        try:
            with _opener(url).open(request, timeout=self._timeout) as response:
                return JsonAnswer(response.status, _members(self._read(response, url), url))
        except HTTPError as e:
            with e:
                return JsonAnswer(e.code, self._refusal(e, url))
        except (OSError, HTTPException, ValueError) as e:
            why = e.reason if isinstance(e, URLError) else e
            raise UnavailableError(f"{url} does not answer: {why}"[:300]) from e

    def _refusal(self, error: HTTPError, url: str) -> Mapping[str, object]:
        try:
            return _members(error.read(MAX_ANSWER), url)
        except (OSError, HTTPException, MalformedError) as e:
            raise UnavailableError(f"{url} says {error.code} {error.reason}"[:300]) from e

    def _read(self, response: HTTPResponse, url: str) -> bytes:
        announced, until = response.length, self._clock() + self._timeout
        body = bytearray()
        while part := response.read1(MAX_ANSWER + 1 - len(body)):
            body += part
            if len(body) > MAX_ANSWER:
                raise TooLargeError(f"{url} answers more than {MAX_ANSWER} bytes")
            if self._clock() > until:
                raise UnavailableError(f"{url} takes longer than {self._timeout} seconds")
        if announced is not None and len(body) < announced:
            raise UnavailableError(f"{url} sent {len(body)} of {announced} bytes")
        return bytes(body)


def checked(url: object) -> str:
    """Return an address that a provider's metadata may name.

    Raises:
        MalformedError: No https URL (http on this machine), or one with user or fragment.
    """
    if not isinstance(url, str) or _URL.fullmatch(url) is None:
        raise MalformedError(f"{str(url)[:200]!r} is no https address of a provider")
    return url


def _opener(url: str) -> OpenerDirector:
    # A proxy of the environment cannot reach this machine's loopback, and should not.
    local = urlsplit(url).hostname in _LOOPBACK
    return build_opener(_NoRedirects(), *([ProxyHandler({})] if local else []))


def _members(raw: bytes, url: str) -> Mapping[str, object]:
    try:
        return msgspec.json.decode(raw, type=dict[str, object])
    except (msgspec.DecodeError, ValueError, RecursionError) as e:
        raise MalformedError(f"{url} answers no JSON object: {e}"[:300]) from e
