"""The software provider behind HTTP on loopback, and a browser that does as it is told.

Everything that a provider could lie about is an attribute.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from placet_testing.oidc_provider import AUDIENCE, SoftwareProvider, changed

Answer = tuple[int, bytes]


@dataclass(kw_only=True)
class Served:
    """A provider that is served, what it was asked, and what it answers otherwise."""

    provider: SoftwareProvider
    at: int
    """Its clock."""
    metadata: dict[str, object] = field(default_factory=dict)
    """Members that differ; ``...`` leaves one out."""
    claims: dict[str, object] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    """Whole answers in the place of its own, by path."""
    redirects: dict[str, str] = field(default_factory=dict)
    comes_back: dict[str, str] = field(default_factory=dict)
    """Members of the address to which it sends the browser back."""
    keys: list[dict[str, object]] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def sign_in(self, address: str) -> None:
        """Be the person and the browser: sign in, and go where the provider says."""
        asked = dict(parse_qsl(urlsplit(address).query))
        self.asked.append(asked)
        back = {"code": "the-code", "state": asked["state"], "iss": self.provider.issuer}
        self.visit(f"{asked['redirect_uri']}?{urlencode(back | self.comes_back)}")

    def visit(self, address: str, host: str | None = None) -> Answer:
        """Ask a loopback address as any program of this machine may."""
        parts = urlsplit(address)
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=30)
        headers = {"Host": host or parts.netloc}
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def answer(self, path: str, form: dict[str, str] | None) -> Answer:
        """Answer a request of the tool's."""
        self.paths.append(path)
        if path in self.answers:
            return self.answers[path]
        issuer = self.provider.issuer
        if path == "/.well-known/openid-configuration":
            said: object = changed(
                {
                    "issuer": issuer,
                    "authorization_endpoint": f"{issuer}/auth",
                    "token_endpoint": f"{issuer}/token",
                    "jwks_uri": f"{issuer}/jwks",
                    "authorization_response_iss_parameter_supported": True,
                },
                self.metadata,
            )
        elif path == "/jwks":
            said = {"keys": self.keys or [msgspec.to_builtins(self.provider.jwk) | {"use": "sig"}]}
        elif path == "/token" and form is not None:
            return self._token(form)
        else:
            return 404, b"{}"
        return 200, json.dumps(said).encode()

    def _token(self, form: dict[str, str]) -> Answer:
        self.forms.append(form)
        asked = self.asked[-1]
        hashed = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
        fits = challenge == asked["code_challenge"] and form["code"] == "the-code"
        if not fits or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, b'{"error":"invalid_grant"}'
        nonce = base64.urlsafe_b64decode(asked["nonce"] + "=")
        token = self.provider.token(nonce, self.at, aud=asked["client_id"], **self.claims)
        said = {"token_type": "Bearer", "access_token": "dropped", "refresh_token": "dropped"}
        return 200, json.dumps(said | {"id_token": token}).encode()


@contextlib.contextmanager
def served(at: int, algorithm: str = "ES256") -> Iterator[Served]:
    """Serve a provider whose issuer is its loopback address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(dict(parse_qsl(raw.decode())))

        def _answer(self, form: dict[str, str] | None) -> None:
            if self.path in one.redirects:
                self.send_response(302)
                self.send_header("Location", one.redirects[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status, body = one.answer(self.path, form)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = f"http://127.0.0.1:{server.server_port}"
    provider = SoftwareProvider(issuer=issuer, audience=AUDIENCE, algorithm=algorithm)  # type: ignore[arg-type]
    one = Served(provider=provider, at=at)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
