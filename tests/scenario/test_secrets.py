"""A whole story, with vaults as they are run; then everything that came out is searched (I13).

Vaults run by their own `main`, with probes, at DEBUG, one of them in PostgreSQL; the owner is the
command line, the app is the agent. All secrets are known here, because this is one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from placet_testing import backends
from placet_testing.leaks import Secrets, found_in, spelled, told
from placet_testing.ports import free_port
from placet_testing.serving import trust
from placet_testing.tee import Tee, dev_pki, vault_config, workload_config

from placet.agent import main as agent_main
from placet.agent import unlock
from placet.agent.unlock import Agent
from placet.agent.volume import EmbeddedVolume, Unlocked
from placet.attest.collateral_folder import CollateralFolder
from placet.cli.main import cli
from placet.client.clock import HostClock
from placet.client.constellation import Constellation
from placet.client.following import CharterCopy
from placet.client.vault_client import Connector, VaultClient, renewed_contexts
from placet.client.vaults_file import VaultsFile, write_vaults
from placet.core.encoding import b64, encode, unb64
from placet.core.logentry import Draft
from placet.core.profile import VaultMember, code_id
from placet.errors import NotApprovedError, PlacetError, UnavailableError
from placet.ratls.exchange import ExpectVault, WorkloadProver
from placet.ratls.http import Answer, AttestedConnection
from placet.vault import main as vault_main
from placet.vault.logs import start_logging
from placet.vault.readiness import Reason
from placet.vault.routes import ROUTES
from placet.vault.succession import Adopting

N, K = 3, 2
PASSWORD = "correct-horse-battery"
SHARES = ("/release", "/shares/recover")
"""Answers that are shares, for the app alone."""


@dataclass
class Running:
    """One vault: as `placet vault serve` runs it, in a task."""

    tee: Tee
    data: Path
    port: int
    probe: int
    uri: str = "sqlite"
    task: asyncio.Task[None] | None = None
    vault: Any = None
    operations: Any = None


@dataclass
class Story:
    """Vaults, an owner at a command line, an app; what is secret, and what came out where."""

    folder: Path
    logs: tuple[io.StringIO, io.StringIO]
    secrets: Secrets = field(default_factory=Secrets)
    planted: Secrets = field(default_factory=Secrets)
    """What must come out, by where: it shows that the search looks there."""
    vaults: list[Running] = field(default_factory=list)
    out: dict[str, list[bytes]] = field(default_factory=dict)
    app: str = ""
    key: str = ""

    def note(self, where: str, *what: bytes | str) -> None:
        """Remember what came out."""
        self.out.setdefault(where, []).extend(w.encode() if isinstance(w, str) else w for w in what)

    def plant(self, where: str) -> bytes:
        """Return a secret that is to come out there."""
        self.planted.add(where, os.urandom(32))
        return list(self.planted.known.values())[-1]

    # --- vaults ------------------------------------------------------------------------

    async def start(self, number: int) -> None:
        """Start a vault on the disk that it had, and wait until it listens."""
        one = self.vaults[number - 1]
        at = f"ready on 127.0.0.1:{one.port}"
        seen = self.logs[0].getvalue().count(at)
        one.task = asyncio.create_task(
            vault_main._run(
                one.tee,
                partial(vault_main.open_store, one.data, one.uri),
                one.data,
                CollateralFolder(one.data / "collateral"),
                ("127.0.0.1", one.port),
                probe=("127.0.0.1", one.probe),
                adopting=Adopting(None, f"127.0.0.1:{one.port}"),
            )
        )
        async with asyncio.timeout(30):
            while self.logs[0].getvalue().count(at) == seen:
                if one.task.done():
                    one.task.result()
                await asyncio.sleep(0.01)

    async def end(self, number: int) -> None:
        """End a vault as a second SIGTERM does: at once."""
        task = self.vaults[number - 1].task
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def look(self) -> None:
        """Note what probes say."""

        def get(port: int, path: str) -> bytes:
            url = f"http://127.0.0.1:{port}/{path}"
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as e:
                with e:
                    return e.read()

        for one in self.vaults:
            if one.task is not None and not one.task.done():
                for path in ("healthz", "readyz", "metrics"):
                    self.note(path, await asyncio.to_thread(get, one.probe, path))

    # --- people and apps ---------------------------------------------------------------

    async def placet(self, *arguments: object, code: int | None = 0) -> str:
        """Run a command of the owner's; return its standard output."""

        def run() -> Any:
            return CliRunner().invoke(
                cli, [str(a) for a in arguments],
                env={"PLACET_HOME": str(self.folder / "home"), "COLUMNS": "160"},
            )  # fmt: skip

        result = await asyncio.to_thread(run)
        self.note("command line", result.stdout, result.stderr)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert code in (None, result.exit_code), (arguments, result.output)
        return str(result.stdout)

    def version(self, number: int) -> Tee:
        """Return a start of a version of the app."""
        return Tee(workload_config(self.app), version=number, boot=f"boot-{os.urandom(4).hex()}")

    def profile(self, number: int) -> Path:
        """Write the profile of a version to a file."""
        path = self.folder / f"profile-{number}.json"
        path.write_bytes(msgspec.json.encode(self.version(number).profile()))
        return path

    @property
    def listed(self) -> VaultsFile:
        """Return what ``vaults.json`` says."""
        members = tuple(
            VaultMember(id=v.vault._identity.id, endpoint=f"127.0.0.1:{v.port}", domain=None)
            for v in self.vaults
        )
        return VaultsFile(
            k=K, vaults=members, profiles=(self.vaults[0].tee.profile(),),
            trust_roots=(dev_pki().trust_root(),),
        )  # fmt: skip

    def connector(self, number: int = 0, purpose: str = "release") -> Connector:
        """Return how a visitor connects, or a version of the app."""
        clock, prover = HostClock(), None
        if number:
            prover = WorkloadProver(
                producer=self.version(number), instance="w-1", purpose=purpose, keys=(self.key,)
            )  # type: ignore[arg-type]
        contexts = renewed_contexts(clock)
        return Connector(prover=prover, clock=clock, rng=os.urandom, contexts=contexts)

    async def boot(self, number: int, *, refused: type[PlacetError] | None = None) -> None:
        """Have the platform start a version of the app."""
        vaults = Constellation.connect(self.listed.vault_set, self.connector(), trust=trust())
        try:
            items = (await vaults.read_charter(self.key)).items
        finally:
            vaults.close()
        charter = self.folder / "charter.json"
        charter.write_bytes(encode(CharterCopy(chain=items)))
        agent = Agent(
            producer=self.version(number), clock=HostClock(), rng=os.urandom, instance="w-1",
            tell=lambda line: self.note("agent", line),
        )  # fmt: skip
        volume = EmbeddedVolume(self.folder / "volume")
        if refused is None:
            self.note("agent", repr(await agent.unlock(self.key, charter, volume)))
            return
        with pytest.raises(refused) as error:
            await agent.unlock(self.key, charter, volume)
        self.note("exceptions", told(error.value))

    def client(self, at: int, number: int = 0, purpose: str = "release") -> VaultClient:
        """Return a client of one vault."""
        member = self.listed.vaults[at - 1]
        expect = ExpectVault(id=member.id, profiles=self.listed.profiles, trust=trust())
        return self.connector(number, purpose).vault(member.endpoint, expect)

    def shares(self) -> list[bytes]:
        """Return the share that each vault has."""
        found = []
        for one in self.vaults:
            committed = one.vault._keys.get(self.key).record.committed
            found.append(unb64(committed.share))
        return found

    # --- what came out -----------------------------------------------------------------

    def haystacks(self) -> dict[str, bytes]:
        """Return all of it."""
        found = {where: b"\n".join(what) for where, what in self.out.items()}
        found |= {"log as JSON": self.logs[0].getvalue().encode()}
        found |= {"log as text": self.logs[1].getvalue().encode()}
        for path in self.folder.rglob("*"):
            # The owner's own file is where the owner's key is kept.
            if path.is_file() and path != self.folder / "home" / "owner.pem":
                found[str(path.relative_to(self.folder))] = path.read_bytes()
        return found


@pytest.fixture
async def story(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any, root_logger: logging.Logger
) -> AsyncIterator[Story]:
    """Three vaults of which two are needed, watched; whatever is made there is remembered."""
    made = Story(tmp_path, (io.StringIO(), io.StringIO()))
    start_logging("text", made.logs[1])
    handlers = root_logger.handlers[:]
    start_logging("json", made.logs[0])
    root_logger.handlers += handlers
    root_logger.setLevel(logging.DEBUG)
    _spy(made, monkeypatch)
    database = backends.Postgresql(server.uri)
    for number in range(1, N + 1):
        tee = Tee(vault_config(), boot=f"boot-{number}")
        tee.enclave = replace(tee.enclave, sealing_secret=os.urandom(32))
        made.secrets.add("sealing key", tee.sealing_key())
        uri = "sqlite"
        if number == N:
            uri = database.place(tmp_path).replace("vault@", f"vault:{PASSWORD}@")
        data = tmp_path / f"data-{number}"
        made.vaults.append(Running(tee, data, free_port(), free_port(), uri))
    made.secrets.add("password", PASSWORD)
    try:
        yield made
    finally:
        for number, one in enumerate(made.vaults, 1):
            if one.task is not None:
                await made.end(number)
        database.remove(tmp_path)


def _spy(made: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything secret remembered that is made, and everything that vaults answer."""
    open_vault, operations = vault_main.open_vault, vault_main.Operations
    generate, derive = ec.generate_private_key, EmbeddedVolume.unlock
    request = AttestedConnection.request
    opened = list[Running]()

    def opening(producer: Any, store: Any, *rest: Any, **more: Any) -> Any:
        found = open_vault(producer, store, *rest, **more)
        made.secrets.add("identity key", found[1].key.private_bytes_raw())
        made.secrets.add("derived sealing key", store._seal._tag_key)
        [one] = [v for v in made.vaults if v.tee is producer]
        one.vault = found[0]
        opened.append(one)
        return found

    def operating() -> Any:
        opened[-1].operations = operations()
        return opened[-1].operations

    def generated(curve: Any, *rest: Any) -> Any:
        key = generate(curve, *rest)
        size = (curve.key_size + 7) // 8
        made.secrets.add("TLS key", key.private_numbers().private_value.to_bytes(size))
        return key

    def unlocking(self: EmbeddedVolume, data_key: bytearray, *, key: str) -> Unlocked:
        unlocked = derive(self, data_key, key=key)
        made.secrets.add("data key", data_key)
        made.secrets.add("volume key", unlocked.secret)
        made.secrets.add("memory key", unlocked.memory_key)
        return unlocked

    async def asking(self: Any, method: str, path: str, *rest: Any, **more: Any) -> Answer:
        answer = await request(self, method, path, *rest, **more)
        share = answer.status == 200 and path.endswith(SHARES)
        headers = repr(sorted(answer.headers.items())).encode()
        made.note("shares" if share else "answers" if answer.status == 200 else "problems",
                  f"{method} {path.partition('?')[0]}", headers, answer.body)  # fmt: skip
        return answer

    monkeypatch.setattr(vault_main, "open_vault", opening)
    monkeypatch.setattr(vault_main, "Operations", operating)
    monkeypatch.setattr(ec, "generate_private_key", generated)
    monkeypatch.setattr(EmbeddedVolume, "unlock", unlocking)
    monkeypatch.setattr(AttestedConnection, "request", asking)


# --- the story -----------------------------------------------------------------------------


async def told_in(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Birth, creation, releases, denials, an upgrade, nonsense, failures, a crash, deletion."""
    folder = story.folder
    for number in range(1, N + 1):
        await story.start(number)
    write_vaults(folder / "vaults.json", story.listed)
    await story.placet("owner", "init")
    [kept] = (folder / "home").glob("*.pem")
    private = load_pem_private_key(kept.read_bytes(), None)
    story.secrets.add("owner's key", private.private_bytes_raw())  # type: ignore[union-attr]
    story.app = json.loads(await story.placet("owner", "show", "--json"))["fingerprint"]
    files = ("--vaults", folder / "vaults.json", "--profile", story.profile(1), "--yes")
    born = await story.placet("key", "new", "notes/data", *files, "--json")
    story.key = json.loads(born)["key"]

    await story.boot(1)
    for share in story.shares():
        story.secrets.add("share", share)
    await story.boot(1)
    await story.boot(2, refused=NotApprovedError)
    await story.placet("promote", "notes", "--profile", story.profile(2), "--yes")
    await story.boot(2)
    old = code_id(story.version(1).profile())
    await story.placet("retire", "notes", old, "--reason", "old", "--yes")
    await story.boot(1, refused=NotApprovedError)
    await story.look()

    await talk_nonsense(story)
    await fail_inside(story)
    await story.end(2)
    await story.placet("doctor", "notes", code=1)
    await story.boot(2)
    await story.start(2)
    await story.look()

    await let_leak(story, monkeypatch)
    await story.placet("log", "notes")
    await story.placet("key", "show", "notes", "--json")
    await story.placet("audit", "export", "notes", "--out", folder / "audits")
    for one in story.vaults:
        where = (f"127.0.0.1:{one.port}", "--vaults", folder / "vaults.json")
        story.note("export of the log", await story.placet("vault", "log", *where))
    await story.placet("key", "delete", "notes", "--type-out", "notes/data", "--yes", code=None)
    await story.boot(2, refused=PlacetError)
    await story.look()


async def talk_nonsense(story: Story) -> None:
    """Ask everything in every wrong way, as the app and as a visitor, with a share in it."""
    share = b64(story.shares()[0])
    for number, purpose in ((2, "create"), (0, "release")):
        client = story.client(1, number, purpose)
        for route in ROUTES:
            path = route.path.replace("{key}", story.key)
            for body in nonsense(share) if route.method == "POST" else (b"",):
                wrong = "&".join(f"{name}={unb64(share).hex()}" for name in route.query)
                async with client._connected() as connection:
                    await connection.request(route.method, f"{path}?{wrong}", body)
        client.close()


def nonsense(share: str) -> Iterator[bytes]:
    """Yield bodies that are none."""
    yield from (b"", b"{", share.encode(), b"\xff" + share.encode(), b"[" * 2000)
    for fields in (
        {"share": share},
        {"nonce": share, "head": share},
        {"attempt": share, "manifest": share, "share": share, "finishing": share},
        {"attempt": 1, "manifest": {"key": share, "shares": [share]}, "share": share},
        {"signed": share, "beat": {"payload": share, "vault_key": share, "signature": share}},
        {"chain": [{"signed": {"payload": share, "signatures": [{"kind": share}]}}]},
        {share: share},
    ):
        yield encode(fields)


async def fail_inside(story: Story) -> None:
    """Have code fail with a share in the text: in a request, in a task, in a callback."""
    one, share = story.vaults[0], story.shares()[0]
    text = f"cannot write {share!r}, which is {share.hex()} or {b64(share)}"
    honest = one.vault._log.commit

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError(text)

    one.vault._log.commit = fails
    client = story.client(1, 2)
    with pytest.raises(PlacetError) as error:
        await client.release(story.key, os.urandom(32))
    assert error.value.type == "internal"
    story.note("exceptions", told(error.value))
    one.vault._log.commit = honest
    client.close()

    async def lost() -> None:
        raise RuntimeError(text)

    loop, task = asyncio.get_running_loop(), asyncio.create_task(lost())
    await asyncio.wait({task})
    del task  # nobody asks how it ended: asyncio says so itself
    loop.call_soon(fails, share, b64(share))
    async with asyncio.timeout(10):
        while story.logs[0].getvalue().count("failed inside") < 3:  # noqa: ASYNC110 - a log
            await asyncio.sleep(0.01)


async def let_leak(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have something come out of every channel, by the code that writes to it."""
    one, log = story.vaults[0], logging.getLogger("placet.vault")
    log.debug("planted %s", story.plant("log as JSON").hex())
    log.info("planted", extra={"facts": {"x": repr(story.plant("log as text"))}})
    number, reason = b64(story.plant("metrics")), b64(story.plant("readyz"))
    one.operations.meters.gauge("placet_planted", "Planted.", lambda: {number: 1})
    one.operations.readiness.add(lambda: [Reason(reason="disk", detail=reason)])
    draft = partial(Draft, kind="planted")
    for where, key in (("export of the log", None), ("audits", story.key)):
        text = story.plant(where).hex()
        one.vault._log.commit(draft(key=key, detail={"x": text}), now=one.vault._clock.now())

    def failing(error: type[PlacetError], where: str) -> Callable[..., Any]:
        text = story.plant(where).hex().upper()

        def fails(*_: object, **__: object) -> None:
            raise error(text)

        return fails

    client = story.client(1)
    await client.standing(story.plant("answers"))  # it comes back in what the vault signs
    with monkeypatch.context() as patched:
        patched.setattr(one.vault, "dropped", failing(NotApprovedError, "problems"))
        patched.setattr(one.vault, "hashes", failing(NotApprovedError, "exceptions"))
        for ask in (client.dropped(story.key), client.hashes(0)):
            with pytest.raises(NotApprovedError) as error:
                await ask
            story.note("exceptions", told(error.value))
        patched.setattr(one.vault, "status", failing(NotApprovedError, "command line"))
        await story.placet("vault", "show", f"127.0.0.1:{one.port}", code=3)
        patched.setattr(unlock, "keep_receipts", failing(UnavailableError, "agent"))
        await story.boot(2)
        patched.setattr(one.vault._log, "entries", failing(UnavailableError, "healthz"))
        await story.look()
    client.close()
    (story.folder / "volume" / "note").write_bytes(story.plant("volume"))
    os.write(2, story.plant("process").hex(":").encode())


@pytest.mark.req("I13", "R4.9")
async def test_nothing_secret_comes_out(
    story: Story, server: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No secret, in no spelling, in nothing that came out; and each channel would have shown it."""
    await told_in(story, monkeypatch)
    for number in range(1, N + 1):
        await story.end(number)
    files, rows = backends.Sqlite(), backends.Postgresql(server.uri)
    for host, path, where in (
        (files, story.vaults[0].data / "vault.db", "data-1"),
        (rows, story.folder, "database"),
    ):
        with host.hand(path) as db:
            db.execute("INSERT INTO tree VALUES (?, ?)", ("planted", story.plant(where)))
    story.note("database", rows.raw(story.folder))
    story.note("process", *capfd.readouterr())
    assert story.secrets.names() == {
        "sealing key", "derived sealing key", "identity key", "TLS key", "password", "owner's key",
        "share", "data key", "volume key", "memory key",
    }  # fmt: skip

    hay = story.haystacks()
    # What goes to the app holds shares, and is found: the search can find what is there.
    let_go = {name for _, name, _ in found_in(story.secrets, {"shares": hay.pop("shares")})}
    assert let_go == {n for n in story.secrets.known if n.startswith("share")}
    assert found_in(story.secrets, hay) == set()
    shown = {
        (where.partition("/")[0], name[:-3]) for where, name, _ in found_in(story.planted, hay)
    }
    assert {(where, where) for where in story.planted.names()} <= shown


@pytest.mark.req("I13", "R4.9")
@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("postgresql://vault:{}@127.0.0.1:1/vault", 4),
        ("postgresql://vault:{}@127.0.0.1:none/vault", 4),
        ("postgresql://vault:{}@[/vault", 4),
        ("postgres://vault@127.0.0.1/vault?passphrase={}", 4),
        ("mysql://vault:{}@127.0.0.1/vault", 2),
        ("sqlite", 1),
    ],
)
def test_a_vault_that_cannot_start_tells_no_secret(
    uri: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    root_logger: logging.Logger,
) -> None:
    """Not the password of its database, and not what an unforeseen failure says."""
    secrets, stream = Secrets(), io.StringIO()
    secrets.add("password", PASSWORD)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(vault_main.resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(vault_main.os, "umask", lambda _: 0)
    monkeypatch.setattr(vault_main.sys, "setswitchinterval", lambda _: None)
    monkeypatch.setattr(vault_main, "open_producer", lambda: Tee(vault_config()))
    if code == 1:
        monkeypatch.setattr(vault_main, "SqliteStore", Mock(side_effect=RuntimeError(PASSWORD)))
    argv = ["--data", str(tmp_path / "data"), "--store", uri.format(PASSWORD)]
    try:
        got = vault_main.main(argv)
    except SystemExit as e:
        got = int(e.code or 0)
    assert (got, found_in(secrets, {"stderr": stream.getvalue().encode()})) == (code, set())
    assert stream.getvalue()
    assert "Traceback" not in stream.getvalue()


@pytest.mark.req("I13", "R4.9")
def test_an_app_that_cannot_start_tells_the_platform_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not what an unforeseen failure says: the platform keeps what an app prints."""
    secrets, secret = Secrets(), os.urandom(32)
    secrets.add("data key", secret)
    monkeypatch.setattr(agent_main.resource, "setrlimit", lambda *_: None)
    app = Tee(workload_config("sha256:" + "00" * 32))
    monkeypatch.setattr(agent_main, "open_producer", lambda: app)
    broken = Mock(side_effect=RuntimeError(f"no room for {secret!r}, {secret.hex()}"))
    monkeypatch.setattr(agent_main, "EmbeddedVolume", broken)
    argv = ["--key", "sha256:" + "00" * 32, "--volume", str(tmp_path), "true"]
    assert agent_main.main(argv) == agent_main.BROKEN
    said = "".join(capfd.readouterr())
    assert said.startswith("placet run: failed inside: RuntimeError at ")
    assert found_in(secrets, {"said": said.encode()}) == set()


@pytest.mark.req("I13")
@pytest.mark.parametrize("spelling", spelled(b""))
def test_a_secret_is_found_in_any_spelling(spelling: str) -> None:
    """By itself, in the middle of something, in base64 of something in base64."""
    secrets, secret, noise = Secrets(), os.urandom(32), os.urandom(64)
    secrets.add("a key", secret)
    text = noise + spelled(secret)[spelling] + noise
    assert found_in(secrets, {"here": noise}) == set()
    for hay in (text, b"{%b}" % b64(text).encode(), b64(b64(b"x" + text).encode()).encode()):
        assert ("here", "a key #1", spelling) in found_in(secrets, {"here": hay})
