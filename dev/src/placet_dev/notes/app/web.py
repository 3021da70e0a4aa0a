"""Notes over HTTP: a page for people (``/``), JSON for programs (``/notes``), ``/healthz``."""

from __future__ import annotations

import json
from dataclasses import asdict
from urllib.parse import parse_qs, urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from .edition import SEARCH, VERSION
from .page import render
from .store import Note, NoteStore

MAX_TEXT = 4000
MAX_BODY = 64 * 1024
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"


class Web:
    """The requests that notes answers.

    Args:
        store: Where the notes are.
    """

    def __init__(self, store: NoteStore) -> None:
        self._store = store

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/", self.page, methods=["GET"]),
                Route("/", self.add_from_page, methods=["POST"]),
                Route("/notes", self.list, methods=["GET"]),
                Route("/notes", self.add, methods=["POST"]),
                Route("/healthz", self.health, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _refuse},
        )

    async def page(self, request: Request) -> Response:
        """Show the notes."""
        wanted = _wanted(request)
        page = render(self._store.find(wanted), version=VERSION, search=SEARCH, wanted=wanted)
        return HTMLResponse(page, headers={"content-security-policy": POLICY})

    async def add_from_page(self, request: Request) -> Response:
        """Keep a note that was typed into the page."""
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise HTTPException(403, "another site's form adds nothing here")
        fields = parse_qs((await _body(request)).decode(errors="replace"))
        self._keep(fields.get("text", [""])[0])
        return RedirectResponse("/", status_code=303)

    async def list(self, request: Request) -> Response:
        """List notes."""
        return JSONResponse({"notes": [asdict(n) for n in self._store.find(_wanted(request))]})

    async def add(self, request: Request) -> Response:
        """Keep a note."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise HTTPException(415, "send application/json")
        try:
            text = json.loads(await _body(request))["text"]
        except (ValueError, KeyError, TypeError) as e:
            raise HTTPException(400, 'body is not {"text": "..."}') from e
        return JSONResponse(asdict(self._keep(text)), status_code=201)

    async def health(self, _: Request) -> Response:
        """Say that it runs, and which version."""
        return JSONResponse({"ok": True, "app": "notes", "version": VERSION})

    def _keep(self, text: object) -> Note:
        if not isinstance(text, str) or not 0 < len(text.strip()) <= MAX_TEXT:
            raise HTTPException(400, f"a note is a text of 1 to {MAX_TEXT} characters")
        return self._store.add(text)


def _wanted(request: Request) -> str:
    return request.query_params.get("q", "") if SEARCH else ""


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"body is over {MAX_BODY} bytes")
    return bytes(body)


async def _refuse(_: Request, error: Exception) -> Response:
    refusal = error if isinstance(error, HTTPException) else HTTPException(500)
    return JSONResponse({"error": refusal.detail}, status_code=refusal.status_code)
