"""placet key new --policy: keys born under rules that people wrote."""

from __future__ import annotations

import msgspec
import pytest
from placet_testing.charters import person

from placet.core.statement import SignedStatement, open_statement


@pytest.fixture
def governed(house):
    """Return a house with everybody's public signers in files."""
    house.run("owner", "init", "--label", "phone")
    house.run("owner", "show", "--out", house.folder / "phone.json")
    for name in ("laptop", "builder", "m1", "m2", "m3", "g1", "g2", "g3"):
        (house.folder / f"{name}.json").write_bytes(msgspec.json.encode(person(name).signer))
    return house


def form(house, preset: str):
    """Write a preset that is filled in, and return its file."""
    path = house.folder / f"{preset}.toml"
    roles = {"manager": ("m1", "m2", "m3"), "guardian": ("g1", "g2", "g3")}
    named = {} if preset in ("solo", "sandbox") else roles
    given = [x for r, names in named.items() for n in names for x in (f"--{r}", f"{n}.json")]
    files = [house.folder / x if str(x).endswith(".json") else x for x in given]
    house.run("policy", "new", "--preset", preset, *files, "--out", path)
    return path


def born(house, policy, *more: object, code: int = 0):
    """Have a key born under a policy file."""
    files = ("--vaults", house.folder / "vaults.json", "--profile", house.profile(1))
    return house.run("key", "new", "notes/data", *files, "--policy", policy, *more, code=code)


def test_a_key_is_born_under_the_rules_of_a_file(governed):
    """Vaults take it, and what they show answers both questions as the file did."""
    team = form(governed, "team")
    born(governed, team, "--yes")
    file = governed.json("policy", "simulate", team)
    key = governed.json("policy", "simulate", "notes/data")
    assert key["acts"] == file["acts"]
    assert [c["app"] for c in key["today"]["code"]] == ["notes"]
    assert (
        governed.json("policy", "explain", "notes")["owner"]
        == (governed.json("policy", "check", team)["owner"])
    )


def test_the_clause_is_left_out_of_a_birth_and_named_as_the_next_step(governed):
    """Turning it on is a statement of its own; the rest of the sandbox is solo."""
    sandbox = form(governed, "sandbox")
    said = born(governed, sandbox, "--yes", "--out", governed.folder / "birth.json")
    assert f"placet key auto-migrate on notes/data --policy {sandbox}" in said.text
    raw = (governed.folder / "birth.json").read_bytes()
    policy = open_statement(msgspec.json.decode(raw, type=SignedStatement)).statement.body.policy
    assert policy.auto_migrate is None
    assert [s.label for s in policy.stagers] == ["builder"]


def test_a_fingerprint_that_is_not_the_homes_is_said(governed):
    """The app would refuse the key otherwise; with owner.json itself it is the home's."""
    solo = form(governed, "solo")
    out = ("--yes", "--out", governed.folder / "birth.json")
    assert "it is not that of placet owner show" in born(governed, solo, *out).text
    governed.run("key", "forget", "notes/data", "--yes")
    kept = f'owner = {{ from = "{governed.home}/owner.json" }}'
    solo.write_text(solo.read_text().replace('owner = { any = ["phone", "laptop"] }', kept))
    assert "it is not that" not in born(governed, solo, *out).text


@pytest.mark.parametrize(
    ("change", "more", "code", "said"),
    [
        (("cooldown", 'immutable = ["owner"]\ncooldown'), (), 3, "an owner fixed for life"),
        (("cooldown", "cool-down"), (), 2, "no such key at the top"),
        (("", ""), ("--stager", "x"), 2, "both say who puts versions forward"),
        (('"phone", ', ""), (), 3, "is no signer of this key's owner"),
    ],
)
def test_what_cannot_be_born_is_refused_before_it_is_sent(governed, change, more, code, said):
    """Rules that vaults would refuse, a file that is wrong, and a key that is not the owner's."""
    solo = form(governed, "solo")
    solo.write_text(solo.read_text().replace(*change))
    assert said in born(governed, solo, "--yes", *more, code=code).text
    assert governed.json("key", "list") == []


def test_vaults_that_cannot_read_such_rules_are_not_chosen(governed, monkeypatch):
    """A vault of an older release says which schemas it takes; nothing is signed then."""
    monkeypatch.setattr("placet.vault.service.SCHEMAS", (1,))
    said = born(governed, form(governed, "team"), "--yes", code=3)
    assert "takes no statement of schema 2" in said.text
    assert governed.json("key", "list") == []
