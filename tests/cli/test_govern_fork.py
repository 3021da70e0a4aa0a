"""Two devices decide at once: shown, and merged. What is replayed is refused (R5.3)."""

from __future__ import annotations

import time

import msgspec
import pytest
from placet_testing.owners import Owners, statement, wait_for

from placet.core.profile import Profile, code_id


@pytest.fixture
def owners(house):
    """Return a house with everybody's keys."""
    return Owners(house)


def code(path):
    """Return the code of a profile in a file."""
    return code_id(msgspec.json.decode(path.read_bytes(), type=Profile))


def promoted(owners, version: int, *more: object):
    """Return the file of a promote that is signed and that no vault has seen."""
    file = owners.house.folder / f"promote-{version}.json"
    profile = owners.house.profile(version)
    arguments = ("promote", "notes", "--profile", profile, "--keep", "--yes", "--out", file, *more)
    owners.house.run(*arguments)
    owners.forget()
    return file


def forked(owners):
    """Have two devices promote at once: one reaches two vaults, the other two more."""
    house = owners.house
    one, two = promoted(owners, 2), promoted(owners, 3)
    house.stop(3, 4, 5)
    house.run("deliver", one, code=4)
    house.start(3, 4)
    house.stop(1, 2)
    owners.forget()
    house.run("deliver", two, code=4)
    house.start(1, 2)
    owners.forget()
    return statement(one).digest, statement(two).digest


@pytest.mark.req("R8.2")
def test_two_devices_at_once_fork_and_the_owner_merges(owners):
    """Neither branch has k vaults: shown, decisions wait, one merge brings all to one head."""
    house = owners.house
    owners.born(owners.policy())
    heads = forked(owners)
    shown = house.json("key", "show", "notes", code=1)
    assert [set(f["children"]) for f in shown["forks"]] == [set(heads)]
    text = house.run("key", "show", "notes", code=1).text
    assert "placet merge notes" in text
    # Nothing is decided on one branch of the two.
    more = ("promote", "notes", "--profile", house.profile(4), "--yes")
    assert "placet merge" in house.json(*more, code=6)["hint"]
    assert house.json("key", "sync", "notes", code=6)["delivered"] == []

    said = house.run("merge", "notes", "--reason", "both devices", "--yes", code=5).text

    for part in (
        "branch 1 version 2, head",
        "branch 2 version 2, head",
        f"promote: notes, security version 1, {code(house.profile(2))[7:19]}",
        f"promote: notes, security version 1, {code(house.profile(3))[7:19]}",
        "effective: 4 of 5 vaults confirmed, 3 needed",
    ):
        assert part in said
    house.start(5)
    house.run("key", "sync", "notes")
    after = house.json("key", "show", "notes")
    assert (after["version"], after["forks"]) == (3, [])
    assert [v["state"] for v in after["vaults"]] == ["current"] * 5
    assert len(after["approvals"]) == 3
    assert house.json("merge", "notes", "--reason", "x", "--yes")["branches"] == 1
    house.run(*more)


@pytest.mark.req("R8.2")
def test_a_merge_keeps_what_one_branch_shut_out(owners):
    """One device retired version 1 while the other promoted 2: version 1 stays out."""
    house = owners.house
    owners.born(owners.policy())
    old = code(house.profile(1))
    two = promoted(owners, 2)
    end = house.folder / "retire.json"
    house.run("retire", "notes", old, "--reason", "flaw", "--yes", "--out", end)
    owners.forget()
    house.stop(3, 4, 5)
    house.run("deliver", two, code=4)
    house.start(3, 4)
    house.stop(1, 2)
    house.run("deliver", end, code=4)
    house.start(1, 2)
    owners.forget()

    house.run("merge", "notes", "--reason", "both", "--yes", code=5)

    after = owners.state()
    assert [a["code"] for a in after["approvals"]] == [code(house.profile(2))]
    assert after["tombstones"] == [old]


def test_a_branch_with_k_vaults_needs_no_merge(owners):
    """It counts; the others are brought over to it by a sync."""
    house = owners.house
    owners.born(owners.policy())
    one, two = promoted(owners, 2), promoted(owners, 3)
    house.stop(3, 4, 5)
    house.run("deliver", one, code=4)
    house.start(3, 4, 5)
    house.stop(1, 2)
    owners.forget()
    house.run("deliver", two, code=5)
    house.start(1, 2)
    owners.forget()

    said = house.json("merge", "notes", "--reason", "x", "--yes", code=6)

    assert "placet key sync notes" in said["hint"]
    assert house.json("key", "sync", "notes")["head"] == statement(two).digest


# --- replay (R5.3) ----------------------------------------------------------------------------


def denied(owners, file):
    """Return why a vault's log says that a statement was refused."""
    digest = statement(file).digest
    return [e["detail"] for e in owners.log() if (e["kind"], e["statement"]) == ("denied", digest)]


@pytest.mark.req("R5.3")
def test_a_promote_after_a_retire_is_refused(owners):
    """Signed before, brought after: refused with its reason. What was taken is not taken twice."""
    house = owners.house
    owners.born(owners.policy())
    taken = promoted(owners, 2)
    house.run("deliver", taken)
    late = promoted(owners, 3)
    house.run("retire", "notes", code(house.profile(2)), "--reason", "flaw", "--yes")

    house.run("deliver", taken)
    assert house.json("deliver", late, code=6)["confirmed"] == []

    after = owners.state()
    assert [a["code"] for a in after["approvals"]] == [code(house.profile(1))]
    assert denied(owners, late) == [{"type": "statement-conflict", "purpose": "take"}]
    assert "statement-conflict" in house.run("log", "notes").text


@pytest.mark.req("R5.3")
def test_a_promote_after_a_void_is_refused(owners):
    """The no uses up the version that it was signed for, whether vaults had seen it or not."""
    house = owners.house
    owners.born(owners.policy())
    stolen = promoted(owners, 2)
    digest = statement(stolen).digest
    house.run("void", "notes", digest, "--reason", "stolen", "--yes")

    house.run("deliver", stolen, code=6)

    assert len(owners.state()["approvals"]) == 1
    assert denied(owners, stolen) == [{"type": "statement-conflict", "purpose": "take"}]


@pytest.mark.req("R5.3")
def test_a_promote_after_its_end_is_refused(owners):
    """Past its own end nobody takes it, and each log says why."""
    house = owners.house
    owners.born(owners.policy())
    late = promoted(owners, 2, "--expires", "1s")
    end = statement(late).statement.expires_at
    wait_for(lambda: time.time() > end)

    said = house.json("deliver", late, code=3)

    assert {v["became"] for v in said["missing"]} == {"approval-expired"}
    assert denied(owners, late) == [{"type": "approval-expired", "purpose": "take"}]
    assert len(owners.state()["approvals"]) == 1
