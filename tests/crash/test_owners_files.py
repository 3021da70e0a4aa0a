"""Kill the owner's tool, or take its power, while it writes what it keeps (I16, "any party").

Nothing half-written is believed, nothing is in the way of the next try, and what the tool said
that it had done is done.
"""

from __future__ import annotations

import json
import shutil

import pytest
from placet_testing.clients import memory_folder
from placet_testing.crash_calls import AFTERWARDS, Fault
from placet_testing.crash_home import Home

from placet.client.signing import SigningKey

FILES = frozenset({"write", "file", "fsync", "rename"})
DONE, UNREADABLE, EXISTS = 0, 2, 6


@pytest.fixture
def home(zygote):
    """Lend an owner's machine."""
    with memory_folder() as folder:
        yield Home(zygote, folder)


@pytest.fixture
def faults_of(spread, tears):
    """Return how to choose kills, the same with the power lost, and torn writes."""

    def chosen(calls, kills, cuts, count=4):
        points = range(len(calls))
        return [
            *(Fault(at, "kill", kinds=FILES) for at in spread(points, kills)),
            *(Fault(at, "power", kinds=FILES) for at in spread(points, cuts)),
            *tears(calls, count, FILES),
        ]

    return chosen


def named(call):
    """Return a call without the random part of a file's name."""
    head, _, tail = call.what.rpartition("/")[2].partition(".json")
    return type(call)(call.name, call.kind, f"KEY.json{tail}" if len(head) > 60 else call.what)


async def all_agree(home, where):
    """Check that every vault shows the same charter; return it."""
    shown = await home.json("key", "show", "notes/data")
    states = [vault["state"] for vault in shown["vaults"]]
    assert states == ["current"] * len(states), (where, states)
    return shown


@pytest.mark.req("I16")
async def test_making_an_owner(home, table, faults_of):
    """One owner or none; never half a key, and never a principal without it that stays."""
    whole = await home.must("owner", "init")
    for fault in faults_of([c for c in whole.calls if c.kind in FILES], 99, 9):
        shutil.rmtree(home.path)
        ran = await home.run("owner", "init", fault=fault)
        assert ran.hit is not None
        there = (await home.run("owner", "show")).code
        assert there in {DONE, UNREADABLE}, fault
        again = await home.run("owner", "init")
        assert again.code == (EXISTS if there == DONE else DONE), (fault, again.err)
        assert (await home.json("owner", "show"))["fingerprint"]
        table.count("owner init", "files", fault.how, named(ran.hit), stood(there == DONE))
    # What was said is done: the power may go right after.
    await home.check_init_stays()


@pytest.mark.req("I16")
@pytest.mark.parametrize("command", ["init", "add"])
async def test_making_a_spare(home, table, faults_of, command):
    """A spare's file that a killed try left is taken up by the next; none is of two owners."""
    file = home.path / "stick" / "spare.pem"
    ask = ("owner", command, "--spare", str(file))
    home.path.mkdir()
    if command == "add":
        await home.must("owner", "init")
    home.keep("before")
    whole = await home.must(*ask)
    calls = [c for c in whole.calls if c.kind in FILES]
    taken_up = 0
    for fault in faults_of(calls, 8, 4, 2):
        home.back("before")
        ran = await home.run(*ask, fault=fault)
        assert ran.hit is not None
        signers, left = await known(home), public_of(file) if file.exists() else None
        again = await home.run(*ask)
        done = len(signers) == 2
        if again.code == EXISTS or (done and again.code == UNREADABLE):
            assert done, (fault, again.err)
        else:
            assert again.code == DONE, (fault, ran.hit, again.err)
        owner = await known(home)
        assert len(owner) == 2
        assert public_of(file) in owner, (fault, ran.hit)
        assert not list(file.parent.glob(".*")), "half a key stays on the stick"
        if left is not None and not done:
            assert left in owner
            taken_up += 1
        table.count(f"owner {command} --spare", "files", fault.how, named(ran.hit), stood(done))
    assert taken_up, "no point between the file and the owner"


async def known(home):
    """Return the public keys of the owner's signers; none if there is no owner."""
    ran = await home.run("owner", "show", "--json")
    signers = json.loads(ran.out)["principal"]["of"] if ran.code == DONE else []
    return {signer["public_key"] for signer in signers}


def public_of(file):
    """Return the public key of a key file."""
    return SigningKey.load("", file).signer.public_key


def stood(done):
    """Return what stood after a command, for the table."""
    return "after" if done else "before"


@pytest.mark.req("I16")
async def test_having_a_key_born(home, table, faults_of):
    """Until the key is known here the command can be repeated; from then on sync completes it."""
    await home.must("owner", "init")
    home.keep("owner")
    store = home.folder / "store"
    async with home.vaults(store) as vaults:
        profile = await home.write_profile(1)
        new = ("key", "new", "notes/data", "--vaults", str(vaults), "--profile", str(profile))
        whole = await home.must(*new, "--yes")
        for fault in faults_of([c for c in whole.calls if c.kind in FILES], 9, 5, 3):
            home.back("owner")
            ran = await home.run(*new, "--yes", fault=fault)
            assert ran.hit is not None
            await home.must("key", "list")
            again = await home.run(*new, "--yes")
            if again.code == UNREADABLE:
                await home.must("key", "sync", "notes/data")
            else:
                assert again.code == DONE, (fault, again.err)
            await all_agree(home, fault)
            known_here = again.code == UNREADABLE
            table.count("key new", "files", fault.how, named(ran.hit), stood(known_here))
        home.back("owner")
        ran = await home.run(*new, "--yes", fault=AFTERWARDS)
        assert ran.code == DONE
        await home.must("key", "show", "notes/data")


@pytest.mark.req("I14", "I16")
async def test_promoting(home, table, spread):
    """Killed between any two calls, sends included: one is taken by all, and none forks."""
    await home.must("owner", "init")
    store = home.folder / "store"
    async with home.vaults(store) as vaults:
        first = await home.write_profile(1)
        await home.must(
            *("key", "new", "notes/data", "--vaults", str(vaults)),
            *("--profile", str(first), "--yes"),
        )  # fmt: skip
    home.keep("owner")
    shutil.copytree(store, home.folder / "born")
    promote = ("promote", "notes/data", "--profile", str(await home.write_profile(2)), "--yes")
    async with home.vaults(store, "born"):
        calls = (await home.must(*promote)).calls
    posted = next(at for at, call in enumerate(calls) if call.name == "rename")
    ways = [Fault(at, "kill") for at in spread(range(posted - 4, len(calls)), 11)]
    ways += [Fault(at, "power") for at in spread(range(posted, len(calls)), 4)]
    for fault in ways:
        home.back("owner")
        async with home.vaults(store, "born"):
            ran = await home.run(*promote, fault=fault)
            again = await home.run(*promote)
            if again.code == EXISTS:
                # It was signed, and no second one is: the first is what has to arrive.
                assert "placet key sync" in again.err
                await home.must("key", "sync", "notes/data")
            else:
                assert again.code == DONE, (fault, ran.hit, again.err)
            shown = await all_agree(home, (fault, ran.hit))
            codes = [one["code"] for one in shown["approvals"]]
            assert len(codes) == len(set(codes)) == 2
            stood = "after" if again.code == EXISTS else "before"
            table.count("promote (owner)", "files", fault.how, named(ran.hit or calls[-1]), stood)
