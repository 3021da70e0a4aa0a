"""HTTP on the attested channel: the application knows its peer, and everything is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import textwrap

import pytest

from placet.core.limits import MAX_BODY
from placet.errors import MalformedError, NotApprovedError, TooLargeError, UnavailableError
from placet.ratls import server as room
from placet.ratls.http import Answer, AttestedConnection, ConnectionPool
from placet.ratls.server import MAX_HEAD, serve

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def application(scope, receive, send):
    """Answer with the peer's key, the method and what came."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    if scope["path"] == "/fail":
        raise ValueError("a bug")
    if scope["path"] == "/big":
        body = b"b" * int(scope["query_string"])
    peer = scope["extensions"]["placet"].peer_spki.encode()
    headers = [(b"x-peer", peer), (b"content-length", b"%d" % len(body))]
    headers.append((b"x-method", scope["method"].encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def serving(ends):
    """Start our server on a free port; stop it in the end and see it return."""
    running = []

    async def start(app=application, attest=ends.greet, **settings):
        port, stop = asyncio.get_running_loop().create_future(), asyncio.Event()
        task = asyncio.create_task(
            serve(app, ends.server, attest, announce=port.set_result, stop=stop, **settings)
        )
        running.append((task, stop))
        await asyncio.wait([task, port], return_when=asyncio.FIRST_COMPLETED)
        return await (task if task.done() else port), stop, task

    yield start
    for task, stop in running:
        stop.set()
        async with asyncio.timeout(5):
            await task


@pytest.fixture
async def pool(ends):
    """Make pools that are closed in the end."""
    pools = []

    def make(port, **settings):
        settings.setdefault("max_age", 60)
        pools.append(ConnectionPool("127.0.0.1", port, lambda: ends.client, ends.greet, **settings))
        return pools[-1]

    yield make
    for one in pools:
        one.close()


def saying(*parts):
    """Return a protocol that answers whatever it gets with these bytes, once."""

    def factory(_):
        class Fixed(asyncio.Protocol):
            """An HTTP server of a few bytes."""

            def connection_made(self, transport):
                """Keep the transport."""
                self.transport, self.left = transport, list(parts)

            def data_received(self, _):
                """Say it."""
                while self.left:
                    self.transport.write(self.left.pop(0))

        return Fixed()

    return factory


# --- the server --------------------------------------------------------------------------


async def test_the_application_knows_its_attested_peer(ends, serving, pool):
    """What the hook returned stands in the scope, on every request of the connection."""
    port, _, _ = await serving()
    async with pool(port).acquire() as connection:
        assert connection.peer.peer_spki == ends.server.spki_digest
        for method, body in (("GET", b""), ("POST", b"x" * MAX_BODY), ("DELETE", b"")):
            answer = await connection.request(method, "/", body)
            assert answer.headers["x-peer"] == ends.client.spki_digest
            assert answer.headers["x-method"] == method
            assert (answer.status, answer.body) == (200, body)
            assert not {"server", "date"} & set(answer.headers)


@pytest.mark.req("R1.4")
async def test_nobody_reaches_the_application_past_a_refusing_hook(serving, pool):
    """The request is never parsed."""

    async def no(*_):
        raise NotApprovedError("no")

    asked = []

    async def app(scope, _receive, _send):
        asked.append(scope)

    port, _, _ = await serving(app, no)
    with pytest.raises(UnavailableError):
        async with pool(port).acquire() as connection:
            await connection.request("GET", "/")
    assert asked == []


async def test_a_head_beyond_the_limit_is_refused(ends, serving, raw):
    """400 and a close, however it is spread over records; below the limit it is served."""
    port, _, _ = await serving()
    for size, expect in ((MAX_HEAD - 17000, b"200 OK"), (2 * MAX_HEAD, b"400 Bad Request")):
        client = await raw(port)
        await client.handshake()
        client.send(ends.frame(b"hello"))
        head = b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * size
        for at in range(0, len(head), 1000):
            client.send(head[at : at + 1000])
        if expect == b"200 OK":
            client.send(b"\r\n\r\n")
        received = await client.receive()
        while b"HTTP/1.1" not in received:
            received += await client.receive()
        assert expect in received


FRAMING = {
    "trailers": (b"0\r\n", b"a: b\r\n"),
    "one trailer": (b"0\r\na: ", b"a"),
    "a chunk's extension": (b"1;", b"a"),
}


@pytest.mark.parametrize("case", FRAMING)
async def test_what_follows_a_head_is_bounded_too(ends, serving, pool, case):
    """Trailers and chunk framing without end are refused, and not kept (they were, 13-fold)."""
    port, _, _ = await serving()
    start, piece = FRAMING[case]
    async with pool(port).acquire() as connection:
        got = asyncio.get_running_loop().create_future()
        connection.data_received = got.set_result
        send = connection._transport.write
        send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + start)
        send(piece * (2 * MAX_HEAD // len(piece)))
        async with asyncio.timeout(5):
            assert (await got).startswith(b"HTTP/1.1 400")


async def test_a_chunked_body_of_the_largest_size_is_read(ends, serving, pool):
    """What counts is the framing, not the body in it."""
    port, _, _ = await serving()
    async with pool(port).acquire() as connection:
        got = asyncio.get_running_loop().create_future()
        connection.data_received = lambda data: got.done() or got.set_result(data)
        send = connection._transport.write
        send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(MAX_BODY // 16384):
            send(b"4000\r\n" + b"b" * 16384 + b"\r\n")
        send(b"0\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await got).startswith(b"HTTP/1.1 200")


async def test_a_body_that_nobody_reads_stays_in_the_kernel(ends, serving, raw):
    """The parser holds 64 KiB for an application that waits, and the peer is held back."""
    go, held = asyncio.Event(), []

    async def busy(_scope, receive, send):
        held.append(len((await receive())["body"]))
        await go.wait()
        held.append(len((await receive())["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    port, _, _ = await serving(busy)
    client = await raw(port)
    await client.handshake()
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n"
    client.send(ends.frame(b"hello") + head + b"z" * 2**24)
    await ends.settle(lambda: held)
    for _ in range(200):
        await asyncio.sleep(0)
    assert client.writer.transport.get_write_buffer_size() > 2**20
    go.set()
    await ends.settle(lambda: len(held) == 2)
    assert max(held) <= 2**17


async def test_noise_instead_of_http_is_a_400(ends, serving, raw):
    """The parser's refusal reaches the peer, and the connection ends."""
    port, _, _ = await serving()
    client = await raw(port)
    await client.handshake()
    client.send(ends.frame(b"hello") + b"\0\0\0 nonsense\r\n\r\n")
    received = b""
    with contextlib.suppress(Exception):
        while True:
            received += await client.receive()
    assert b"400 Bad Request" in received


async def test_an_upgrade_is_not_taken(ends, serving, raw):
    """There is no WebSocket behind the attested channel."""
    port, _, _ = await serving()
    client = await raw(port)
    await client.handshake()
    client.send(
        ends.frame(b"hello")
        + b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    received = b""
    while b"\r\n\r\n" not in received:
        received += await client.receive()
    assert b"HTTP/1.1 200 OK" in received
    assert b"101" not in received.split(b"\r\n")[0]


async def test_more_connections_than_allowed_are_dropped(ends, serving, raw, pool):
    """Also those that never attest count; when one goes, the next is taken."""
    port, _, _ = await serving(max_connections=2)
    waiting = [await raw(port) for _ in range(2)]
    for client in waiting:
        await client.handshake()
    with pytest.raises(UnavailableError):
        async with pool(port).acquire():
            pass
    waiting[0].writer.close()
    await waiting[0].writer.wait_closed()
    answered = None
    while answered is None:
        with contextlib.suppress(UnavailableError):
            async with pool(port).acquire() as connection:
                answered = await connection.request("GET", "/")
    assert answered.status == 200


async def test_a_peer_that_dawdles_is_dropped(ends, serving, raw, monkeypatch):
    """From one answer to the next there is a time, whatever trickles in between."""
    monkeypatch.setattr(room, "EXCHANGE", 0.2)
    port, _, _ = await serving()
    client = await raw(port)
    await client.handshake()
    client.send(ends.frame(b"hello") + b"GET / HTTP/1.1\r\nhost: x\r\n")
    async with asyncio.timeout(3):
        with pytest.raises(ConnectionError):  # noqa: PT012 - whichever of them fails
            while True:
                await client.receive()


async def test_stopping_finishes_what_is_under_way(serving, pool):
    """The answer arrives, new connections do not, and `serve` returns."""
    started, go = asyncio.Event(), asyncio.Event()

    async def slow(scope, receive, send):
        started.set()
        await go.wait()
        await application(scope, receive, send)

    port, stop, task = await serving(slow)
    async with pool(port).acquire() as connection:
        asking = asyncio.create_task(connection.request("POST", "/", b"last words"))
        await started.wait()
        stop.set()
        with pytest.raises(UnavailableError):  # noqa: PT012 - whichever of them fails
            while True:
                async with pool(port, timeout=1).acquire():
                    pass
        go.set()
        assert (await asking).body == b"last words"
    await task


async def test_a_stopping_server_attests_nobody(ends, serving, pool):
    """Who is still being attested when the server is told to stop is not served."""
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(channel, tls):
        entered.set()
        await go.wait()
        return await ends.greet(channel, tls)

    port, stop, task = await serving(attest=slow)

    async def dial():
        async with pool(port).acquire() as connection:
            await connection.request("GET", "/")

    dialling = asyncio.create_task(dial())
    await entered.wait()
    stop.set()
    go.set()
    with pytest.raises(UnavailableError):
        await dialling
    async with asyncio.timeout(2):
        await task


async def test_small_packets_are_not_held_back(ends, serving, pool):
    """Nagle's algorithm would add 40 ms to each handshake."""
    nodelay = []

    async def look(channel, tls):
        peer = channel._transport.get_extra_info("socket")
        nodelay.append(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return await ends.greet(channel, tls)

    port, _, _ = await serving(attest=look)
    async with pool(port).acquire():
        assert nodelay == [1]


async def test_cancelling_serve_leaves_no_socket(ends, serving, pool):
    """Tests and mains may cancel it: the port is free at once, connections are gone."""
    port = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(application, ends.server, ends.greet, announce=port.set_result)
    )
    number = await port
    one = pool(number)
    async with one.acquire() as connection:
        await connection.request("GET", "/")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ends.settle(lambda: connection.closed)
    socket.create_server(("127.0.0.1", number)).close()


async def test_a_taken_port_is_an_os_error(ends, serving):
    """The caller can say which port, and what to do."""
    port, _, _ = await serving()
    with pytest.raises(OSError, match="in use"):
        await serve(application, ends.server, ends.greet, port=port)


async def test_an_inherited_socket_is_served(ends, serving, pool):
    """The parent binds, the child serves, and it never needs the address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    expected = listener.getsockname()[1]
    port, _, _ = await serving(fd=listener.detach())
    assert port == expected
    async with pool(port).acquire() as connection:
        assert (await connection.request("GET", "/")).status == 200


async def test_a_bug_in_the_application_is_a_500_without_a_word(serving, pool, caplog):
    """The peer learns nothing of it; the log does."""
    port, _, _ = await serving()
    async with pool(port).acquire() as connection:
        answer = await connection.request("GET", "/fail")
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert "a bug" in caplog.text


@pytest.mark.req("I17")
def test_no_environment_variable_changes_the_server():
    """Neither uvicorn's variables nor OpenSSL's reach into our processes."""
    program = """
        import placet
        from OpenSSL import SSL
        import uvicorn, time
        from placet.ratls.context import self_test
        self_test(now=int(time.time()))
        print("fine")
    """
    hostile = {
        "OPENSSL_CONF": "/nonexistent/openssl.cnf",
        "WEB_CONCURRENCY": "7",
        "FORWARDED_ALLOW_IPS": "*",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **hostile}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "fine\n", done.stderr


async def test_forwarded_headers_are_not_believed(serving, pool, monkeypatch):
    """The peer's address is the socket's, whatever a header or the environment says."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["client"][0], scope["scheme"]))
        await application(scope, receive, send)

    port, _, _ = await serving(app)
    async with pool(port).acquire() as connection:
        spoof = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "http"}
        await connection.request("GET", "/", headers=spoof)
    assert seen == [("127.0.0.1", "https")]


# --- the client --------------------------------------------------------------------------


BAD_ANSWERS = {
    "noise": (MalformedError, [b"\0\0\0\0"]),
    "not HTTP/1.1": (MalformedError, [b"SMTP 220 hi\r\n"]),
    "two answers": (MalformedError, [OK + OK]),
    "interim answer": (MalformedError, [b"HTTP/1.1 100 Continue\r\n\r\n" + OK]),
    "both lengths": (
        MalformedError,
        [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok"],
    ),
    "endless head": (TooLargeError, [b"HTTP/1.1 200 OK\r\nx: " + b"a" * 2 * MAX_BODY]),
    "endless body": (
        TooLargeError,
        [b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n", b"b" * 2 * MAX_BODY],
    ),
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
async def test_a_bad_answer_is_an_error_and_ends_the_connection(listening, pool, kind):
    """Each row raises its class; a second answer is found out by the next request."""
    expect, parts = BAD_ANSWERS[kind]
    seen = await listening(factory=saying(*parts))
    async with pool(seen.port).acquire() as connection:
        with pytest.raises(expect):  # noqa: PT012 - whichever of them fails
            for _ in range(2 if kind == "two answers" else 1):
                await connection.request("GET", "/")
        assert connection.closed


async def test_an_answer_of_exactly_the_limit_is_taken(serving, pool):
    """One more byte of body than MAX_BODY and its head is the head's to spend."""
    port, _, _ = await serving()
    async with pool(port).acquire() as connection:
        assert len((await connection.request("GET", f"/big?{MAX_BODY}")).body) == MAX_BODY


async def test_an_answer_nobody_asked_for_ends_the_connection(ends, listening, pool):
    """Bytes on an idle connection would be taken for the next answer."""
    seen = await listening()
    async with pool(seen.port).acquire() as connection:
        await ends.settle(lambda: seen.apps)
        seen.apps[0].transport.write(OK)
        await ends.settle(lambda: connection.closed)
        with pytest.raises(MalformedError, match="nobody asked"):
            await connection.request("GET", "/")


async def test_connection_close_is_honoured(listening, pool):
    """The answer counts, and the connection is not lent again."""
    closing = OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    seen = await listening(factory=saying(closing))
    one = pool(seen.port)
    async with one.acquire() as connection:
        assert (await connection.request("GET", "/")).body == b"ok"
        assert connection.closed
    async with one.acquire() as another:
        assert another is not connection


async def test_a_request_has_a_deadline(ends, listening, pool):
    """No answer in time is `UnavailableError`, and a late answer meets nobody."""
    seen = await listening(factory=saying())
    async with pool(seen.port).acquire() as connection:
        with pytest.raises(UnavailableError, match="no answer within"):
            await connection.request("GET", "/", timeout=0.05)
        assert connection.closed
    await ends.settle(lambda: seen.transports[0]._app is None)


async def test_a_cancelled_request_ends_the_connection(ends, listening, pool):
    """Its answer must never be read as another's."""
    seen = await listening(factory=saying())
    async with pool(seen.port).acquire() as connection:
        asking = asyncio.create_task(connection.request("GET", "/"))
        await ends.settle(lambda: seen.apps and connection._answer is not None)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert connection.closed


BAD_REQUESTS = {
    "second request line": ("GET", "/ HTTP/1.1\r\nGET /x", {}),
    "method": ("GE T", "/", {}),
    "HEAD has no parser": ("HEAD", "/", {}),
    "relative path": ("GET", "x", {}),
    "path not ASCII": ("GET", "/\u00fc", {}),
    "header value": ("GET", "/", {"x": "a\r\ny: b"}),
    "header name": ("GET", "/", {"x:": "a"}),
}


@pytest.mark.parametrize("kind", BAD_REQUESTS)
async def test_what_http_cannot_carry_is_the_callers_fault(listening, pool, kind):
    """Nothing of it is sent, and the connection stays good."""
    method, path, headers = BAD_REQUESTS[kind]
    seen = await listening(factory=saying(OK))
    async with pool(seen.port).acquire() as connection:
        with pytest.raises(ValueError, match="cannot be sent"):
            await connection.request(method, path, headers=headers)
        with pytest.raises(TooLargeError):
            await connection.request("POST", "/", b"x" * (MAX_BODY + 1))
        assert (await connection.request("GET", "/")).body == b"ok"


async def test_one_request_at_a_time(ends, listening, pool):
    """A second one is refused before it is sent; the first is not disturbed."""
    seen = await listening(factory=saying())
    async with pool(seen.port).acquire() as connection:
        first = asyncio.create_task(connection.request("GET", "/"))
        await ends.settle(lambda: seen.apps and connection._answer is not None)
        with pytest.raises(ValueError, match="one request at a time"):
            await connection.request("GET", "/")
        seen.apps[0].transport.write(OK)
        assert await first == Answer(200, {"content-length": "2"}, b"ok")


# --- the pool ----------------------------------------------------------------------------


async def test_a_pool_reuses_and_bounds_its_connections(listening, serving, pool):
    """Fifty requests at once share the connections there may be."""
    port, _, _ = await serving()
    one, used = pool(port, size=3), set()

    async def ask():
        async with one.acquire() as connection:
            used.add(id(connection))
            return (await connection.request("GET", "/")).status

    assert await asyncio.gather(*[ask() for _ in range(50)]) == [200] * 50
    assert len(used) <= 3


@pytest.mark.req("R1.8")
async def test_a_connection_is_given_up_before_its_evidence_is_too_old(serving, pool):
    """Age counts from before the attestation; at the limit it is not lent again."""
    now = [1000.0]
    port, _, _ = await serving()
    one = pool(port, max_age=50, clock=lambda: now[0])
    async with one.acquire() as first:
        now[0] += 49.9
    async with one.acquire() as second:
        assert second is first
        now[0] += 0.1
    async with one.acquire() as third:
        assert third is not first
        assert first.closed


async def test_a_dead_connection_is_not_lent(ends, listening, pool):
    """The server closed it while it was idle: a new one takes its place."""
    seen = await listening(factory=saying(OK))
    one = pool(seen.port)
    async with one.acquire() as first:
        await first.request("GET", "/")
    seen.transports[0].close()
    await ends.settle(lambda: first.closed)
    async with one.acquire() as second:
        assert second is not first
        assert (await second.request("GET", "/")).body == b"ok"


async def test_a_failed_request_does_not_keep_the_slot(listening, pool):
    """With one slot, the next request gets a new connection."""
    seen = await listening(factory=saying(b"\0"))
    one = pool(seen.port, size=1)
    for _ in range(3):
        with pytest.raises(MalformedError):
            async with one.acquire() as connection:
                await connection.request("GET", "/")
    assert len(seen.apps) == 3


async def test_a_closed_pool_lends_nothing_and_closes_what_comes_back(listening, pool):
    """Idle connections go at once, lent ones when they return."""
    seen = await listening(factory=saying(OK))
    one = pool(seen.port)
    async with one.acquire() as lent:
        async with one.acquire() as idle:
            pass
        one.close()
        assert idle.closed
        assert not lent.closed
    assert lent.closed
    with pytest.raises(UnavailableError, match="closed"):
        async with one.acquire():
            pass


def test_what_a_connection_is_to_its_users():
    """It says who the peer is and whether it is closed, before anything is asked."""
    connection = AttestedConnection("vault", "h:1")
    assert (connection.peer, connection.closed) == ("vault", False)
