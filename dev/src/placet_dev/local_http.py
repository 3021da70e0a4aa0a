"""Ask a server on this machine, in JSON; its problems come back as our errors."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from placet.errors import MalformedError, UnavailableError, from_problem

TIMEOUT = 120.0
REFUSED = 400
PROBLEM = "application/problem+json"


def ask(address: str, method: str, path: str, body: bytes | None = None) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON that a server answers (a text, if that is what it answers).

    Args:
        address: ``host:port``.
        method: GET, POST, DELETE.
        path: Path and query.
        body: JSON bytes, sent as they are.

    Raises:
        PlacetError: The problem that it answered.
        UnavailableError: It does not answer.
        MalformedError: What it answers is neither.
    """
    host = urlsplit(f"//{address}")
    connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=TIMEOUT)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        raw, kind = response.read(), response.headers.get_content_type()
    except (OSError, http.client.HTTPException) as e:
        raise UnavailableError(f"nobody answers at {address}: {e}") from e
    finally:
        connection.close()
    if kind not in ("application/json", PROBLEM):
        return raw.decode(errors="replace")
    try:
        answer = json.loads(raw)
    except ValueError as e:
        raise MalformedError(f"{address} answered {response.status} and no JSON") from e
    if kind == PROBLEM:
        raise from_problem(answer)
    if response.status >= REFUSED:
        raise MalformedError(f"{address} answered {response.status}: {answer}")
    return answer
