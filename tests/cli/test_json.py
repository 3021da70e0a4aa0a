"""--json: every command prints exactly one document, and a program finds what it needs."""

from __future__ import annotations

import msgspec
import pytest
from placet_testing.charters import person

from placet.core.profile import Profile, code_id
from placet.core.signer import Threshold, owner_fingerprint


def test_every_command_prints_one_document(house):
    """In a whole story each command's standard output is JSON, its standard error empty."""
    home, vaults = house.folder, house.folder / "vaults.json"
    spare, out = home / "spare.pem", home / "signer.json"
    said = house.run("owner", "init", "--spare", spare, "--json")
    assert said.err == ""
    p1, p2 = house.profile(1), house.profile(2)
    stagers = ("--stager", house.stager()[1])
    put = ("--version", "2", "--source", "1c9f3e0", "--key-file", house.stager()[0])
    code2 = code_id(msgspec.json.decode(p2.read_bytes(), type=Profile))
    code1 = code_id(msgspec.json.decode(p1.read_bytes(), type=Profile))
    signed = home / "promote.json"
    story = (
        ("owner", "show", "--out", out),
        ("key", "new", "notes", "--vaults", vaults, "--profile", p1, "--yes", *stagers),
        ("key", "list"),
        ("key", "show", "notes"),
        ("stage", "notes", "--profile", p2, *put),
        ("pending", "notes"),
        ("review", "notes", code2),
        ("promote", "notes", code2, "--yes", "--out", signed),
        ("deliver", signed),
        ("key", "sync", "notes"),
        ("retire", "notes", code1, "--reason", "old", "--yes"),
        ("log", "notes"),
        ("vault", "show", f"127.0.0.1:{house.ports[0]}"),
        ("key", "forget", "notes", "--yes"),
    )
    for command in story:
        said = house.run(*command, "--json")
        assert isinstance(said.json, dict | list), command
        assert said.err == "", command


def test_documents_say_what_programs_need(house):
    """Digests are whole, receipts are named, and the words are those of the digest."""
    key = house.born()
    staged = house.staged()
    assert {v["became"] for v in staged["vaults"]} == {"pending"}
    pending = house.json("pending", "notes")["pending"]
    assert [(p["stage"], p["code"], p["at"]) for p in pending] == [
        (staged["stage"], staged["code"], [1, 2, 3, 4, 5])
    ]

    promoted = house.json("promote", "notes", staged["stage"], "--overlap", "1h", "--yes")
    shown = house.json("key", "show", "notes")

    assert (promoted["key"], promoted["type"]) == (key, "promote")
    assert {v["vault"] for v in promoted["confirmed"]} == {m.id for m in house.listed.vaults}
    assert (shown["head"], shown["version"]) == (promoted["statement"], 2)
    assert shown["statements"][1]["words"] == promoted["words"]
    old, new = shown["approvals"]
    assert (old["in_force"], new["in_force"], new["until"]) == (True, True, None)
    assert shown["tombstones"] == [old["code"]]
    assert old["until"] is not None


def test_the_fingerprint_is_the_one_that_births_name(house):
    """What `owner show` prints is what a key's owner is, and what a workload must name."""
    key = house.born()
    said = house.json("owner", "show")

    assert house.json("key", "show", key)["owner"] == said["fingerprint"]
    principal = msgspec.convert(said["principal"], Threshold)
    assert owner_fingerprint(principal) == said["fingerprint"]


def test_revoke_takes_back_what_was_staged(house):
    """The stager and the owner may take a stage back, by a beginning of its digest."""
    house.born()
    first, second = house.staged(2), house.staged(3)

    by_owner = house.json("revoke", "notes", first["stage"][:20], "--reason", "no")
    by_stager = house.json(
        *("revoke", "notes", second["stage"], "--reason", "no", "--key-file", house.stager()[0])
    )

    assert {v["became"] for v in by_owner["vaults"] + by_stager["vaults"]} == {"taken back"}
    assert house.json("pending", "notes")["pending"] == []
    house.run("revoke", "notes", first["stage"], "--reason", "again", code=2)


def test_an_owner_of_two_signs_on_two_machines(house, tmp_path):
    """A statement of a 2-of-2 owner is signed by each, and only then taken by vaults."""
    other = tmp_path / "other.pem"
    person("second").save(other)
    public = tmp_path / "second.json"
    public.write_bytes(msgspec.json.encode(person("second").signer))
    house.run("owner", "init", "--with", public, "--threshold", "2")
    birth = tmp_path / "birth.json"
    half = house.json(
        *("key", "new", "notes", "--vaults", house.folder / "vaults.json", "--yes"),
        *("--profile", house.profile(1), "--out", birth),
    )
    assert half["complete"] is False
    assert house.json("deliver", birth, code=3)["type"].endswith("/approval-missing")

    whole = house.json("sign", birth, "--key-file", other, "--yes")

    assert whole["complete"] is True
    assert house.json("key", "sync", "notes")["version"] == 1
    assert house.json("deliver", birth)["effective"] is True
    # A promote as well: what one alone signed is not sent, and no vault would take it.
    promote = tmp_path / "promote.json"
    house.json("promote", "notes", "--profile", house.profile(2), "--yes", "--out", promote)
    early = house.json("deliver", promote, code=3)
    assert {v["became"] for v in early["missing"]} == {"approval-missing"}
    house.json("sign", promote, "--key-file", other, "--yes")
    assert house.json("deliver", promote)["effective"] is True


def test_a_key_born_elsewhere_can_be_known(house, tmp_path):
    """Another machine learns a key by its id alone; the vaults' answer is checked by it."""
    key = house.born()
    house.run("key", "forget", "notes", "--yes")
    house.run("key", "show", "notes", code=2)

    house.json("key", "add", key, "--vaults", house.folder / "vaults.json")

    assert house.json("key", "show", "notes")["key"] == key
    house.json("key", "add", "sha256:" + "0" * 64, "--constellation", "vaults", code=2)


def test_the_owners_own_build_is_compared(house):
    """A review with the owner's own measurement says whether the staged one is the same."""
    house.born()
    staged = house.staged(2)

    same = house.json("review", "notes", staged["code"], "--profile", house.profile(2))
    other = house.json("review", "notes", staged["code"], "--profile", house.profile(3), code=1)

    assert same["findings"] == []
    assert [f["finding"] for f in other["findings"]] == ["not-your-build"]
    assert "image, rtmr3" in other["findings"][0]["text"]


def test_a_vaults_file_grows_from_looks(house, tmp_path):
    """Vaults that were attested one by one make the list that a key is born with."""
    grown = tmp_path / "grown.json"
    for port in house.ports[:3]:
        vault = f"https://127.0.0.1:{port}"
        house.json("vault", "show", vault, "--vaults", house.folder / "vaults.json", "--add", grown)
    house.run("owner", "init")

    said = house.json(
        *("key", "new", "notes", "--vaults", grown, "--profile", house.profile(1), "--yes")
    )

    assert (said["vaults"], said["effective"]) == (3, True)
    assert house.json("key", "show", "notes")["k"] == 2


def test_a_vault_that_is_another_is_a_finding(house):
    """A genuine vault that the vaults file does not name, or whose code it does not: 1."""
    alone = msgspec.structs.replace(house.listed, k=1, vaults=house.listed.vaults[:1])
    file = house.folder / "alone.json"
    file.write_bytes(msgspec.json.encode(alone))

    here = house.json("vault", "show", f"127.0.0.1:{house.ports[0]}", "--vaults", file)
    other = house.json("vault", "show", f"127.0.0.1:{house.ports[1]}", "--vaults", file, code=1)

    assert [c["holds"] for c in here["checks"]] == [True, True]
    assert [c["holds"] for c in other["checks"]] == [False]
    assert here["vault"] == house.listed.vaults[0].id


@pytest.mark.req("I12")
def test_show_counts_what_is_in_force(house):
    """Each statement is shown with the vaults that have it, those that have not, and the count."""
    house.born()
    house.stop(1, 2)
    house.run("promote", "notes", "--profile", house.profile(2), "--yes", code=5)
    house.start(1, 2)

    said = house.json("key", "show", "notes")

    promote = said["statements"][1]
    assert (promote["confirmed"], promote["not_confirmed"]) == ([3, 4, 5], [1, 2])
    assert (promote["needed"], promote["effective"]) == (3, True)
    assert [v["state"] for v in said["vaults"]] == ["behind"] * 2 + ["current"] * 3


def test_what_others_composed_is_shown_whole(house):
    """Before a second signer signs, everything that the statement says is on the screen."""
    house.born()
    promote, retire = house.folder / "promote.json", house.folder / "retire.json"
    arguments = ("--profile", house.profile(2), "--retire-now", "--yes", "--out", promote)
    house.run("promote", "notes", *arguments)
    profile = msgspec.json.decode(house.profile(2).read_bytes(), type=Profile)

    said = house.run("sign", promote, "--yes")
    for what in (profile.image, profile.config, code_id(profile), "earlier ones retire"):
        assert what in said.text
    house.run("key", "sync", "notes")
    house.run("retire", "notes", code_id(profile), "--reason", "why", "--yes", "--out", retire)
    said = house.run("sign", retire, "--yes")
    assert f"shuts out {code_id(profile)}" in said.text
    assert "reason why" in said.text
    house.run("sign", retire, code=2)


def test_a_stage_for_every_key_of_the_app(house):
    """The platform stages once for an app; each key of it shows that as pending."""
    house.born()
    house.json(
        *("key", "new", "photos", "--constellation", "vaults", "--profile", house.profile(1)),
        *("--stager", house.stager()[1], "--yes"),
    )
    put = ("--version", "2", "--source", "x", "--key-file", house.stager()[0])
    staged = house.json("stage", "notes", "--profile", house.profile(2), *put, "--every-key")

    for key in ("notes", "photos"):
        [pending] = house.json("pending", key)["pending"]
        assert (pending["stage"], pending["every_key"]) == (staged["stage"], True)


def test_each_entry_of_each_log(house):
    """With --each a log is shown entry by entry, with its number at its vault."""
    house.born()
    text = house.run("log", "notes", "--each").text

    for number in range(1, 6):
        assert f"statement taken {number} entry 1" in text
