"""Who is on stage: vaults, platform, owner, and the notes that they are about."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from placet.attest.trust import trust_from_config
from placet.client.clock import HostClock
from placet.client.constellation import Constellation
from placet.client.vault_client import Connector, renewed_contexts
from placet.core.encoding import encode
from placet.core.messages import CharterAnswer, CourierItem, TakeRequest
from placet.core.profile import Profile, VaultSet
from placet.core.statement import UntrustedStatement, open_statement
from placet.errors import PlacetError, type_prefix
from placet.policy.charter import replay
from placet.policy.key_policy import KeyPolicy
from placet_dev.apps import ANYWHERE, Refusal, Serving, settled
from placet_dev.constellation import SECURITY_VERSION, LocalConstellation
from placet_dev.demo.owner import Owner
from placet_dev.demo.steps import StepFailedError
from placet_dev.platform_process import Platform
from placet_dev.tee.bundle import profile_of, read_bundle
from placet_dev.vaults import UP_TO_DATE

T = TypeVar("T")
DENIED = 77
VOLUME = "notes"


@dataclass(kw_only=True)
class World:
    """All that the steps act on; each step adds what it makes.

    Args:
        state: Folder for everything.
    """

    state: Path
    constellation: LocalConstellation = field(init=False)
    platform: Platform = field(init=False)
    owner: Owner = field(init=False)
    key: str = field(default="", init=False)
    notes: Serving | None = field(default=None, init=False)
    written: list[str] = field(default_factory=list, init=False)
    held_back: UntrustedStatement | None = field(default=None, init=False)

    # --- apps -----------------------------------------------------------------------------

    def profile(self, bundle: str) -> Profile:
        """Return the profile of one of the platform's bundles, from its files."""
        return profile_of(
            read_bundle(self.platform.bundles / bundle),
            anchor=self.constellation.launcher.trust().root.anchor,
            security_version=SECURITY_VERSION,
            tcb=UP_TO_DATE,
        )

    def start(self, bundle: str, volume: str = VOLUME) -> Serving | Refusal:
        """Have the platform start a bundle; return the app when it serves, or its refusal."""
        workload = self.platform.start(bundle, self.key, ANYWHERE, volume)
        return settled(
            workload,
            lambda: self.platform.exit_of(workload),
            lambda: self.platform.log_of(workload),
        )

    def start_behind(self, bundle: Path, params: Mapping[str, str], log: Path) -> Serving | Refusal:
        """Start a bundle as whoever holds the TEE's control socket can: with any parameters."""
        launcher = self.constellation.launcher
        workload = launcher.start(bundle, {**ANYWHERE, **params}, log).id
        return settled(
            workload, lambda: launcher.status(workload).exit, lambda: log.read_text("utf-8")
        )

    def serve(self, bundle: str, volume: str = VOLUME) -> Serving:
        """Start a bundle that must start; it is the app of the story from now on."""
        started = self.start(bundle, volume)
        if isinstance(started, Refusal):
            raise StepFailedError(f"{bundle} was refused: {started.type}: {started.said}")
        self.notes = started
        return started

    def app(self) -> Serving:
        """Return the app that runs."""
        if self.notes is None:
            raise StepFailedError("no app runs")
        return self.notes

    def stop(self) -> int | None:
        """Stop the app and return its exit code."""
        running, self.notes = self.app(), None
        return self.platform.stop(running.workload)

    def volume_digest(self, volume: str = VOLUME) -> str:
        """Return a digest of every byte of a volume."""
        folder = self.platform.state / "volumes" / volume
        whole = hashlib.sha256()
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return whole.hexdigest()

    # --- charters -------------------------------------------------------------------------

    def charter(self) -> tuple[CourierItem, ...]:
        """Return the key's statements, as the vaults show them."""
        vault_set = self.constellation.listed().vault_set

        async def read(vaults: Constellation) -> tuple[CourierItem, ...]:
            return (await vaults.read_charter(self.key)).items

        return self.visit(vault_set, read)

    def policy(self) -> KeyPolicy:
        """Return the policy in force."""
        return replay([open_statement(item.signed) for item in self.charter()])

    def visit(self, vault_set: VaultSet, act: Callable[[Constellation], Awaitable[T]]) -> T:
        """Do something with vaults as a visitor."""
        clock = HostClock()
        connector = Connector(
            prover=None, clock=clock, rng=os.urandom, contexts=renewed_contexts(clock)
        )
        trust = trust_from_config((self.constellation.launcher.trust().root,))

        async def visited() -> T:
            vaults = Constellation.connect(vault_set, connector, trust=trust)
            try:
                return await act(vaults)
            finally:
                vaults.close()

        return asyncio.run(visited())

    def heads(self) -> dict[int, str]:
        """Return the charter head at each vault that answers, counted from 1."""

        async def read(vaults: Constellation) -> dict[str, CharterAnswer]:
            return dict((await vaults.fan_out(lambda v: v.charter(self.key))).values)

        answers = self.visit(self.constellation.listed().vault_set, read)
        numbers = {v.id: i for i, v in enumerate(self.constellation.vaults, 1)}
        return {numbers[v]: a.head for v, a in sorted(answers.items())}

    def attested(self) -> int:
        """Return how many vaults prove who they are, what they run and that they are awake."""

        async def look(vaults: Constellation) -> int:
            return len((await vaults.fan_out(lambda v: v.status(os.urandom(32)))).values)

        return self.visit(self.constellation.listed().vault_set, look)

    def close(self) -> None:
        """End all processes."""
        if hasattr(self, "platform"):
            self.platform.close()
        if hasattr(self, "constellation"):
            self.constellation.close()


def request(*sent: UntrustedStatement) -> bytes:
    """Return the body that carries signed statements to a vault."""
    items = tuple(CourierItem(signed=s.signed(), receipts=()) for s in sent)
    return encode(TakeRequest(chain=items))


def all_refused(answers: Iterable[Mapping[str, Any]], problem: type[PlacetError]) -> str:
    """Return what vaults said, if every one of them refused with this problem.

    Raises:
        StepFailedError: One did not.
    """
    said = list(answers)
    wanted = type_prefix + problem.type
    for answer in said:
        if answer["answer"].get("type") != wanted:
            raise StepFailedError(
                f"vault at {answer['endpoint']} answered {answer['status']}: {answer['answer']}"
            )
    if not said:
        raise StepFailedError("no vault was asked")
    return f"{len(said)} of {len(said)} vaults: {problem.type}"


def refused_by_agent(started: Serving | Refusal, *types: str, code: int = DENIED) -> Refusal:
    """Return how an app was refused, if that was for one of these reasons and with this code.

    Raises:
        StepFailedError: It serves, or was refused for another reason.
    """
    if isinstance(started, Serving):
        raise StepFailedError(f"it started: {started.workload} serves on {started.address}")
    if started.type not in types or started.code != code:
        raise StepFailedError(f"ended with {started.code}, {started.type}: {started.said}")
    return started
