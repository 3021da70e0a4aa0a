"""Who follows a charter to newer vault releases, and who cannot be led astray (spec/12, 1)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import msgspec
import pytest
from placet_testing.charters import birth_body, composer, owner_of, person, signed
from placet_testing.serving import Served, serving, trust, vault_set_of
from placet_testing.tee import Tee, dev_pki, vault_config, workload_config

from placet.agent.unlock import Agent
from placet.agent.volume import EmbeddedVolume, Unlocked
from placet.client.clock import HostClock
from placet.client.constellation import Constellation
from placet.client.following import CharterCopy, open_charter
from placet.client.vault_client import Connector, renewed_contexts
from placet.client.vaults_file import VaultsFile
from placet.core.encoding import encode
from placet.core.messages import CourierItem
from placet.core.profile import Profile, VaultSet
from placet.core.signer import owner_fingerprint
from placet.core.statement import UntrustedStatement
from placet.errors import QuorumError, VaultReleaseError, VerificationError
from placet.platform.relay import Relay
from placet.policy.charter import replay

OWNER = owner_of(person("owner").signer)
CONFIG = workload_config(owner_fingerprint(OWNER))
N, K = 5, 3


def release(number: int) -> Profile:
    """Return the profile of a vault release."""
    return Tee(vault_config(), version=number).profile()


class World:
    """Five vaults with one key, which may run release 1 or another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.up: dict[int, tuple[contextlib.AsyncExitStack, Served]] = {}
        self.ports: dict[int, int] = {}
        self.statements: list[UntrustedStatement] = []
        self.vault_set: VaultSet

    async def start(self, *numbers: int, release: int = 1) -> None:
        """Start vaults, each on the port that it had."""
        for number in numbers:
            stack = contextlib.AsyncExitStack()
            at = self.ports.get(number, 0)
            served = await stack.enter_async_context(
                serving(self.folder, number, port=at, release=release)
            )
            self.up[number], self.ports[number] = (stack, served), served.port

    async def stop(self, *numbers: int) -> None:
        """Stop vaults."""
        for number in numbers or tuple(self.up):
            await self.up.pop(number)[0].aclose()

    async def upgrade(self, *numbers: int, to: int = 2) -> None:
        """Have vaults run another release."""
        await self.stop(*numbers)
        await self.start(*numbers, release=to)

    @property
    def key(self) -> str:
        """Return the key id."""
        return self.statements[0].digest

    def connect(self, vault_set: VaultSet | None = None) -> Constellation:
        """Return a visitor's constellation, of the birth's vault set unless told otherwise."""
        clock = HostClock()
        connector = Connector(
            prover=None, clock=clock, rng=os.urandom, contexts=renewed_contexts(clock)
        )
        return Constellation.connect(
            vault_set or self.vault_set, connector, trust=trust(), deadline=5, key=self.key
        )

    async def submit(self, sent: UntrustedStatement) -> int:
        """Bring a statement to the vaults; return at how many it is in force."""
        vaults = self.connect()
        try:
            report = await vaults.submit(sent.signed())
        finally:
            vaults.close()
        if report.effective:
            self.statements.append(sent)
        return len(report.confirmed)

    def add(self, *numbers: int, by: Sequence[str] = ("owner",)) -> UntrustedStatement:
        """Return the statement that adds vault releases."""
        policy = replay(self.statements)
        added = tuple(map(release, numbers))
        return signed(
            composer(HostClock().now(), seed=f"add {numbers}").update(
                policy, policy.rules, "vaults", vault_profiles=added
            ),
            *by,
        )

    async def items(self) -> tuple[CourierItem, ...]:
        """Return the charter with everybody's receipts, as an honest platform passes it."""
        vaults = self.connect()
        try:
            return (await vaults.read_charter(self.key)).items
        finally:
            vaults.close()

    def copy(self, items: Iterable[CourierItem]) -> Path:
        """Write a charter as a platform leaves it for a workload."""
        path = self.folder / "charter.json"
        path.write_bytes(encode(CharterCopy(chain=tuple(items))))
        return path

    def birth(self) -> tuple[CourierItem, ...]:
        """Return a charter of the birth alone."""
        return (CourierItem(signed=self.statements[0].signed(), receipts=()),)

    async def unlock(self, items: Iterable[CourierItem]) -> Unlocked:
        """Boot the workload with this copy of the charter."""
        agent = Agent(
            producer=Tee(CONFIG, version=1, boot=f"boot-{os.urandom(4).hex()}"),
            clock=HostClock(),
            rng=os.urandom,
            instance=f"w-{os.urandom(4).hex()}",
            tell=lambda _: None,
        )
        volume = EmbeddedVolume(self.folder / "volume")
        return await agent.unlock(self.key, self.copy(items), volume)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Five vaults of release 1 (k = 3) and a key that was born and created."""
    made = World(tmp_path)
    await made.start(*range(1, N + 1))
    made.vault_set = vault_set_of(*(s for _, s in made.up.values()), k=K)
    app = Tee(CONFIG, version=1).profile()
    body = birth_body(OWNER, profiles=(app,), vaults=made.vault_set)
    made.statements.append(signed(composer(HostClock().now()).birth(body)))
    vaults = made.connect()
    assert (await vaults.submit(made.statements[0].signed())).effective
    vaults.close()
    await made.unlock(made.birth())
    yield made
    await made.stop()


@pytest.mark.req("I8")
async def test_a_release_that_the_owner_added_is_accepted_and_no_other(world: World) -> None:
    """All vaults run release 2: by the whole charter yes; release 3, which nobody added: no."""
    first = await world.unlock(world.birth())
    assert await world.submit(world.add(2)) == N
    whole = await world.items()
    await world.upgrade(*range(1, N + 1))
    assert (await world.unlock(whole)).secret == first.secret
    await world.upgrade(1, 2, 3, to=3)
    with pytest.raises(VaultReleaseError) as refused:
        await world.unlock(whole)
    assert refused.value.members["code"]
    await world.upgrade(3, to=2)
    assert (await world.unlock(whole)).secret == first.secret


async def test_an_old_copy_is_made_newer_by_any_k_vaults_that_it_names(world: World) -> None:
    """Two vaults run release 2, and the copy is of the birth alone: the other three tell."""
    first = await world.unlock(world.birth())
    await world.submit(world.add(2))
    await world.upgrade(1, 2)
    await world.stop(5)
    assert (await world.unlock(world.birth())).secret == first.secret


@pytest.mark.req("I9")
async def test_with_all_vaults_newer_than_the_copy_it_says_what_to_pass(world: World) -> None:
    """Typed, it names the way out, and nothing is created."""
    await world.submit(world.add(2))
    await world.upgrade(*range(1, N + 1))
    with pytest.raises(VaultReleaseError) as refused:
        await world.unlock(world.birth())
    assert "--charter" in refused.value.hint
    assert refused.value.type == "vault-release-unknown"


@pytest.mark.req("I2")
async def test_what_a_platform_writes_into_the_copy_makes_it_older_never_wrong(
    world: World,
) -> None:
    """Releases added by strangers, by nobody, for another key, or by a dead statement."""
    first = await world.unlock(world.birth())
    birth = world.birth()
    now = HostClock().now()
    policy = replay(world.statements)
    add = {"vault_profiles": (release(3),)}
    by_platform = world.add(3, by=("platform",))
    by_nobody = composer(now).update(policy, policy.rules, "mine", **add)  # type: ignore[arg-type]
    long_ago = composer(now - 3 * 24 * 3600).update(policy, policy.rules, "old", **add)  # type: ignore[arg-type]
    other = birth_body(
        OWNER,
        profiles=policy.approvals[0].profile and (policy.approvals[0].profile,),
        vaults=world.vault_set,
    )
    elsewhere = replay([signed(composer(now, seed="other").birth(other))])
    for_other = signed(composer(now).update(elsewhere, elsewhere.rules, "other", **add))  # type: ignore[arg-type]
    receipts = (await world.items())[0].receipts
    await world.upgrade(1, 2, 3, to=3)
    for lie in (by_platform, by_nobody, signed(long_ago), for_other):
        # Receipts for another statement vouch for nothing.
        copy = (*birth, CourierItem(signed=lie.signed(), receipts=receipts))
        assert open_charter(world.key, copy, now=now).vault_set == world.vault_set
        with pytest.raises(VaultReleaseError):
            await world.unlock(copy)
    await world.upgrade(1, 2, 3, to=1)
    for lie in (by_platform, for_other):
        copy = (*birth, CourierItem(signed=lie.signed(), receipts=receipts))
        assert (await world.unlock(copy)).secret == first.secret


async def test_the_charter_of_another_key_is_refused(world: World) -> None:
    """Even under the same owner, and with the right vaults."""
    app = Tee(CONFIG, version=1).profile()
    body = birth_body(OWNER, profiles=(app,), vaults=world.vault_set)
    other = signed(composer(HostClock().now(), seed="second").birth(body))
    with pytest.raises(VerificationError):
        await world.unlock([CourierItem(signed=other.signed(), receipts=())])


async def test_tools_follow_while_they_work(world: World) -> None:
    """A visitor with the birth's set reads, submits and reaches all five, two of them newer."""
    await world.submit(world.add(2))
    await world.upgrade(4, 5)
    vaults = world.connect()
    try:
        outcomes = await vaults.fan_out(lambda v: v.log(world.key))
        assert len(outcomes.values) == N
        assert set(vaults.vault_set.profiles) == {release(1), release(2)}
        assert vaults.view is not None
        assert vaults.view.policy.version == 2
    finally:
        vaults.close()
    assert await world.submit(world.add(4)) == N


async def test_a_vault_that_moved_is_found_by_the_phonebook(world: World) -> None:
    """An endpoint that the caller knows better goes before the charter's, and stays so."""
    await world.submit(world.add(2))
    await world.stop(1)
    world.ports.pop(1)
    await world.start(1, release=2)
    vault = world.vault_set.ids[0]
    clock = HostClock()
    connector = Connector(
        prover=None, clock=clock, rng=os.urandom, contexts=renewed_contexts(clock)
    )
    vaults = Constellation.connect(
        world.vault_set,
        connector,
        trust=trust(),
        moved={vault: f"127.0.0.1:{world.ports[1]}"},
        key=world.key,
    )
    try:
        view, outcomes = await vaults.read_charters(world.key)
    finally:
        vaults.close()
    assert len(outcomes.values) == N
    assert view.policy.version == 2


async def test_the_relay_follows_a_charter_that_it_carries(world: World) -> None:
    """The platform's vaults file is of release 1; a charter shows it release 2."""
    relay = Relay(
        VaultsFile(
            k=K,
            vaults=world.vault_set.vaults,
            profiles=world.vault_set.profiles,
            trust_roots=(dev_pki().trust_root(),),
        )
    )
    try:
        await world.submit(world.add(2))
        await world.upgrade(1, 2)
        copy = await relay.charter(world.key)
        assert [len(i.receipts) for i in copy.chain] == [N, N]
        answers = await relay.send("GET", f"/v1/keys/{world.key}/charter")
        assert [a.status for a in answers] == [200] * N
        await world.upgrade(3, 4, 5)
        assert (await world.unlock((await relay.charter(world.key)).chain)).secret
    finally:
        relay.close()


async def test_a_relay_that_never_saw_the_statement_says_so(world: World) -> None:
    """All vaults are newer than its vaults file; a copy that it kept helps."""
    file = VaultsFile(
        k=K,
        vaults=world.vault_set.vaults,
        profiles=world.vault_set.profiles,
        trust_roots=(dev_pki().trust_root(),),
    )
    await world.submit(world.add(2))
    kept = await world.items()
    await world.upgrade(*range(1, N + 1))
    relay = Relay(file)
    try:
        with pytest.raises(VaultReleaseError):
            await relay.charter(world.key)
        assert relay.follow(world.key, kept)
        assert not relay.follow(world.key, kept)
        assert len((await relay.charter(world.key)).chain) == 2
    finally:
        relay.close()


async def test_too_few_vaults_of_known_releases_is_unavailable(world: World) -> None:
    """Two run what nobody named and one is down: which is which is said of each."""
    await world.upgrade(1, 2, to=3)
    await world.stop(3)
    with pytest.raises(QuorumError) as refused:
        await world.unlock(world.birth())
    became = [v["became"] for v in msgspec.convert(refused.value.members["vaults"], list[dict])]
    assert sorted(became) == ["unavailable", "vault-release-unknown", "vault-release-unknown"]
