"""What an app remembers of its vaults, over real vaults that are put back, fork, or are edited."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from placet_testing.app import World, founded, v
from placet_testing.charters import composer, signed

from placet.agent import main as agent_main
from placet.agent.comparing import Compared, Comparing
from placet.agent.memory import MEMORY, Memory
from placet.client.clock import HostClock
from placet.client.heads import RollbackProof, check_rollback_proof
from placet.client.vault_client import VaultClient
from placet.core.continuity import ForkProof, check_fork_proof
from placet.core.profile import code_id
from placet.errors import NotApprovedError, RolledBackError, VerificationError
from placet.policy.charter import replay

SCRIPT = Path(__file__).parents[2] / "tools" / "check_fork_proof.py"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Five vaults (k = 3), and an app whose volume is formatted and remembers nothing yet."""
    async with founded(tmp_path) as made:
        await made.unlock(v(1))
        yield made


def memory(world: World) -> Memory:
    """Return what is remembered."""
    return msgspec.json.decode((world.folder / "volume" / MEMORY).read_bytes(), type=Memory)


def proofs(world: World) -> list[Path]:
    """Return the proofs in the volume, each of which the stand-alone script takes."""
    found = sorted((world.folder / "volume").glob("placet-proof-*.json"))
    for path in found:
        command = [sys.executable, "-I", str(SCRIPT), str(path)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    return found


def asked_last(monkeypatch: pytest.MonkeyPatch, last: str, *, after: str) -> None:
    """Let one vault's release be asked for once another one answered."""
    answered, real = asyncio.Event(), VaultClient.release

    async def release(self: VaultClient, *arguments: Any) -> Any:
        if self.id == last:
            await answered.wait()
        try:
            return await real(self, *arguments)
        finally:
            if self.id == after:
                answered.set()

    monkeypatch.setattr(VaultClient, "release", release)


@pytest.mark.req("I6", "R2.1")
async def test_vaults_that_were_put_back_together_do_not_start_the_app(world: World) -> None:
    """Three of five, to before a retire, the others away: each is genuine, and the app saw more."""
    disks = {n: await world.disk(n) for n in (1, 2, 3)}
    await world.promote(v(2))
    policy = replay(world.statements)
    retire = composer(HostClock().now()).retire(policy, code_id(v(1).profile()), "bad")
    assert (await world.submit(signed(retire))).effective
    await world.unlock(v(2))
    await world.stop(4, 5)
    for number, disk in disks.items():
        await world.put_back(number, disk)
    with pytest.raises(RolledBackError) as refused:
        await world.unlock(v(1))
    assert refused.value.members["behind"]
    # Two that are as far bring the others what they lack: the retire holds again.
    await world.start(4)
    await world.start(5)
    with pytest.raises(NotApprovedError):
        await world.unlock(v(1))


@pytest.mark.req("R2.1", "R2.4")
async def test_one_vault_was_put_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement is lacking: the log says it. It counts no more; k others start the app."""
    ids = world.vault_set.ids
    disk = await world.disk(1)
    await world.stop(4, 5)
    for _ in range(4):
        secret = (await world.unlock(v(1))).secret
    assert {log.vault for log in memory(world).logs} == set(ids[:3])
    before = memory(world)
    await world.put_back(1, disk)
    with pytest.raises(RolledBackError) as refused:
        await world.unlock(v(1))
    assert refused.value.members["behind"] == [ids[0]]
    assert memory(world) == before
    [path] = proofs(world)
    check_rollback_proof(msgspec.json.decode(path.read_bytes(), type=RollbackProof))
    assert any(ids[0] in said and "older disk" in said for said in world.said)
    # With a fourth vault there are k without it, though it is among those that released first.
    await world.start(4)
    asked_last(monkeypatch, ids[2], after=ids[0])
    world.said.clear()
    assert (await world.unlock(v(1))).secret == secret
    assert f"vault {ids[0]} is behind what this app saw of it" in world.said
    assert [log for log in memory(world).logs if log.vault == ids[0]] == [
        log for log in before.logs if log.vault == ids[0]
    ]


@pytest.mark.req("R2.4")
async def test_a_vault_that_forked_signs_the_proof_of_it(world: World) -> None:
    """Put back, and its log grown past what was remembered, by another volume's starts."""
    ids = world.vault_set.ids
    await world.stop(4, 5)
    disk = await world.disk(1)
    await world.unlock(v(1))
    seen = world.up[1][1].log.head()[0]
    await world.put_back(1, disk)
    while world.up[1][1].log.head()[0] <= seen:
        await world.unlock(v(1), "another")
    for _ in range(2):  # and it stays out
        with pytest.raises(RolledBackError) as refused:
            await world.unlock(v(1))
        assert refused.value.members["behind"] == [ids[0]]
    [path] = proofs(world)
    proof = msgspec.json.decode(path.read_bytes(), type=ForkProof)
    first, second = check_fork_proof(proof)
    assert (proof.vault, first.size) == (ids[0], second.size)
    await world.start(4)
    await world.start(5)
    await world.stop(1)
    assert (await world.unlock(v(1))).secret


async def test_another_instance_remembers_more_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the slower one saw is compared again, with what the faster one did; all of it stays."""
    real, compared, between = Comparing.compare, list[Memory](), list[Memory]()

    async def compare(self: Comparing, shown: Any) -> Compared:
        compared.append(self.memory)
        found = await real(self, shown)
        if len(compared) == 1:
            await world.unlock(v(1))
            between.append(memory(world))
        return found

    monkeypatch.setattr(Comparing, "compare", compare)
    await world.unlock(v(1))
    first, faster, again = compared
    assert (first.logs, faster.logs) == ((), ())
    assert between == [again]
    vaults = [log.vault for log in memory(world).logs]
    assert {log.vault for log in again.logs} <= set(vaults)
    assert len(vaults) == len(set(vaults))


async def test_the_platform_edits_the_memory(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent says so and ends; the child is not started, and nothing is written over it."""
    await world.unlock(v(1))
    path = world.folder / "volume" / MEMORY
    whole = path.read_bytes()
    edited = whole.replace(b'"version":1', b'"version":0')
    argv = ["--key", world.key, "--volume", str(path.parent), "--charter", str(world.charter())]
    argv += ["--", "true"]
    started = list[list[str]]()
    monkeypatch.setattr(agent_main, "open_producer", lambda: v(1))
    monkeypatch.setattr(agent_main, "run_child", lambda command, *_: started.append(command) or 7)
    for content in (edited, None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(VerificationError) as refused:
            await world.unlock(v(1))
        assert refused.value.members["reason"] == "memory"
        assert await asyncio.to_thread(agent_main.main, argv) == agent_main.DENIED
        assert "verification-failed" in capsys.readouterr().err
        assert (path.read_bytes() if path.exists() else None) == content
        path.write_bytes(whole)
    assert not started
    assert await asyncio.to_thread(agent_main.main, argv) == 7
    assert started == [["true"]]
