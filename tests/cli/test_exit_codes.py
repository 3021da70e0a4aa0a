"""Every exit code, each really produced by commands against vaults on real sockets."""

from __future__ import annotations

import pytest
from placet_testing.charters import person


def approvals(house):
    """Return the approved code by image."""
    return {a["image"]: a["code"] for a in house.json("key", "show", "notes")["approvals"]}


def test_0_all_vaults_confirm(house):
    """A promote that every vault took is done."""
    house.born()
    said = house.json("promote", "notes", "--profile", house.profile(2), "--yes", code=0)

    assert (said["effective"], said["needed"], len(said["confirmed"])) == (True, 3, 5)
    assert said["missing"] == []


@pytest.mark.req("I12")
def test_5_effective_and_the_others_are_named(house):
    """With two of five down a promote is effective at k = 3, and the two are named."""
    house.born()
    staged = house.staged()
    house.stop(2, 4)

    said = house.json("promote", "notes", staged["code"], "--yes", code=5)

    assert (said["effective"], said["needed"], said["vaults"]) == (True, 3, 5)
    assert [v["number"] for v in said["confirmed"]] == [1, 3, 5]
    assert [(v["number"], v["became"]) for v in said["missing"]] == [
        (2, "unavailable"),
        (4, "unavailable"),
    ]
    house.start(2, 4)
    after = house.json("key", "sync", "notes")
    assert {v["state"] for v in after["vaults"]} == {"current"}


@pytest.mark.req("I12")
def test_a_retire_counts_otherwise(empty):
    """Of four vaults with k = 3, a retire is effective at n - k + 1 = 2, a promote at 3."""
    house = empty.open(n=4, k=3)
    house.born()
    old = house.json("promote", "notes", "--profile", house.profile(2), "--keep", "--yes")
    assert old["needed"] == 3
    code = next(iter(approvals(house).values()))

    house.stop(4)
    said = house.json("retire", "notes", code, "--reason", "old", "--yes", code=5)

    assert (said["effective"], said["needed"], said["tolerated"]) == (True, 2, 1)
    assert [v["number"] for v in said["missing"]] == [4]


@pytest.mark.req("I12")
def test_4_a_birth_needs_all(house):
    """A birth that one vault did not take is not effective, and the vault is named."""
    house.run("owner", "init")
    file = house.folder / "birth.json"
    profile, vaults = house.profile(1), house.folder / "vaults.json"
    house.run(
        *("key", "new", "notes", "--vaults", vaults, "--profile", profile, "--yes", "--out", file)
    )
    house.stop(5)

    said = house.json("deliver", file, code=4)

    assert (said["effective"], said["needed"]) == (False, 5)
    assert [v["number"] for v in said["missing"]] == [5]
    house.start(5)
    assert house.json("key", "sync", "notes", code=0)["version"] == 1


@pytest.mark.req("R8.3")
def test_4_too_few_vaults(house):
    """With three of five down nothing is signed: the two that answer may be old."""
    house.born()
    house.stop(1, 2, 3)

    said = house.json("promote", "notes", "--profile", house.profile(2), "--yes", code=4)

    assert said["type"].endswith("/quorum-unavailable")
    assert [v["vault"] for v in said["vaults"]] == [m.id for m in house.listed.vaults[:3]]
    assert not list((house.home / "outbox").glob("*.json"))


def test_4_key_new_needs_every_vault_live(house):
    """A key is not born where a vault did not prove itself just now."""
    house.run("owner", "init")
    house.stop(3)
    files = ("--vaults", house.folder / "vaults.json", "--profile", house.profile(1))

    said = house.json("key", "new", "notes", *files, "--yes", code=4)

    assert [v["endpoint"] for v in said["vaults"]] == [house.listed.vaults[2].endpoint]
    assert house.json("key", "list") == []


def test_3_refused_with_another_owners_key(house):
    """A key file that is none of this key's owner signs nothing."""
    house.born()
    (house.home / "owner.pem").unlink()
    house.run("owner", "init")

    said = house.json("promote", "notes", "--profile", house.profile(2), "--yes", code=3)

    assert said["type"].endswith("/approval-missing")
    assert house.json("key", "show", "notes")["version"] == 1


def test_3_refused_by_the_policy(house):
    """What no vault would take is refused here, before anything is signed."""
    house.born()
    v1 = next(iter(approvals(house).values()))
    promote = ("promote", "notes", "--yes")
    house.run(*promote, "--profile", house.profile(2), "--retire-now", "--floor", "1")

    below = house.json(*promote, "--profile", house.profile(3, security_version=0), code=3)
    assert "below the floor" in below["detail"]
    back = house.json(*promote, v1, code=3)
    assert "--unretire" in back["hint"]
    lower = house.json(*promote, "--profile", house.profile(3), "--floor", "0", code=3)
    assert "only rises" in lower["detail"]
    house.run(*promote, v1, "--unretire", code=0)


def test_3_refused_by_a_stranger(house):
    """Vaults take no stage of somebody who may not."""
    house.born()
    person("stranger").save(house.folder / "stranger.pem")

    said = house.json(
        *("stage", "notes", "--profile", house.profile(2), "--version", "2", "--source", "x"),
        *("--key-file", house.folder / "stranger.pem"),
        code=3,
    )

    assert {v["became"] for v in said["vaults"]} == {"role-denied"}


def test_6_another_statement_came_first(house):
    """A statement that stands on an older head is refused by every vault."""
    house.born()
    late = house.folder / "late.json"
    house.run("promote", "notes", "--profile", house.profile(2), "--yes", "--out", late)
    # The tool itself refuses to split the charter.
    said = house.json("promote", "notes", "--profile", house.profile(3), "--yes", code=6)
    assert "signed here" in said["detail"]
    for path in (house.home / "outbox").glob("*.json"):
        path.unlink()
    house.run("promote", "notes", "--profile", house.profile(3), "--yes")

    said = house.json("deliver", late, code=6)

    assert said["effective"] is False
    assert {v["became"] for v in said["missing"]} == {"statement-conflict"}


def test_1_findings_of_a_review(house):
    """Vaults that differ, a downgrade and looser rules are findings; a plain upgrade is none."""
    house.born()
    plain = house.staged(2)
    assert house.json("review", "notes", plain["stage"], code=0)["findings"] == []

    house.stop(1)
    other = house.json(
        *("stage", "notes", "--profile", house.profile(3, security_version=0)),
        *("--version", "3", "--source", "x", "--key-file", house.stager()[0]),
        code=5,
    )
    house.start(1)
    said = house.json("review", "notes", other["code"], code=1)

    assert {f["finding"] for f in said["findings"]} == {"vaults-differ", "downgrade"}
    assert said["staged"]["lacking"] == [1]
    before = house.json("key", "show", "notes")["approvals"][0]["profile"]
    assert said["before"] == before


def test_2_is_for_input(house):
    """What cannot be read or is not known is usage, and no vault is asked."""
    house.born()
    house.run("key", "show", "unknown", code=2)
    house.run("promote", "notes", "--profile", house.folder / "none.json", "--yes", code=2)
    house.run("promote", "notes", "--keep", "--retire-now", code=2)
    house.run("promote", "notes", "abc", "--yes", code=2)
    house.run("nonsense", code=2)


def test_repeating_completes(house):
    """A promote whose sending was cut off is completed by sync, once and not twice (I16)."""
    house.born()
    file = house.folder / "promote.json"
    signed = house.json("promote", "notes", "--profile", house.profile(2), "--yes", "--out", file)

    first = house.json("key", "sync", "notes")
    again = house.json("key", "sync", "notes")

    assert first["delivered"] == [signed["statement"]]
    assert (again["delivered"], again["version"], again["head"]) == ([], 2, signed["statement"])
    assert len(house.json("key", "show", "notes")["approvals"]) == 2


def test_what_could_not_be_sent_is_kept(house):
    """A statement that no vault took stays in the outbox until one sync brings it to all."""
    house.born()
    file = house.folder / "promote.json"
    signed = house.json("promote", "notes", "--profile", house.profile(2), "--yes", "--out", file)
    [kept] = (house.home / "outbox").glob("*.json")
    kept.unlink()
    house.stop(1, 2, 3, 4, 5)

    said = house.json("deliver", file, code=4)

    assert (said["effective"], len(said["missing"])) == (False, 5)
    file.unlink()
    house.start(1, 2, 3, 4, 5)
    assert house.json("key", "sync", "notes")["head"] == signed["statement"]
    assert not list((house.home / "outbox").glob("*.json"))


def test_code_is_not_named_by_a_few_digits(house):
    """Fewer than eight digits could be found by trying: they name nothing, even if unique."""
    house.born()
    code = house.staged()["code"].removeprefix("sha256:")

    said = house.json("promote", "notes", code[:7], "--yes", code=2)
    assert "at least 8" in said["hint"]
    house.json("retire", "notes", approvals_code(house)[:7], "--reason", "x", "--yes", code=2)
    house.run("promote", "notes", code[:8], "--yes")


def approvals_code(house):
    """Return the digits of the first approved code."""
    return house.json("key", "show", "notes")["approvals"][0]["code"].removeprefix("sha256:")


def test_sync_delivers_nothing_that_is_refused(house):
    """A statement that came too late is not said to be delivered, and changes nothing."""
    house.born()
    late = house.folder / "late.json"
    house.run("promote", "notes", "--profile", house.profile(2), "--yes", "--out", late)
    [kept] = (house.home / "outbox").glob("*.json")
    aside = kept.rename(house.folder / "aside.json")
    first = house.json("promote", "notes", "--profile", house.profile(3), "--yes")
    aside.rename(kept)

    said = house.json("key", "sync", "notes")

    assert (said["delivered"], said["head"]) == ([], first["statement"])
    # And it does not stand in the way of the next decision.
    house.run("promote", "notes", "--profile", house.profile(4), "--yes")
