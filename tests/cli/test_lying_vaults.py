"""Vaults that lie, differ or are not what they should be: named, and never followed."""

from __future__ import annotations

import msgspec
import pytest
from placet_testing.charters import composer, person

from placet.client.signing import promote_body
from placet.core.body import StageBody
from placet.core.encoding import b64
from placet.core.messages import CharterAnswer, CourierItem, PendingAnswer, TakeRequest
from placet.core.profile import Profile
from placet.core.statement import SignedStatement, open_statement
from placet.policy.charter import replay


def of(house, number):
    """Return the service of a vault."""
    return house.vaults[number - 1].vault


def read(path, shape=SignedStatement):
    """Return what a file holds."""
    return msgspec.json.decode(path.read_bytes(), type=shape)


def taken(*signed: SignedStatement) -> TakeRequest:
    """Return statements as a request."""
    return TakeRequest(chain=tuple(CourierItem(signed=s, receipts=()) for s in signed))


def test_a_forged_stage_is_no_stage(house):
    """A vault shows a stage that a stranger signed: a finding, and it cannot be promoted."""
    import time

    key = house.born()
    real = house.staged()
    body = StageBody(
        profile=read(house.profile(3), Profile),
        version="3",
        source="x",
        provenance=None,
        review=None,
    )
    forged = person("stranger").sign(composer(int(time.time())).stage(key, body))
    honest = of(house, 2).pending(key)
    of(house, 2).pending = lambda _: PendingAnswer(pending=(*honest.pending, forged.signed()))

    said = house.json("pending", "notes", code=1)
    assert [p["stage"] for p in said["pending"]] == [real["stage"]]
    assert [f["vault"] for f in said["forged"]] == [2]
    assert "nobody staged who may" in house.run("pending", "notes", code=1).text
    review = house.json("review", "notes", real["stage"], code=1)
    assert [f["finding"] for f in review["findings"]] == ["forged"]
    house.run("promote", "notes", forged.digest, "--yes", code=2)


def test_a_forged_charter_is_not_believed(house):
    """A vault that invents a promote is named; the policy is what the others show."""
    key = house.born()
    honest = of(house, 1).charter(key)
    policy = replay([open_statement(i.signed) for i in honest.charter])
    body = promote_body(policy, read(house.profile(3), Profile))
    import time

    forged = person("platform").sign(composer(int(time.time())).promote(policy, body))
    item = CourierItem(signed=forged.signed(), receipts=())
    of(house, 1).charter = lambda _: CharterAnswer(
        charter=(*honest.charter, item), head=forged.digest, version=2, manifest=None
    )

    said = house.json("key", "show", "notes", code=1)

    assert (said["version"], len(said["approvals"])) == (1, 1)
    assert [v["state"] for v in said["vaults"]] == ["unbelievable"] + ["current"] * 4
    assert "not believed" in house.run("key", "show", "notes", code=1).text


@pytest.mark.parametrize("lie", ["left out", "rewritten", "another vault's note", "an old note"])
def test_a_log_that_is_no_chain_is_a_finding(house, lie):
    """An entry left out or rewritten, or a checkpoint that the vault did not sign: exit 1."""
    key = house.born()
    old = of(house, 3).log(key, 0)
    house.staged()
    real = of(house, 3).log(key, 0)
    other = of(house, 4).log(key, 0)
    lies = {
        "left out": msgspec.structs.replace(real, entries=real.entries[1:]),
        "rewritten": msgspec.structs.replace(
            real,
            entries=(
                msgspec.structs.replace(real.entries[0], salt=b64(b"x" * 16)),
                real.entries[1],
            ),
        ),
        "another vault's note": msgspec.structs.replace(real, checkpoint=other.checkpoint),
        "an old note": msgspec.structs.replace(real, checkpoint=old.checkpoint),
    }
    of(house, 3).log = lambda *_: lies[lie]

    said = house.json("log", "notes", code=1)

    assert [v["verified"] for v in said["vaults"]] == [True, True, False, True, True]
    text = house.run("log", "notes", code=1).text
    assert "NOT a chain" in text
    assert "1, 2, 4, 5" in text


def test_vaults_of_other_code_get_no_key(house):
    """Vaults that run what the vaults file does not name are refused before anything is signed."""
    house.run("owner", "init")
    profile = msgspec.structs.replace(house.listed.profiles[0], image="sha256:" + "77" * 32)
    file = house.folder / "vaults.json"
    file.write_bytes(
        msgspec.json.encode(msgspec.structs.replace(house.listed, profiles=(profile,)))
    )

    said = house.json(
        *("key", "new", "notes", "--vaults", file, "--profile", house.profile(1), "--yes"), code=3
    )

    assert len(said["vaults"]) == 5
    assert house.json("key", "list") == []


@pytest.mark.req("R8.2")
def test_a_fork_is_seen_and_the_branch_of_k_wins(house):
    """One vault took another statement than four: named as a fork; then it follows the four."""
    house.born()
    files = [house.folder / f"{version}.json" for version in (2, 3)]
    for version, file in zip((2, 3), files, strict=True):
        house.run("promote", "notes", "--profile", house.profile(version), "--yes", "--out", file)
        for path in (house.home / "outbox").glob("*.json"):
            path.unlink()
    of(house, 1).take(taken(read(files[0])))
    for number in (2, 3, 4, 5):
        of(house, number).take(taken(read(files[1])))

    said = house.json("key", "show", "notes", code=1)
    assert said["vaults"][0]["state"] == "fork"
    assert said["head"] == open_statement(read(files[1])).digest
    assert len(said["forks"]) == 1
    assert "two statements stand on" in house.run("key", "show", "notes", code=1).text
    # Four are more than k: the one that took another comes over, and shows what it had.
    synced = house.json("key", "sync", "notes")
    assert {v["state"] for v in synced["vaults"]} == {"current"}
    assert house.json("key", "show", "notes")["forks"] == []
    after = house.json("promote", "notes", "--profile", house.profile(4), "--yes")
    assert after["missing"] == []


def test_a_fork_without_a_majority_stops(house):
    """Two branches, neither with k vaults: nothing is signed on either of them."""
    house.born()
    files = [house.folder / f"{version}.json" for version in (2, 3)]
    for version, file in zip((2, 3), files, strict=True):
        house.run("promote", "notes", "--profile", house.profile(version), "--yes", "--out", file)
        for path in (house.home / "outbox").glob("*.json"):
            path.unlink()
    for numbers, file in (((1, 2), files[0]), ((3, 4), files[1])):
        for number in numbers:
            of(house, number).take(taken(read(file)))

    said = house.json("promote", "notes", "--profile", house.profile(4), "--yes", code=6)

    assert "two statements stand on" in said["detail"]
    assert not list((house.home / "outbox").glob("*.json"))


def test_a_birth_that_was_not_delivered_says_so(house):
    """A key that no vault knows is not born: the next command brings the birth to them."""
    house.run("owner", "init")
    files = ("--vaults", house.folder / "vaults.json", "--profile", house.profile(1))
    house.run("key", "new", "notes", *files, "--yes", "--out", house.folder / "b.json")

    said = house.run("key", "show", "notes", code=2)
    assert "placet key sync" in said.text
    assert house.json("key", "sync", "notes")["version"] == 1
    house.run("key", "show", "notes")
