"""The outside witness: one folder, plain HTTP, and nothing that it could let in."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import stat
import subprocess
import sys

import pytest
from placet_testing.charters import vault_key, vault_name

from placet.cli import witness_server
from placet.cli.witness_server import KEY, MAX_REQUEST, Witness, witnessing
from placet.core.continuity import Beat, WitnessAnswer, Witnessed, WitnessRequest, checkpoint_at
from placet.core.dsse import open_signed, sign_record
from placet.core.encoding import b64, decode, encode
from placet.core.merkle import Frontier
from placet.errors import (
    MalformedError,
    NotFoundError,
    RateLimitedError,
    RoleDeniedError,
    TooLargeError,
    UnavailableError,
)

READY = re.compile(r"witness (sha256:[0-9a-f]{64}) ready on 127.0.0.1:(\d+)")


def beat(witness, number=1, *, boots=1):
    """Return a vault's first beat to a witness."""
    key = vault_key(number)
    said = Beat(
        vault=vault_name(number), to=witness, boot="b", boots=boots, nonce=b64(b"n" * 32),
        checkpoint=checkpoint_at(key, "b", 0, Frontier().root()), time=1,
    )  # fmt: skip
    request = WitnessRequest(beat=sign_record(said, key), old=0, before="", proof=(), since=0)
    return encode(request)


@pytest.fixture
def witness(tmp_path):
    """Return a witness whose clock stands."""
    made = Witness(tmp_path / "w", now=lambda: 5.0, running=lambda: 7.0)
    yield made
    made.close()


def ask(witness, body, sender="a"):
    """Send a beat; return what it says."""
    answer = decode(witness.answer("POST", "/v1/witness", body, sender), WitnessAnswer)
    return open_signed(answer.witnessed, Witnessed, vault=witness.id)


@pytest.mark.req("I6")
def test_it_remembers_over_a_restart(tmp_path):
    """The same key, and what it knew: an earlier start is not the newest any more."""
    first = Witness(tmp_path)
    assert ask(first, beat(first.id, boots=4)).boots == 4
    first.close()
    again = Witness(tmp_path)
    assert again.id == first.id
    said = ask(again, beat(again.id, boots=3))
    assert (said.boots, said.vault) == (4, vault_name(1))
    assert json.loads(again.answer("GET", "/healthz", b"", "a")) == {
        "vaults": 1,
        "witness": again.id,
    }
    again.close()


def test_its_key_is_its_users_alone(tmp_path):
    """0600, whatever the umask; a key of another kind, or no key, is refused."""
    Witness(tmp_path).close()
    path = tmp_path / KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"no key")
    with pytest.raises(MalformedError):
        Witness(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError):
        Witness(tmp_path / "file" / "below")


def test_a_second_one_in_its_folder_is_refused(witness, tmp_path):
    """Two memories would be none."""
    with pytest.raises(UnavailableError):
        Witness(tmp_path / "w")


def test_it_answers_nothing_else(witness):
    """No other path, no body that is no beat, none for another witness."""
    for method, path in [("GET", "/v1/witness"), ("POST", "/v1/status"), ("POST", "/healthz")]:
        with pytest.raises(NotFoundError):
            witness.answer(method, path, b"", "a")
    with pytest.raises(MalformedError):
        witness.answer("POST", "/v1/witness", b"{}", "a")
    with pytest.raises(TooLargeError):
        witness.answer("POST", "/v1/witness", b" " * (MAX_REQUEST + 1), "a")


def test_whom_it_remembers_is_bounded(tmp_path, monkeypatch):
    """By a list, or by a number; who is remembered goes on being answered."""
    listed = Witness(tmp_path / "listed", frozenset({vault_name(2)}))
    with pytest.raises(RoleDeniedError):
        ask(listed, beat(listed.id, 1))
    assert ask(listed, beat(listed.id, 2)).vault == vault_name(2)
    listed.close()
    monkeypatch.setattr(witness_server, "MAX_SEEN", 1)
    full = Witness(tmp_path / "full")
    ask(full, beat(full.id, 1))
    with pytest.raises(RateLimitedError):
        ask(full, beat(full.id, 2))
    assert ask(full, beat(full.id, 1)).vault == vault_name(1)
    full.close()


def test_one_sender_cannot_use_it_up(witness):
    """Neither its time nor its memory; others are answered meanwhile."""
    for number in range(64):
        ask(witness, beat(witness.id, number), "flood")
    with pytest.raises(RateLimitedError):
        ask(witness, beat(witness.id, 99), "flood")
    assert ask(witness, beat(witness.id, 98), "other").boots == 1
    for _ in range(200 - 65):
        ask(witness, beat(witness.id, 1), "flood")
    with pytest.raises(RateLimitedError):
        ask(witness, beat(witness.id, 1), "flood")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", 200),
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"HELLO\r\n\r\n", 400),
        (b"POST /v1/witness HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", 400),
        (b"POST /v1/witness HTTP/1.1\r\ncontent-length: 999999999\r\n\r\n", 413),
        (b"POST /v1/witness HTTP/1.1\r\ncontent-length: 9999999999999999\r\n\r\n", 413),
        (b"POST /v1/witness HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /v1/witness HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\na: 1\r\nA: 2\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n", 400),
    ],
)
async def test_what_is_sent_to_its_port(witness, sent, status):
    """Sizes come first, one meaning only, and an answer in any case."""
    async with witnessing(witness, "127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        line = await asyncio.wait_for(reader.readline(), 10)
        assert int(line.split()[1]) == status
        writer.close()
        await writer.wait_closed()


async def test_a_connection_is_kept(witness):
    """A vault asks every minute over the same one; a head without end is cut off."""
    async with witnessing(witness, "127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = beat(witness.id)
        for _ in range(3):
            head = b"POST /v1/witness HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body)
            writer.write(head + body)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            length = int(re.search(rb"content-length: (\d+)", head)[1])
            assert decode(await reader.readexactly(length), WitnessAnswer)
        writer.write(b"x" * 100_000)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


def test_the_process(tmp_path):
    """It says its id and how owners name it, answers, and ends when told to."""
    arguments = ["witness", "serve", "--listen", "127.0.0.1:0", "--data", str(tmp_path)]
    program = "from placet.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        said = READY.search(process.stdout.readline())
        connection = http.client.HTTPConnection("127.0.0.1", int(said[2]), timeout=10)
        connection.request("GET", "/healthz")
        assert json.load(connection.getresponse())["witness"] == said[1]
        connection.request("POST", "/v1/witness", beat(said[1]))
        answer = decode(connection.getresponse().read(), WitnessAnswer)
        assert open_signed(answer.witnessed, Witnessed, vault=said[1]).boots == 1
        connection.request("GET", "/v1/status")
        assert connection.getresponse().status == 404
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
