"""The document of a vault's requests, and a fuzzer that reads it: no 5xx but 503 (R9.4)."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from placet_testing.charters import composer, identity, profile, signed, vault_key, vault_name
from placet_testing.clients import memory_folder, serve_once, serve_whole
from placet_testing.constellations import NONCE, begin, run_of
from placet_testing.handing import ENDPOINT, HandOvers
from placet_testing.leaving import Leaving
from placet_testing.vaults import peer

from placet.core.body import StageBody
from placet.core.continuity import Beat, WitnessRequest, checkpoint_at
from placet.core.dsse import sign_record
from placet.core.encoding import MAX_INT, Record, encode
from placet.core.handover import HandOverConfirm, HandOverRequest
from placet.core.limits import MAX_BODY
from placet.core.manifest import manifest_digest
from placet.core.messages import (
    CommitRequest,
    HoldRequest,
    PromiseRequest,
    RecoverRequest,
    ReleaseRequest,
    StageRequest,
)
from placet.errors import type_prefix
from placet.vault.records import CommittedShare, KeyRecord
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


Asked = tuple[str, str, Record | None]
"""As whom, with what query and what body."""


class Vaults:
    """A vault with a key that was created, and one that a newer process takes over from."""

    def __init__(self, folder: Path) -> None:
        (folder / "leaving").mkdir()
        self.story = begin(folder)
        self.leaving = Leaving(folder / "leaving")
        self.new = self.leaving.successor()

    def close(self) -> None:
        """Close all stores."""
        self.story.close()
        self.leaving.close()

    def of(self, path: str) -> tuple[Any, str]:
        """Return who is asked for a path, and a key that is there."""
        if "hand-over" in path:
            return self.leaving.old, self.leaving.key
        return self.story.benches[0], self.story.key

    def ends(self, path: str) -> dict[str, Any]:
        """Return a peer of each role, as the exchange would have made it."""
        keys, now = (self.of(path)[1],), self.story.clock.ticks
        works = {
            purpose: peer(identity(profile(1), keys, purpose=purpose), keys, at=now)
            for purpose in ("release", "create")
        }
        newer = self.new.as_peer(self.leaving.old.id)
        return {"visitor": peer(None, at=now), **works, "resharer": newer}

    def right(self) -> dict[str, Callable[[], Asked]]:
        """Return what is answered with 200, however often it is asked, by operation."""
        return {
            "GET /v1/status": lambda: ("visitor", f"nonce={NONCE}", None),
            "POST /v1/statements": lambda: ("visitor", "", run_of(self.story.statements[0])),
            "POST /v1/pending": lambda: ("visitor", "", self._stage()),
            "GET /v1/pending": lambda: ("visitor", "scope=notes", None),
            "POST /v1/witness": lambda: ("visitor", "", self._beat()),
            "GET /v1/log/consistency": lambda: ("visitor", "old=1&new=2", None),
            "GET /v1/keys/{key}/charter": lambda: ("visitor", "", None),
            "GET /v1/keys/{key}/log": lambda: ("visitor", "since=0", None),
            "GET /v1/keys/{key}/audit": lambda: ("visitor", "since=0&size=0", None),
            "GET /v1/keys/{key}/dropped": lambda: ("visitor", "", None),
            "GET /v1/log": lambda: ("visitor", "since=0", None),
            "GET /v1/log/hashes": lambda: ("visitor", "since=0", None),
            "POST /v1/keys/{key}/release": lambda: (
                "release", "", ReleaseRequest(nonce=NONCE, head=None)
            ),
            "POST /v1/keys/{key}/shares/promise": lambda: (
                "create", "", PromiseRequest(attempt=self._record().promised + 1)
            ),
            "POST /v1/keys/{key}/shares/recover": lambda: (
                "create", "", RecoverRequest(manifest=manifest_digest(self._kept().manifest))
            ),
            "POST /v1/keys/{key}/shares/prepare": lambda: ("create", "", self._hold()),
            "POST /v1/keys/{key}/shares/commit": lambda: ("create", "", self._commit()),
            "GET /v1/hand-over": lambda: ("resharer", "since=0", None),
            "POST /v1/keys/{key}/hand-over": lambda: (
                "resharer", "", HandOverRequest(line=self.new.line, endpoint=ENDPOINT, offset=0)
            ),
            "POST /v1/keys/{key}/hand-over/confirm": lambda: ("resharer", "", self._confirm()),
        }  # fmt: skip

    def _record(self) -> KeyRecord:
        record: KeyRecord = self.story.benches[0].vault._keys.get(self.story.key).record
        return record

    def _kept(self) -> CommittedShare:
        kept = self._record().committed
        assert kept is not None
        return kept

    def _stage(self) -> StageRequest:
        body = StageBody(profile=profile(9), version="9", source="s", provenance=None, review=None)
        sent = composer(self.story.clock.time).stage(self.story.key, body)
        return StageRequest(signed=signed(sent, "platform").signed())

    def _beat(self) -> WitnessRequest:
        beat = Beat(
            vault=vault_name(2),
            to=vault_name(1),
            boot="boot-1",
            boots=1,
            nonce=NONCE,
            checkpoint=checkpoint_at(vault_key(2), "boot-1", 1, bytes(32)),
            time=self.story.clock.time,
        )
        signed_beat = sign_record(beat, vault_key(2))
        return WitnessRequest(beat=signed_beat, old=0, before="", proof=(), since=0)

    def _hold(self) -> HoldRequest:
        kept = self._kept()
        return HoldRequest(
            attempt=self._record().promised, manifest=kept.manifest, share=kept.share, finishing=()
        )

    def _commit(self) -> CommitRequest:
        kept = self._kept()
        digest = manifest_digest(kept.manifest)
        return CommitRequest(attempt=1, manifest=digest, held=kept.certificate)

    def _confirm(self) -> HandOverConfirm:
        steps = HandOvers(self.leaving.old, self.new, self.leaving.key)
        steps.ask()
        return HandOverConfirm(line=self.new.line, digest=steps.digest)


@pytest.fixture(scope="module")
def vaults() -> Iterator[Vaults]:
    """Lend them."""
    with memory_folder() as folder:
        made = Vaults(folder)
        yield made
        made.close()


def test_the_document_is_that_of_the_table() -> None:
    """Written by tools/openapi.py, from what serves the requests."""
    tool = runpy.run_path(str(ROOT / "tools" / "openapi.py"))
    assert tool["document"]() == DOCUMENT
    written = {(m.upper(), path) for path, found in DOCUMENT["paths"].items() for m in found}
    assert written == {(route.method, route.path) for route in ROUTES}


@pytest.mark.req("R9.4")
@pytest.mark.parametrize("label", OPERATIONS)
def test_what_the_document_allows_is_answered_as_it_says(label: str, vaults: Vaults) -> None:
    """By whoever asks, about a key that exists or not, drawn, right, or right but for a field.

    Each answer has the shape and the headers of the document, and none is a failure inside.
    """
    operation = OPERATIONS[label]
    bench, key = vaults.of(label)
    ends, right = vaults.ends(label), vaults.right()[label]

    def send(path: str, role: str, query: str, body: bytes) -> int:
        where, method = f"{path}?{query}" if query else path, operation.method.upper()
        status, headers, answer = asyncio.run(serve_whole(bench, ends[role], method, where, body))
        assert status < 500 or status == 503, answer
        operation.validate_response(_response(method, status, headers, answer))
        if status != 200:
            said = json.loads(answer)
            assert said["status"] == status
            assert said["request"] == headers["x-request-id"]
        return status

    def send_right(**changes: Any) -> int:
        role, query, body = right()
        fields = {**json.loads(encode(body)), **changes} if body else None
        path = operation.path.replace("{key}", key)
        return send(path, role, query, b"" if fields is None else encode(fields))

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(),
        role=st.sampled_from(sorted(ends)),
        kind=st.sampled_from(("drawn", "drawn, but the key", "right, but a field")),
        which=st.integers(0, 9),
    )
    def ask(case: Any, role: str, kind: str, which: int) -> None:
        path, query = unquote(case.formatted_path), urlencode(case.query or {})
        drawn = case.body if isinstance(case.body, dict) and _plain(case.body) else {}
        if kind == "right, but a field":
            send_right(**dict(sorted(drawn.items())[which % len(drawn) :][:1] if drawn else ()))
            return
        if kind != "drawn":
            path = operation.path.replace("{key}", key)
        send(path, role, query, encode(drawn) if drawn else b"")

    assert send_right() == 200
    ask()
    assert send_right() == 200


def _response(method: str, status: int, headers: dict[str, str], answer: bytes) -> Any:
    """Return an answer as the tool reads one."""
    request = requests.Request(method, "http://vault/").prepare()
    lists = {name: [value] for name, value in headers.items()}
    return schemathesis.Response(
        status_code=status, headers=lists, content=answer, request=request, elapsed=0, verify=False
    )


@pytest.mark.req("R9.4")
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_what_the_document_does_not_allow_is_refused(route: Route, vaults: Vaults) -> None:
    """Bodies that do not parse or are too long, and other methods: a typed problem each."""
    role = {"anyone": "visitor", "workload": "release", "resharer": "resharer"}[route.who]
    bench, key = vaults.of(route.path)
    end, path = vaults.ends(route.path)[role], route.path.replace("{key}", key)
    bad = (b"", b"{", b"\xff", b"[]", b"null", b" {}", b'{"a":1,"a":1}', b"[" * 5000)
    asked = [(route.method, path, body) for body in bad if route.body]
    asked.append((route.method, path, b" " * (MAX_BODY + 1)))
    asked += [(method, path, b"") for method in ("PUT", "DELETE", "PATCH", "HEAD", "")]
    if route.query:
        asked.append((route.method, path + "?%ff=&&", b""))
    for method, where, body in asked:
        status, answer = asyncio.run(serve_once(bench, end, method, where, body))
        said = json.loads(answer)
        assert said["type"].removeprefix(type_prefix) in {
            *("malformed", "too-large", "not-found", "role-denied"),
        }, said
        assert 400 <= status == said["status"] < 500


def _plain(value: Any) -> bool:
    """Say whether it can be written canonically at all."""
    if isinstance(value, dict):
        return all(map(_plain, value.values())) and all(k.isascii() for k in value)
    if isinstance(value, list):
        return all(map(_plain, value))
    return not isinstance(value, float) and (not isinstance(value, int) or abs(value) <= MAX_INT)
