"""What people read, word for word: one story, compared with golden files.

``PLACET_GOLDEN=write`` writes them anew; read the difference before it is committed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
from placet_testing.charters import person, profile
from placet_testing.owners import Owners

from placet.cli.main import cli

GOLDEN = Path(__file__).parent / "golden"
CHANGING = (
    (re.compile(r"(?m)^(\s*six words +).*$"), r"\1WORDS"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?(?: UTC)?"), "TIME"),
    (re.compile(r"127\.0\.0\.1(:| port )\d+"), r"127.0.0.1\1PORT"),
    (re.compile(r"'127\.0\.0\.1', \d+"), "'127.0.0.1', PORT"),
    (re.compile(r"/\S*/test_\w+/"), "FOLDER/"),
    (re.compile(r"boot-[0-9a-f]{8}"), "BOOT"),
    (re.compile(r"\b[0-9a-f]{96}\b"), "HEX96"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "HEX64"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "HEX16"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "HEX12"),
    (re.compile(r"(?m) +$"), ""),
    (re.compile(r"(?<=\S) {2,}"), "  "),
)


def steady(text: str) -> str:
    """Return a text without what differs from run to run."""
    for pattern, replacement in CHANGING:
        text = pattern.sub(replacement, text)
    return text


class Transcript:
    """Commands and what they said, beside a golden file."""

    def __init__(self, house, name: str) -> None:
        self.house, self.path, self.text = house, GOLDEN / f"{name}.txt", ""

    def run(self, *arguments: object, code: int = 0) -> None:
        """Run a command and note what it said; questions and hints come after the result."""
        said = self.house.run(*map(str, arguments), code=code)
        shown = " ".join(map(str, arguments))
        body = "\n".join(t.rstrip("\n") for t in (said.out, said.err) if t.strip())
        self.text += f"$ placet {shown}\n{body}\n[{code}]\n\n"

    def check(self) -> None:
        """Compare with the golden file."""
        text = steady(self.text)
        if os.environ.get("PLACET_GOLDEN") == "write":
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text(text)
        assert text == self.path.read_text(), f"see {self.path}"


def test_an_upgrade_as_its_owner_sees_it(house):
    """Owner, birth, stage, review, promote with two vaults down, sync, retire, log."""
    story = Transcript(house, "upgrade")
    vaults = house.folder / "vaults.json"
    story.run("key", "list")
    story.run("owner", "init")
    files = ("--vaults", vaults, "--profile", house.profile(1), "--stager", house.stager()[1])
    story.run("key", "new", "notes/data", *files, "--yes")
    story.run("key", "list")
    story.run("key", "show", "notes")
    story.run("pending", "notes")
    put = ("--version", "2", "--source", "1c9f3e0", "--key-file", house.stager()[0])
    story.run("stage", "notes", "--profile", house.profile(2), *put)
    story.run("pending", "notes")
    code = house.json("pending", "notes")["pending"][0]["code"]
    story.run("review", "notes", code)
    house.stop(2, 5)
    story.run("promote", "notes", code, "--yes", code=5)
    story.run("key", "show", "notes")
    house.start(2, 5)
    story.run("key", "show", "notes")
    story.run("key", "sync", "notes")
    old = house.json("key", "show", "notes")["approvals"][0]["code"]
    story.run("retire", "notes", old, "--reason", "replaced by version 2", "--yes")
    story.run("log", "notes")
    story.check()


def test_an_audit_as_its_auditor_sees_it(house):
    """Export with all vaults, verify; export again after a promote that one vault missed."""
    story = Transcript(house, "audit")
    house.born()
    folder = house.folder / "audits"
    story.run("audit", "export", "notes", "--out", folder)
    story.run("audit", "verify", folder)
    house.stop(4)
    promote = ("--profile", house.profile(2), "--floor", "1", "--yes")
    house.run("promote", "notes", *promote, code=5)
    story.run("audit", "verify", "--fetch", "notes", folder)
    story.run("audit", "verify", folder / "nothing", code=2)
    story.check()


def test_what_could_go_wrong_as_an_owner_sees_it(house):
    """All well but for a single signer; a vault down and one behind; then too few."""
    story = Transcript(house, "doctor")
    story.run("doctor", code=2)
    house.born()
    story.run("doctor", code=1)
    house.stop(4)
    house.run("promote", "notes", "--profile", house.profile(2), "--yes", code=5)
    house.start(4)
    house.stop(2)
    story.run("doctor", "notes", code=1)
    said = house.json("doctor", "notes", code=1)["keys"][0]
    assert [(f["what"], f["vault"]) for f in said["findings"]] == [
        ("unreachable", 2),
        ("behind", 4),
        ("one-signer", None),
    ]
    assert (said["able"], said["k"], said["n"]) == (4, 3, 5)
    assert [v["answered"] for v in said["vaults"]] == [True, False, True, True, True]
    house.stop(1, 3)
    story.run("doctor", code=4)
    story.check()


def test_refusals_as_their_owner_sees_them(house):
    """A review with findings, too few vaults, nobody to ask, a vault that is looked at."""
    story = Transcript(house, "refusals")
    house.born()
    house.stop(4)
    put = ("--version", "3", "--source", "x", "--key-file", house.stager()[0])
    story.run("stage", "notes", "--profile", house.profile(3, security_version=0), *put, code=5)
    house.start(4)
    code = house.json("pending", "notes")["pending"][0]["code"]
    story.run("review", "notes", code, code=1)
    story.run("promote", "notes", code, code=2)
    story.run("promote", "notes", "--profile", house.profile(2), "--floor", "2", "--yes", code=3)
    story.run("key", "show", "nothing", code=2)
    story.run("vault", "show", f"127.0.0.1:{house.ports[0]}")
    house.stop(1, 2, 3)
    story.run("promote", "notes", code, "--yes", code=4)
    story.run("key", "show", "notes", code=4)
    story.check()


def test_differences_as_their_reviewer_sees_them(empty):
    """Another image, rules on the platform alone, a development root with all its registers."""
    story = Transcript(empty, "differences")
    one, two = profile(1), profile(2, security_version=2)
    hardware = msgspec.structs.replace(one, anchor="intel")
    counters = msgspec.structs.replace(
        two, measurement=msgspec.structs.replace(two.measurement, td_attributes="00000010000000c0")
    )
    looser = msgspec.structs.replace(
        one, tcb=msgspec.structs.replace(one.tcb, statuses=("UpToDate", "OutOfDate"))
    )
    names = {"1": one, "2": two, "rules": looser, "hardware": hardware, "counters": counters}
    files = {}
    for name, content in names.items():
        files[name] = empty.folder / f"{name}.json"
        files[name].write_bytes(msgspec.json.encode(content))
    story.run("profile", "diff", files["1"], files["1"])
    story.run("profile", "diff", files["1"], files["2"], code=1)
    story.run("profile", "diff", files["1"], files["rules"], code=1)
    story.run("profile", "diff", files["hardware"], files["counters"], code=1)
    story.check()


def test_policies_as_their_author_sees_them(house):
    """A form that is not filled in, words that mean nothing, what cannot be kept, a birth."""
    story = Transcript(house, "policies")
    folder = house.folder
    house.run("owner", "init", "--label", "phone")
    house.run("owner", "show", "--out", folder / "phone.json")
    for name in ("laptop", "m1", "m2", "m3", "g1", "g2"):
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(person(name).signer))
    team = folder / "team.toml"
    devices = ("--owner", folder / "phone.json", "--owner", folder / "laptop.json")
    others = [x for n in ("m1", "m2", "m3") for x in ("--manager", folder / f"{n}.json")]
    others += [x for n in ("g1", "g2") for x in ("--guardian", folder / f"{n}.json")]
    story.run("policy", "new", "--preset", "team", *devices, *others, "--out", team)
    story.run("policy", "check", team, code=2)
    (folder / "builder.json").write_bytes(msgspec.json.encode(person("platform").signer))
    story.run("policy", "check", team)
    text = team.read_text()
    team.write_text(text.replace("update_policy", "update-policy"))
    story.run("policy", "check", team, code=2)
    team.write_text(text.replace("cooldown =", 'immutable = ["owner"]\ncooldown =', 1))
    story.run("policy", "check", team, code=3)
    team.write_text(text.replace("update_policy = { managers = true, ", "update_policy = { "))
    story.run("policy", "check", team, code=1)
    team.write_text(text)
    story.run("policy", "simulate", team, "--stolen", "phone")
    story.run("policy", "simulate", team, "--lost", "m1", "--lost", "m2", code=1)
    files = ("--vaults", folder / "vaults.json", "--profile", house.profile(1))
    birth = folder / "birth.json"
    story.run("key", "new", "notes/data", *files, "--policy", team, "--yes", "--out", birth)
    house.run("deliver", birth)  # shows six words, which differ from run to run
    story.run("policy", "explain", "notes")
    story.run("policy", "simulate", "notes")
    story.check()


GUARDED = """
managers = { all = ["m1", "m2"] }
[acts]
promote = { managers = true }
[guardians]
all = ["g1", "g2"]
delay = "7d"
cooldown = "3d"
"""
CLAUSE = """
[auto_migrate]
any = ["platform"]
changes = ["image", "measurement"]
max_step = 1
delay = "1d"
budget = 3
expires_at = 2099-01-01T00:00:00Z
"""


def test_rules_as_their_owner_changes_them(house):
    """A team, its managers' signatures, the clause and its use, a no, the end of the key."""
    owners, story = Owners(house), Transcript(house, "govern")
    owners.born(owners.policy())
    team = owners.policy("team", GUARDED)
    story.run("key", "update", "notes", "--policy", team, "--reason", "we are a team", "--yes")
    story.run("key", "show", "notes")
    file = house.folder / "promote.json"
    promote = ("promote", "notes", "--profile", house.profile(2), "--keep", "--yes")
    story.run(*promote, "--out", file)
    owners.sign(file, "m1", "m2")
    house.run("deliver", file)  # shows six words, which differ from run to run
    both = owners.policy("both", GUARDED + CLAUSE)
    on = ("key", "auto-migrate", "on", "notes", "--policy", both)
    story.run(*on, "--yes", code=2)
    clause = house.folder / "on.json"
    story.run(*on, "--type-out", "let platform promote notes without me", "--out", clause)
    owners.sign(clause, "m1", "m2")
    house.run("deliver", clause)
    use = ("--profile", house.profile(3), "--key-file", owners.pem("platform"), "--yes")
    story.run("migrate", "notes", *use, code=5)
    story.run("key", "show", "notes")
    story.run("void", "notes")
    waiting = house.json("void", "notes")["open"][0]["statement"]
    story.run("void", "notes", waiting, "--reason", "not this one", "--yes")
    story.run("log", "notes")
    story.run("key", "delete", "notes", "--type-out", "notes", "--yes")
    story.run("key", "show", "notes")
    story.check()


def test_a_recovery_as_people_see_it(house):
    """Guardians ask for a new owner; too early it is not completed; the old owner says no."""
    owners, story = Owners(house), Transcript(house, "recovery")
    owners.born(owners.policy("guarded", GUARDED))
    file = house.folder / "recover.json"
    story.run(
        *("recover", "start", "notes", "--new-owner", owners.public("heir"), "--yes"),
        *("--reason", "all keys burnt", "--key-file", owners.pem("g1"), "--out", file),
    )
    story.run("sign", file, "--key-file", owners.pem("g2"), "--yes")
    house.run("deliver", file)
    story.run("recover", "show", "notes")
    heir = ("--key-file", owners.pem("heir"), "--yes")
    story.run("recover", "complete", "notes", *heir, code=5)
    intent = house.json("recover", "show", "notes")["intent"]
    story.run("void", "notes", intent, "--reason", "I am here", "--yes")
    story.run("recover", "show", "notes")
    story.check()


def test_a_fork_as_its_owner_sees_it(house):
    """Two devices promote at once, at two vaults each: shown, then merged."""
    owners, story = Owners(house), Transcript(house, "fork")
    owners.born(owners.policy())
    files = []
    for version in (2, 3):
        files.append(house.folder / f"{version}.json")
        promote = ("promote", "notes", "--profile", house.profile(version), "--keep", "--yes")
        house.run(*promote, "--out", files[-1])
        owners.forget()
    for file, away in ((files[0], (3, 4, 5)), (files[1], (1, 2, 5))):
        house.stop(*(n for n in away if house.vaults[n - 1]))
        house.run("deliver", file, code=4)
        house.start(*(n for n in (1, 2, 3, 4) if not house.vaults[n - 1]))
        owners.forget()
    story.run("promote", "notes", "--profile", house.profile(4), "--yes", code=6)
    story.run("merge", "notes", "--reason", "both devices", "--yes", code=5)
    house.start(5)
    story.run("key", "sync", "notes")
    story.check()


def test_help_explains_before_it_asks(empty):
    """The help of every command of this room, so that a change of it is seen."""
    story = Transcript(empty, "help")
    story.run("--help")
    for group in ("owner", "policy", "key", "recover", "oidc", "vault", "evidence", "profile"):
        story.run(group, "--help")
    for command in (
        *(("owner", c) for c in ("init", "add", "use", "show")),
        *(("policy", c) for c in ("new", "check", "explain", "simulate")),
        *(("key", c) for c in ("new", "list", "show", "sync", "add", "forget")),
        *((c,) for c in ("stage", "pending", "revoke", "review", "promote", "retire")),
        *(("key", c) for c in ("update", "delete")),
        *(("key", "auto-migrate", c) for c in ("on", "off")),
        *((c,) for c in ("migrate", "void", "merge")),
        *(("recover", c) for c in ("start", "show", "complete")),
        *((c,) for c in ("sign", "deliver", "log", "doctor")),
        *(("oidc", c) for c in ("enrol", "sign")),
        ("vault", "show"),
        ("vault", "log"),
        *(("evidence", c) for c in ("show", "verify")),
        *(("profile", c) for c in ("from-evidence", "diff")),
    ):
        story.run(*command, "--help")
    story.check()
    assert cli.help
