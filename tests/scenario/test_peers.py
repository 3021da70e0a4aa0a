"""Vaults that ask each other over real sockets, by the endpoints of the charter (spec/10)."""

from __future__ import annotations

import asyncio
import contextlib
import os

import msgspec
import pytest
from placet_testing import backends
from placet_testing.charters import birth_body, composer, profile, signed
from placet_testing.constellations import run_of
from placet_testing.serving import serving, trust, vault_set_of

from placet.cli.output import PARTLY
from placet.cli.pen import result
from placet.cli.witness_server import Witness, witnessing
from placet.client.constellation import Constellation
from placet.client.signing import promote_body
from placet.client.vault_client import Connector, renewed_contexts
from placet.core.continuity import Witnessed
from placet.core.dsse import open_signed, vault_id
from placet.core.encoding import unb64
from placet.core.profile import WitnessMember, code_id
from placet.errors import QuarantinedError
from placet.policy.charter import replay

PATIENCE = 60


async def until(condition, what):
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - vaults in one loop, which no event tells
            await asyncio.sleep(0.02)
    assert condition(), what


def state(served):
    """Return how a vault stands."""
    return served.vault.standing.report().state


@pytest.fixture
def born(tmp_path):
    """Return a way to serve three vaults with a key, on ports that they keep."""

    @contextlib.asynccontextmanager
    async def make(*witnesses):
        async with contextlib.AsyncExitStack() as stack:
            made, stacks = [], []
            for number in (1, 2, 3):
                stacks.append(contextlib.AsyncExitStack())
                made.append(
                    await stacks[-1].enter_async_context(serving(tmp_path, number, alone=False))
                )
                stack.push_async_callback(stacks[-1].aclose)
            ports = [m.port for m in made]
            # Seconds of this machine's clock: real certificates, real evidence.
            now = made[0].clock.now()
            vault_set = msgspec.structs.replace(vault_set_of(*made, k=2), witnesses=witnesses)
            body = birth_body(vaults=vault_set)
            birth = signed(composer(now).birth(body))
            for one in made:
                one.vault.take(run_of(birth))

            async def restart(number, change=None):
                await stacks[number - 1].aclose()
                if change is not None:
                    change()
                context = serving(tmp_path, number, port=ports[number - 1], alone=False)
                made[number - 1] = await stacks[number - 1].enter_async_context(context)
                return made[number - 1]

            yield made, birth, restart, now

    return make


@pytest.mark.req("I6")
async def test_vaults_find_each_other_by_the_charter(born):
    """After a birth all stand; after a restart of all at once they stand again by themselves."""
    async with born() as (made, _, restart, _):
        await until(lambda: all(state(m) == "standing" for m in made), "all stand")
        for number in (1, 2, 3):
            await restart(number)
        await until(lambda: all(state(m) == "standing" for m in made), "all stand again")
        kinds = [[e.entry.kind for e in m.log.of_key(None)] for m in made]
        assert kinds == [["boot", "boot"]] * 3


@pytest.mark.req("I6", "R2.1")
@pytest.mark.usefixtures("backend")
async def test_a_statement_that_was_missed_is_fetched_and_an_old_disk_found_out(born, tmp_path):
    """Over the wire: what is newer is taken; what is older than it was is quarantined."""
    async with born() as (made, birth, restart, now):
        await until(lambda: all(state(m) == "standing" for m in made), "all stand")
        path, kept = tmp_path / "served1.db", tmp_path / "kept" / "served1.db"

        def keep():
            backends.copy(path, kept)

        await restart(1, keep)
        await until(lambda: state(made[0]) == "standing", "it stands")
        policy = replay([birth])
        promote = signed(composer(now).promote(policy, promote_body(policy, profile(2))))
        for one in made[1:]:
            one.vault.take(run_of(promote))
        key = birth.digest
        # Nobody brought it: the others told it, at its next question.
        made[0].vault.standing.changed([m.identity.id for m in made[1:]])
        await until(lambda: made[0].vault.charter(key).version == 2, "it took it")
        told = made[0].vault.charter(key).charter[1].receipts
        assert len(told) >= 2

        def put_back():
            backends.copy(kept, path)

        await restart(1, put_back)
        await until(lambda: state(made[0]) == "quarantined", "it is found out")
        with pytest.raises(QuarantinedError) as caught:
            made[0].vault.take(run_of(promote))
        assert caught.value.members["reason"] == "rolled-back"


def vouching(served):
    """Return who vouches for a vault."""
    return {vault_id(unb64(s.vault_key)) for s in served.vault.standing.witnessed()}


@pytest.mark.req("I6", "R2.5")
async def test_an_outside_witness_is_asked_and_needed(born, tmp_path):
    """Over plain HTTP; however many vaults vouch, without it none stands. It signs what it saw."""
    witness = Witness(tmp_path / "witness")
    async with witnessing(witness, "127.0.0.1", 0) as port:
        member = WitnessMember(id=witness.id, endpoint=f"127.0.0.1:{port}")
        async with born(member) as (made, _, restart, _):
            await until(lambda: all(state(m) == "standing" for m in made), "all stand")
            status = made[0].vault.status("n" * 43)
            said = [s for s in status.witnessed if vault_id(unb64(s.vault_key)) == witness.id]
            shown = open_signed(said[0], Witnessed, vault=witness.id)
            assert (shown.vault, shown.boots) == (made[0].identity.id, 1)
            witness.close()  # it answers, and remembers nothing: that is no answer
            one = await restart(1)
            others = {m.identity.id for m in made[1:]}
            await until(lambda: vouching(one) == others, "both other vaults vouch")
            report = one.vault.standing.report()
            assert (report.state, report.waiting) == ("starting", (witness.id,))


@pytest.mark.req("I12", "R2.8")
async def test_a_retire_counts_when_witnesses_saw_it(born, tmp_path):
    """Three vaults took it; while the outside witness is away none of them counts."""
    witness = Witness(tmp_path / "witness")
    async with witnessing(witness, "127.0.0.1", 0) as port:
        member = WitnessMember(id=witness.id, endpoint=f"127.0.0.1:{port}")
        async with born(member) as (made, birth, _, now):
            await until(lambda: all(state(m) == "standing" for m in made), "all stand")
            policy = replay([birth])
            clock = made[0].clock
            connector = Connector(
                prover=None, clock=clock, rng=os.urandom, contexts=renewed_contexts(clock)
            )
            vaults = Constellation.connect(policy.vault_set, connector, trust=trust())
            retire = signed(composer(now).retire(policy, code_id(profile(1)), "old")).signed()
            store = witness._store
            witness._store = witness._witnessing._store = None  # it is there, and fails
            vaults.patience = 1.0
            report = await vaults.submit(retire)
            assert (len(report.confirmed), report.needed, report.effective) == (3, 2, False)
            assert {w for lacks in report.unwitnessed.values() for w in lacks} >= {witness.id}
            assert result(report) == PARTLY
            witness._store = witness._witnessing._store = store
            vaults.patience = PATIENCE
            report = await vaults.submit(retire)
            assert (report.effective, report.unwitnessed, result(report)) == (True, {}, 0)
            vaults.close()
    witness.close()
