"""Recovery at the command line: guardians, delay, veto, cool-down; and the end of a key."""

from __future__ import annotations

import time

import msgspec
import pytest
from placet_testing.charters import identity
from placet_testing.owners import Owners, wait_for
from placet_testing.vaults import peer

from placet.core.encoding import b64
from placet.core.messages import ReleaseRequest
from placet.core.profile import Profile
from placet.errors import KeyDeletedError

GUARDS = """
[guardians]
all = ["g1", "g2"]
delay = "{delay}"
cooldown = "{cooldown}"
"""


@pytest.fixture
def owners(house):
    """Return a house with everybody's keys."""
    return Owners(house)


def asked(owners, *more: object):
    """Have both guardians ask for a new owner; return the delivered statement's report."""
    file = owners.house.folder / "recover.json"
    half = owners.house.json(
        *("recover", "start", "notes", "--new-owner", owners.public("heir"), "--yes"),
        *("--reason", "all keys burnt", "--key-file", owners.pem("g1"), "--out", file, *more),
    )
    assert half["complete"] is False
    assert owners.sign(file, "g2")["complete"] is True
    return owners.house.json("deliver", file)


@pytest.mark.req("R5.8")
def test_a_recovery_waits_and_then_lets_nothing_in(owners):
    """The intent is shown; too early is refused; after it the heir owns, and may only retire."""
    house = owners.house
    owners.born(owners.policy(more=GUARDS.format(delay="3s", cooldown="2d")))
    assert house.json("recover", "show", "notes")["open"] is False
    asked(owners)
    shown = house.json("recover", "show", "notes")
    assert (shown["open"], shown["ready"] - shown["since"]) == (True, 3)
    assert owners.state()["recovery"]["intent"] == shown["intent"]
    assert "recovery open; heir owns from" in house.run("key", "show", "notes").text
    assert "phone, laptop or page, each alone" in house.run("recover", "show", "notes").text
    complete = ("recover", "complete", "notes", "--key-file", owners.pem("heir"), "--yes")

    wait_for(lambda: house.run(*complete, code=None).code == 0)

    after = owners.state()
    assert [s["label"] for s in after["rules"]["owner"]["of"]] == ["heir"]
    assert after["recovery"] is None
    assert after["promote_from"] > time.time() + 24 * 3600
    assert "nothing is let in until" in house.run("key", "show", "notes").text
    # Neither the old owner nor, for now, the new one lets code in.
    promote = ("promote", "notes", "--profile", house.profile(2), "--yes")
    assert house.json(*promote, code=3)["reason"] == "recovery-cooldown"
    retire = ("retire", "notes", after["approvals"][0]["code"], "--reason", "x", "--yes")
    assert "no signer" in house.run(*retire, code=3).text


@pytest.mark.req("R5.8")
def test_before_the_delay_it_is_too_early(owners):
    """Exit code 5 with the time; nothing is signed; one old signer ends it alone."""
    house = owners.house
    owners.born(owners.policy(more=GUARDS.format(delay="7d", cooldown="2d")))
    intent = asked(owners)["statement"]
    complete = ("recover", "complete", "notes", "--key-file", owners.pem("heir"), "--yes")

    early = house.json(*complete, code=5)
    assert (early["type"].rpartition("/")[2], early["statement"]) == ("approval-waiting", intent)
    [open_] = house.json("void", "notes")["open"]
    assert (open_["kind"], open_["statement"], open_["until"]) == (
        "recovery",
        intent,
        early["until"],
    )
    # One at a time, and the guardians cannot let anything in.
    second = ("recover", "start", "notes", "--new-owner", owners.public("m1"), "--reason", "x")
    again = house.json(*second, "--key-file", owners.pem("g1"), "--yes", code=3)
    assert again["reason"] == "recovery-open"
    guardian = ("--profile", house.profile(2), "--yes", "--out", house.folder / "promote.json")
    house.run("promote", "notes", *guardian)
    signed = ("sign", house.folder / "promote.json", "--key-file", owners.pem("g1"), "--yes")
    assert "is no signer" in house.run(*signed, code=3).text

    done = house.json(
        *("void", "notes", intent[:20], "--reason", "I am here"),
        *("--key-file", owners.pem("laptop"), "--yes"),
    )

    assert done["effective"] is True
    assert owners.state()["recovery"] is None
    assert house.json(*complete, code=3)["reason"] == "no-recovery"


@pytest.mark.req("R5.8")
def test_one_guardian_of_two_starts_nothing(owners):
    """What lacks is named, and vaults refuse it as well."""
    owners.born(owners.policy(more=GUARDS.format(delay="7d", cooldown="2d")))
    file = owners.house.folder / "recover.json"
    start = ("recover", "start", "notes", "--new-owner", owners.public("heir"), "--reason", "x")

    said = owners.house.run(*start, "--key-file", owners.pem("g1"), "--yes", "--out", file)

    assert "guardians: 2 of 2 must sign, 1 did" in said.text
    refused = owners.house.json("deliver", file, code=3)
    assert {v["became"] for v in refused["missing"]} == {"approval-missing"}
    assert "is no signer" in owners.house.run(*start, "--yes", code=3).text


def test_a_key_without_guardians_is_not_recovered(owners):
    """It is said so, before anything is signed."""
    owners.born(owners.policy())
    start = ("recover", "start", "notes", "--new-owner", owners.public("heir"), "--reason", "x")

    said = owners.house.json(*start, "--key-file", owners.pem("g1"), "--yes", code=3)

    assert said["reason"] == "no-guardians"
    assert "cannot be recovered" in owners.house.run("recover", "show", "notes").text


def test_a_deleted_key_is_a_tombstone(owners):
    """The label is typed out; vaults refuse everything after it, release included."""
    house = owners.house
    key = owners.born(owners.policy())
    delete = ("key", "delete", "notes")
    assert "--type-out notes" in house.run(*delete, "--yes", code=2).text
    house.run(*delete, "--type-out", "photos", code=3)
    assert owners.state()["deleted"] is False

    done = house.json(*delete, "--type-out", "notes", "--yes")

    assert (done["needed"], done["effective"]) == (3, True)
    after = owners.state()
    assert (after["deleted"], after["approvals"], len(after["tombstones"])) == (True, [], 1)
    assert "nobody can read its data any more" in house.run("key", "show", "notes").text
    for command in (
        ("promote", "notes", "--profile", house.profile(2)),
        ("key", "delete", "notes", "--type-out", "notes"),
    ):
        assert house.json(*command, "--yes", code=3)["type"].endswith("/key-deleted")
    profile = msgspec.json.decode(house.profile(1).read_bytes(), type=Profile)
    workload = identity(profile, (key,), anchor=profile.anchor)
    caller = peer(workload, (key,), at=house.vaults[0].clock.monotonic())
    with pytest.raises(KeyDeletedError):
        house.vaults[0].vault.release(caller, key, ReleaseRequest(nonce=b64(bytes(32)), head=None))
