"""Who follows a charter to newer vault releases, and who cannot be led astray (spec/12, 1)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from placet_testing.charters import birth_body, composer, signed
from placet_testing.releases import CONFIG, OWNER, K, N, World, release, releases
from placet_testing.serving import trust
from placet_testing.tee import Tee, dev_pki

from placet.client.clock import HostClock
from placet.client.constellation import Constellation
from placet.client.following import open_charter
from placet.client.vault_client import Connector, renewed_contexts
from placet.client.vaults_file import VaultsFile
from placet.core.messages import CourierItem
from placet.errors import QuorumError, VaultReleaseError, VerificationError
from placet.platform.relay import Relay
from placet.policy.charter import replay


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Five vaults of release 1 (k = 3) and a key that was born and created."""
    async with releases(tmp_path) as made:
        yield made


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
