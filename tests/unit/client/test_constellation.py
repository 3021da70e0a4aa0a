"""Several vaults together: any k give the key, all are counted, laggards are brought along."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass

import pytest
from msgspec.structs import replace
from placet_testing.charters import (
    NOW,
    birth_body,
    composer,
    identity,
    profile,
    signed,
    vault_key,
    vault_name,
    vault_set,
)
from placet_testing.clients import Link, client_of, constellation_of, memory_folder
from placet_testing.constellations import SECRET, Story, begin, run_of
from placet_testing.vaults import TestClock, open_bench

from placet.client.charters import merge_charters, open_birth
from placet.client.constellation import Constellation, _runs
from placet.client.signing import promote_body
from placet.core.body import StageBody
from placet.core.dsse import open_signed, sign_record
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.limits import MAX_BODY, MAX_CHAIN
from placet.core.messages import (
    CharterAnswer,
    CourierItem,
    ReleaseAnswer,
    Released,
    TakeRequest,
)
from placet.core.profile import code_id
from placet.core.statement import open_statement
from placet.errors import (
    AncestorMissingError,
    ApprovalError,
    ConflictError,
    KeyCheckError,
    KeyNotBornError,
    NotApprovedError,
    PlacetError,
    QuorumError,
    ShareMissingError,
    UnavailableError,
    VerificationError,
)
from placet.policy.charter import effective_at
from placet.sharing.key import wipe

ALL = range(5)
V1, V2 = profile(1), profile(2)
OTHER = "sha256:" + "00" * 32
DAY = 24 * 3600


@dataclass
class World:
    """A story, the links to its vaults, and who talks over them."""

    story: Story
    links: list[Link]

    @property
    def key(self):
        """Return the key id."""
        return self.story.key

    @property
    def owner(self):
        """Return the vaults as a visitor reaches them."""
        return constellation_of(self.links, self.story.policy.vault_set)

    def workload(self, what=V1, **options):
        """Return the vaults as code of this profile reaches them."""
        who = identity(what, (self.key,))
        vaults = self.story.policy.vault_set
        return constellation_of(self.links, vaults, who, (self.key,), **options)

    def compose_promote(self, what=V2):
        """Return the owner's promote, taken by nobody yet."""
        policy = self.story.policy
        return signed(composer(self.story.clock.time).promote(policy, promote_body(policy, what)))

    def asked(self, at):
        """Return the paths that a vault was asked, without their key."""
        return [path.rsplit("/", 1)[-1] for _, path, _ in self.links[at].sent]


def world_of(story):
    """Return a story's world."""
    return World(story, [Link(bench) for bench in story.benches])


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Return a folder with five vaults' stores and the statements in them, by whether created."""
    made = {}
    for created in (True, False):
        folder = tmp_path_factory.mktemp("story")
        story = begin(folder, created=created)
        story.close()
        made[created] = folder, story.statements
    return made


def reopen(ready, folder, *, created):
    """Return the story again in a folder of its own: quicker than to tell it each time."""
    stores, statements = ready[created]
    shutil.copytree(stores, folder, dirs_exist_ok=True)
    clock = TestClock(time=NOW)
    benches = [open_bench(folder, i, clock=clock) for i in range(1, 6)]
    return Story(folder=folder, clock=clock, benches=benches, statements=list(statements))


@pytest.fixture
def world(ready):
    """Return a key that was created at five vaults, version 1 approved."""
    with memory_folder() as folder:
        story = reopen(ready, folder, created=True)
        yield world_of(story)
        story.close()


@pytest.fixture
def unborn(ready):
    """Return five vaults that hold the birth statement and no share yet."""
    with memory_folder() as folder:
        story = reopen(ready, folder, created=False)
        yield world_of(story)
        story.close()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Return five vaults that know another key only."""
    story = begin(tmp_path_factory.mktemp("other"), birth_body(label="other"), created=False)
    yield story
    story.close()


def key_of(gathered):
    """Return the key, and wipe it."""
    key = bytes(gathered.recovered.key)
    wipe(gathered.recovered.key)
    return key


# --- gather -------------------------------------------------------------------------------


async def test_any_k_vaults_give_the_key_and_nobody_waits_for_the_rest(world):
    """Two silent vaults of five delay nothing; the heads of the others are known."""
    world.links[0].silent = world.links[3].silent = True
    vaults = world.workload()
    gathered = await vaults.gather(world.key)
    assert key_of(gathered) == SECRET
    ids = vaults.vault_set.ids
    seen = {v: (r.version, r.head) for v, r in gathered.released.items()}
    assert seen == {ids[i]: (1, world.key) for i in (1, 2, 4)}
    for vault, release in gathered.released.items():
        assert open_signed(release.receipt, Released, vault=vault).key == world.key
    assert gathered.lagging == gathered.uncommitted == ()
    assert gathered.recovered.cheaters == ()
    vaults.close()


@pytest.mark.req("R8.3")
@pytest.mark.parametrize("down", range(6))
async def test_n_minus_k_down_is_served_and_one_more_is_a_typed_refusal(world, down):
    """Up to two of five may be down; then the error names them and nothing is created."""
    for i in range(down):
        world.links[i].down = True
    if down <= 2:
        assert key_of(await world.workload().gather(world.key)) == SECRET
        return
    with pytest.raises(QuorumError) as e:
        await world.workload().gather(world.key)
    assert e.value.type == "quorum-unavailable"
    assert [v["vault"] for v in e.value.members["vaults"]] == [
        vault_name(i) for i in range(1, down + 1)
    ]
    assert e.value.members["needed"] == 3
    assert "again" in e.value.hint
    assert {path for i in ALL for path in world.asked(i)} <= {"release", "charter"}


async def test_silence_ends_at_the_deadline(world):
    """Three vaults that take the request and never answer are named as silent."""
    for i in (0, 1, 2):
        world.links[i].silent = True
    with pytest.raises(QuorumError) as e:
        await world.workload(deadline=0.05).gather(world.key)
    assert [v["why"] for v in e.value.members["vaults"]] == ["no answer within 0.05 seconds"] * 3


@pytest.mark.req("I9")
async def test_a_denial_is_told_as_a_denial(world):
    """Code that was not approved gets the refusal with what the owner has to run."""
    with pytest.raises(NotApprovedError) as e:
        await world.workload(V2).gather(world.key)
    assert e.value.members["code"] == code_id(V2)
    assert e.value.hint.endswith(f"placet review {world.key} {code_id(V2)}")


def deny(path):
    """Have a vault deny a release."""
    if path.endswith("release"):
        raise NotApprovedError("no")


@pytest.mark.req("I9")
@pytest.mark.parametrize(
    ("denying", "down"), [(3, 0), (3, 2), (5, 0), (2, 1), (1, 2), (2, 3), (4, 1)]
)
async def test_denied_and_down_are_never_absence(world, denying, down):
    """Whatever mixture of no and silence: `denied` or `quorum`, never `no such key`."""
    for i in range(denying):
        world.links[i].before = deny
    for i in range(5 - down, 5):
        world.links[i].down = True
    with pytest.raises(NotApprovedError if denying > 2 else QuorumError):
        await world.workload(V1).gather(world.key)


@pytest.mark.req("I9")
async def test_absence_is_what_all_vaults_say(unborn):
    """No share anywhere: absent. One vault down, or denying: nobody knows."""
    with pytest.raises(ShareMissingError):
        await unborn.workload().gather(unborn.key)
    unborn.links[4].down = True
    with pytest.raises(QuorumError):
        await unborn.workload().gather(unborn.key)
    unborn.links[4].down = False
    unborn.links[0].before = deny
    with pytest.raises(QuorumError):
        await unborn.workload().gather(unborn.key)


async def test_a_key_that_no_vault_knows_was_not_born(world):
    """All five say so."""
    with pytest.raises(KeyNotBornError):
        await world.owner.read_charter(OTHER)
    who = identity(V1, (OTHER,))
    vaults = constellation_of(world.links, vault_set(), who, (OTHER,))
    with pytest.raises(KeyNotBornError):
        await vaults.gather(OTHER)


def lying_share(world, at):
    """Have a vault send a wrong share under a good receipt."""

    def tamper(_path, raw):
        answer = decode(raw, ReleaseAnswer)
        return encode(replace(answer, share=b64(bytes(32))))

    world.links[at].tamper = tamper


@pytest.mark.req("R4.1")
@pytest.mark.req("I7")
async def test_wrong_shares_are_corrected_and_their_senders_named(world):
    """Two liars among five: the key all the same, and who they are."""
    for at in (0, 1):
        lying_share(world, at)
    gathered = await world.workload().gather(world.key)
    assert key_of(gathered) == SECRET
    assert dict(gathered.recovered.cheaters).keys() == {vault_name(1), vault_name(2)}


@pytest.mark.req("I7")
async def test_too_many_wrong_shares_give_no_key(world):
    """Three liars among five: no key, and the three are named."""
    for at in (0, 1, 2):
        lying_share(world, at)
    with pytest.raises(KeyCheckError) as e:
        await world.workload().gather(world.key)
    assert {c["vault"] for c in e.value.members["cheaters"]} == {vault_name(i) for i in (1, 2, 3)}


async def test_a_share_that_is_no_base64_is_that_vaults_outcome(world):
    """One vault's nonsense is named and costs the others nothing."""

    def tamper(_path, raw):
        return encode(replace(decode(raw, ReleaseAnswer), share="A"))

    for at in (0, 1, 2):
        world.links[at].tamper = tamper
    with pytest.raises(QuorumError) as e:
        await world.workload().gather(world.key)
    assert [v["became"] for v in e.value.members["vaults"]] == ["malformed"] * 3


@pytest.mark.req("I12")
@pytest.mark.parametrize("known", [False, True])
async def test_vaults_that_lack_the_approval_are_told_and_asked_again(world, known):
    """Only two have the promote: the workload brings it to the others, and is served."""
    promote = world.story.promote(V2, only=[0, 1])
    gathered = await world.workload(V2).gather(world.key, head=promote.digest if known else None)
    assert key_of(gathered) == SECRET
    assert {(r.version, r.head) for r in gathered.released.values()} == {(2, promote.digest)}
    assert all(b.vault.charter(world.key).version == 2 for b in world.story.benches)


async def test_a_retired_version_brings_its_own_end_to_vaults_that_lack_it(world):
    """Two deny, one is down, two have not heard: they are told, and deny as well."""
    world.story.promote(V2)
    world.story.retire(V1, only=[0, 1])
    world.links[2].down = True
    with pytest.raises(NotApprovedError) as e:
        await world.workload(V1).gather(world.key)
    assert e.value.members["retired"] is True


async def test_vaults_that_are_behind_are_named(world):
    """The old version is served by all; who lacks the newer statement shows."""
    world.story.promote(V2, only=[0, 1])
    gathered = await world.workload(V1).gather(world.key)
    assert key_of(gathered) == SECRET
    behind = {v for v, r in gathered.released.items() if r.version == 1}
    assert set(gathered.lagging) == behind <= {vault_name(i) for i in (3, 4, 5)}
    assert behind


async def test_a_vault_that_lost_everything_is_told_again(world, other):
    """A vault without the birth gets it from the courier; it still has no share."""
    for at in (0, 1, 2):
        world.links[at].bench = other.benches[at]
    with pytest.raises(ShareMissingError):
        await world.workload().gather(world.key)
    assert all(b.vault.charter(world.key).version == 1 for b in other.benches[:3])


async def test_a_head_that_is_on_no_vault_is_a_conflict(world):
    """Who knows a statement that no vault ever took is told so, by all of them."""
    with pytest.raises(AncestorMissingError):
        await world.workload().gather(world.key, head=OTHER)


async def test_unfinished_creation_shows(world, unborn):
    """A vault that never committed is named even though the key is there."""
    world.links[0].bench = unborn.story.benches[0]
    lying_share(world, 1)  # so that more answers than three are waited for
    gathered = await world.workload().gather(world.key)
    assert gathered.uncommitted == (vault_name(1),)


async def test_the_nonce_is_the_same_on_every_try_and_new_each_time(world):
    """Retries repeat the request; another gathering does not."""
    vaults = world.workload()
    await vaults.gather(world.key)
    world.links[0].lose_answer = 1
    await vaults.gather(world.key)
    bodies = [body for _, _, body in world.links[0].sent]
    assert bodies[1] == bodies[2] != bodies[0]


# --- submit and the counts of I12 -----------------------------------------------------------


@pytest.mark.req("I12")
@pytest.mark.parametrize("down", range(6))
async def test_a_promote_is_effective_at_k(world, down):
    """Of five vaults with k = 3: effective at three or more; the others are named."""
    for i in range(down):
        world.links[i].down = True
    report = await world.owner.submit(world.compose_promote().signed())
    assert (report.needed, len(report.confirmed)) == (3, 5 - down)
    assert report.effective == (5 - down >= 3)
    assert report.tolerated == max(0, 2 - down)
    assert set(report.missing) == {vault_name(i) for i in range(1, down + 1)}
    assert all(isinstance(e, UnavailableError) for e in report.missing.values())


COUNTS = [
    # n, k, birth, promote, retire
    (1, 1, 1, 1, 1),
    (2, 2, 2, 2, 1),
    (3, 2, 3, 2, 2),
    (4, 3, 4, 3, 2),
    (5, 3, 5, 3, 3),
    (5, 4, 5, 4, 2),
    (5, 5, 5, 5, 1),
    (7, 4, 7, 4, 4),
    (7, 5, 7, 5, 3),
]


@pytest.mark.req("I12")
@pytest.mark.parametrize(("n", "k", "birth", "promote", "retire"), COUNTS)
def test_the_counts(n, k, birth, promote, retire):
    """Create at n, let in at k, shut out at n - k + 1: then fewer than k are left that serve."""
    vaults = vault_set(n, k)
    born = signed(composer().birth(birth_body(vaults=vaults)))
    policy = open_birth(born.digest, born.signed())
    body = promote_body(policy, V2)
    write = composer()
    retiring = promote_body(policy, V2, retire_at=NOW + DAY)
    assert effective_at(born.statement, vaults) == birth
    assert effective_at(write.promote(policy, body).statement, vaults) == promote
    assert effective_at(write.retire(policy, code_id(V1), "").statement, vaults) == retire
    both = effective_at(write.promote(policy, retiring).statement, vaults)
    assert both == max(promote, retire)
    assert n - retire < k


@pytest.mark.req("I12")
@pytest.mark.parametrize("heard", range(6))
async def test_a_retire_shuts_out_exactly_when_it_is_reported_effective(world, heard):
    """Retired at three of five: the old version gets no key; at two it still does."""
    world.story.promote(V2)
    policy = world.story.policy
    for at in range(heard, 5):
        world.links[at].down = True
    retire = signed(composer().retire(policy, code_id(V1), "old"))
    report = await world.owner.submit(retire.signed())
    for link in world.links:
        link.down = False
    if report.effective:
        with pytest.raises(NotApprovedError):
            await world.workload(V1).gather(world.key)
    else:
        assert key_of(await world.workload(V1).gather(world.key)) == SECRET
    assert report.effective == (heard >= 3)
    assert set(report.missing) == {vault_name(i) for i in range(heard + 1, 6)}


async def test_laggards_get_what_is_missing_and_then_the_statement(world):
    """Vaults that missed an earlier statement confirm a later one all the same."""
    world.story.promote(V2, only=[0, 1, 2])
    retire = signed(composer().retire(world.story.policy, code_id(V1), "old"))
    report = await world.owner.submit(retire.signed())
    assert (len(report.confirmed), report.missing) == (5, {})
    assert world.asked(4)[:3] == ["statements", "charter", "statements"]
    assert len(decode(world.links[4].sent[2][2], TakeRequest).chain) == 2  # not the birth again


async def test_who_was_told_by_somebody_else_meanwhile_confirms_as_well(world):
    """Between our two tries another courier brings everything: that is no missing vault."""
    story = world.story
    promote = story.promote(V2, only=[0, 1, 2])
    retire = signed(composer().retire(story.policy, code_id(V1), "old"))

    def after(path):
        if path.endswith("statements"):
            story.benches[4].vault.take(run_of(promote, retire))

    world.links[4].after = after
    report = await world.owner.submit(retire.signed())
    assert (len(report.confirmed), report.missing) == (5, {})


async def test_late_laggards_are_vouched_for_by_the_new_statement(world):
    """The missed promote has expired with two receipts only: the new one vouches for it."""
    world.story.promote(V2, only=[0, 1])
    world.story.clock.time += 2 * DAY
    retire = signed(composer(world.story.clock.time).retire(world.story.policy, code_id(V1), ""))
    report = await world.owner.submit(retire.signed())
    assert {v: e.type for v, e in report.missing.items()} == {}
    assert len(report.confirmed) == 5


async def test_submitting_twice_changes_nothing(world):
    """The second report is the first one, receipts included."""
    promote = world.compose_promote().signed()
    first, again = [await world.owner.submit(promote) for _ in range(2)]
    assert first == again


async def test_what_vaults_refuse_is_reported_not_raised(world):
    """A statement that nobody approved, and one that stands on an old head."""
    policy = world.story.policy
    unsigned = signed(composer().promote(policy, promote_body(policy, V2)), "platform")
    report = await world.owner.submit(unsigned.signed())
    assert not report.effective
    assert {type(e) for e in report.missing.values()} == {ApprovalError}
    assert len(report.missing) == 5
    late = world.compose_promote(profile(3))
    world.story.promote(V2)
    report = await world.owner.submit(late.signed())
    assert {type(e) for e in report.missing.values()} == {ConflictError}


async def test_a_statement_whose_ancestors_nobody_has_stays_missing(world):
    """Nothing is invented: the laggards' own words are reported."""
    story = world.story
    story.statements.append(world.compose_promote())  # signed, and sent to nobody
    retire = signed(composer().retire(story.policy, code_id(V1), "old"))
    report = await world.owner.submit(retire.signed())
    assert {type(e) for e in report.missing.values()} == {AncestorMissingError}
    for link in world.links:
        link.before = lambda _path: setattr(world.links[4], "down", True)
    report = await world.owner.submit(retire.signed())
    assert len(report.missing) == 5


async def test_a_birth_is_submitted_like_the_rest(world):
    """A new key's birth needs all n."""
    birth = signed(composer(seed="other").birth(birth_body(label="second")))
    report = await world.owner.submit(birth.signed())
    assert (report.needed, report.effective) == (5, True)


async def test_only_what_has_a_place_in_a_charter_is_submitted(world):
    """A stage goes to `/v1/pending`: the caller is wrong."""
    body = StageBody(profile=V2, version="2", source="", provenance=None, review=None)
    stage = signed(composer().stage(None, body), "platform")
    with pytest.raises(TypeError):
        await world.owner.submit(stage.signed())


# --- courier and charters -------------------------------------------------------------------


async def test_the_courier_brings_everyone_to_the_newest_charter(world):
    """Three behind by one or two statements: afterwards all have all, and it says whom it told."""
    story = world.story
    story.promote(V2, only=[0, 1, 2, 3])
    story.promote(profile(3), only=[0, 1, 2])
    view, brought = await world.owner.courier(world.key)
    assert set(view.lagging) == {vault_name(4), vault_name(5)} == set(brought.values)
    view = await world.owner.read_charter(world.key)
    assert view.lagging == ()
    assert view.policy == story.policy
    assert set(view.confirmed(story.policy.head)) == set(view.chains)


async def test_an_expired_statement_reaches_laggards_with_receipts_of_k(world):
    """Days later, k receipts stand for its having been taken in time."""
    world.story.promote(V2, only=[0, 1, 2])
    world.story.clock.time += 40 * DAY
    await world.owner.courier(world.key)
    assert all(b.vault.charter(world.key).version == 2 for b in world.story.benches)


async def test_an_expired_statement_that_fewer_took_is_not_in_force(world):
    """Two of five took it and it ended: the view does not show it as policy."""
    promote = world.story.promote(V2, only=[0, 1])
    world.story.clock.time += 40 * DAY
    view, brought = await world.owner.courier(world.key)
    assert (view.policy.version, brought.each) == (1, ())
    assert view.chains[vault_name(1)] == (world.key, promote.digest)
    assert view.confirmed(promote.digest) == {}


async def test_a_long_way_back_is_walked_in_runs(world):
    """A vault that missed more statements than one request may hold gets all of them."""
    story = world.story
    for number in range(2, MAX_CHAIN + 5):
        policy = story.policy
        body = replace(promote_body(policy, profile(number)), earlier="retire")
        story.take(signed(composer(story.clock.time).promote(policy, body)), [0, 1, 2])
    await world.owner.courier(world.key)
    assert story.benches[4].vault.charter(world.key).version == MAX_CHAIN + 4
    assert world.asked(4).count("statements") == 2


def test_runs_fit_what_a_vault_reads():
    """By number and by size; nothing is lost and the order stays."""
    born = signed(composer().birth(birth_body()))
    small = CourierItem(signed=born.signed(), receipts=())
    padded = replace(small.signed, payload=small.signed.payload + "A" * 200_000)
    for item, count in ((small, 2 * MAX_CHAIN + 1), (replace(small, signed=padded), 11)):
        runs = _runs([item] * count)
        assert sum(map(len, runs)) == count
        assert all(len(run) <= MAX_CHAIN for run in runs)
        assert all(len(encode(TakeRequest(chain=run))) <= MAX_BODY for run in runs)
    assert _runs([]) == []


@pytest.mark.req("R8.2")
async def test_a_fork_is_shown_and_left_alone(world):
    """Two valid statements on one head, neither at k vaults: both are named, nobody is moved."""
    story, policy = world.story, world.story.policy
    ours = signed(composer(seed="a").promote(policy, promote_body(policy, V2)))
    theirs = signed(composer(seed="b").promote(policy, promote_body(policy, profile(3))))
    for at in (0, 1):
        story.benches[at].vault.take(run_of(ours))
    for at in (2, 3):
        story.benches[at].vault.take(run_of(theirs))
    world.links[4].down = True
    view, brought = await world.owner.courier(world.key)
    assert brought.each == ()
    [fork] = view.forks
    assert (fork.prev, set(fork.children)) == (world.key, {ours.digest, theirs.digest})


@pytest.mark.req("R8.2")
async def test_a_branch_that_k_vaults_took_wins(world):
    """It is read, however long the other is; and the couriers bring everybody over to it."""
    story, policy = world.story, world.story.policy
    ours = signed(composer(seed="a").promote(policy, promote_body(policy, V2)))
    theirs = signed(composer(seed="b").promote(policy, promote_body(policy, profile(3))))
    for at in (0, 1):
        story.benches[at].vault.take(run_of(ours))
    for at in (2, 3, 4):
        story.benches[at].vault.take(run_of(theirs))
    view = await world.owner.read_charter(world.key)
    [fork] = view.forks
    assert (fork.prev, set(fork.children)) == (world.key, {ours.digest, theirs.digest})
    assert view.policy.head == theirs.digest
    # Longer is not stronger: two vaults go on by themselves, k receipts still win.
    alone = story.benches[0].vault
    after = merge_charters(world.key, {vault_name(1): alone.charter(world.key)}, now=NOW).policy
    more = signed(composer(seed="c").promote(after, promote_body(after, profile(4))))
    for at in (0, 1):
        story.benches[at].vault.take(run_of(more))
    view = await world.owner.read_charter(world.key)
    assert view.policy.head == theirs.digest
    # Nor do receipts help that are strangers', or of another statement.
    birth = [b.vault.charter(world.key).charter[0].receipts[0] for b in story.benches]
    own = alone.charter(world.key).charter[1].receipts[0]
    strangers = [
        sign_record(replace_taken(own, vault=vault_name(i)), vault_key(i)) for i in (7, 8, 9)
    ]
    for receipts in (birth, strangers):
        world.links[0].tamper = padded_with(receipts)
        assert (await world.owner.read_charter(world.key)).policy.head == theirs.digest
    world.links[0].tamper = None
    _, brought = await world.owner.courier(world.key)
    assert set(brought.values) == {vault_name(1), vault_name(2)}
    shown = alone.charter(world.key)
    assert shown.head == theirs.digest
    assert [open_statement(f).digest for f in shown.forks] == [ours.digest]
    assert not (await world.owner.read_charter(world.key)).forks


def padded_with(receipts):
    """Have a vault show more receipts with each of its later statements."""

    def tamper(_path, raw):
        answer = decode(raw, CharterAnswer)
        first, *rest = answer.charter
        later = [replace(i, receipts=(*i.receipts, *receipts)) for i in rest]
        return encode(replace(answer, charter=(first, *later)))

    return tamper


@pytest.mark.req("I12")
async def test_a_vault_that_was_rolled_back_no_longer_counts(world):
    """Others still carry its receipt; what it shows now decides whether it confirms."""
    promote = world.story.promote(V2, only=[0, 1, 2])
    old = replace_charter(world, 0, 1)
    await world.owner.courier(world.key)
    world.links[0].tamper = lambda _path, _raw: encode(old)
    view = await world.owner.read_charter(world.key)
    [item] = [i for i, d in zip(view.items, view.policy.chain, strict=True) if d == promote.digest]
    assert len(item.receipts) == 5
    assert set(view.confirmed(promote.digest)) == {vault_name(i) for i in (2, 3, 4, 5)}
    assert view.lagging == (vault_name(1),)


def replace_charter(world, at, length):
    """Return the beginning of a vault's charter, as it was once."""
    answer = world.story.benches[at].vault.charter(world.key)
    head = world.story.policy.chain[length - 1]
    return replace(answer, charter=answer.charter[:length], head=head, version=length)


def charter_lies(world, other):
    """Return ways in which a vault may show a wrong charter."""
    charter = other.benches[0].vault.charter(other.key)
    return {
        "another key's": lambda _: charter,
        "empty": lambda a: replace(a, charter=()),
        "without its birth": lambda a: replace(a, charter=a.charter[1:]),
        "with another head": lambda a: replace(a, head=OTHER),
        "with another version": lambda a: replace(a, version=9),
        "out of order": lambda a: replace(a, charter=(a.charter[0], *a.charter[:0:-1])),
        "with a statement by the platform": lambda a: _and_forged(world, a),
        "with a broken payload": lambda a: replace(
            a, charter=(replace(a.charter[0], signed=replace(a.charter[0].signed, payload="AA")),)
        ),
        "without signatures": lambda a: replace(
            a, charter=tuple(replace(i, signed=replace(i.signed, signatures=())) for i in a.charter)
        ),
    }


def _and_forged(world, answer):
    policy = world.story.policy
    forged = signed(composer().promote(policy, promote_body(policy, profile(9))), "platform")
    item = CourierItem(signed=forged.signed(), receipts=())
    return replace(
        answer, charter=(*answer.charter, item), head=forged.digest, version=answer.version + 1
    )


CHARTER_LIES = [
    "another key's",
    "empty",
    "without its birth",
    "with another head",
    "with another version",
    "out of order",
    "with a statement by the platform",
    "with a broken payload",
    "without signatures",
]


@pytest.mark.req("I5")
@pytest.mark.parametrize("lie", CHARTER_LIES)
async def test_a_wrong_charter_is_named_and_changes_nothing(world, lie, other):
    """One lying vault: the others' charter is read, the liar is named; alone it is an error."""
    world.story.promote(V2)
    world.story.promote(profile(3))
    change = charter_lies(world, other)[lie]
    world.links[1].tamper = lambda _path, raw: encode(change(decode(raw, CharterAnswer)))
    view = await world.owner.read_charter(world.key)
    assert view.policy == world.story.policy
    assert set(view.wrong) == {vault_name(2)}
    assert vault_name(2) not in view.chains
    assert view.lagging == view.forks == ()
    for at in (0, 2, 3, 4):
        world.links[at].down = True
    with pytest.raises(PlacetError):
        await world.owner.read_charter(world.key)


async def test_forged_receipts_vouch_for_nothing(world):
    """Receipts of strangers, of other statements and unsigned ones do not count to k."""
    promote = world.story.promote(V2, only=[0])
    world.story.clock.time += 40 * DAY
    answer = world.story.benches[0].vault.charter(world.key)
    own = answer.charter[1].receipts[0]
    of_birth = [b.vault.charter(world.key).charter[0].receipts[0] for b in world.story.benches]
    stranger = sign_record(replace_taken(own, vault=vault_name(9)), vault_key(9))
    unsigned = [replace(own, vault_key=r.vault_key) for r in of_birth]
    broken = replace(own, vault_key="A")
    receipts = (own, stranger, *of_birth[1:], *unsigned, broken)
    item = replace(answer.charter[1], receipts=receipts)
    lying = replace(answer, charter=(answer.charter[0], item))
    world.links[0].tamper = lambda _path, _raw: encode(lying)
    view = await world.owner.read_charter(world.key)
    assert view.policy.version == 1
    assert promote.digest not in view.policy.chain


def replace_taken(receipt, **changes):
    """Return what a receipt says, changed."""
    from placet.core.messages import Taken

    return replace(decode(unb64(receipt.payload), Taken), **changes)


async def test_vaults_that_are_down_are_no_part_of_the_view(world):
    """What is seen of two vaults is shown; of none, the quorum error names all."""
    for at in (0, 1, 2):
        world.links[at].down = True
    assert set((await world.owner.read_charter(world.key)).chains) == {
        vault_name(4),
        vault_name(5),
    }
    for link in world.links:
        link.down = True
    with pytest.raises(QuorumError) as e:
        await world.owner.read_charter(world.key)
    assert len(e.value.members["vaults"]) == 5


async def test_committed_manifests_are_shown(world):
    """The view says which vaults have a share, and under which manifest."""
    view = await world.owner.read_charter(world.key)
    assert set(view.manifests) == set(view.chains)
    assert len(set(view.manifests.values())) == 1


# --- birth ----------------------------------------------------------------------------------


@pytest.mark.req("I8")
def test_a_birth_is_known_by_its_digest_and_its_owners_signature(world):
    """Another key's birth, an unsigned one and a promote are no birth of this key."""
    birth = world.story.statements[0]
    assert open_birth(world.key, birth.signed()) == world.story.policy
    with pytest.raises(VerificationError):
        open_birth(OTHER, birth.signed())
    unsigned = composer().birth(birth_body(label="unsigned"))
    with pytest.raises(ApprovalError):
        open_birth(unsigned.digest, unsigned.signed())
    platform = signed(unsigned, "platform")
    with pytest.raises(ApprovalError):
        open_birth(platform.digest, platform.signed())
    promote = world.compose_promote()
    with pytest.raises(PlacetError):
        open_birth(promote.digest, promote.signed())


def test_a_constellation_is_its_vault_set(world):
    """Vaults in another order, or too few of them, are a caller's mistake."""
    clients = [client_of(link, i) for i, link in enumerate(world.links, 1)]
    for some in (clients[::-1], clients[:4]):
        with pytest.raises(ValueError, match="vaults"):
            Constellation(vault_set(), some, clock=world.story.clock, rng=bytes)


async def test_closing_gives_up_what_is_under_way(world):
    """Calls that finish in the background end with the constellation."""
    world.links[0].silent = True
    vaults = world.workload()
    await vaults.gather(world.key)
    [late] = [t for t in asyncio.all_tasks() if t in vaults._background]
    vaults.close()
    await asyncio.wait([late])
    assert late.cancelled()
