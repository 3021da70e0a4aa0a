"""The document of a vault's requests, and a fuzzer that reads it: no 5xx but 503 (R9.4)."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from placet_testing.charters import identity, profile
from placet_testing.clients import memory_folder, serve_once
from placet_testing.constellations import Story, begin
from placet_testing.vaults import peer

from placet.core.encoding import MAX_INT, encode
from placet.core.limits import MAX_BODY
from placet.errors import type_prefix
from placet.vault.routes import ROUTES, Route

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = json.loads((ROOT / "spec" / "vault-openapi.json").read_bytes())
OPERATIONS = {
    found.ok().label: found.ok()
    for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
}
PROBLEM = DOCUMENT["components"]["schemas"]["Problem"]
PROBLEMS = PROBLEM["properties"]["type"]["enum"]
EXAMPLES = 25


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    """Lend vaults with a key that was born and created."""
    with memory_folder() as folder:
        begun = begin(folder)
        yield begun
        begun.close()


def test_the_document_is_that_of_the_table() -> None:
    """Written by tools/openapi.py, from what serves the requests."""
    tool = runpy.run_path(str(ROOT / "tools" / "openapi.py"))
    assert tool["document"]() == DOCUMENT
    written = {(m.upper(), path) for path, found in DOCUMENT["paths"].items() for m in found}
    assert written == {(route.method, route.path) for route in ROUTES}


@pytest.mark.req("R9.4")
@pytest.mark.parametrize("label", OPERATIONS)
def test_what_the_document_allows_is_answered_or_refused(label: str, story: Story) -> None:
    """By whoever asks, about a key that exists or not: never a failure inside."""
    ends = _ends(story)
    statuses = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=OPERATIONS[label].as_strategy(),
        role=st.sampled_from(sorted(ends)),
        known=st.booleans(),
    )
    def ask(case: Any, role: str, *, known: bool) -> None:
        path = unquote(case.formatted_path)
        if known and "key" in (case.path_parameters or {}):
            path = path.replace(case.path_parameters["key"], story.key)
        query = f"?{urlencode(case.query)}" if case.query else ""
        body = encode(case.body) if isinstance(case.body, dict) and _plain(case.body) else b""
        status, answer = asyncio.run(
            serve_once(story.benches[0], ends[role], case.method, path + query, body)
        )
        statuses.add(status)
        said = json.loads(answer)
        assert status < 500 or status == 503, said
        if status != 200:
            assert said["type"] in PROBLEMS
            assert said["status"] == status
            assert set(PROBLEM["required"]) <= said.keys()
            assert re.fullmatch(PROBLEM["properties"]["request"]["pattern"], said["request"])

    ask()
    assert statuses


@pytest.mark.req("R9.4")
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_what_the_document_does_not_allow_is_refused(route: Route, story: Story) -> None:
    """Bodies that do not parse or are too long, and other methods: a typed problem each."""
    role = {"anyone": "visitor", "workload": "release", "resharer": "resharer"}[route.who]
    path = route.path.replace("{key}", story.key)
    bad = (b"", b"{", b"\xff", b"[]", b"null", b" {}", b'{"a":1,"a":1}', b"[" * 5000)
    asked = [(route.method, path, body) for body in bad if route.body]
    asked.append((route.method, path, b" " * (MAX_BODY + 1)))
    asked += [(method, path, b"") for method in ("PUT", "DELETE", "PATCH", "HEAD", "")]
    if route.query:
        asked.append((route.method, path + "?%ff=&&", b""))
    for method, where, body in asked:
        end = _ends(story)[role]
        status, answer = asyncio.run(serve_once(story.benches[0], end, method, where, body))
        said = json.loads(answer)
        assert said["type"].removeprefix(type_prefix) in {
            *("malformed", "too-large", "not-found", "role-denied"),
        }, said
        assert 400 <= status == said["status"] < 500


def _ends(story: Story) -> dict[str, Any]:
    """Return a peer of each role, as the exchange would have made it."""
    keys, now = (story.key,), story.clock.ticks
    works = {
        purpose: peer(identity(profile(1), keys, purpose=purpose), keys, at=now)
        for purpose in ("release", "create")
    }
    return {
        "visitor": peer(None, at=now),
        **works,
        "resharer": replace(works["release"], role="resharer"),
    }


def _plain(value: Any) -> bool:
    """Say whether it can be written canonically at all."""
    if isinstance(value, dict):
        return all(map(_plain, value.values())) and all(k.isascii() for k in value)
    if isinstance(value, list):
        return all(map(_plain, value))
    return not isinstance(value, float) and (not isinstance(value, int) or abs(value) <= MAX_INT)
