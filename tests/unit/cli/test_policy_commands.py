"""placet policy: forms, verdicts, findings, answers; for people and for programs."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from placet_testing.charters import NOW, birth_body, composer, person
from placet_testing.governed import CLAUSE, DAY, PAGE, any_one, co_signed, some
from placet_testing.passkey import SoftwarePasskey

from placet.cli.main import cli
from placet.cli.policy_file import PolicyFile, read_policy
from placet.cli.policy_findings import findings
from placet.cli.policy_presets import TO_FILL
from placet.cli.policy_simulation import Question, show_simulated, simulate_policy
from placet.cli.policy_subject import Subject
from placet.cli.policy_words import Names
from placet.core.signer import OidcSigner, OkpJwk, Threshold, signer_id
from placet.core.table import Guardians, Rules
from placet.errors import MalformedError
from placet.policy.governance import follow
from placet.policy.key_policy import Recovery

DOCS = Path(__file__).resolve().parents[3] / "docs"
PEOPLE = sorted({n for roles in TO_FILL.values() for names in roles.values() for n in names})


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Work in a folder with the public signers that presets name; return a command runner."""
    for name in PEOPLE:
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(person(name).signer))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACET_HOME", str(tmp_path / "home"))

    def run(*arguments: str, code: int = 0):
        said = CliRunner().invoke(cli, arguments, prog_name="placet")
        assert said.exception is None or isinstance(said.exception, SystemExit), said.exception
        assert said.exit_code == code, f"{said.stdout}\n{said.stderr}"
        return json.loads(said.stdout) if "--json" in arguments else said.stdout + said.stderr

    return run


# --- presets --------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", list(TO_FILL))
def test_a_preset_with_its_files_can_be_kept(desk, preset):
    """With the files that it names it is fine; sandbox says that others may let versions in."""
    desk("policy", "new", "--preset", preset, "--out", "p.toml")
    found = desk("policy", "check", "p.toml", "--json", code=int(preset == "sandbox"))
    said = [f["finding"] for f in found["findings"]]
    assert said == (["auto-migrate"] if preset == "sandbox" else [])


def test_the_presets_are_what_their_names_say(desk):
    """The issue's four, row by row."""
    rules = {}
    for preset in TO_FILL:
        desk("policy", "new", "--preset", preset, "--out", f"{preset}.toml")
        rules[preset] = read_policy(Path(f"{preset}.toml")).rules
    assert {p: (r.owner.threshold, len(r.owner.of)) for p, r in rules.items()} == {
        "solo": (1, 2), "team": (1, 2), "regulated": (2, 3), "sandbox": (1, 2),
    }  # fmt: skip
    assert [p for p, r in rules.items() if r.managers] == ["team", "regulated"]
    for preset in ("team", "regulated"):
        assert (rules[preset].managers.threshold, len(rules[preset].managers.of)) == (2, 3)
        acts = rules[preset].acts
        assert all(getattr(acts, a).managers for a in ("promote", "update_policy", "delete"))
        assert not acts.retire.managers
        assert rules[preset].guardians is not None
    assert rules["regulated"].immutable == ("managers",)
    assert {p for p, r in rules.items() if r.auto_migrate} == {"sandbox"}
    assert rules["sandbox"].auto_migrate.signers.of == rules["sandbox"].stagers


def test_files_that_are_given_take_the_places(desk, tmp_path):
    """Names are those of files; files beside the policy are named from there; counts may differ."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "my key.json").write_bytes((tmp_path / "phone.json").read_bytes())
    document = desk(
        *("policy", "new", "--preset", "solo", "--owner", "my key.json", "--owner", "token.json"),
        *("--owner", "laptop.json", "--out", "elsewhere/p.toml", "--json"),
    )
    text = (tmp_path / "elsewhere" / "p.toml").read_text()
    assert 'owner = { any = ["my-key", "token", "laptop"] }' in text
    assert tomllib.loads(text)["signers"]["token"]["from"] == str(tmp_path / "token.json")
    assert tomllib.loads(text)["signers"]["builder"]["from"] == "builder.json"
    assert document["missing"] == ["elsewhere/builder.json"]


def test_without_out_the_form_is_printed(desk):
    """For a pipe; with --json it is a member of the document."""
    text = desk("policy", "new", "--preset", "solo")
    assert tomllib.loads(text)["schema"] == 1
    document = desk("policy", "new", "--preset", "solo", "--json")
    assert (document["text"], document["missing"]) == (text, [])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--owner", "nobody.json"), 2, "nobody.json cannot be read"),
        (("--manager", "phone.json"), 2, "solo has no manager"),
        (("--owner", "phone.json", "--stager", "phone.json"), 2, "both be called 'phone'"),
        (("--owner", "p.toml"), 2, "p.toml holds no public key"),
        (("--out", "p.toml"), 6, "p.toml exists, and it is not written over"),
        (("--out", "no/such/folder.toml"), 2, "No such file"),
    ],
)
def test_a_form_that_cannot_be_made_is_not(desk, tmp_path, arguments, code, said):
    """Nothing is written, and nothing is written over."""
    (tmp_path / "p.toml").write_text("mine")
    assert said in desk("policy", "new", "--preset", "solo", *arguments, code=code)
    assert (tmp_path / "p.toml").read_text() == "mine"
    assert sorted(tmp_path.glob("*.toml")) == [tmp_path / "p.toml"]


# --- check ----------------------------------------------------------------------------------


def plain(**changes: object) -> Rules:
    """Return rules of an owner with two devices and nobody else; changed as named."""
    owner = any_one("owner", person("phone").signer, person("laptop").signer)
    return msgspec.structs.replace(Rules(owner=owner, stagers=()), **changes)


IDENTITY = OidcSigner(
    label="work",
    issuer="https://id.example",
    audience="approvals",
    sub="42",
    jwks=(OkpJwk(kid="1", alg="EdDSA", crv="Ed25519", x=person("provider").signer.public_key),),
)
GUARDIANS = Guardians(principal=some("g", 2, "g1", "g2", "g3"), delay=DAY, cooldown=DAY)
MANAGERS = some("managers", 2, "m1", "m2", "m3")
TIGHT = co_signed("promote", "update_policy", "move")
OTHER_PAGE = SoftwarePasskey(name="tablet", screen="page").signer
PAGES = Threshold(label="owner", threshold=1, of=(PAGE.signer, OTHER_PAGE))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (plain(), []),
        (plain(owner=some("owner", 1, "phone")), ["one-device"]),
        (plain(owner=some("owner", 2, "phone", "laptop")), ["owner-without-spare"]),
        (plain(owner=some("owner", 2, "phone", "laptop", "token")), []),
        (
            plain(owner=Threshold(label="o", threshold=2, of=(plain().owner, IDENTITY))),
            ["oidc-for-everything"],
        ),
        (plain(owner=PAGES), ["page-only"]),
        (plain(cooldown=DAY - 1), ["short-cooldown"]),
        (plain(guardians=GUARDIANS), []),
        (
            plain(guardians=msgspec.structs.replace(GUARDIANS, delay=0)),
            ["short-guardian-delay"],
        ),
        (
            plain(guardians=msgspec.structs.replace(GUARDIANS, cooldown=DAY - 1)),
            ["short-guardian-cooldown"],
        ),
        (
            plain(guardians=msgspec.structs.replace(GUARDIANS, principal=some("g", 1, "g1"))),
            ["lone-guardian"],
        ),
        (plain(auto_migrate=CLAUSE), ["auto-migrate"]),
        (
            plain(auto_migrate=msgspec.structs.replace(CLAUSE, delay=60)),
            ["auto-migrate", "short-auto-delay"],
        ),
        (plain(managers=MANAGERS, acts=TIGHT), []),
        (plain(managers=MANAGERS), ["idle-managers"]),
        (plain(managers=MANAGERS, acts=co_signed("delete")), []),
        (plain(managers=some("m", 2, "m1", "m2")), ["idle-managers"]),
        (plain(managers=MANAGERS, acts=co_signed("promote")), ["managers-avoidable"]),
        (
            plain(managers=MANAGERS, acts=co_signed("promote", "update_policy")),
            ["managers-avoidable"],
        ),
        (
            plain(managers=some("m", 2, "m1", "m2"), acts=co_signed("update_policy")),
            ["managers-without-spare"],
        ),
        (plain(reviewers=some("r", 1, "r1", "r2")), ["lone-reviewer"]),
        (plain(reviewers=some("r", 2, "r1", "r2")), []),
    ],
)
def test_what_an_author_may_regret_is_found(rules, expected):
    """Each finding by the rules that have it, and not by those beside them."""
    assert [f.finding for f in findings(rules)] == expected


def test_the_reference_has_every_key_and_every_finding(tmp_path):
    """docs/policy-file.md: its tables are whole, and its example is one."""
    page = (DOCS / "policy-file.md").read_text()
    top = page[page.index("## Keys at the top") : page.index("## Principals")]
    rows = set(re.findall(r"^\| `(\w+)` \|", top, re.MULTILINE))
    tables = {"acts", "guardians", "auto_migrate"}
    assert rows | tables == {"schema", *Rules.__struct_fields__}
    assert all(f"## [{name}]" in page for name in tables)
    source = (DOCS.parent / "src" / "placet" / "cli" / "policy_findings.py").read_text()
    named = set(re.findall(r'"((?:[a-z]+-)+[a-z]+)"', source))
    found = page[page.index("| finding |") :]
    assert set(re.findall(r"`((?:[a-z]+-)+[a-z]+)`", found)) == named

    whole = page[page.index("## A whole file") : page.index("## Keys at the top")]
    text = "\n".join(re.findall(r"^    (.*)$", whole, re.MULTILINE))
    names = [*read_names(text), "phone"]
    for name in names:
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(person(name).signer))
    others = "".join(f'\n[signers.{n}]\nfrom = "{n}.json"' for n in read_names(text))
    path = tmp_path / "p.toml"
    path.write_text(text + others)
    file: PolicyFile = read_policy(path)
    file.check()
    assert findings(file.rules, file.unused) == ()


def read_names(text: str) -> list[str]:
    """Return the signers that a file mentions and has no table for."""
    lists = re.findall(r"= \[(.*?)\]", text)
    named = {n for each in lists for n in re.findall(r'"([\w-]+)"', each)}
    return sorted(named - set(re.findall(r"\[signers\.(\S+)\]", text)) - {"guardians"})


def test_check_ends_as_it_judges(desk, tmp_path):
    """0 fine, 1 findings, 2 unreadable, 3 refused whatever the reason; JSON says which."""
    desk("policy", "new", "--preset", "solo", "--out", "p.toml")
    text = (tmp_path / "p.toml").read_text()

    def check(changed: str, code: int):
        (tmp_path / "p.toml").write_text(changed)
        return desk("policy", "check", "p.toml", "--json", code=code)

    assert check(text, 0)["findings"] == []
    found = check(text.replace('["phone", "laptop"]', '["phone"]'), 1)["findings"]
    assert [f["finding"] for f in found] == ["one-device", "unused-signers"]
    assert check(text.replace("schema", "scheme"), 2)["type"].endswith("/malformed")
    frozen = check(text.replace("cooldown", 'immutable = ["owner"]\ncooldown'), 3)
    assert frozen["type"].endswith("/policy-unrepairable")
    assert "p.toml" in frozen["detail"]
    twice = text.replace("cooldown", 'auditors = ["phone"]\ncooldown')
    assert check(twice, 3)["type"].endswith("/malformed")
    assert "next:" in desk("policy", "check", "p.toml", code=3)
    desk("policy", "check", "none.toml", code=2)


# --- explain and simulate ---------------------------------------------------------------------


def test_the_simulation_answers_programs(desk):
    """Groups, waits, vetoes, loss and theft, each by name."""
    desk("policy", "new", "--preset", "team", "--out", "t.toml")
    said = desk("policy", "simulate", "t.toml", "--lost", "phone", "--stolen", "laptop", "--json")
    acts = {a["act"]: a for a in said["acts"]}
    assert acts["promote"]["total"] == 3
    assert acts["promote"]["groups"][0] == {
        "signers": ["laptop", "manager-1", "manager-2"], "waits": 0, "veto": [],
    }  # fmt: skip
    assert acts["recover"]["groups"][0]["veto"] == ["laptop"]
    assert said["today"] is None
    assert said["lost"] == {"signers": ["phone"], "replaced_by": "update_policy"}
    stolen = said["stolen"]
    assert {c["act"] for c in stolen["could"]} == {"retire", "rotate"}
    assert (stolen["lets_in"], stolen["vetoes"], stolen["stages"]) == ([], True, False)
    # The owner's other device is lost: only guardians are left, and the thief says no.
    assert stolen["taken_out_by"]["act"] == "recover"
    text = desk("policy", "simulate", "t.toml", "--lost", "phone", "--stolen", "laptop")
    assert "but the thief can say no to it" in text


@pytest.mark.parametrize(
    ("preset", "supposed", "code"),
    [
        ("solo", "", 0),
        ("solo", "--stolen builder", 0),
        ("solo", "--stolen phone", 1),
        ("solo", "--lost phone", 0),
        ("solo", "--lost phone --lost laptop", 1),
        ("team", "--stolen phone", 0),
        ("team", "--stolen phone --stolen manager-1", 0),
        ("team", "--stolen phone --stolen manager-1 --stolen manager-2", 1),
        ("team", "--stolen guardian-1 --stolen guardian-2", 0),
        ("team", "--lost manager-3", 0),
        ("team", "--lost manager-3 --lost manager-1", 1),
        ("regulated", "--stolen phone --stolen laptop", 0),
        ("regulated", "--lost phone --lost laptop --lost token", 0),
        ("sandbox", "--stolen builder", 0),
    ],
)
def test_the_exit_code_says_whether_anybody_could_help(desk, preset, supposed, code):
    """1 where a loss is for ever, or a thief gets in and nobody can say no."""
    desk("policy", "new", "--preset", preset, "--out", "p.toml")
    desk("policy", "simulate", "p.toml", *supposed.split(), "--json", code=code)
    desk("policy", "simulate", "p.toml", *supposed.split(), code=code)


def test_a_name_that_nobody_has_is_refused(desk):
    """With the nearest one; and a key that is not known hints at files."""
    desk("policy", "new", "--preset", "solo", "--out", "p.toml")
    for option in ("--lost", "--stolen"):
        said = desk("policy", "simulate", "p.toml", option, "phon", code=2)
        assert f"{option} phon: no signer has that name" in said
        assert "Did you mean phone?" in said
    assert "a policy file's name ends in .toml" in desk("policy", "explain", "p", code=2)


def test_many_groups_are_counted_and_not_listed(desk, tmp_path):
    """Twelve are shown, and how many more there are is said."""
    names = [f"p{i}" for i in range(12)]
    for name in names:
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(person(name).signer))
    signers = "".join(f'[signers.{n}]\nfrom = "{n}.json"\n' for n in names)
    of = json.dumps(names)
    (tmp_path / "p.toml").write_text(
        f"schema = 1\nowner = {{ at_least = 6, of = {of} }}\n{signers}"
    )
    assert "and 912 more groups" in desk("policy", "simulate", "p.toml")
    said = desk("policy", "simulate", "p.toml", "--json")["acts"][0]
    assert (len(said["groups"]), said["total"]) == (12, 924)


def test_explain_says_what_waits_and_for_whom(desk, tmp_path):
    """A page's passkey alone, a recovery, a clause; signers with what they sign with."""
    (tmp_path / "page.json").write_bytes(msgspec.json.encode(PAGE.signer))
    desk("policy", "new", "--preset", "sandbox", "--owner", "page.json", "--owner", "phone.json",
         "--out", "p.toml")  # fmt: skip
    said = desk("policy", "explain", "p.toml", "--json")
    acts = {a["act"]: a for a in said["acts"]}
    assert (acts["promote"]["waits_alone"], acts["promote"]["veto"]) == (
        ["page"],
        ["page", "phone"],
    )
    assert (acts["auto_migrate"]["delay"], acts["auto_migrate"]["veto"]) == (DAY, ["page", "phone"])
    assert {s["name"]: s["roles"] for s in said["signers"]}["builder"] == ["clause", "stager"]
    text = desk("policy", "explain", "p.toml")
    assert "1d if page signs alone" in text
    assert "on a page of others" in text


# --- keys that live ---------------------------------------------------------------------------


def subject_of(rules: Rules, **changes: object) -> Subject:
    """Return a key that lives under these rules; changed as named."""
    born = follow(None, composer().birth(birth_body()), at=NOW)
    return Subject(
        name="notes",
        argument="notes",
        rules=rules,
        names=Names.of(rules),
        policy=replace(born, rules=rules, **changes),
        now=NOW,
    )


def test_a_device_that_was_just_added_counts_for_nothing_yet():
    """Nor for a thief; from its time on it does."""
    laptop = signer_id(person("laptop").signer)
    young = subject_of(plain(), young=((laptop, NOW + 1),))
    found = simulate_policy(young, Question(stolen=("laptop",)))
    assert [o.signers for o in dict(found.acts[:1]).popitem()[1].listed] == [
        (person("phone").signer,)
    ]
    assert (found.theft.could, found.theft.lets_in) == ((), ())
    assert "laptop was added lately and counts from" in young.notes()[0]
    grown = subject_of(plain(), young=((laptop, NOW),))
    assert simulate_policy(grown, Question(stolen=("laptop",))).theft.unstoppable
    assert grown.notes() == []


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"deleted": True}, "the owner destroyed this key"),
        ({"promote_from": NOW + DAY}, "no promote before 2027-01-16 08:00 UTC"),
        (
            {
                "recovery": Recovery(
                    intent="sha256:", owner=some("new", 1, "new"), since=NOW, ready=NOW + DAY
                )
            },
            "a recovery runs: from 2027-01-16 08:00 UTC new can be owner",
        ),
        ({"auto_uses": 1}, "the auto-migrate clause is on: 1 uses are left"),
    ],
)
def test_what_will_pass_is_said(changes, note):
    """Where a key stands just now, beside its rules."""
    rules = plain(auto_migrate=CLAUSE) if "auto_uses" in changes else plain()
    assert any(note in said for said in subject_of(rules, **changes).notes())


def test_today_it_is_code_and_nothing_else(capsys):
    """What is approved and not retired; nobody where the key is destroyed."""
    living = subject_of(plain())
    found = simulate_policy(living, Question())
    assert show_simulated(living, found, as_json=True) == 0
    today = json.loads(capsys.readouterr().out)["today"]
    assert [(c["app"], c["until"]) for c in today["code"]] == [("notes", None)]
    assert (today["k"], today["n"]) == (3, 5)
    for gone in ({"deleted": True}, {"approvals": ()}, {"floor": 9}):
        ended = subject_of(plain(), **gone)
        show_simulated(ended, simulate_policy(ended, Question()), as_json=True)
        assert json.loads(capsys.readouterr().out)["today"]["code"] == []


def test_signers_of_one_label_are_told_apart():
    """A charter may name two people alike: each gets the beginning of its id."""
    twins = tuple(msgspec.structs.replace(person(n).signer, label="owner") for n in ("a", "b"))
    subject = subject_of(plain(owner=any_one("owner", *twins)))
    names = sorted(subject.names.by_id.values())
    assert [n.startswith("owner (") for n in names] == [True, True]
    assert subject.ids((names[0],), "--lost") < frozenset(subject.names.by_id)
    with pytest.raises(MalformedError, match="several signers have that name"):
        subject.ids(("owner",), "--lost")
