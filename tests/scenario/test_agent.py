"""The agent against five served vaults: first boot, boot, upgrade, outages, a hostile platform.

Real sockets, real quotes, real sealed stores; only the launcher and processes are left
to tests/e2e.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import sys
from asyncio import Protocol
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from placet_testing import backends
from placet_testing.app import CONFIG, World, founded, v
from placet_testing.charters import birth_body, composer, owner_of, person, signed, vault_set
from placet_testing.serving import Served, client_context, trust
from placet_testing.tee import Tee

from placet.agent.memory import MEMORY
from placet.agent.receipts import RECEIPTS
from placet.agent.volume import HEADER, EmbeddedVolume, Unlocked
from placet.client.clock import HostClock
from placet.client.constellation import Constellation
from placet.client.signing import promote_body
from placet.client.vault_client import Connector, VaultClient, renewed_contexts
from placet.core.attestation import Context, Evidence, report_data
from placet.core.dsse import Signed, open_signed, vault_id
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.messages import CourierItem, Released, ReleaseRequest, TakeRequest
from placet.core.profile import code_id
from placet.core.statement import compose
from placet.errors import (
    ApprovalError,
    BindingError,
    ConflictError,
    EvidenceError,
    KeyNotBornError,
    NotApprovedError,
    PlacetError,
    PolicyDeniedError,
    QuorumError,
    RoleDeniedError,
    UnavailableError,
    VerificationError,
)
from placet.policy.charter import replay
from placet.ratls.exchange import ClientExchange, ExpectVault, WorkloadProver
from placet.ratls.http import ConnectionPool
from placet.ratls.transport import connect


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Five vaults (k = 3) and a key that was born and not created yet."""
    async with founded(tmp_path) as made:
        yield made


# --- the story ----------------------------------------------------------------------------------


@pytest.mark.req("I1")
@pytest.mark.req("I8")
async def test_the_upgrade_story(world: World) -> None:
    """Created once, read again, version 2 refused, promoted with two vaults down, read; v1 out."""
    first = await world.unlock(v(1))
    assert not (world.folder / "volume" / RECEIPTS).exists()
    assert (await world.unlock(v(1))).secret == first.secret
    kept = (world.folder / "volume" / RECEIPTS).read_bytes().splitlines()
    assert len(kept) >= 3
    for line in kept:
        receipt = decode(line, Signed)
        vault = vault_id(unb64(receipt.vault_key))
        assert open_signed(receipt, Released, vault=vault).key == world.key
        assert vault in world.vault_set.ids
    with pytest.raises(NotApprovedError) as refused:
        await world.unlock(v(2))
    assert refused.value.members["code"] == code_id(v(2).profile())

    await world.stop(4, 5)
    report = await world.promote(v(2))
    assert (report.effective, len(report.confirmed), report.needed) == (True, 3, 3)
    assert set(report.missing) == {world.vault_set.ids[3], world.vault_set.ids[4]}
    assert (await world.unlock(v(2))).secret == first.secret

    await world.start(4)
    await world.start(5)
    constellation = world.connect()
    view, _ = await constellation.courier(world.key)
    assert len(view.lagging) == 2
    view = await constellation.read_charter(world.key)
    assert view.lagging == ()
    constellation.close()

    policy = replay(world.statements)
    retire = composer(HostClock().now()).retire(policy, code_id(v(1).profile()), "replaced")
    report = await world.submit(signed(retire))
    assert (report.effective, report.needed) == (True, 3)
    with pytest.raises(NotApprovedError) as refused:
        await world.unlock(v(1))
    assert refused.value.members["retired"] is True
    assert (await world.unlock(v(2))).secret == first.secret


# --- outages ------------------------------------------------------------------------------------


@pytest.mark.req("R8.3")
async def test_n_minus_k_vaults_down_it_works_one_more_it_says_who(world: World) -> None:
    """Two of five down: the key. Three down: a typed refusal that names them, and no creation."""
    first = await world.unlock(v(1))
    await world.stop(1, 2)
    assert (await world.unlock(v(1))).secret == first.secret
    await world.stop(3)
    with pytest.raises(QuorumError) as refused:
        await world.unlock(v(1))
    named = {entry["vault"] for entry in refused.value.members["vaults"]}  # type: ignore[attr-defined]
    assert named == set(world.vault_set.ids[:3])
    assert "again" in refused.value.hint


@pytest.mark.req("I9")
@pytest.mark.parametrize("down", [1, 2, 3, 4, 5])
async def test_nothing_is_created_unless_all_vaults_are_there(world: World, down: int) -> None:
    """One vault silent, the others say that there is no share: refused, volume untouched."""
    numbers = list(range(1, down + 1))
    await world.stop(*numbers)
    with pytest.raises(QuorumError):
        await world.unlock(v(1))
    assert EmbeddedVolume(world.folder / "volume").state() == "empty"
    for number in numbers:
        await world.start(number)
    assert (await world.unlock(v(1))).secret


@pytest.mark.req("I9")
async def test_a_denial_is_never_taken_for_absence(world: World) -> None:
    """Code that nobody approved creates nothing, with all vaults there and an empty volume."""
    with pytest.raises(NotApprovedError):
        await world.unlock(v(2))
    constellation = world.connect()
    view = await constellation.read_charter(world.key)
    constellation.close()
    assert view.manifests == {}
    assert all(e.kind != "held" for s in world.vaults for e in _trail(s, world.key))


def _trail(served: Served, key: str) -> list[Any]:
    return [logged.entry for logged in served.log.of_key(key)]


@pytest.mark.req("I9")
async def test_nothing_is_created_for_a_volume_that_holds_anything(world: World) -> None:
    """A foreign file or a header of before: refused, and no vault is asked to hold anything."""
    (world.folder / "full").mkdir()
    (world.folder / "full" / "notes.db").write_text("somebody's data")
    with pytest.raises(PolicyDeniedError) as refused:
        await world.unlock(v(1), "full")
    assert refused.value.members["reason"] == "volume-foreign"
    formatted = EmbeddedVolume(world.folder / "old")
    formatted.format(os.urandom(32), key=world.key, generation=1)
    with pytest.raises(PolicyDeniedError) as refused:
        await world.unlock(v(1), "old")
    assert refused.value.members["reason"] == "state-lost"
    assert all(e.kind != "promised" for s in world.vaults for e in _trail(s, world.key))


async def test_vaults_that_were_away_are_told_by_the_workload(world: World) -> None:
    """Two stale vaults come back, two others go: the workload carries the approval to them."""
    await world.unlock(v(1))
    await world.stop(4, 5)
    await world.promote(v(2))
    await world.start(4)
    await world.start(5)
    await world.stop(1, 2)
    assert (await world.unlock(v(2))).secret
    assert [len(s.vault.charter(world.key).charter) for s in world.vaults] == [2, 2, 2]


@pytest.mark.req("I9")
async def test_a_volume_of_another_key_or_with_an_edited_header_stays_shut(world: World) -> None:
    """The header's MAC covers the key id: swapped or edited, it is refused."""
    await world.unlock(v(1))
    header = world.folder / "volume" / HEADER
    whole = header.read_bytes()
    for old, new in ((b'"generation":1', b'"generation":2'), (b'"salt":"', b'"salt":"A')):
        header.write_bytes(whole.replace(old, new, 1)[: len(whole)])
        with pytest.raises(PlacetError):
            await world.unlock(v(1))
    other = EmbeddedVolume(world.folder / "other")
    other.format(os.urandom(32), key="sha256:" + "00" * 32, generation=1)
    with pytest.raises(VerificationError):
        await world.unlock(v(1), "other")
    header.write_bytes(whole)
    assert (await world.unlock(v(1))).secret


@pytest.mark.req("R4.8")
@pytest.mark.parametrize("committed", [1, 2, 3, 4])
async def test_who_died_between_commits_is_finished_by_the_next_boot(
    world: World, monkeypatch: pytest.MonkeyPatch, committed: int
) -> None:
    """However many vaults committed, the next boot has all five hold the very same key."""
    done: list[str] = []
    real = VaultClient.commit

    async def dying(self: VaultClient, *arguments: Any) -> Any:
        if len(done) >= committed:
            raise UnavailableError("the workload died here")
        done.append(self.id)
        return await real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(VaultClient, "commit", dying)
        with pytest.raises(QuorumError):
            await world.unlock(v(1))
    assert EmbeddedVolume(world.folder / "volume").state() == "empty"
    before = {s.identity.id: s.vault.charter(world.key).manifest for s in world.vaults}
    assert sum(m is not None for m in before.values()) == committed
    first = await world.unlock(v(1))
    after = {s.vault.charter(world.key).manifest for s in world.vaults}
    assert after == {m for m in before.values() if m is not None}
    await world.stop(1, 2)
    assert (await world.unlock(v(1))).secret == first.secret


# --- a hostile platform ---------------------------------------------------------------------


@pytest.mark.req("I2")
async def test_the_platform_promotes_by_itself(world: World) -> None:
    """With its stager key and its own: no vault takes it, and version 2 stays out."""
    await world.unlock(v(1))
    policy = replay(world.statements)
    body = promote_body(policy, v(2).profile())
    forged = signed(composer(HostClock().now()).promote(policy, body), "platform")
    report = await world.submit(forged)
    assert not report.confirmed
    assert {type(e) for e in report.missing.values()} == {ApprovalError}
    with pytest.raises(NotApprovedError):
        await world.unlock(v(2))


TAMPER: dict[str, Callable[[Any], dict[str, Any]]] = {
    "another profile": lambda s: {"body": msgspec.structs.replace(s.body, profile=v(3).profile())},
    "a later end": lambda s: {"expires_at": s.expires_at + 1000},
    "another base version": lambda s: {"base_version": s.base_version + 1},
    "keeps what the owner retires": lambda s: {
        "body": msgspec.structs.replace(s.body, unretire=not s.body.unretire)
    },
}


@pytest.mark.req("I2")
@pytest.mark.req("I14")
@pytest.mark.parametrize("change", TAMPER.values(), ids=TAMPER.keys())
async def test_the_platform_tampers_with_a_relayed_statement(
    world: World, change: Callable[[Any], dict[str, Any]]
) -> None:
    """One field of what the owner signed is changed on the way: every vault refuses it."""
    policy = replay(world.statements)
    honest = signed(
        composer(HostClock().now()).promote(policy, promote_body(policy, v(2).profile()))
    )
    changes = change(honest.statement)
    tampered = compose(msgspec.structs.replace(honest.statement, **changes), honest.signatures)
    report = await world.submit(tampered)
    assert not report.confirmed
    assert all(isinstance(e, ApprovalError | ConflictError) for e in report.missing.values())
    # What it was made from still stands, byte for byte.
    assert (await world.submit(honest)).effective


@pytest.mark.req("I2")
@pytest.mark.req("I14")
async def test_the_platform_replays_an_old_approval(world: World) -> None:
    """Version 1 came back once and was retired again: the old promote brings nothing."""
    await world.unlock(v(1))
    await world.promote(v(2))
    old = world.statements[-1]
    policy = replay(world.statements)
    retire = composer(HostClock().now()).retire(policy, code_id(v(2).profile()), "bad")
    assert (await world.submit(signed(retire))).effective
    report = await world.submit(old)
    assert len(report.confirmed) == 5  # taken before: repeating it changes nothing
    with pytest.raises(NotApprovedError) as refused:
        await world.unlock(v(2))
    assert refused.value.members["retired"] is True


@pytest.mark.req("I2")
@pytest.mark.req("I8")
async def test_the_platform_points_the_app_at_its_own_vaults(world: World, tmp_path: Path) -> None:
    """Its own birth, its own vaults: another owner than the measured one, nothing is opened."""
    await world.unlock(v(1))
    own = [
        signed(
            composer(HostClock().now()).birth(
                birth_body(
                    owner_of(person("platform").signer),
                    profiles=(v(1).profile(),),
                    vaults=world.vault_set,
                )
            ),
            "platform",
        )
    ]
    theirs = tmp_path / "theirs.json"
    theirs.write_bytes(
        encode(TakeRequest(chain=(CourierItem(signed=own[0].signed(), receipts=()),)))
    )
    with pytest.raises(PolicyDeniedError) as refused:
        await world.unlock(v(1), "fresh", key=own[0].digest, charter=theirs)
    assert refused.value.members["reason"] == "owner"
    # The owner's key id with the platform's statement under it.
    with pytest.raises(VerificationError):
        await world.unlock(v(1), "fresh", charter=theirs)
    # The owner's birth with other vaults in it: the signature does not hold, the id neither.
    statement = world.statements[0].statement
    body = msgspec.structs.replace(statement.body, vault_set=vault_set(3, 2))
    moved = compose(msgspec.structs.replace(statement, body=body), world.statements[0].signatures)
    theirs.write_bytes(
        encode(TakeRequest(chain=(CourierItem(signed=moved.signed(), receipts=()),)))
    )
    for key in (world.key, moved.digest):
        with pytest.raises((VerificationError, PolicyDeniedError)):
            await world.unlock(v(1), "fresh", key=key, charter=theirs)
    assert EmbeddedVolume(world.folder / "fresh").state() == "empty"


@pytest.mark.req("I2")
async def test_the_platform_puts_other_vaults_at_the_endpoints(world: World) -> None:
    """Genuine vaults of the platform's answer at the owner's addresses: not the ids, refused."""
    await world.unlock(v(1))
    ports = dict(world.ports)
    await world.stop(1, 2, 3)
    imposters = World(world.folder / "imposters")
    imposters.folder.mkdir()
    imposters.ports = ports
    for number in (1, 2, 3):
        await imposters.start(number)
    try:
        with pytest.raises(BindingError, match="in place of"):
            await world.unlock(v(1))
    finally:
        await imposters.stop(1, 2, 3)


@pytest.mark.req("I2")
async def test_the_platform_swaps_the_image_under_an_approved_name(world: World) -> None:
    """Claims of version 1, code of another: the registers say so."""
    await world.unlock(v(1))
    swapped = v(7)

    class Swapped(Tee):
        """A TEE of version 7 whose agent says that it is version 1."""

        def describe(self) -> Any:
            """Lie about the image."""
            return msgspec.structs.replace(swapped.describe(), image=v(1).bundle.image)

        def quote(self, context: Any) -> Any:
            """Quote the lie, as no launcher would."""
            return swapped.quoter(swapped.bundle.measurement, report_data(context))

    with pytest.raises(PlacetError) as refused:
        await world.unlock(Swapped(CONFIG))
    assert "binding-mismatch" in str(refused.value.problem())


@pytest.mark.req("I2")
async def test_visitors_reach_no_share(world: World) -> None:
    """Whatever a peer without evidence asks for, only what anyone may see is answered."""
    await world.unlock(v(1))
    constellation = world.connect()
    vault = constellation.vaults[0]
    manifest = next(iter((await constellation.read_charter(world.key)).manifests.values()))
    nonce = os.urandom(32)
    for ask in (
        lambda: vault.release(world.key, nonce),
        lambda: vault.promise(world.key, 9),
        lambda: vault.recover(world.key, manifest),
        lambda: vault.commit(world.key, 1, manifest, ()),
    ):
        with pytest.raises(RoleDeniedError):
            await ask()
    assert (await vault.status(nonce)).vault == vault.id
    assert (await vault.charter(world.key)).version == 1
    assert (await vault.log(world.key)).entries
    with pytest.raises(KeyNotBornError):
        await vault.charter("sha256:" + "00" * 32)
    constellation.close()


# --- where the key is not ---------------------------------------------------------------------


@pytest.mark.req("I13")
@pytest.mark.req("R4.9")
async def test_the_key_is_on_no_disk_and_in_no_text(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Search every file, log line, refusal and environment for key, shares and derived key."""
    caplog.set_level(logging.DEBUG)
    secrets: list[bytes] = []
    derived = EmbeddedVolume.unlock

    def spy(self: EmbeddedVolume, data_key: bytearray, *, key: str) -> Unlocked:
        unlocked = derived(self, data_key, key=key)
        secrets.extend((bytes(data_key), unlocked.secret, unlocked.memory_key))
        return unlocked

    monkeypatch.setattr(EmbeddedVolume, "unlock", spy)
    unlocked = await world.unlock(v(1))
    assert not any(
        secret.hex() in repr(unlocked) or str(secret) in repr(unlocked) for secret in secrets
    )
    assert (world.folder / "volume" / MEMORY).exists()
    for served in world.vaults:
        state = served.vault._keys.get(world.key)
        committed = state.record.committed
        assert committed is not None
        secrets.append(base64.urlsafe_b64decode(committed.share + "="))
    with pytest.raises(NotApprovedError) as refused:
        await world.unlock(v(2))

    needles = [
        form
        for secret in secrets
        for form in (secret, secret.hex().encode(), b64(secret).encode(), base64.b64encode(secret))
    ]
    haystacks = {str(p): p.read_bytes() for p in world.folder.rglob("*") if p.is_file()}
    haystacks["log"] = caplog.text.encode()
    haystacks["said"] = "\n".join(world.said).encode()
    haystacks["refusal"] = str(refused.value.problem()).encode()
    haystacks["environment"] = str(dict(os.environ)).encode()
    haystacks["command line"] = " ".join(sys.argv).encode()
    assert len(haystacks) > 10
    for name, hay in haystacks.items():
        assert not any(needle in hay for needle in needles), name


@pytest.mark.req("I9")
async def test_a_workload_that_says_it_is_for_another_key_gets_nothing(world: World) -> None:
    """Evidence made for key A asks for key B on the same connection: refused."""
    await world.unlock(v(1))
    clock = HostClock()
    prover = WorkloadProver(
        producer=v(1), instance="w", purpose="release", keys=("sha256:" + "0a" * 32,)
    )
    connector = Connector(
        prover=prover, clock=clock, rng=os.urandom, contexts=renewed_contexts(clock)
    )
    constellation = Constellation.connect(world.vault_set, connector, trust=trust())
    with pytest.raises(PlacetError) as refused:
        await constellation.gather(world.key)
    assert "binding-mismatch" in str(refused.value.problem())
    creating = replace(connector, prover=replace(prover, keys=(world.key,)))
    other = Constellation.connect(world.vault_set, creating, trust=trust())
    with pytest.raises(PlacetError) as refused:
        await other.vaults[0].promise(world.key, 99)
    assert refused.value.type == "binding-mismatch"
    constellation.close()
    other.close()


@pytest.mark.req("I15")
@pytest.mark.req("R1.9")
@pytest.mark.req("R1.10")
async def test_a_retire_reaches_the_connections_that_are_open(world: World) -> None:
    """Attested, served, retired: the next request on that connection is refused, and it ends."""
    await world.unlock(v(1))
    await world.promote(v(2))
    clock = HostClock()
    prover = WorkloadProver(producer=v(1), instance="w-open", purpose="release", keys=(world.key,))
    exchange = ClientExchange(
        expect=ExpectVault(
            id=world.vaults[0].identity.id, profiles=world.vault_set.profiles, trust=trust()
        ),
        prover=prover,
        clock=clock,
        rng=os.urandom,
    )
    pool = ConnectionPool(
        "127.0.0.1",
        world.vaults[0].port,
        renewed_contexts(clock),
        exchange,
        max_age=60,
        clock=clock.monotonic,
    )
    path = f"/v1/keys/{world.key}/release"
    body = encode(ReleaseRequest(nonce=b64(bytes(32)), head=None))
    try:
        async with pool.acquire() as connection:
            assert (await connection.request("POST", path, body)).status == 200
            assert (await connection.request("POST", path, body)).status == 200
            policy = replay(world.statements)
            retire = composer(clock.now()).retire(policy, code_id(v(1).profile()), "now")
            await world.submit(signed(retire))
            before = clock.monotonic()
            refused = await connection.request("POST", path, body)
            assert refused.status == 403
            assert b"measurement-not-approved" in refused.body
            assert refused.headers["connection"] == "close"
            assert connection.closed
            assert clock.monotonic() - before < 1
            with pytest.raises(UnavailableError):
                await connection.request("POST", path, body)
    finally:
        pool.close()


@pytest.mark.req("R2.7", "I8", "I9")
@pytest.mark.usefixtures("backend")
async def test_all_vaults_are_wiped(world: World) -> None:
    """The app is told that the state is lost, never that this is its first boot."""
    assert (await world.unlock(v(1))).secret
    numbers = list(world.up)
    for number in numbers:
        await world.stop(number)
        backends.remove(world.folder / f"served{number}.db")
        await world.start(number)
    with pytest.raises(BindingError) as refused:
        await world.unlock(v(1))
    assert refused.value.members["reason"] == "state-lost"
    assert all(not s.log.of_key(world.key) for s in world.vaults)


@pytest.mark.req("R2.7", "I8", "I9")
async def test_vaults_that_know_nothing_of_a_key_are_no_first_boot(world: World) -> None:
    """The same vaults, of which none was told of the key: state lost, and nothing is created."""
    world.statements.append(
        signed(composer(HostClock().now(), "other").birth(world.statements[0].statement.body))
    )
    world.statements = world.statements[-1:]
    formatted = EmbeddedVolume(world.folder / "volume")
    formatted.format(os.urandom(32), key=world.key, generation=1)
    with pytest.raises(PolicyDeniedError) as refused:
        await world.unlock(v(1))
    assert refused.value.members["reason"] == "state-lost"
    assert all(not s.log.of_key(world.key) for s in world.vaults)


# --- a crowd that lies ------------------------------------------------------------------------


class Forger:
    """A workload's TEE whose quotes have a signature that does not hold, another each time."""

    def __init__(self, tee: Tee) -> None:
        self.tee, self.count = tee, 0

    def describe(self) -> Any:
        """Return the honest description."""
        return self.tee.describe()

    def quote(self, context: Context) -> Evidence:
        """Return a quote for just this connection, with one byte wrong."""
        self.count += 1
        good = self.tee.quote(context)
        raw = bytearray(unb64(good.quote))
        raw[48 + 584 + 4 + self.count % 64] ^= 1
        return msgspec.structs.replace(good, quote=b64(bytes(raw)))


@pytest.mark.req("R8.4", "I9")
@pytest.mark.usefixtures("backend")
async def test_a_crowd_with_bad_evidence_starves_no_boot_and_leaves_nothing(world: World) -> None:
    """Sixty at once are refused for what they show; meanwhile the app boots. No log gets longer."""
    before = await world.unlock(v(1))
    heads = {s.identity.id: s.log.head()[0] for s in world.vaults}
    prover = WorkloadProver(
        producer=Forger(v(1)), instance="w-1", purpose="release", keys=(world.key,)
    )

    context = client_context()

    async def lie(number: int) -> None:
        vault = world.vaults[number % 5]
        expect = ExpectVault(id=vault.identity.id, profiles=world.vault_set.profiles, trust=trust())
        exchange = ClientExchange(expect=expect, prover=prover, clock=HostClock(), rng=os.urandom)
        end, _ = await connect("127.0.0.1", vault.port, context, exchange, lambda _: Protocol())
        end.abort()

    crowd = [asyncio.create_task(lie(number)) for number in range(60)]
    assert (await world.unlock(v(1))).secret == before.secret
    said = await asyncio.gather(*crowd, return_exceptions=True)
    assert {type(one) for one in said} == {EvidenceError}
    for vault in world.vaults:
        assert vault.log.head()[0] - heads[vault.identity.id] <= 1  # the release of the boot
