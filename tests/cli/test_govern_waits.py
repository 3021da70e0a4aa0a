"""What waits: shown, brought to every vault, vetoed by one signer alone, or taking effect."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from placet_testing.owners import Owners, statement, wait_for

CLAUSE = """
[auto_migrate]
any = ["platform"]
changes = ["image", "measurement"]
max_step = 1
delay = "{delay}"
budget = 1
expires_at = 2099-01-01T00:00:00Z
"""
SENTENCE = "let platform promote notes without me"


@pytest.fixture
def owners(house):
    """Return a house with everybody's keys."""
    return Owners(house)


def paged(owners, version: int = 2):
    """Return the file of a promote that only a page of others signed, of the version given."""
    file = owners.house.folder / f"promote-{version}.json"
    promote = ("promote", "notes", "--profile", owners.house.profile(version))
    owners.house.run(*promote, "--expires", "2d", "--yes", "--out", file)
    owners.forget()
    return owners.on_page(replace(statement(file), signatures=()))


def opened(owners, delay: str):
    """Turn the clause on."""
    policy = owners.policy("sandbox", CLAUSE.format(delay=delay))
    on = ("key", "auto-migrate", "on", "notes", "--policy", policy)
    owners.house.run(*on, "--type-out", SENTENCE)


def migrate(owners, *more: str, code: int | None = 0, version: int = 2):
    """Use the clause, as its signer."""
    profile = owners.house.profile(version)
    key = ("--key-file", owners.pem("platform"), "--yes")
    return owners.house.json("migrate", "notes", "--profile", profile, *key, *more, code=code)


def test_what_a_page_signed_alone_waits_and_one_signer_says_no(owners):
    """Three vaults see it: the no brings it to the others first, and any one signer is enough."""
    house = owners.house
    owners.born(owners.policy(owner='{ at_least = 1, of = ["phone", "laptop", "page"] }'))
    file = paged(owners)
    house.stop(4, 5)

    said = house.json("deliver", file, code=5)

    assert said["effective"] is False
    assert [v["became"] for v in said["missing"]] == ["approval-waiting"] * 3 + ["unavailable"] * 2
    assert said["waits_until"] >= int(time.time()) + 23 * 3600
    text = house.run("deliver", file, code=5).text
    assert "Any owner signer can say no: placet void notes" in text
    house.start(4, 5)
    [waiting] = owners.state()["waiting"]
    assert (waiting["at"], waiting["veto"]) == ([1, 2, 3], ["phone", "laptop", "page"])
    shown = house.run("key", "show", "notes").text
    assert f"placet void notes {waiting['statement'][7:19]}" in shown
    assert house.json("pending", "notes")["waiting"] == [waiting]
    assert "promote" in house.run("void", "notes").text
    assert house.json("void", "notes")["open"] == [waiting]

    no = ("void", "notes", waiting["statement"][:20], "--reason", "that was not me")
    done = house.json(*no, "--key-file", owners.pem("laptop"), "--yes")

    assert done["effective"] is True
    assert {e["kind"] for e in owners.log(5)} >= {"taken", "waiting"}
    after = owners.state()
    assert (after["waiting"], len(after["approvals"]), after["version"]) == ([], 1, 2)
    # It is dead: its version is used up.
    refused = house.json("deliver", file, code=6)
    assert {v["became"] for v in refused["missing"]} == {"statement-conflict"}
    assert house.run(*no, "--yes", code=2)


@pytest.mark.req("R6.7")
def test_one_of_an_owner_of_two_says_no_alone(owners):
    """Where two must sign everything, a no to what waits still takes one."""
    house = owners.house
    birth, on = house.folder / "birth.json", house.folder / "on.json"
    policy = owners.policy(owner='{ all = ["phone", "laptop"] }')
    files = ("--vaults", house.folder / "vaults.json", "--profile", house.profile(1))
    house.run("key", "new", "notes", *files, "--policy", policy, "--yes", "--out", birth)
    owners.sign(birth, "laptop")
    house.run("deliver", birth)
    clause = owners.policy("both", CLAUSE.format(delay="1d"), owner='{ all = ["phone", "laptop"] }')
    turn = ("key", "auto-migrate", "on", "notes", "--policy", clause, "--type-out", SENTENCE)
    assert "owner: 2 of 2 must sign, 1 did" in house.run(*turn, "--out", on).text
    owners.sign(on, "laptop")
    house.run("deliver", on)
    said = migrate(owners, code=5)

    done = house.json("void", "notes", said["statement"], "--reason", "no", "--yes")

    assert done["effective"] is True
    assert owners.state()["waiting"] == []


@pytest.mark.req("R6.7")
def test_a_use_of_the_clause_waits_and_is_vetoed(owners):
    """The builder's promote waits at all vaults; the owner's phone says no; nothing got in."""
    house = owners.house
    owners.born(owners.policy())
    opened(owners, "1d")

    said = migrate(owners, code=5)
    assert {v["became"] for v in said["missing"]} == {"approval-waiting"}
    again = migrate(owners, code=5)
    assert again["statement"] == said["statement"]
    text = house.run(
        *("migrate", "notes", "--profile", house.profile(2)),
        *("--key-file", owners.pem("platform"), "--yes"),
        code=5,
    ).text
    assert "waits until" in text
    assert f"{owners.state()['waiting'][0]['about']}".endswith("by the clause")

    house.run("void", "notes", said["statement"], "--reason", "not yet", "--yes")

    assert len(owners.state()["approvals"]) == 1
    refused = migrate(owners, version=2, code=5)
    assert refused["statement"] != said["statement"]
    waits = next(e for e in owners.log() if e["kind"] == "waiting")
    assert waits["subject"] == owners.state()["auto_migrate"]["clause"]


@pytest.mark.req("R6.7")
def test_a_use_of_the_clause_takes_effect_after_its_delay(owners):
    """Brought again after it by anybody's sync; marked auto with the clause; the budget is used."""
    house = owners.house
    owners.born(owners.policy())
    opened(owners, "2s")
    clause = owners.state()["auto_migrate"]["clause"]
    said = migrate(owners, code=None)

    wait_for(lambda: house.json("key", "sync", "notes")["head"] == said["statement"])

    after = owners.state()
    assert (len(after["approvals"]), after["auto_migrate"]["uses_left"]) == (2, 0)
    mine = [e for e in owners.log() if e["statement"] == said["statement"]]
    taken = next(e for e in mine if e["kind"] == "taken")
    assert (taken["subject"], taken["detail"]) == (clause, {"mark": "auto"})
    log = house.run("log", "notes").text
    assert "auto: by the clause" in log
    assert clause[7:19] in log
    assert (
        "used 1 times, its budget"
        in house.run(
            *("migrate", "notes", "--profile", house.profile(3)),
            *("--key-file", owners.pem("platform"), "--yes"),
            code=3,
        ).text
    )


@pytest.mark.req("R6.7")
def test_outside_the_clause_nothing_is_signed(owners):
    """No clause; a step too far; a clause's signer who is none: refused before it is sent."""
    house = owners.house
    owners.born(owners.policy())
    none = migrate(owners, code=3)
    assert none["reason"] == "no-clause"
    opened(owners, "1d")
    far = house.json(
        *("migrate", "notes", "--profile", house.profile(2, security_version=3)),
        *("--key-file", owners.pem("platform"), "--yes"),
        code=3,
    )
    assert (far["reason"], far["limit"]) == ("auto-limits", "changes")
    mine = house.json("migrate", "notes", "--profile", house.profile(2), "--yes", code=3)
    assert mine["type"].endswith("approval-missing")
    assert owners.state()["waiting"] == []


def test_what_waits_lives_long_enough(owners):
    """A use lives a day longer than its delay; where rules allow less, it is refused unsigned."""
    house = owners.house
    owners.born(owners.policy())
    opened(owners, "3d")
    file = house.folder / "use.json"
    migrate(owners, "--out", file)
    use = statement(file).statement
    assert use.expires_at - use.issued_at == 4 * 24 * 3600
    owners.forget()

    capped = owners.policy(
        "capped", '[acts]\npromote = { lifetime = "2d" }' + CLAUSE.format(delay="3d")
    )
    house.run("key", "update", "notes", "--policy", capped, "--reason", "fresh", "--yes")
    profile = ("--profile", house.profile(2), "--key-file", owners.pem("platform"), "--yes")
    assert "it would never take effect" in house.run("migrate", "notes", *profile, code=3).text
    # And where nothing waits, a day is what fits.
    house.run("promote", "notes", "--profile", house.profile(3), "--yes", "--out", file)
    use = statement(file).statement
    assert use.expires_at - use.issued_at == 24 * 3600


def test_there_is_nothing_to_say_no_to(owners):
    """An empty list is one; what took effect comes too late; an unknown digest is not guessed."""
    owners.born(owners.policy())
    head = owners.state()["head"]

    assert "Nothing waits" in owners.house.run("void", "notes").text
    late = owners.house.run("void", "notes", head, "--reason", "x", "--yes", code=3)
    assert "took effect" in late.text
    owners.house.run("void", "notes", "0" * 12, "--reason", "x", "--yes", code=2)
    # By its whole digest the owner can say no to what no vault has seen.
    done = owners.house.json("void", "notes", "sha256:" + "0" * 64, "--reason", "stolen", "--yes")
    assert done["effective"] is True
