"""The real creation flow against real vault services: crashes at every step, and races (R4.8).

tests/scenario/test_creation_model.py shows that the protocol is right; this shows that
the code on both sides is that protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass

import pytest
from msgspec.structs import replace
from placet_testing.charters import NOW, identity, profile, seeded, vault_name
from placet_testing.clients import Link, client_of, constellation_of, memory_folder
from placet_testing.constellations import Story, begin
from placet_testing.vaults import TestClock, open_bench

from placet.client import creation
from placet.client.creation import create_key
from placet.core.dsse import open_signed
from placet.core.encoding import b64, decode, encode
from placet.core.manifest import manifest_digest
from placet.core.messages import Committed, PromiseAnswer, PromiseRequest, ReleaseAnswer
from placet.errors import (
    ApprovalExpiredError,
    ConflictError,
    KeyCheckError,
    NotApprovedError,
    QuorumError,
    ShareMissingError,
    SupersededError,
    UnavailableError,
    VerificationError,
)

V1 = profile(1)
DAY = 24 * 3600
STEPS = 15
"""Requests of an undisturbed creation at five vaults: promise, hold, commit."""


@dataclass
class World:
    """A born key, its vaults, and the links that workloads share."""

    story: Story
    links: list[Link]

    def vaults(self, what=V1):
        """Return clients of all vaults, as a workload of its own."""
        who = identity(what, (self.story.key,), purpose="create")
        return [client_of(link, i, who, (self.story.key,)) for i, link in enumerate(self.links, 1)]

    def create(self, seed, **options):
        """Run one workload's creation."""
        options = {"pause": lambda _: asyncio.sleep(0), "deadline": 30} | options
        return create_key(self.story.policy, self.vaults(), rng=seeded(seed), **options)

    @property
    def committed(self):
        """Return the manifests that vaults committed, without repetition."""
        records = [b.vault._keys.get(self.story.key).record for b in self.story.benches]
        return {manifest_digest(r.committed.manifest) for r in records if r.committed}

    async def gathered(self):
        """Return the key as a booting workload gets it."""
        who = identity(V1, (self.story.key,))
        vaults = constellation_of(self.links, self.story.policy.vault_set, who, (self.story.key,))
        return bytes((await vaults.gather(self.story.key)).recovered.key)

    def restart_all(self):
        """Restart every vault from its disk."""
        for at, link in enumerate(self.links):
            self.story.restart(at)
            link.bench = self.story.benches[at]


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Return a folder with five vaults that took the birth, and their statements."""
    folder = tmp_path_factory.mktemp("born")
    story = begin(folder, created=False)
    story.close()
    return folder, story.statements


@pytest.fixture
def world(ready):
    """Return a key that was born and not created."""
    with memory_folder() as folder:
        world = copy_of(ready, folder)
        yield world
        world.story.close()


def copy_of(ready, folder):
    """Return the born key at copies of the vaults."""
    shutil.copytree(ready[0], folder, dirs_exist_ok=True)
    clock = TestClock(time=NOW)
    benches = [open_bench(folder, i, clock=clock) for i in range(1, 6)]
    story = Story(folder, clock, benches, list(ready[1]))
    return World(story, [Link(bench) for bench in benches])


async def crash(world, count, *, lose_answer):
    """Run a workload that loses power at its request number ``count``.

    That request and all later ones never arrive, or arrive and are never answered.
    """
    over, never, seen = asyncio.Event(), asyncio.Event(), {"before": 0, "after": 0}

    def at(when):
        async def hook(_path):
            seen[when] += 1
            if seen[when] >= count and lose_answer == (when == "after"):
                over.set()
                await never.wait()

        return hook

    for link in world.links:
        link.before, link.after = at("before"), at("after")
    running = asyncio.create_task(world.create("crashes"))
    await over.wait()
    # What was under way at other vaults runs on for a while.
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    heal(world)


def heal(world):
    """Let every request through again."""
    for link in world.links:
        link.before = link.after = link.tamper = None


@pytest.mark.req("I8")
async def test_a_key_is_created_at_all_vaults_the_owner_signed(world):
    """Promise, hold, commit at all five; then any boot gets that key."""
    made = await world.create("one")
    assert {path.rsplit("/", 1)[-1] for _, path, _ in world.links[0].sent} == {
        "promise",
        "prepare",
        "commit",
    }
    assert sum(len(link.sent) for link in world.links) == STEPS
    for vault, receipt in made.committed.items():
        said = open_signed(receipt, Committed, vault=vault)
        assert said.manifest == manifest_digest(made.manifest)
    assert tuple(made.committed) == world.story.policy.vault_set.ids
    assert [s.vault for s in made.manifest.shares] == list(world.story.policy.vault_set.ids)
    assert await world.gathered() == made.key


@pytest.mark.req("R4.8")
@pytest.mark.parametrize("lose_answer", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
async def test_power_may_fail_at_any_step(world, step, lose_answer):
    """The workload dies before or after any request; vaults restart; the next one finishes.

    Whatever was committed by then is the key that everyone gets.
    """
    await crash(world, step, lose_answer=lose_answer)
    world.restart_all()
    before = world.committed
    assert len(before) <= 1
    made = await world.create("second")
    assert world.committed == {manifest_digest(made.manifest)}
    assert before <= world.committed
    again = await world.create("third")
    assert again.key == made.key == await world.gathered()


@pytest.mark.parametrize("step", range(1, STEPS + 1))
async def test_a_lost_answer_costs_only_time(world, step):
    """On a new connection it is said whose; on a used one the same request goes out again."""
    count = {"n": 0}

    def lose(link):
        def before(_path):
            count["n"] += 1
            link.lose_answer = count["n"] == step

        return before

    for link in world.links:
        link.before = lose(link)
    if step <= 5:
        with pytest.raises(QuorumError) as e:
            await world.create("one")
        assert len(e.value.members["vaults"]) == 1
    made = await world.create("one")
    assert await world.gathered() == made.key
    assert world.committed == {manifest_digest(made.manifest)}


def stagger(links, seed):
    """Have every request wait for a time of its own, different for each seed."""
    draw = seeded(f"stagger/{seed}")

    async def wait():
        for _ in range(draw(1)[0] % 12):
            await asyncio.sleep(0)

    for link in links:
        link.before = lambda _path: wait()


@pytest.mark.req("R4.8")
@pytest.mark.parametrize("seed", range(16))
async def test_of_two_first_boots_at_once_one_makes_the_key_and_both_get_it(world, seed):
    """Two or three workloads at the same time, in many interleavings: one manifest, one key."""
    stagger(world.links, seed)
    names = ["one", "two", "three"][: 2 + seed % 2]

    async def pause(seconds):
        for _ in range(int(seconds * 5000)):
            await asyncio.sleep(0)

    made = await asyncio.gather(*(world.create(f"{seed}/{n}", pause=pause) for n in names))
    assert len({bytes(m.key) for m in made}) == 1
    assert world.committed == {manifest_digest(m.manifest) for m in made}
    heal(world)
    assert await world.gathered() == made[0].key


@pytest.mark.req("R4.8")
async def test_a_commit_that_comes_too_late_is_refused(world):
    """All held for one; before it commits all hold for another: the first one's commit is void."""
    late, early = (World(world.story, [Link(link.bench) for link in world.links]) for _ in "ab")
    held, refused, answers = asyncio.Event(), asyncio.Event(), []

    def on_commit(act):
        return lambda path: act() if path.endswith("commit") else None

    def answered():
        answers.append("commit")
        if len(answers) == len(late.links):
            refused.set()

    async def now():
        held.set()
        await refused.wait()

    for link in late.links:
        link.before, link.after = on_commit(held.wait), on_commit(answered)
    for link in early.links:
        link.before = on_commit(now)
    first = asyncio.create_task(late.create("late"))
    while not any(path.endswith("commit") for _, path, _ in late.links[0].sent):  # noqa: ASYNC110
        await asyncio.sleep(0)
    second = asyncio.create_task(early.create("early"))
    await refused.wait()
    assert world.committed == set()
    made = await asyncio.gather(first, second)
    assert made[0].key == made[1].key
    assert world.committed == {manifest_digest(made[0].manifest)}


@pytest.mark.req("R4.8")
async def test_the_losers_shares_are_unusable(world):
    """What an attempt left behind at some vaults goes with the commit and is never released."""
    await crash(world, 9, lose_answer=False)  # some hold, none committed
    records = [b.vault._keys.get(world.story.key).record for b in world.story.benches]
    [left] = {h.manifest for r in records for h in r.held}
    winner = await world.create("winner")
    assert manifest_digest(left) != manifest_digest(winner.manifest)
    for vault in world.vaults():
        with pytest.raises(ShareMissingError):
            await vault.recover(world.story.key, manifest_digest(left))


@pytest.mark.req("I9")
@pytest.mark.parametrize("down", range(5))
async def test_one_vault_away_means_no_key(world, down):
    """All n are needed: with any one down nothing is committed and it is named."""
    world.links[down].down = True
    with pytest.raises(QuorumError) as e:
        await world.create("one")
    assert [v["vault"] for v in e.value.members["vaults"]] == [vault_name(down + 1)]
    assert e.value.members["needed"] == 5
    assert world.committed == set()


@pytest.mark.req("I9")
async def test_unapproved_code_creates_nothing(world):
    """The gate stands before creation as well."""
    with pytest.raises(NotApprovedError):
        await create_key(world.story.policy, world.vaults(profile(2)), rng=seeded("x"))
    assert world.committed == set()


@pytest.mark.req("I9")
async def test_no_key_is_begun_after_the_birth_statement_ended(world):
    """Days later nobody creates; the owner signs a new birth."""
    world.story.clock.time += 2 * DAY
    with pytest.raises(ApprovalExpiredError):
        await world.create("late")
    assert world.committed == set()


@pytest.mark.parametrize("step", range(STEPS - 3, STEPS + 1))
async def test_what_one_vault_committed_in_time_is_finished_late(world, step):
    """A crash between commits, and the birth statement ends: still the same key at all five."""
    await crash(world, step, lose_answer=False)
    before = world.committed
    assert len(before) == 1
    world.story.clock.time += 2 * DAY
    made = await world.create("second")
    assert world.committed == before == {manifest_digest(made.manifest)}
    assert await world.gathered() == made.key


async def test_a_created_key_is_never_made_again(world):
    """Creating once more returns the very key."""
    first, second = [await world.create(name) for name in ("one", "two")]
    assert first.key == second.key
    assert first.manifest == second.manifest


async def test_a_vault_that_lost_its_share_stops_the_finishing_and_makes_no_second_key(world):
    """With a share gone, what was committed elsewhere stays the only key there ever is."""
    await world.create("one")
    bench = world.story.benches[2]
    state = bench.vault._keys.get(world.story.key)
    bench.vault._keys.put(
        world.story.key,
        type(state)(state.version, _without_shares(state.record), state.policy),
    )
    before = world.committed
    with pytest.raises(ShareMissingError):
        await world.create("two")
    assert world.committed == before


def _without_shares(record):
    return replace(record, committed=None, held=())


# --- vaults that lie --------------------------------------------------------------------


@pytest.fixture
async def other(ready):
    """Return a commit of the same key, made by clones of the same vaults."""
    with memory_folder() as folder:
        clones = copy_of(ready, folder)
        await clones.create("clones")
        record = clones.story.benches[0].vault._keys.get(clones.story.key).record
        clones.story.close()
    return record.committed


@pytest.mark.parametrize("lie", ["no certificate", "too few", "another order", "of another key"])
async def test_a_commit_that_not_all_vouch_for_is_not_believed(world, lie, other):
    """A vault that shows a commit shows what n vaults signed, or it is refused."""
    held = other.certificate
    certificate, manifest = {
        "no certificate": ((), other.manifest),
        "too few": (held[:4], other.manifest),
        "another order": ((held[1], held[0], *held[2:]), other.manifest),
        "of another key": (held, _of_another_attempt(other.manifest)),
    }[lie]
    show(world.links[1], manifest, certificate)
    with pytest.raises(VerificationError):
        await world.create("one")
    assert world.committed == set()


def _of_another_attempt(manifest):
    return replace(manifest, attempt=manifest.attempt + 1)


def show(link, manifest, certificate):
    """Have a vault show a commit that it never made."""

    def tamper(path, raw):
        if not path.endswith("promise"):
            return raw
        said = decode(raw, PromiseAnswer)
        return encode(replace(said, committed=manifest, certificate=certificate))

    link.tamper = tamper


async def test_two_commits_of_one_key_stop_everything(world, other):
    """Vaults were cloned and each half created: a conflict that names who shows what."""
    await world.create("one")
    before = world.committed
    show(world.links[3], other.manifest, other.certificate)
    with pytest.raises(ConflictError) as e:
        await world.create("two")
    assert set(e.value.members["vaults"]) == {vault_name(i) for i in range(1, 6)}
    assert world.committed == before


async def test_a_wrong_share_stops_the_finishing_and_names_its_vault(world):
    """A key cannot be finished at a vault that has lost its share's bytes: it is named."""
    await world.create("one")

    def tamper(path, raw):
        if not path.endswith("recover"):
            return raw
        return encode(replace(decode(raw, ReleaseAnswer), share=b64(bytes(32))))

    world.links[4].tamper = tamper
    with pytest.raises(KeyCheckError) as e:
        await world.create("two")
    assert [c["vault"] for c in e.value.members["cheaters"]] == [vault_name(5)]


async def test_a_vault_cannot_make_workloads_count_for_ever(world):
    """Always superseded, by impossible numbers: it ends after some tries, and says so."""

    def before(path):
        if path.endswith("promise"):
            raise SupersededError("never", attempt=2**53 - 1)

    world.links[0].before = before
    with pytest.raises(UnavailableError):
        await world.create("one")
    assert len(world.links[0].sent) == creation.TRIES
    assert world.committed == set()
    world.links[0].before = None
    await world.create("one")


async def test_higher_attempts_are_passed_at_once(world):
    """A workload that starts over goes above what vaults have seen, in one more round."""
    creator = world.story.creator()
    world.story.benches[2].vault.promise(creator, world.story.key, PromiseRequest(attempt=40))
    made = await world.create("one")
    assert made.manifest.attempt == 41
    assert sum(len(link.sent) for link in world.links) == STEPS + 5


async def test_the_key_is_wiped_when_creation_fails(world, monkeypatch):
    """What was dealt and could not be held everywhere is overwritten."""
    wiped = []
    real = creation.wipe
    monkeypatch.setattr(creation, "wipe", lambda key: (wiped.append(key), real(key)))

    def before(path):
        if path.endswith("prepare"):
            raise UnavailableError("lost")

    world.links[0].before = before
    with pytest.raises(QuorumError):
        await world.create("one")
    assert [bytes(k) for k in wiped] == [bytes(32)]


async def test_vaults_must_be_the_policys(world):
    """Four of five, or another order: the caller is wrong."""
    with pytest.raises(ValueError, match="vaults"):
        await create_key(world.story.policy, world.vaults()[:4], rng=seeded("x"))


@pytest.mark.parametrize("show", [repr, str])
async def test_the_key_is_in_no_text(world, show):
    """What creation returns can be logged by mistake, and says nothing."""
    made = await world.create("one")
    text = show(made)
    assert bytes(made.key).hex() not in text
    assert b64(bytes(made.key)) not in text
    assert repr(made.key) not in text
