"""Notes over HTTP: its page and its JSON, on a real store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlcipher3")

from placet_dev.notes import edition2
from placet_dev.notes.app import edition, web
from placet_dev.notes.app.store import NoteStore

HOST = "127.0.0.1:8000"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NoteStore]:
    """Return an empty store."""
    made = NoteStore(tmp_path, b"k" * 32)
    yield made
    made.close()


@pytest.fixture(params=["1", "2"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the app be one version, as its image would."""
    of = {"1": edition, "2": edition2}[request.param]
    monkeypatch.setattr(web, "VERSION", of.VERSION)
    monkeypatch.setattr(web, "SEARCH", of.SEARCH)
    return request.param


async def ask(store: NoteStore, method: str, path: str, body: bytes = b"", **headers: str):
    """Return status, headers and text of an answer."""
    route, _, query = path.partition("?")
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    named = {"host": HOST, **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": route,
        "raw_path": route.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "headers": [(k.encode(), v.encode()) for k, v in named.items()],
    }
    await web.Web(store).app()(scope, receive, send)
    head = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], head, b"".join(m.get("body", b"") for m in sent[1:]).decode()


async def test_a_note_typed_into_the_page_is_on_the_page(store: NoteStore, version: str) -> None:
    """The form adds, the page lists; nothing that runs may be written into it."""
    form = b"text=Buy+%3Cb%3Emilk%3C%2Fb%3E"
    status, head, _ = await ask(store, "POST", "/", form, origin=f"http://{HOST}")
    assert (status, head["location"]) == (303, "/")
    status, head, page = await ask(store, "GET", "/")
    assert status == 200
    assert "<li>Buy &lt;b&gt;milk&lt;/b&gt;</li>" in page
    assert f"version {version}" in page
    assert "default-src 'none'" in head["content-security-policy"]


async def test_only_version_2_searches(store: NoteStore, version: str) -> None:
    """The versions differ where a user sees it."""
    for text in ("Buy milk", "Call the bank"):
        body = json.dumps({"text": text}).encode()
        status, _, _ = await ask(store, "POST", "/notes", body, content_type="application/json")
        assert status == 201
    _, _, found = await ask(store, "GET", "/notes?q=BANK")
    texts = [n["text"] for n in json.loads(found)["notes"]]
    assert texts == (["Call the bank"] if version == "2" else ["Buy milk", "Call the bank"])
    _, _, page = await ask(store, "GET", "/?q=bank")
    assert ('name="q"' in page) == (version == "2")


async def test_health_says_which_version(store: NoteStore, version: str) -> None:
    """What is deployed can be asked."""
    _, _, said = await ask(store, "GET", "/healthz")
    assert json.loads(said) == {"ok": True, "app": "notes", "version": version}


REFUSALS = {
    "a form of another site": ("/", b"text=x", {"origin": "http://evil.example"}, 403),
    "an empty form": ("/", b"", {}, 400),
    "no JSON": ("/notes", b"text=x", {"content_type": "application/json"}, 400),
    "JSON that is no object": ("/notes", b"[]", {"content_type": "application/json"}, 400),
    "a number": ("/notes", b'{"text":1}', {"content_type": "application/json"}, 400),
    "blanks only": ("/notes", b'{"text":" "}', {"content_type": "application/json"}, 400),
    "too long": (
        "/notes",
        json.dumps({"text": "x" * 4001}).encode(),
        {"content_type": "application/json"},
        400,
    ),
    "another type": ("/notes", b'{"text":"x"}', {"content_type": "text/plain"}, 415),
    "too large": ("/notes", b"x" * 70_000, {"content_type": "application/json"}, 413),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
async def test_refused(store: NoteStore, case) -> None:
    """Nothing of this is kept."""
    path, body, headers, expected = case
    status, _, _ = await ask(store, "POST", path, body, **headers)
    assert status == expected
    assert store.find() == ()
