"""Branches, merges and couriers who choose what to bring: histories that once went wrong."""

from __future__ import annotations

import pytest
from placet_model import oracle
from placet_model.ideal import ideal
from placet_model.world import World


@pytest.fixture(autouse=True)
def quick():
    """Have signatures ideal."""
    with ideal():
        yield


def born(n: int, k: int) -> World:
    """Return a world in which all vaults took the birth."""
    world = World(n, k)
    for at in range(n):
        world.bring(at, [world.birth])
    return world


def promote(world: World, at: int, code: int) -> str:
    """Have a version promoted on what one vault holds."""
    return world.say(world.oracles[at].past, "promote", {"owner"}, code=code, sv=1, floor=0)


def merge(world: World, *at: int, without: int = 0) -> str:
    """Have the owner merge what these vaults hold; one code is left out for good."""
    pasts = [world.oracles[i].past for i in at]
    longest = max(pasts, key=lambda p: (oracle.version(p), p[-1].said.id))
    lets_in = {c: w for p in pasts for c, w in oracle.approved(p).items() if c != without}
    return world.say(
        longest,
        "merge",
        {"owner"},
        heads=frozenset(p[-1].said.id for p in pasts),
        table=oracle.table(longest),
        lets_in=lets_in,
        floor=0,
        tombs=frozenset({without} - {0}),
    )


def serving(world: World, code: int) -> int:
    """Return how many vaults release to a code."""
    return sum(world.releases(at, code) for at in range(world.n))


@pytest.mark.req("I12", "R8.2")
def test_no_courier_brings_a_vault_back_behind_a_merge():
    """A statement that lost stands on a head that the merge ended: it stays lost.

    The branch has k receipts from before the merge. What is not vouched for and comes
    with it would bring back at k vaults what the merge shut out at n-k+1.
    """
    world = born(3, 2)
    two, three = promote(world, 1, 2), promote(world, 0, 3)
    world.bring(0, [three])
    world.bring(1, [two])
    world.bring(2, [two])
    stale = promote(world, 2, 4)
    ended = merge(world, 0, 2, without=1)
    assert [world.bring(at, [ended]) for at in (0, 2)] == ["taken"] * 2
    assert serving(world, 1) == 1  # shut out: fewer than k
    assert world.bring(0, [world.birth, two, stale]) == "refused"
    assert world.bring(0, [world.birth, two]) == "taken"  # nothing new
    assert serving(world, 1) == 1
    assert world.bring(1, [ended]) == "taken"
    assert {world.chain(at)[-1] for at in range(3)} == {ended}


@pytest.mark.req("R8.2")
def test_the_middle_of_a_branch_that_a_merge_ended_is_no_branch():
    """A vault knows the branch's head by name, and not what stands before it."""
    world = born(3, 2)
    two = promote(world, 0, 2)
    world.bring(0, [two])
    world.bring(1, [promote(world, 1, 3)])
    end = promote(world, 0, 4)
    world.bring(0, [end])
    ended = merge(world, 0, 1)
    for at, run in ((1, [ended]), (0, [ended]), (2, [world.birth, two, end, ended])):
        assert world.bring(at, run) == "taken"
    assert world.bring(1, [world.birth, two]) == "refused"
    assert world.chain(1)[-1] == ended


@pytest.mark.req("R8.1", "R8.2")
def test_a_merge_that_k_vaults_took_brings_over_one_that_it_did_not_name():
    """Two branches are merged while a vault on a third one is away."""
    world = born(3, 2)
    for at, code in ((0, 2), (1, 3), (2, 4)):
        world.bring(at, [promote(world, at, code)])
    ended = merge(world, 0, 1)
    whole = [*world.chain(0), ended]
    assert world.bring(2, whole) == "refused"
    world.bring(0, [ended])
    assert world.bring(2, whole) == "refused"  # one vault is not k
    world.bring(1, [ended])
    assert world.bring(2, whole) == "taken"
    assert {world.chain(at)[-1] for at in range(3)} == {ended}


@pytest.mark.req("R8.2")
def test_after_a_merge_a_branch_that_k_vaults_took_wins_as_before():
    """Whatever led to the merge, and wherever the vault took it from."""
    world = born(3, 2)
    for at, code in ((0, 2), (1, 3)):
        world.bring(at, [promote(world, at, code)])
    ended = merge(world, 0, 1)
    for at in (0, 1):
        world.bring(at, [ended])
    world.bring(2, list(world.chain(0)))
    lost, won = promote(world, 1, 4), promote(world, 0, 4)
    world.bring(1, [lost])
    for at in (0, 2):
        world.bring(at, [won])
    assert world.bring(1, list(world.chain(0))) == "taken"
    assert {world.chain(at)[-1] for at in range(3)} == {won}


@pytest.mark.req("R8.2")
def test_a_vault_on_a_merge_that_others_did_not_take_follows_what_k_took_instead():
    """K vaults went on from one of its heads: the run shows that head."""
    world = born(3, 2)
    two = promote(world, 1, 2)
    world.bring(0, [promote(world, 0, 3)])
    for at in (1, 2):
        world.bring(at, [two])
    ended = merge(world, 0, 1)
    world.bring(0, [ended])
    onward = promote(world, 1, 4)
    for at in (1, 2):
        world.bring(at, [onward])
    assert world.bring(0, [world.birth, two, onward]) == "taken"
    assert world.chain(0) == (world.birth, two, onward)


@pytest.mark.req("R8.2")
def test_a_branch_of_several_that_nobody_vouches_for_gives_way():
    """However long it is: only a merge has to be shown where one comes from."""
    world = born(3, 2)
    two = promote(world, 1, 2)
    for code in (3, 4):
        world.bring(0, [promote(world, 0, code)])
    for at in (1, 2):
        world.bring(at, [two])
    assert world.bring(0, [world.birth, two]) == "taken"
    assert world.chain(0) == (world.birth, two)


@pytest.mark.req("R8.2")
def test_a_merge_is_taken_by_way_of_any_head_that_it_names():
    """A vault that went on from one of them needs nothing of the other branch."""
    world = born(3, 2)
    two = promote(world, 1, 2)
    for code in (3, 4):
        world.bring(0, [promote(world, 0, code)])
    for at in (1, 2):
        world.bring(at, [two])
    ended = merge(world, 0, 1)
    world.bring(2, [promote(world, 2, 3)])
    for at in (0, 1):
        assert world.bring(at, [ended]) == "taken"
    assert world.bring(2, [world.birth, two, ended]) == "taken"
    assert world.chain(2) == (world.birth, two, ended)
