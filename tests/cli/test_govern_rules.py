"""Rules changed at the command line: who signs, who is new, what is refused unsent."""

from __future__ import annotations

import msgspec
import pytest
from placet_testing.owners import Owners, statement
from placet_testing.tee import Tee, vault_config

TEAM = """
managers = { all = ["m1", "m2"] }
[acts]
promote = { managers = true }
"""
CLAUSE = """
[auto_migrate]
any = ["platform"]
changes = ["image", "measurement"]
max_step = 1
delay = "{delay}"
budget = 2
expires_at = 2099-01-01T00:00:00Z
"""
SENTENCE = "let platform promote notes without me"


@pytest.fixture
def owners(house):
    """Return a house with everybody's keys."""
    return Owners(house)


@pytest.mark.req("R5.9")
def test_managers_sign_the_same_statement(owners):
    """Owner first, then two managers by placet sign; what lacks is named each time."""
    house = owners.house
    owners.born(owners.policy(more=TEAM))
    file = house.folder / "promote.json"

    said = house.run("promote", "notes", "--profile", house.profile(2), "--yes", "--out", file)
    assert "managers: 2 of 2 must sign, 0 did" in said.text
    assert f"placet sign {file}" in said.text
    early = house.json("deliver", file, code=3)
    assert {v["became"] for v in early["missing"]} == {"approval-missing"}

    half = house.run("sign", file, "--key-file", owners.pem("m1"), "--yes")
    assert "managers: 2 of 2 must sign, 1 did" in half.text
    assert owners.sign(file, "m2")["complete"] is True
    assert house.json("deliver", file)["effective"] is True
    # It is used up: the same signatures under another statement are none.
    assert len(owners.state()["approvals"]) == 2


def test_a_stranger_signs_nothing(owners):
    """Neither owner nor manager: refused before anything is signed."""
    owners.born(owners.policy(more=TEAM))
    file = owners.house.folder / "promote.json"
    profile = owners.house.profile(2)
    owners.house.run("promote", "notes", "--profile", profile, "--yes", "--out", file)

    said = owners.house.run("sign", file, "--key-file", owners.pem("heir"), "--yes", code=3)

    assert "is no signer" in said.text
    assert len(statement(file).signatures) == 1


@pytest.mark.req("R5.7")
def test_a_new_signer_is_inert_and_seen(owners):
    """The update says so, key show says until when, its signature counts for nothing."""
    house = owners.house
    owners.born(owners.policy())
    wider = owners.policy("wider", owner='{ any = ["phone", "laptop", "page", "tablet"] }')
    arguments = ("key", "update", "notes", "--policy", wider, "--reason", "new tablet")

    said = house.run(*arguments, "--yes")
    assert "phone, laptop or page" in said.text
    assert "phone, laptop, page or tablet" in said.text
    assert "tablet: counts for nothing until" in said.text
    shown = owners.state()
    assert [y["label"] for y in shown["young"]] == ["tablet"]
    assert "signer tablet" in house.run("key", "show", "notes").text
    # Everything that is signed from now on shows it too.
    file = house.folder / "tablet.json"
    promote = ("promote", "notes", "--profile", house.profile(2), "--yes", "--out", file)
    assert "tablet" in house.run(*promote).text
    raw = statement(file)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(raw.signed(), signatures=())))
    owners.sign(file, "tablet")
    refused = house.json("deliver", file, code=3)
    assert {v["became"] for v in refused["missing"]} == {"approval-missing"}


def test_an_update_is_shown_row_by_row(owners):
    """What was and what is, for each row that changes and for no other."""
    owners.born(owners.policy())
    changed = owners.policy("changed", more=TEAM, auditors='["m1"]'.replace("m1", "heir"))
    file = owners.house.folder / "update.json"

    said = owners.house.run(
        *("key", "update", "notes", "--policy", changed, "--reason", "a team"),
        *("--yes", "--out", file),
    )

    for row in ("managers was nobody is m1 and m2", "auditors was nobody is heir"):
        assert row in said.text
    assert "promote was owner; a signed statement counts for 30d at most is owner and managers" in (
        said.text
    )
    assert "guardians" not in said.text
    assert statement(file).statement.body.reason == "a team"


REFUSED = {
    "nothing changes": ({}, "", 3, "update changes nothing"),
    "all signers are new": ({"owner": '"tablet"'}, "", 3, "leaves nobody in the owner who counts"),
    "the cool-down falls": ({"cooldown": '"1h"'}, "", 3, "it only rises"),
    "managers who are not there": (
        {},
        "[acts]\npromote = { managers = true }",
        2,
        "managers must co-sign promote, and there are none",
    ),
    "only a clause": ({}, CLAUSE.format(delay="1d"), 2, "placet key auto-migrate on notes"),
}


@pytest.mark.parametrize(("top", "more", "code", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_vaults_would_refuse_is_not_signed(owners, top, more, code, said):
    """The reason is the vaults'; nothing is sent, and the key is as it was."""
    owners.born(owners.policy())
    policy = owners.policy("other", more, **top)
    arguments = ("key", "update", "notes", "--policy", policy, "--reason", "x", "--yes")

    assert said in owners.house.run(*arguments, code=code).text
    assert owners.state()["version"] == 1


def test_reviewers_add_a_vault_release_alone(owners):
    """Nothing else changes, so no owner signs; a rule beside it takes the owner."""
    house = owners.house
    owners.born(owners.policy(reviewers='"m1"'))
    release = house.folder / "vault-2.json"
    release.write_bytes(msgspec.json.encode(Tee(vault_config(), version=2).profile()))
    more = ("--add-vault-release", release, "--reason", "vaults 2", "--yes")

    said = house.json("key", "update", "notes", *more, "--key-file", owners.pem("m1"))

    assert (said["effective"], owners.state()["version"]) == (True, 2)
    wider = ("--policy", owners.policy("wider", cooldown='"2d"', reviewers='"m1"'))
    refused = house.run(
        *("key", "update", "notes", *wider, "--reason", "x", "--yes"),
        *("--key-file", owners.pem("m1")),
        code=3,
    )
    assert "is no signer" in refused.text


@pytest.mark.req("R6.7")
def test_the_clause_is_typed_out(owners):
    """--yes alone turns nothing on; the sentence does, and off is one word."""
    house = owners.house
    owners.born(owners.policy())
    sandbox = owners.policy("sandbox", CLAUSE.format(delay="1d"))
    on = ("key", "auto-migrate", "on", "notes", "--policy", sandbox)

    refused = house.run(*on, "--yes", code=2)
    assert f"--type-out '{SENTENCE}'" in refused.text
    assert "that is not what was to be typed" in house.run(*on, "--type-out", "yes", code=3).text
    assert owners.state()["auto_migrate"] is None

    said = house.run(*on, "--type-out", SENTENCE)
    for limit in (
        "may promote platform",
        "image and measurement",
        "at most 2 times",
        "after 1d, in which each owner signer can say no",
    ):
        assert limit in said.text
    assert owners.state()["auto_migrate"]["uses_left"] == 2
    assert "auto-migrate on, 2 of 2 uses left" in house.run("key", "show", "notes").text

    house.run("key", "auto-migrate", "off", "notes", "--yes")
    assert owners.state()["auto_migrate"] is None
    house.run("key", "auto-migrate", "off", "notes", "--yes", code=3)


def test_the_sentence_is_asked_for_on_a_terminal(owners):
    """A person types it; another one, or y, signs nothing."""
    owners.born(owners.policy())
    sandbox = owners.policy("sandbox", CLAUSE.format(delay="1d"))
    on = ("key", "auto-migrate", "on", "notes", "--policy", sandbox)

    text = owners.house.terminal(*on, answer="y", prompt="> ", code=3)

    assert SENTENCE in text
    owners.house.terminal(*on, answer=SENTENCE, prompt="> ")
    assert owners.state()["auto_migrate"]["uses"] == 0
