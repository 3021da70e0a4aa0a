"""A vault's own upgrade over real channels: what moves, what stays, and who gets nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from placet_testing.charters import birth_body, composer, owner_of, person, signed
from placet_testing.exports import write
from placet_testing.releases import CONFIG, OWNER, K, N, World, release, releases
from placet_testing.serving import Served, serving, trust
from placet_testing.tee import Tee, dev_pki, vault_config

from placet.attest.verify import verify_evidence
from placet.cli.trail import read_trail
from placet.client.clock import HostClock
from placet.client.export import fetch, lines
from placet.client.following import open_charter
from placet.client.vaults_file import VaultsFile
from placet.core.attestation import CertificateClaims, Context, Evidence, report_data
from placet.core.dsse import open_signed
from placet.core.handover import HandOverConfirm, HandOverConfirmed, HandOverRequest
from placet.core.messages import CourierItem, Taken, TakeRequest
from placet.core.profile import code_id
from placet.core.signer import Threshold
from placet.core.statement import UntrustedStatement
from placet.errors import (
    BindingError,
    HandedOverError,
    NotApprovedError,
    PlacetError,
    PolicyDeniedError,
    RoleDeniedError,
    UnavailableError,
)
from placet.platform.relay import Relay
from placet.policy.charter import replay
from placet.ratls import exchange as channel
from placet.ratls.exchange import ExpectVault, WorkloadProver
from placet.vault.predecessor import Predecessor
from placet_audit.audit import audit
from placet_audit.export import read_exports

LINE = "00112233445566ff"
DEADLINE = 20


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Five vaults of release 1 (k = 3) and a key that was born and created."""
    async with releases(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def upgraded(world: World, *numbers: int, to: int = 2) -> AsyncIterator[list[Served]]:
    """Start a new release beside vaults, and wait until each took over what it may have."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for number in numbers:
            old = f"127.0.0.1:{world.ports[number]}"
            new = serving(world.folder, number, release=to, adopt=old)
            made.append(await asyncio.wait_for(stack.enter_async_context(new), DEADLINE))
        for one in made:
            assert one.adoption is not None
            await asyncio.wait_for(one.adoption.caught_up.wait(), DEADLINE)
        yield made


def predecessor(world: World, tee: Tee | None = None, number: int = 1) -> Predecessor:
    """Return a way to a vault, as somebody who says that he takes over for it."""
    tee = tee or Tee(vault_config(), version=2)
    return Predecessor(
        f"127.0.0.1:{world.ports[number]}",
        vault=None,
        producer=tee,
        release=lambda: code_id(tee.profile()),
        trust=trust(),
        verify=verify_evidence,
        clock=HostClock(),
        rng=os.urandom,
    )


def old(world: World, number: int = 1) -> Served:
    """Return the process that a vault had from the start."""
    return world.up[number][1]


def kinds(served: Served, key: str) -> list[str]:
    """Return what a vault logged of a key."""
    return [one.entry.kind for one in served.log.of_key(key)]


async def born(world: World, name: str) -> UntrustedStatement:
    """Return another key, of a label of its own, of an owner who added nothing."""
    app = Tee(CONFIG, version=1).profile()
    body = birth_body(OWNER, profiles=(app,), vaults=world.vault_set, label=f"notes/{name}")
    birth = signed(composer(HostClock().now(), seed=name).birth(body))
    vaults = world.connect()
    try:
        assert (await vaults.submit(birth.signed())).effective
    finally:
        vaults.close()
    return birth


# --- what moves -----------------------------------------------------------------------------


@pytest.mark.req("I16")
async def test_all_vaults_are_upgraded_while_the_app_and_the_owner_go_on(world: World) -> None:
    """One after the other lets go; boots, statements and the platform's relay never fail."""
    first = await world.unlock(world.birth())
    assert await world.submit(world.add(2)) == N
    relay = Relay(
        VaultsFile(
            k=K,
            vaults=world.vault_set.vaults,
            profiles=world.vault_set.profiles,
            trust_roots=(dev_pki().trust_root(),),
        )
    )
    try:
        async with contextlib.AsyncExitStack() as stack:
            for number in range(1, N + 1):
                [new] = await stack.enter_async_context(upgraded(world, number))
                assert new.identity.id == old(world, number).identity.id
                copy = await relay.charter(world.key)
                assert (await world.unlock(copy.chain)).secret == first.secret
                assert len(copy.chain[1].receipts) == N
            # Nothing is left with the old ones, and the new ones take statements.
            for number in range(1, N + 1):
                with pytest.raises(HandedOverError):
                    old(world, number).vault.charter(world.key)
            copy = await relay.charter(world.key)
            world.vault_set = open_charter(world.key, copy.chain, now=HostClock().now()).vault_set
            assert await world.submit(world.add(4)) == N
            assert (await world.unlock(copy.chain)).secret == first.secret
    finally:
        relay.close()


@pytest.mark.req("I8")
async def test_a_key_whose_owner_did_not_add_it_stays_where_it_is(world: World) -> None:
    """Two processes of one vault, each with other keys; neither serves what is the other's."""
    stays = await born(world, "stays")
    await world.submit(world.add(2))
    async with upgraded(world, 1) as [new]:
        assert old(world).vault.charter(stays.digest).version == 1
        with pytest.raises(PlacetError):
            new.vault.charter(stays.digest)
        with pytest.raises(HandedOverError) as moved:
            old(world).vault.charter(world.key)
        assert moved.value.members["endpoint"] == f"127.0.0.1:{new.port}"
        assert moved.value.members["line"] == new.identity.line
        # Two logs of one vault, told apart by name.
        assert new.identity.origin == f"{old(world).identity.origin}/{new.identity.line}"
        assert new.log.head() != old(world).log.head()


async def test_who_adds_it_later_is_followed(world: World) -> None:
    """The new process goes on looking: the second key comes when its owner says so."""
    later = await born(world, "later")
    await world.submit(world.add(2))
    async with upgraded(world, 1) as [new]:
        policy = replay([later])
        update = composer(HostClock().now(), seed="later").update(
            policy, policy.rules, "me too", vault_profiles=(release(2),)
        )
        vaults = world.connect()
        try:
            await vaults.submit(signed(update).signed())
        finally:
            vaults.close()
        assert new.adoption is not None
        async with asyncio.timeout(DEADLINE):
            while new.adoption.taken < 2:  # noqa: ASYNC110 - a counter, of a loop that sleeps
                await asyncio.sleep(0.05)
        assert new.vault.charter(later.digest).version == 2


async def test_reviewers_may_add_a_vault_release_and_nothing_else(tmp_path: Path) -> None:
    """M named reviewers sign in the owner's place; one of them alone, or the platform, does not."""
    reviewers = Threshold(
        label="reviewers", threshold=2, of=tuple(person(f"rev {i}").signer for i in range(3))
    )
    async with releases(tmp_path, reviewers) as world:
        assert await world.submit(world.add(2, by=("rev 0",))) == 0
        assert await world.submit(world.add(2, by=("rev 0", "platform"))) == 0
        async with predecessor_of(world) as asked:
            assert (await asked.list(0)).keys == ()
        assert await world.submit(world.add(2, by=("rev 0", "rev 2"))) == N
        async with upgraded(world, 1) as [new]:
            assert kinds(new, world.key) == ["taken-over", "carried", "carried"]
            policy = replay(world.statements)
            rules = msgspec.structs.replace(policy.rules, stagers=())
            theirs = composer(HostClock().now(), seed="more").update(
                policy, rules, "and more", vault_profiles=(release(3),)
            )
            assert await world.submit(signed(theirs, "rev 0", "rev 1")) == 0


@contextlib.asynccontextmanager
async def predecessor_of(world: World, tee: Tee | None = None) -> AsyncIterator[Predecessor]:
    """Return `predecessor`, closed at the end."""
    asked = predecessor(world, tee)
    try:
        yield asked
    finally:
        asked.close()


async def test_the_trail_goes_on_in_a_log_of_its_own(world: World) -> None:
    """The owner's tool reads it; receipts say which log their index is of."""
    await world.submit(world.add(2))
    async with upgraded(world, 1) as [new]:
        vaults = world.connect()
        try:
            outcomes = await vaults.fan_out(
                lambda v: read_trail(v, world.key), only=[new.identity.id]
            )
        finally:
            vaults.close()
        trail = outcomes.values[new.identity.id]
        assert trail.checkpoint.origin == new.identity.origin
        assert [e.kind for e in trail.entries] == ["taken-over", "carried", "carried"]
        assert await world.submit(world.add(4)) == N
        receipts = new.vault.charter(world.key).charter
        taken = [open_signed(i.receipts[0], Taken, vault=new.identity.id) for i in receipts]
        assert [t.line for t in taken] == [msgspec.UNSET, msgspec.UNSET, new.identity.line]
        assert "line" not in kinds(old(world), world.key)


@pytest.mark.req("R7.1")
async def test_the_auditor_reads_both_logs_of_an_upgraded_vault(world: World) -> None:
    """Exports from before and after: each release is justified, in whichever log it stands."""
    await world.submit(world.add(2))
    before = await exported(world, "before.jsonl")
    async with upgraded(world, 1, 2) as new:
        await world.stop(4, 5)
        await world.unlock(world.birth())
        await world.start(4, 5)
        assert await world.submit(world.add(4)) == N
        after = await exported(world, "after.jsonl")
    found = audit(read_exports([before, after]))
    assert found.findings == []
    assert [r.trail.line for r in found.replays.values()][:2] == [n.identity.line for n in new]
    counted = [len(r.releases) for r in found.replays.values()]
    assert counted == [1, 1, 1, 0, 0]
    assert all(r.justified for replay in found.logs.values() for r in replay.releases)
    # Only what the newer process logged of a statement makes it known there.
    rows = [json.loads(line) for line in after.read_bytes().splitlines()]
    spoiled = [r for r in rows if r["record"] != "statement" or r["place"] != "charter"]
    assert audit(read_exports([write(world.folder / "spoiled.jsonl", spoiled)])).findings


async def exported(world: World, name: str) -> Path:
    """Write what all vaults show of the key to a file, wherever they send us."""
    vaults = world.connect()
    try:
        outcomes = await vaults.fan_out(lambda v: fetch(v, world.key, hashes=True))
    finally:
        vaults.close()
    assert len(outcomes.values) == N
    rows = [
        json.loads(raw)
        for one in outcomes.values.values()
        for raw in lines(one, at=HostClock().now())
    ]
    return write(world.folder / name, rows)


async def test_a_creation_under_way_is_finished_by_the_new_process(world: World) -> None:
    """A key that was held and not committed when its vault was upgraded is made all the same."""
    stays = await born(world, "fresh")
    policy = replay([stays])
    update = composer(HostClock().now(), seed="fresh").update(
        policy, policy.rules, "early", vault_profiles=(release(2),)
    )
    vaults = world.connect()
    try:
        await vaults.submit(signed(update).signed())
    finally:
        vaults.close()
    async with upgraded(world, 1) as [new]:
        assert new.vault.charter(stays.digest).manifest is None


# --- who gets nothing -------------------------------------------------------------------------


@pytest.mark.req("I1")
@pytest.mark.req("I2")
async def test_without_the_owners_statement_nothing_moves(world: World) -> None:
    """The platform runs any build of the vault and asks: refused, logged, still served here."""
    first = await world.unlock(world.birth())
    for number in (2, 3):
        async with predecessor_of(world, Tee(vault_config(), version=number)) as asked:
            assert (await asked.list(0)).keys == ()
            with pytest.raises(NotApprovedError) as refused:
                await asked.fetch(world.key, LINE, "127.0.0.1:1")
            assert "--add-vault-release" in refused.value.hint
    await world.submit(world.add(2))
    async with predecessor_of(world, Tee(vault_config(), version=3)) as asked:
        with pytest.raises(NotApprovedError):
            await asked.fetch(world.key, LINE, "127.0.0.1:1")
    assert "handed-over" not in kinds(old(world), world.key)
    assert kinds(old(world), world.key).count("denied") == 3
    await world.stop(4, 5)
    assert (await world.unlock(world.birth())).secret == first.secret


async def test_nothing_waits_for_ever_that_nobody_allows(world: World) -> None:
    """A new process whose release no owner added does not come up, and holds no identity."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(
            serving(world.folder, 1, release=2, adopt=f"127.0.0.1:{world.ports[1]}").__aenter__(),
            1.0,
        )
    assert kinds(old(world), world.key) == ["taken", "promised", "held", "committed"]


@pytest.mark.req("I5")
@pytest.mark.parametrize("number", [1, 2])
async def test_a_record_goes_forward_only(world: World, number: int) -> None:
    """Not to the same release, and not back to an older one: the owner named it earlier."""
    await world.submit(world.add(2))
    async with upgraded(world, 1) as [new]:
        world.ports[1], kept = new.port, world.ports[1]
        async with predecessor_of(world, Tee(vault_config(), version=number)) as asked:
            assert (await asked.list(0)).keys == ()
            with pytest.raises(PolicyDeniedError) as refused:
                await asked.fetch(world.key, LINE, "127.0.0.1:1")
            assert refused.value.members["reason"] == "not-newer"
        world.ports[1] = kept


async def test_who_has_it_hands_it_on_to_the_next_release(world: World) -> None:
    """From release 1 to 2 to 4, each over its own channel; the app follows both."""
    first = await world.unlock(world.birth())
    await world.submit(world.add(2, 4))
    async with upgraded(world, 1) as [second]:
        kept, world.ports[1] = world.ports[1], second.port
        async with upgraded(world, 1, to=4) as [third]:
            world.ports[1] = kept
            with pytest.raises(HandedOverError):
                second.vault.charter(world.key)
            await world.stop(4, 5)
            assert (await world.unlock(world.birth())).secret == first.secret
            assert "release" in kinds(third, world.key)


class Liar(Tee):
    """A TEE that signs whatever its process says, for attacks from stolen quoting keys."""

    change: Callable[[Context], Context]

    def quote(self, context: Context) -> Evidence:
        """Sign something else than what this process is."""
        return self.quoter(self.bundle.measurement, report_data(self.change(context)))

    def certificate_quote(self, claims: CertificateClaims) -> Evidence:
        """Sign anything."""
        return self.quoter(self.bundle.measurement, report_data(claims))


@pytest.mark.req("R1.2")
async def test_a_workloads_evidence_takes_nothing_over(world: World) -> None:
    """Not as a workload, and not by quotes that its own software would never ask for."""
    await world.submit(world.add(2))
    app = Tee(CONFIG, version=1)
    with pytest.raises(RoleDeniedError):
        async with predecessor_of(world, app) as asked:
            await asked.fetch(world.key, LINE, "127.0.0.1:1")
    lying = Liar(CONFIG, version=1)
    lying.change = lambda context: context
    async with predecessor_of(world, lying) as asked:
        with pytest.raises(NotApprovedError):
            await asked.fetch(world.key, LINE, "127.0.0.1:1")
    vaults = world.connect()
    prover = WorkloadProver(producer=app, instance="w", purpose="release", keys=(world.key,))
    try:
        assert vaults._reach is not None
        connector = replace(vaults._reach.connector, prover=prover)
        client = connector.vault(vaults.vaults[0].endpoint, vaults_expect(world))
        for peer in (client, vaults.vaults[0]):
            for path, body in _requests(world):
                with pytest.raises(RoleDeniedError):
                    await peer._ask("POST", path, HandOverConfirmed, body)
        client.close()
    finally:
        vaults.close()
    assert "handed-over" not in kinds(old(world), world.key)


def vaults_expect(world: World, number: int = 1) -> ExpectVault:
    """Return what a client expects of a vault."""
    return ExpectVault(
        id=old(world, number).identity.id, profiles=world.vault_set.profiles, trust=trust()
    )


def _requests(world: World) -> list[tuple[str, msgspec.Struct]]:
    path = f"/v1/keys/{world.key}/hand-over"
    return [
        (path, HandOverRequest(line=LINE, endpoint="127.0.0.1:1", offset=0)),
        (f"{path}/confirm", HandOverConfirm(line=LINE, digest=world.key)),
    ]


@pytest.mark.req("R1.1")
@pytest.mark.req("R1.3")
@pytest.mark.parametrize(
    "change",
    [
        {"role": "workload"},
        {"role": "vault"},
        {"direction": "server"},
        {"purpose": "release"},
        {"spki": "sha256:" + "00" * 32},
        {"peer_spki": "sha256:" + "00" * 32},
        {"instance": "sha256:" + "00" * 32},
        {"exporter": "A" * 43},
        {"verifier_nonce": "A" * 43},
        {"boot": "another"},
    ],
    ids=lambda c: next(iter(c)) + " " + str(next(iter(c.values())))[:8],
)
async def test_evidence_for_anything_else_takes_nothing_over(
    world: World, change: dict[str, str]
) -> None:
    """Each field that binds a resharer to this vault and this channel is load-bearing."""
    await world.submit(world.add(2))
    lying = Liar(vault_config(), version=2)
    lying.change = lambda context: msgspec.structs.replace(context, **change)  # type: ignore[arg-type]
    async with predecessor_of(world, lying) as asked:
        with pytest.raises((BindingError, PlacetError)) as refused:
            await asked.list(0)
    assert isinstance(refused.value, BindingError), refused.value
    assert "handed-over" not in kinds(old(world), world.key)


@pytest.mark.req("R1.2")
async def test_a_process_that_takes_over_for_another_vault_is_refused(world: World) -> None:
    """Genuine evidence, of the right release, that names vault 2: vault 1 gives nothing."""
    await world.submit(world.add(2))
    other = old(world, 2).identity.id
    lying = Liar(vault_config(), version=2)
    lying.change = lambda context: context
    asked = predecessor(world, lying)
    real = channel._claims

    def claims(about: object, instance: str, purpose: object, keys: object) -> object:
        return real(about, other if purpose == "reshare" else instance, purpose, keys)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "_claims", claims)
        with pytest.raises(BindingError, match="take over for vault"):
            await asked.fetch(world.key, LINE, "127.0.0.1:1")
    asked.close()
    assert "handed-over" not in kinds(old(world), world.key)


@pytest.mark.req("I14")
async def test_a_request_repeated_by_another_after_the_confirmation_gets_nothing(
    world: World,
) -> None:
    """Same release, another process: told where the key is. The package is gone."""
    await world.submit(world.add(2))
    async with upgraded(world, 1) as [new], predecessor_of(world) as asked:
        with pytest.raises(HandedOverError) as moved:
            await asked.fetch(world.key, LINE, "127.0.0.1:1")
        assert moved.value.members["line"] == new.identity.line
        checked = (await asked.fetch(world.key, new.identity.line, "127.0.0.1:1")).checked
        assert checked is None
        store = old(world).vault._store
        assert store.get(f"handed/{world.key}") is None
        record = old(world).vault._keys.get(world.key).record
        assert (record.committed, record.held) == (None, ())


async def test_a_new_process_takes_no_key_that_the_old_one_may_have(world: World) -> None:
    """A courier that brings it the birth of such a key is refused; a key of its own is taken."""
    stays = await born(world, "stays")
    await world.submit(world.add(2))
    async with upgraded(world, 1) as [new]:
        chain = (CourierItem(signed=stays.signed(), receipts=()),)
        with pytest.raises(PolicyDeniedError) as refused:
            new.vault.take(TakeRequest(chain=chain))
        assert refused.value.members["reason"] == "vault-release"
        newer = msgspec.structs.replace(world.vault_set, profiles=(release(2),))
        app = Tee(CONFIG, version=1).profile()
        body = birth_body(owner_of(person("owner").signer), profiles=(app,), vaults=newer)
        birth = signed(composer(HostClock().now(), seed="new").birth(body))
        chain = (CourierItem(signed=birth.signed(), receipts=()),)
        assert new.vault.take(TakeRequest(chain=chain)).version == 1


async def test_a_vault_that_sends_its_clients_nowhere_is_a_vault_that_is_away(
    world: World,
) -> None:
    """The new process is down: others give the key; with too few left, it is unavailable."""
    first = await world.unlock(world.birth())
    await world.submit(world.add(2))
    async with upgraded(world, 1, 2):
        pass
    assert (await world.unlock(world.birth())).secret == first.secret
    await world.stop(5)
    with pytest.raises(UnavailableError):
        await world.unlock(world.birth())
