"""The page on loopback: who may read it, who may answer, how often, and for how long."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from contextlib import contextmanager

import pytest

from placet.cli.passkey_server import MAX_ANSWER, Site, ask
from placet.errors import ConflictError, MalformedError, PolicyDeniedError

TOKEN = "correct-token"
PAGE = b"<!doctype html><p>what is asked"
SAID = json.dumps({"yes": 1}).encode()


class Asking:
    """A page that is served in a thread, and what came of it."""

    def __init__(self, judge, *, host: str = "localhost", seconds: float = 20) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        port = f":{self.port}" if host == "localhost" else ""
        scheme = "http" if host == "localhost" else "https"
        self.site = Site(origin=f"{scheme}://{host}{port}", port=self.port)
        self.ready, self.outcome, self.seconds, self.judge = (
            threading.Event(),
            [],
            seconds,
            judge,
        )
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.outcome.append(
                ask(
                    self.site,
                    PAGE,
                    self.judge,
                    token=TOKEN,
                    seconds=self.seconds,
                    announce=self._announce,
                )
            )
        except Exception as e:  # noqa: BLE001 - the test looks at it
            self.outcome.append(e)
            self.ready.set()

    def _announce(self, url: str) -> None:
        self.url = url
        self.ready.set()

    def send(self, method="GET", path=f"/{TOKEN}/", body=None, address="127.0.0.1", **headers):
        """Send one request with these headers and no others; return status, headers, body."""
        connection = http.client.HTTPConnection(address, self.port, timeout=10)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, values in headers.items():
            for value in values if isinstance(values, tuple) else (values,):
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    def post(self, body=SAID, path=f"/{TOKEN}/answer", **changes):
        """Post an answer as the page does; ``None`` leaves a header out."""
        headers = {
            "Host": self.site.host,
            "Origin": self.site.origin,
            "Content_Type": "application/json",
            "Content_Length": str(len(body)),
        } | changes
        kept = {n: v for n, v in headers.items() if v is not None}
        return self.send("POST", path, body, **kept)


@contextmanager
def asking(judge=dict, **settings):
    """Serve the page; in the end nothing of it must be left."""
    one = Asking(judge, **settings)
    one.thread.start()
    assert one.ready.wait(10)
    yield one
    if one.thread.is_alive():
        one.post()
    one.thread.join(30)
    assert not one.thread.is_alive()


@pytest.fixture(scope="module")
def page():
    """Serve a page that nobody answers before the module ends."""
    with asking() as one:
        yield one


def test_the_page_is_served_with_its_walls(page):
    """The page, its script and its style; nothing else may be loaded, framed or kept."""
    for name, kind in (("", "text/html"), ("page.js", "text/javascript"), ("page.css", "text/css")):
        status, headers, content = page.send(path=f"/{TOKEN}/{name}", Host=page.site.host)
        assert (status, headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
        assert content
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers
    assert page.url == f"{page.site.origin}/{TOKEN}/"


REFUSED = {
    "another host": (421, {"Host": "evil.example"}),
    "the address instead of the name": (421, {"Host": "127.0.0.1:{port}"}),
    "another port": (421, {"Host": "localhost:1"}),
    "two hosts": (421, {"Host": ("localhost:{port}", "evil.example")}),
    "no host": (421, {"Host": None}),
    "no token": (404, {"path": "/answer"}),
    "another token": (404, {"path": "/wrong-token/answer"}),
    "a token with more": (404, {"path": f"/{TOKEN}x/answer"}),
    "a token cut short": (404, {"path": f"/{TOKEN[:-1]}/answer"}),
    "another place": (404, {"path": f"/{TOKEN}/other"}),
    "a place below": (404, {"path": f"/{TOKEN}/answer/"}),
    "a query": (404, {"path": f"/{TOKEN}/answer?x"}),
    "another origin": (403, {"Origin": "https://evil.example"}),
    "the same origin on another port": (403, {"Origin": "http://localhost:1"}),
    "a sandboxed frame": (403, {"Origin": "null"}),
    "no origin": (403, {"Origin": None}),
    "two origins": (403, {"Origin": ("http://localhost:{port}", "https://evil.example")}),
    "a form": (415, {"Content_Type": "application/x-www-form-urlencoded"}),
    "plain text": (415, {"Content_Type": "text/plain"}),
    "no type": (415, {"Content_Type": None}),
    "too long": (413, {"Content_Length": str(MAX_ANSWER + 1)}),
    "a length that is none": (413, {"Content_Length": "-1"}),
    "an enormous length": (413, {"Content_Length": "9" * 30}),
    "no length": (413, {"Content_Length": None}),
}


@pytest.mark.parametrize(("status", "changes"), REFUSED.values(), ids=REFUSED.keys())
def test_nobody_else_answers(page, status, changes):
    """Each wall by itself: the request is refused, and the page goes on waiting."""

    def filled(value):
        if isinstance(value, tuple):
            return tuple(map(filled, value))
        return value.format(port=page.port) if isinstance(value, str) else value

    assert page.post(**{n: filled(v) for n, v in changes.items()})[0] == status
    assert page.thread.is_alive()


@pytest.mark.parametrize("path", ["/", "/favicon.ico", f"/{TOKEN}", f"/{TOKEN}/../page.js", "//"])
def test_there_is_nothing_else_to_read(page, path):
    """Without the token nobody learns what is asked; with it there are three files."""
    status, _, content = page.send(path=path, Host=page.site.host)
    if path == f"/{TOKEN}":
        assert (status, content) == (200, PAGE)
        return
    assert (status, json.loads(content)) == (404, {"detail": "nothing of that name here"})


def test_other_methods_are_refused(page):
    """No preflight is answered, so no other page can send JSON here."""
    for method in ("OPTIONS", "PUT", "DELETE"):
        assert page.send(method, Host=page.site.host)[0] == 501


def test_both_loopback_addresses_are_this_page(page):
    """A browser that takes ::1 for localhost finds the same page, not somebody else's."""
    try:
        status, _, content = page.send(address="::1", Host=page.site.host)
    except OSError:
        pytest.skip("this machine has no IPv6 on loopback (see ../shared)")
    assert (status, content) == (200, PAGE)


def test_only_loopback_listens(page):
    """No other address of this machine serves the page."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no other address (see ../shared)")
        own = probe.getsockname()[0]
    if own.startswith("127."):
        pytest.skip("this machine has no other address (see ../shared)")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((own, page.port), timeout=5).close()


def test_one_answer_ends_it():
    """What the judge makes of the answer is returned; the port is free at once."""
    with asking(lambda members: members["yes"]) as one:
        status, _, content = one.post()
    assert (status, content, one.outcome) == (200, b"{}", [1])
    with socket.create_server(("127.0.0.1", one.port)):
        pass


def test_a_second_answer_is_too_late():
    """While the first one is judged, a second one is refused."""
    judging, go_on = threading.Event(), threading.Event()

    def judge(members):
        judging.set()
        assert go_on.wait(10)
        return members

    with asking(judge) as one:
        first = threading.Thread(target=one.post)
        first.start()
        assert judging.wait(10)
        status, _, content = one.post(b'{"yes": 2}')
        go_on.set()
        first.join()
    assert status == 410
    assert "already" in json.loads(content)["detail"]
    assert one.outcome == [{"yes": 1}]


def refuse(members):
    """Refuse any answer."""
    raise PolicyDeniedError(f"{len(members)} members: no")


@pytest.mark.parametrize(
    ("body", "error"),
    [(SAID, PolicyDeniedError), (b"{", MalformedError), (b"[]", MalformedError)],
)
def test_an_answer_that_does_not_hold_ends_it_as_well(body, error):
    """The page shows why, the tool raises the same, and there is no second try."""
    with asking(refuse) as one:
        status, _, content = one.post(body)
    assert status == 422
    assert isinstance(one.outcome[0], error)
    assert json.loads(content) == {"detail": one.outcome[0].detail}


def test_time_ends_it():
    """Without an answer nothing was signed."""
    with asking(seconds=0.1) as one:
        one.thread.join(10)
        assert isinstance(one.outcome[0], PolicyDeniedError)
    assert "not answered" in one.outcome[0].detail


def test_a_port_of_somebody_else_is_not_shared():
    """If another program listens, on either address, nothing is served and nothing is asked."""
    one = Asking(dict)
    with socket.create_server(("127.0.0.1", one.port)):
        one._run()
    assert isinstance(one.outcome[0], ConflictError)
    if socket.has_dualstack_ipv6():
        two = Asking(dict)
        with socket.create_server(("::1", two.port), family=socket.AF_INET6):
            two._run()
        assert isinstance(two.outcome[0], ConflictError)
        assert "::1" in two.outcome[0].detail


def test_behind_an_https_origin_its_host_is_expected():
    """The owner's own HTTPS server forwards to loopback and leaves ``Host`` as it is."""
    with asking(host="approve.example") as one:
        assert one.send(Host="approve.example")[0] == 200
        assert one.send(Host=f"localhost:{one.port}")[0] == 421
        assert one.post(Origin=f"http://localhost:{one.port}")[0] == 403
    assert one.outcome == [{"yes": 1}]


def test_the_script_is_none_of_others():
    """No library, no address of others, nothing evaluated, nothing inserted as HTML."""
    from importlib.resources import files

    folder = files("placet.cli").joinpath("passkey_page")
    script, style = (folder.joinpath(n).read_text() for n in ("page.js", "page.css"))
    for text in (script, style):
        assert not re.search(r"https?:|//[a-z]|@import|url\(|eval|innerHTML|document\.write", text)
