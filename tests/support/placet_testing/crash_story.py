"""The life of a key at three vaults, kept at every step: what each crash test starts from.

One folder a step; each holds the files of three vaults as they were while the vaults lived, so
that their newest commits stand in the write-ahead log only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from placet.client.clock import HostClock
from placet.client.signing import promote_body
from placet.client.vault_client import Connector, VaultClient, renewed_contexts
from placet.core.body import StageBody
from placet.core.dsse import Signed
from placet.core.encoding import Record, b64, encode
from placet.core.manifest import manifest_digest
from placet.core.messages import (
    CommitRequest,
    CourierItem,
    HoldRequest,
    PromiseRequest,
    RecoverRequest,
    ReleaseRequest,
    StageRequest,
    TakeRequest,
)
from placet.core.profile import Profile, VaultSet, code_id
from placet.core.signer import owner_fingerprint
from placet.core.statement import UntrustedStatement
from placet.policy.charter import replay
from placet.policy.key_policy import KeyPolicy
from placet.ratls.exchange import ExpectVault, WorkloadProver
from placet.sharing.key import Dealing, deal
from placet_testing.charters import birth_body, composer, owner_of, person, signed
from placet_testing.serving import Served, serving, trust, vault_set_of
from placet_testing.tee import Tee, vault_config, workload_config

Role = Literal["visitor", "release", "create"]
N, K = 3, 2
OWNER = owner_of(person("owner").signer)
CONFIG = workload_config(owner_fingerprint(OWNER))
CLOCK = HostClock()
CONTEXTS = renewed_contexts(CLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One request to the first vault, and the step that it follows."""

    name: str
    step: str
    method: str
    path: str
    body: bytes
    role: Role = "visitor"
    version: int = 1
    """Of the app, whose code asks."""
    again: Literal["once", "logged", "superseded"] = "once"
    """What the same bytes do after they took effect: nothing more; one entry more in the log;
    or they are refused with the number that the client counts on from."""


@dataclass
class Story:
    """The steps so far."""

    folder: Path
    statements: list[UntrustedStatement] = field(default_factory=list)
    operations: dict[str, Operation] = field(default_factory=dict)
    vaults: VaultSet | None = None
    moved: set[str] = field(default_factory=set)
    """Where steps lie in databases too."""

    @property
    def key(self) -> str:
        """Return the key id."""
        return self.statements[0].digest

    @property
    def policy(self) -> KeyPolicy:
        """Return the policy after all statements."""
        return replay(self.statements)

    def at(self, step: str, folder: Path) -> Path:
        """Copy the vaults' files of a step."""
        shutil.copytree(self.folder / step, folder, dirs_exist_ok=True)
        return folder


def app(version: int) -> Tee:
    """Return a start of one version of the app."""
    return Tee(CONFIG, version=version, boot=f"boot-{os.urandom(4).hex()}")


def vault_profile() -> Profile:
    """Return what every vault runs."""
    return Tee(vault_config()).profile()


def client(
    port: int, vault: str, role: Role = "visitor", version: int = 1, keys: tuple[str, ...] = ()
) -> VaultClient:
    """Return a client of one served vault."""
    prover = None
    if role != "visitor":
        prover = WorkloadProver(producer=app(version), instance="crash", purpose=role, keys=keys)
    connector = Connector(prover=prover, clock=CLOCK, rng=os.urandom, contexts=CONTEXTS)
    expect = ExpectVault(id=vault, profiles=(vault_profile(),), trust=trust())
    return connector.vault(f"127.0.0.1:{port}", expect)


def posting(sent: UntrustedStatement) -> bytes:
    """Return the body of a request that brings a statement."""
    return encode(TakeRequest(chain=(CourierItem(signed=sent.signed(), receipts=()),)))


async def tell(folder: Path) -> Story:
    """Live the whole story once, and keep every step of it."""
    story, live = Story(folder), folder / "live"
    live.mkdir()
    shutil.copytree(live, folder / "empty")
    async with contextlib.AsyncExitStack() as stack:
        served = [await stack.enter_async_context(serving(live, i)) for i in range(1, N + 1)]
        story.vaults = vault_set_of(*served, k=K)
        teller = _Teller(story, served, live)
        await teller.birth()
        await teller.creation()
        await teller.upgrade()
        await teller.end()
    return story


class _Teller:
    def __init__(self, story: Story, served: list[Served], live: Path) -> None:
        self.story, self.served, self.live = story, served, live

    def keep(self, step: str) -> None:
        """Keep the files as they are; the vaults live on."""
        shutil.copytree(self.live, self.story.folder / step)

    def operation(
        self, name: str, step: str, path: str, body: Record | bytes, **more: object
    ) -> None:
        raw = body if isinstance(body, bytes) else encode(body)
        if "/shares/" in path or path.endswith("/release"):
            path = f"/v1/keys/{self.story.key}{path}"
        self.story.operations[name] = Operation(
            name=name,
            step=step,
            method="POST",
            path=path,
            body=raw,
            **more,  # type: ignore[arg-type]
        )

    async def birth(self) -> None:
        self.keep("started")
        profiles = (app(1).profile(),)
        body = birth_body(OWNER, profiles=profiles, vaults=self.story.vaults)
        self.story.statements.append(signed(composer(CLOCK.now()).birth(body)))
        await self.statement("birth", "started", self.story.statements[0])
        self.keep("born")

    async def creation(self) -> None:
        story, create = self.story, {"role": "create"}
        dealt = self.deal()
        digest = manifest_digest(dealt.manifest)
        promise = PromiseRequest(attempt=1)
        self.operation("promise", "born", "/shares/promise", promise, again="superseded", **create)
        await self.every("create", lambda c, _: c.promise(story.key, 1))
        self.keep("promised")
        first = self.served[0].identity.id
        hold = HoldRequest(
            attempt=1, manifest=dealt.manifest, share=b64(dealt.shares[first]), finishing=()
        )
        self.operation("hold", "promised", "/shares/prepare", hold, again="logged", **create)
        held: tuple[Signed, ...] = tuple(
            await self.every(
                "create", lambda c, v: c.hold(story.key, 1, dealt.manifest, dealt.shares[v])
            )
        )
        self.keep("held")
        recover = RecoverRequest(manifest=digest)
        self.operation("recover", "held", "/shares/recover", recover, again="logged", **create)
        commit = CommitRequest(attempt=1, manifest=digest, held=held)
        self.operation("commit", "held", "/shares/commit", commit, **create)
        await self.every("create", lambda c, _: c.commit(story.key, 1, digest, held))
        self.keep("committed")
        ask = ReleaseRequest(nonce=b64(b"n" * 32), head=None)
        self.operation("release", "committed", "/release", ask, role="release", again="logged")
        self.operation(
            "deny", "committed", "/release", ask, role="release", version=2, again="logged"
        )

    async def upgrade(self) -> None:
        story, pen = self.story, composer(CLOCK.now())
        second = app(2).profile()
        body = StageBody(profile=second, version="2", source="commit", provenance=None, review=None)
        stage = signed(pen.stage(story.key, body), "platform")
        self.operation("stage", "committed", "/v1/pending", StageRequest(signed=stage.signed()))
        await self.statement(
            "promote",
            "committed",
            signed(pen.promote(story.policy, promote_body(story.policy, second))),
        )
        self.keep("promoted")
        code = code_id(app(1).profile())
        await self.statement(
            "retire", "promoted", signed(pen.retire(story.policy, code, "replaced"))
        )
        self.keep("retired")

    async def end(self) -> None:
        sent = signed(composer(CLOCK.now()).delete(self.story.policy, "the end"))
        await self.statement("delete", "retired", sent)

    async def statement(self, name: str, step: str, sent: UntrustedStatement) -> None:
        self.operation(name, step, "/v1/statements", posting(sent))
        item = CourierItem(signed=sent.signed(), receipts=())
        await self.every("visitor", lambda c, _: c.take((item,)))
        if sent not in self.story.statements:
            self.story.statements.append(sent)

    async def every(self, role: Role, ask: Callable[..., object]) -> list[object]:  # type: ignore[type-arg]
        answers = []
        for served in self.served:
            keys = (self.story.key,)
            vault = served.identity.id
            asked = client(served.port, vault, role, keys=keys)
            answers.append(await ask(asked, vault))  # type: ignore[misc]
            asked.close()
        return answers

    def deal(self) -> Dealing:
        vaults = self.story.policy.vault_set
        return deal(
            os.urandom(32), key=self.story.key, generation=1, attempt=1, k=vaults.k,
            vaults=vaults.ids, prev=None, rng=os.urandom,
        )  # fmt: skip
