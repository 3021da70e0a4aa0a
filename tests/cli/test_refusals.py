"""Bad input: what is wrong is said, with what to type next, and nothing is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from placet_testing.charters import birth_body, composer, person, profile, signed, vault_set
from placet_testing.tee import dev_pki

from placet.cli.settings import KnownKey


def known(house, label: str, seed: str) -> str:
    """Have the tool know a key that no vault was told of; return its id."""
    sent = signed(composer(seed=seed).birth(birth_body(label=label)))
    key = KnownKey(key=sent.digest, label=label, constellation="nowhere", birth=sent.signed())
    path = house.home / "keys" / f"{sent.digest.removeprefix('sha256:')}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(key))
    return sent.digest


def listed() -> dict[str, object]:
    """Return a vaults file of vaults that are not there."""
    found = vault_set()
    return {
        "schema": 1,
        "k": 3,
        "vaults": msgspec.to_builtins(found.vaults),
        "profiles": msgspec.to_builtins(found.profiles),
        "trust_roots": [msgspec.to_builtins(dev_pki().trust_root())],
    }


@dataclass(frozen=True)
class Case:
    """Files to write into the house, a command, and what it must say."""

    command: tuple[str, ...]
    detail: str
    hint: str = ""
    files: tuple[tuple[str, str], ...] = ()
    before: Callable[[object], object] | None = None
    code: int = 2


def two(house):
    """Know two keys whose labels begin alike."""
    known(house, "notes/one", "1")
    known(house, "notes/two", "2")


def known_with_stager(house):
    """Know a key of a constellation that is not there, and have a stager's key."""
    known(house, "notes", "1")
    person("platform").save(house.home / "s.pem")
    entry = '[constellations.nowhere]\nvaults = "constellations/nowhere.json"\n'
    (house.home / "config.toml").write_text(entry)


def owner(house):
    """Have an owner."""
    house.run("owner", "init")


NEW = ("key", "new", "notes", "--vaults", "vaults.json", "--profile", "p.json", "--yes")
STAGE = ("stage", "n", "--profile", "p.json", "--version", "2", "--source", "x")
PROFILE = ("p.json", msgspec.json.encode(profile(1)).decode())
VAULTS = ("vaults.json", json.dumps(listed()))
TOML = "home/config.toml"

CASES = {
    "no owner yet": Case(NEW, "no owner key", "placet owner init"),
    "unknown label": Case(("key", "show", "x"), "no key is known as 'x'", "placet key list"),
    "ambiguous prefix": Case(
        ("key", "show", "notes"), "could be 2 keys: notes/one", "Write more", before=two
    ),
    "config.toml is no TOML": Case(
        ("owner", "show"), "config.toml cannot be read", "config.toml", ((TOML, "owner = ["),)
    ),
    "config.toml has an unknown field": Case(
        ("owner", "show"), "unknown field", "config.toml", ((TOML, 'admin = "me"'),)
    ),
    "config.toml names no such constellation": Case(
        (*NEW[:3], "--constellation", "home", *NEW[5:]),
        "names no constellation 'home'",
        "--vaults FILE",
        (PROFILE,),
        owner,
    ),
    "which vaults?": Case(
        (*NEW[:3], *NEW[5:]), "names 0 constellations", "--vaults FILE", (PROFILE,), owner
    ),
    "no vaults file": Case(NEW, "vaults.json cannot be read", files=(PROFILE,), before=owner),
    "a vaults file that is none": Case(
        NEW, "is no vaults file", files=(PROFILE, ("vaults.json", "{}")), before=owner
    ),
    "a set that breaks 2k > n": Case(
        NEW,
        "k <= n < 2k is needed",
        files=(PROFILE, ("vaults.json", json.dumps(listed() | {"k": 2}))),
        before=owner,
    ),
    "no profile file": Case(NEW, "p.json cannot be read", files=(VAULTS,), before=owner),
    "a profile that is none": Case(
        NEW, "is no profile", files=(VAULTS, ("p.json", '{"app": "notes"}')), before=owner
    ),
    "a profile with an unknown field": Case(
        NEW,
        "unknown field",
        files=(VAULTS, ("p.json", PROFILE[1][:-1] + ',"debug":true}')),
        before=owner,
    ),
    "a stager that is no key": Case(
        (*NEW, "--stager", "p.json"), "holds no public key", files=(VAULTS, PROFILE), before=owner
    ),
    "a stager whose key is a point of small order": Case(
        (*NEW, "--stager", "A" * 43),
        "small order",
        files=(VAULTS, PROFILE),
        before=owner,
    ),
    "a span of time that is none": Case(
        (*NEW, "--expires", "soon"), "write 7d, 12h", files=(VAULTS, PROFILE), before=owner
    ),
    "a label that is known already": Case(
        NEW,
        "is known here",
        "another label",
        (VAULTS, PROFILE),
        lambda house: (owner(house), known(house, "notes", "1")),
    ),
    "a threshold that nobody reaches": Case(
        ("owner", "init", "--threshold", "2"), "needs 2 of 1 parts", code=3
    ),
    "an owner twice": Case(
        ("owner", "init"), "not written over", "placet owner show", before=owner, code=6
    ),
    "a key file that is none": Case(
        (*STAGE, "--key-file", "p.json"),
        "no unencrypted PEM private key",
        files=(PROFILE, ("home/constellations/nowhere.json", VAULTS[1])),
        before=lambda house: known(house, "notes", "1")
        and (house.home / "config.toml").write_text(
            '[constellations.nowhere]\nvaults = "constellations/nowhere.json"\n'
        ),
    ),
    "a version whose name is too long": Case(
        (*STAGE[:5], "2" * 201, *STAGE[6:], "--key-file", "home/s.pem"),
        "$.body.version",
        files=(PROFILE, ("home/constellations/nowhere.json", VAULTS[1])),
        before=known_with_stager,
    ),
    "a profile that nothing matches": Case(
        (*STAGE, "--key-file", "home/s.pem"),
        "accepts no TCB status",
        files=(
            ("p.json", PROFILE[1].replace('["UpToDate"]', "[]")),
            ("home/constellations/nowhere.json", VAULTS[1]),
        ),
        before=known_with_stager,
    ),
    "a floor below zero": Case(
        (*NEW, "--floor", "-1"),
        "policy.security_version_floor",
        files=(VAULTS, PROFILE),
        before=owner,
    ),
    "part of a key id": Case(
        ("key", "add", "sha256:abc", "--vaults", "vaults.json"), "no key id", files=(VAULTS,)
    ),
    "no address": Case(("vault", "show", "here", "--vaults", "vaults.json"), "HOST:PORT"),
    "no root to attest under": Case(
        ("vault", "show", "127.0.0.1:1"), "which root may vouch", "--trust-root"
    ),
    "a root that is no certificate": Case(
        ("vault", "show", "127.0.0.1:1", "--trust-root", "p.json"),
        "neither a trust root nor a certificate",
        files=(("p.json", "hello"),),
    ),
    "a statement that is none": Case(
        ("deliver", "p.json"), "is no signed statement", files=(PROFILE,)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_bad_input_is_named(empty, case, monkeypatch):
    """Each says what is wrong and what to type next, and signs and keeps nothing."""
    monkeypatch.chdir(empty.folder)
    if case.before is not None:
        case.before(empty)
    for name, text in case.files:
        path = empty.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = {p: p.read_bytes() for p in empty.folder.rglob("*") if p.is_file()}

    said = empty.run(*case.command, code=case.code)

    assert case.detail in said.text, said
    assert case.hint in said.text, said
    assert not said.out
    assert {p: p.read_bytes() for p in empty.folder.rglob("*") if p.is_file()} == before


def test_a_program_reads_one_problem(empty):
    """With --json an error is a problem document on standard output, and the only one."""
    said = empty.run("key", "show", "x", "--json", code=2)

    assert said.json["type"].endswith("/not-found")
    assert said.err == ""


def test_nobody_can_be_asked(house):
    """Without a terminal and without --yes nothing is signed, sent or kept: exit code 2."""
    house.run("owner", "init")
    files = ("--vaults", house.folder / "vaults.json", "--profile", house.profile(1))
    said = house.run("key", "new", "notes", *files, code=2)
    assert "no terminal" in said.text
    assert house.json("key", "list") == []
    # A line on standard input is no person.
    house.run("key", "new", "notes", *files, code=2, answer="y\n")

    house.run("key", "new", "notes", *files, "--yes")
    house.run("promote", "notes", "--profile", house.profile(2), code=2, answer="y\n")
    code = house.json("key", "show", "notes")["approvals"][0]["code"]
    house.run("retire", "notes", code, "--reason", "x", code=2, answer="y\n")
    house.run("key", "forget", "notes", code=2, answer="y\n")
    assert house.json("key", "show", "notes")["version"] == 1


def test_a_constellation_keeps_its_meaning(house):
    """Another list of vaults does not take the name of one that is known."""
    house.born()
    other = house.folder / "other" / "vaults.json"
    other.parent.mkdir()
    other.write_bytes(msgspec.json.encode(msgspec.structs.replace(house.listed, k=4)))

    said = house.json(
        *("key", "new", "second", "--vaults", other, "--profile", house.profile(1), "--yes"), code=6
    )

    assert "other vaults" in said["detail"]
    assert Path(house.home / "constellations" / "vaults.json").exists()


def test_vaults_may_move(house):
    """A new address in the vaults file is used; the ids that were signed stay."""
    house.born()
    house.stop(2)
    house.ports[1] = 0
    house.start(2)
    assert [v["state"] for v in house.json("key", "show", "notes")["vaults"]].count("silent") == 1
    moved = msgspec.structs.replace(
        house.listed, vaults=tuple(v.member for v in house.vaults if v is not None)
    )
    (house.home / "constellations" / "vaults.json").write_bytes(msgspec.json.encode(moved))

    assert {v["state"] for v in house.json("key", "show", "notes")["vaults"]} == {"current"}
