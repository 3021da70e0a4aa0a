"""The platform's API: bytes pass through unchanged, and nothing but its own machine asks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("starlette")

from placet_testing.charters import birth_body, composer, profile, signed

from placet.client.signing import SigningKey
from placet.core.encoding import decode
from placet.core.messages import CourierItem, StageRequest, TakeRequest
from placet.core.signer import signer_id
from placet.core.statement import Stage, open_statement
from placet.errors import KeyNotBornError, NotFoundError
from placet.platform import main as platform_main
from placet.platform.api import Api
from placet.platform.relay import VaultAnswer
from placet.platform.starter import Workload, load_starter

KEY = "sha256:" + "ab" * 32
JSON = {"content-type": "application/json"}


@dataclass
class Starter:
    """Remembers what it was asked to start."""

    started: list[tuple[Path, dict[str, str], Path]] = field(default_factory=list)

    def start(self, bundle, params, log):
        """Remember, and write a line to the log."""
        self.started.append((bundle, dict(params), log))
        log.write_text("hello\n")
        return self.list()[-1]

    def stop(self, id):  # noqa: A002 - its name
        """Say that it ended."""
        del id
        return msgspec.structs.replace(self.list()[0], exit=0)

    def list(self):
        """Return what was started."""
        shown = profile(1)
        return tuple(
            Workload(
                id=f"notes-{i}",
                app="notes",
                image=shown.image,
                config=shown.config,
                pid=1,
                exit=None,
            )
            for i, _ in enumerate(self.started)
        )

    def profile(self, bundle, security_version):
        """Return version 2's, whatever the bundle."""
        del bundle
        return profile(2, security_version=security_version)


@dataclass
class Relay:
    """Remembers what it was given to carry."""

    sent: list[tuple[str, str, bytes]] = field(default_factory=list)
    born: bool = True

    async def send(self, method, path, body=b""):
        """Remember; one vault answers."""
        self.sent.append((method, path, body))
        return (
            VaultAnswer(
                vault=KEY, endpoint="127.0.0.1:1", status=200, answer=msgspec.Raw(b'{"x":1}')
            ),
        )

    async def charter(self, key):
        """Return a charter, or say that there is none."""
        if not self.born:
            raise KeyNotBornError(f"no vault knows key {key}")
        return CHARTER


CHARTER = TakeRequest(
    chain=(CourierItem(signed=signed(composer().birth(birth_body())).signed(), receipts=()),)
)


class Client:
    """Calls the ASGI application."""

    def __init__(self, folder: Path) -> None:
        self.starter, self.relay = Starter(), Relay()
        self.stager = SigningKey.generate("platform", "ed25519")
        self.state, self.bundles = folder / "state", folder / "bundles"
        (self.bundles / "notes-1").mkdir(parents=True)
        api = Api(
            starter=self.starter,
            relay=self.relay,
            stager=self.stager,
            bundles=self.bundles,
            state=self.state,
        )
        self.app = api.app()

    async def ask(self, method, path, body=b"", headers=JSON, host="127.0.0.1:7460"):
        """Return status and JSON (or text) of an answer, and its content type."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = []
        chunks = [raw[i : i + 200_000] for i in range(0, len(raw), 200_000)] or [b""]

        async def receive():
            return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "server": ("127.0.0.1", 7460),
            "headers": [(k.encode(), v.encode()) for k, v in {**headers, "host": host}.items()],
        }
        await self.app(scope, receive, send)
        kind = dict(sent[0]["headers"])[b"content-type"].decode()
        answer = b"".join(m.get("body", b"") for m in sent[1:])
        return sent[0]["status"], json.loads(answer) if "json" in kind else answer.decode(), kind


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """Return a platform with a starter and a relay that remember."""
    return Client(tmp_path)


@pytest.mark.req("I2")
@pytest.mark.parametrize(
    "body",
    [
        b'{"chain":[]}',
        b' {"chain" :\n[] , "chain":[1.0]}\r\n',
        b"\xff\x00 no JSON at all",
        b"",
        bytes(range(256)) * 3000,
    ],
    ids=["canonical", "not canonical", "garbage", "empty", "large"],
)
async def test_relayed_bytes_are_the_bytes_that_came(client: Client, body: bytes) -> None:
    """Whatever the body is, the vaults get exactly that; answers come back as they were."""
    status, answer, _ = await client.ask("POST", "/v1/relay", body)
    assert client.relay.sent == [("POST", "/v1/statements", body)]
    assert status == 200
    assert answer["vaults"][0]["answer"] == {"x": 1}


async def test_a_start_writes_the_charter_and_fills_in_key_and_volume(client: Client) -> None:
    """The agent gets the vaults' charter byte for byte, and paths below the state folder."""
    wanted = {
        "bundle": "notes-1",
        "key": KEY,
        "volume": "notes",
        "params": {"listen": "l", "key": "k"},
    }
    status, answer, _ = await client.ask("POST", "/v1/workloads", wanted)
    [(bundle, params, _)] = client.starter.started
    assert (status, answer["id"]) == (201, "notes-0")
    assert bundle == client.bundles / "notes-1"
    assert (params["listen"], params["key"]) == ("l", KEY)
    assert params["volume"] == str(client.state / "volumes" / "notes")
    with open(params["charter"], "rb") as f:  # noqa: ASYNC230, PTH123 - a small file
        assert decode(f.read(), TakeRequest) == CHARTER
    assert (await client.ask("GET", "/v1/workloads/notes-0/log"))[1] == "hello\n"
    assert (await client.ask("DELETE", "/v1/workloads/notes-0"))[1]["exit"] == 0
    assert len((await client.ask("GET", "/v1/workloads"))[1]["workloads"]) == 1


async def test_nothing_is_started_for_a_key_that_nobody_knows(client: Client) -> None:
    """The vaults' problem comes back as it is."""
    client.relay.born = False
    wanted = {"bundle": "notes-1", "key": KEY, "volume": "notes", "params": {}}
    status, answer, kind = await client.ask("POST", "/v1/workloads", wanted)
    assert (status, kind) == (404, "application/problem+json")
    assert answer["type"].endswith("/key-not-born")
    assert client.starter.started == []


async def test_a_stage_is_signed_by_the_stager(client: Client) -> None:
    """What goes to /v1/pending is a stage of the bundle's profile, under the stager's key."""
    wanted = {
        "bundle": "notes-1",
        "key": None,
        "version": "2",
        "source": "s",
        "security_version": 3,
    }
    status, answer, _ = await client.ask("POST", "/v1/stage", wanted)
    [(method, path, body)] = client.relay.sent
    sent = open_statement(decode(body, StageRequest).signed)
    assert (status, method, path) == (200, "POST", "/v1/pending")
    assert isinstance(sent.statement, Stage)
    assert sent.statement.body.profile.security_version == 3
    assert [s.signer for s in sent.signatures] == [signer_id(client.stager.signer)]
    assert answer["stage"] == sent.digest
    shown = (await client.ask("GET", "/v1/stager"))[1]
    assert shown["public_key"] == client.stager.signer.public_key


START = {"bundle": "notes-1", "key": KEY, "volume": "notes", "params": {}}
REFUSALS = {
    "another site's name (DNS rebinding)": ({"host": "evil.example"}, 403, "role-denied"),
    "a form of another site (CSRF)": (
        {"headers": {"content-type": "text/plain"}},
        400,
        "malformed",
    ),
    "no type at all": ({"headers": {}}, 400, "malformed"),
    "bundle outside the folder": ({"body": {**START, "bundle": "../state"}}, 400, "malformed"),
    "volume outside the folder": ({"body": {**START, "volume": "/etc"}}, 400, "malformed"),
    "unknown bundle": ({"body": {**START, "bundle": "notes-9"}}, 404, "not-found"),
    "no key id": ({"body": {**START, "key": "../../x"}}, 400, "malformed"),
    "unknown member": ({"body": {**START, "force": True}}, 400, "malformed"),
    "too large": ({"body": b"x" * (1024 * 1024 + 1)}, 413, "too-large"),
    "unknown path": ({"path": "/v1/promote"}, 404, "not-found"),
    "unknown method": ({"method": "PUT"}, 404, "not-found"),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
async def test_refused(client: Client, case) -> None:
    """Every refusal is a problem document, and starts nothing."""
    changes, status, problem = case
    arguments = {"method": "POST", "path": "/v1/workloads", "body": START, **changes}
    got, answer, kind = await client.ask(**arguments)
    assert (got, kind) == (status, "application/problem+json")
    assert answer["type"] == f"https://placet.invalid/problems/{problem}"
    assert client.starter.started == []


async def test_a_failure_inside_shows_no_trace(client: Client, caplog) -> None:
    """What breaks is our fault; neither caller nor log gets its text."""
    client.starter.list = lambda: 1 / 0
    status, answer, _ = await client.ask("GET", "/v1/workloads")
    assert status == 500
    assert answer["type"].endswith("/internal")
    assert "division" not in json.dumps(answer) + caplog.text


@pytest.mark.parametrize("address", ["0.0.0.0:1", "example.com:1", "127.0.0.1:x", "127.0.0.1"])
def test_it_listens_on_this_machine_only(tmp_path: Path, address: str, capsys) -> None:
    """No option opens it to others."""
    argv = ["--listen", address, "--state", "s", "--bundles", "b", "--vaults", "v", "--tee", "t"]
    assert platform_main.main([str(tmp_path / a) if len(a) == 1 else a for a in argv]) == 2
    assert "this machine only" in capsys.readouterr().err


def test_a_taken_port_is_named_with_what_to_do(tmp_path: Path, capsys) -> None:
    """The message holds the address and the command that shows who has it."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        argv = ["--listen", f"127.0.0.1:{port}", "--state", str(tmp_path), "--bundles", "b"]
        assert platform_main.main([*argv, "--vaults", "v", "--tee", "t"]) == 4
    said = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in said
    assert "ss -ltnp" in said


def test_an_unknown_starter_says_what_to_install() -> None:
    """The starters that there are come from installed distributions."""
    with pytest.raises(NotFoundError) as refusal:
        load_starter("hardware", "")
    assert "pip install" in refusal.value.hint
