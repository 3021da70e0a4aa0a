"""Vaults that ask each other over real sockets, by the endpoints of the charter (spec/10)."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from placet_testing.charters import birth_body, composer, profile, signed
from placet_testing.constellations import run_of
from placet_testing.serving import serving, vault_set_of

from placet.client.signing import promote_body
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
    async def make():
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
            body = birth_body(vaults=vault_set_of(*made, k=2))
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
async def test_a_statement_that_was_missed_is_fetched_and_an_old_disk_found_out(born, tmp_path):
    """Over the wire: what is newer is taken; what is older than it was is quarantined."""
    async with born() as (made, birth, restart, now):
        await until(lambda: all(state(m) == "standing" for m in made), "all stand")
        disk = {}

        def keep():
            disk.update({p.name: p.read_bytes() for p in tmp_path.glob("served1.db*")})

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
            for path in tmp_path.glob("served1.db*"):
                path.unlink()
            for name, content in disk.items():
                (tmp_path / name).write_bytes(content)

        await restart(1, put_back)
        await until(lambda: state(made[0]) == "quarantined", "it is found out")
        with pytest.raises(QuarantinedError) as caught:
            made[0].vault.take(run_of(promote))
        assert caught.value.members["reason"] == "rolled-back"
