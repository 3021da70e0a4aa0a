"""A backup of a vault that is put back is a rollback, and is treated as one."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from placet_testing import backends
from placet_testing.charters import birth_body, composer, owner_of, person, signed
from placet_testing.constellations import run_of
from placet_testing.releases import release
from placet_testing.serving import Served, serving, trust, vault_set_of
from placet_testing.tee import Tee, vault_config

from placet.attest.verify import verify_evidence
from placet.client.clock import HostClock
from placet.core.profile import code_id
from placet.core.statement import UntrustedStatement
from placet.errors import HandedOverError, QuarantinedError
from placet.policy.charter import replay
from placet.vault.predecessor import Predecessor

PATIENCE = 60
OWNER = owner_of(person("owner").signer)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - vaults in one loop, which no event tells
            await asyncio.sleep(0.02)


class Vaults:
    """Three vaults that ask each other, each of which can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.up: dict[int, tuple[contextlib.AsyncExitStack, Served]] = {}
        self.ports: dict[int, int] = {}

    async def start(self, number: int) -> Served:
        """Start one, on the port that it had."""
        stack = contextlib.AsyncExitStack()
        port = self.ports.get(number, 0)
        served = await stack.enter_async_context(
            serving(self.folder, number, port=port, alone=False)
        )
        self.up[number], self.ports[number] = (stack, served), served.port
        return served

    async def stop(self, number: int) -> None:
        """Stop one."""
        await self.up.pop(number)[0].aclose()

    def __getitem__(self, number: int) -> Served:
        return self.up[number][1]

    def state(self, number: int) -> str:
        """Return how one stands."""
        return self[number].vault.standing.report().state

    def disk(self, number: int) -> Path:
        """Return a backup of one that is stopped."""
        kept = self.folder / "kept" / f"served{number}.db"
        backends.copy(self.folder / kept.name, kept)
        return kept

    def put_back(self, number: int, backup: Path) -> None:
        """Restore it."""
        backends.copy(backup, self.folder / f"served{number}.db")


@pytest.fixture
async def vaults(tmp_path: Path) -> AsyncIterator[tuple[Vaults, list[UntrustedStatement]]]:
    """Return three vaults that stand, and a key whose owner added release 2."""
    made = Vaults(tmp_path)
    for number in (1, 2, 3):
        await made.start(number)
    body = birth_body(OWNER, vaults=vault_set_of(made[1], made[2], made[3], k=2))
    now = HostClock().now()
    birth = signed(composer(now).birth(body))
    policy = replay([birth])
    update = composer(now).update(policy, policy.rules, "vaults 2", vault_profiles=(release(2),))
    statements = [birth, signed(update)]
    for number in (1, 2, 3):
        made[number].vault.take(run_of(birth))
    await until(lambda: all(made.state(n) == "standing" for n in (1, 2, 3)))
    for number in (1, 2, 3):
        made[number].vault.take(run_of(statements[1]))
    yield made, statements
    for number in list(made.up):
        await made.stop(number)


def predecessor(port: int) -> Predecessor:
    """Return a way to a vault, for a new process of the release that the owner added."""
    tee = Tee(vault_config(), version=2)
    return Predecessor(
        f"127.0.0.1:{port}",
        vault=None,
        producer=tee,
        release=lambda: code_id(tee.profile()),
        trust=trust(),
        verify=verify_evidence,
        clock=HostClock(),
        rng=os.urandom,
    )


@pytest.mark.req("I6", "R2.1")
@pytest.mark.usefixtures("backend")
async def test_a_backup_from_before_a_statement_serves_nothing(
    vaults: tuple[Vaults, list[UntrustedStatement]],
) -> None:
    """Genuine and intact, it is shorter than what others saw; the key lives on without it."""
    made, statements = vaults
    await made.stop(1)
    backup = made.disk(1)
    await made.start(1)
    await until(lambda: made.state(1) == "standing")
    policy = replay(statements)
    later = composer(HostClock().now(), seed="later").update(
        policy, policy.rules, "vaults 3", vault_profiles=(release(3),)
    )
    for number in (1, 2, 3):
        made[number].vault.take(run_of(signed(later)))
    size = made[1].log.head()[0]
    seen = lambda: made[1].vault.standing.report().witnessed >= size  # noqa: E731
    await until(seen)
    await made.stop(1)
    made.put_back(1, backup)
    await made.start(1)
    await until(lambda: made.state(1) == "quarantined")
    report = made[1].vault.standing.report()
    assert report.reason == "rolled-back"
    assert report.witnessed >= size
    with pytest.raises(QuarantinedError):
        made[1].vault.take(run_of(signed(later)))
    assert made[2].vault.charter(statements[0].digest).version == 3


@pytest.mark.req("I6", "I16")
async def test_a_backup_from_before_a_hand_over_neither_serves_nor_hands_over_again(
    vaults: tuple[Vaults, list[UntrustedStatement]], tmp_path: Path
) -> None:
    """The host puts the old disk back: the new process has the key, and stays the only one."""
    made, statements = vaults
    key, port = statements[0].digest, made.ports[1]
    await made.stop(1)
    backup = made.disk(1)
    await made.start(1)
    await until(lambda: made.state(1) == "standing")
    new = serving(tmp_path, 1, release=2, adopt=f"127.0.0.1:{port}", alone=False)
    async with new as successor:
        assert successor.adoption is not None
        async with asyncio.timeout(PATIENCE):
            await successor.adoption.caught_up.wait()
        assert successor.adoption.kept == 0
        await until(lambda: successor.vault.standing.report().state == "standing")
        with pytest.raises(HandedOverError):
            made[1].vault.charter(key)
        await made.stop(1)
        made.put_back(1, backup)
        await made.start(1)
        await until(lambda: made.state(1) == "quarantined")
        assert made[1].vault.standing.report().reason == "rolled-back"
        asked = predecessor(port)
        try:
            with pytest.raises(QuarantinedError):
                await asked.fetch(key, "00112233445566ff", "127.0.0.1:1")
        finally:
            asked.close()
        # Of one vault id, the two processes are told apart: the newer one goes on.
        assert successor.vault.standing.report().state == "standing"
        assert successor.vault.charter(key).version == 2
