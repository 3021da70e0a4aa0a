"""What shells are offered: out of the table, out of files; and that errors stay quiet."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest
from placet_testing.charters import birth_body, composer, profile, signed, vault_set

from placet.cli import completion_words
from placet.cli.completion_known import TABLE
from placet.cli.completion_shells import ASKED, SHELLS, answer, joined
from placet.cli.main import SECTIONS, cli
from placet.cli.settings import Home, KnownKey
from placet.client.signing import promote_body
from placet.core.profile import code_id
from placet.core.statement import open_statement
from placet.errors import PlacetError
from placet.policy.key_policy import born

ROOT = Path(__file__).resolve().parents[3]
PLACET = (sys.executable, "-c", "from placet.cli.main import main; main()")
LABELS = ("notes/data", "photos", "evil$(touch x)", "twin", "twin")


@pytest.fixture
def tool():
    """Return ``tools/completion.py``, which writes the table."""
    spec = importlib.util.spec_from_file_location("completion_tool", ROOT / "tools/completion.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a home with keys and a constellation, which the environment names."""
    monkeypatch.setenv("PLACET_HOME", str(tmp_path / "home"))
    home = Home.find()
    for number, label in enumerate(LABELS):
        sent = signed(composer(seed=str(number)).birth(birth_body(label=label)))
        home.remember(
            KnownKey(key=sent.digest, label=label, constellation="house", birth=sent.signed())
        )
    vaults = home.data / "constellations" / "house.json"
    vaults.parent.mkdir(parents=True)
    members = msgspec.to_builtins(vault_set(n=3, k=2).vaults)
    vaults.write_text(json.dumps({"vaults": members}))
    home.file.write_text('[constellations.house]\nvaults = "constellations/house.json"\n')
    return home


def ids(home, label: str) -> list[str]:
    """Return the ids of the keys of a label."""
    return [k.key for k in home.known_keys() if k.label == label]


def offered(monkeypatch, *typed: str, shell: str = "bash") -> list[str]:
    """Return what a shell is answered for words, the last of which is begun."""
    asked = {
        ASKED: f"{shell}_complete",
        "COMP_WORDS": "\n".join(("placet", *typed)),
        "COMP_CWORD": typed[-1] if shell == "fish" else str(len(typed)),
    }
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    said = answer(os.environ, cli).rstrip("\n")
    return said.split("\n") if said else []


# --- the table -----------------------------------------------------------------------------


def test_the_table_is_that_of_the_commands():
    """Every command, option and choice is in it as it is; if not, run tools/completion.py.

    In a process of its own: a command remembers the help option of whoever asked it first.
    """
    told = "import runpy; print(runpy.run_path('tools/completion.py')['written'](), end='')"
    said = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, check=True)
    assert TABLE.read_text() == said.stdout.decode(), "run: .venv/bin/python tools/completion.py"


def test_every_value_completes_or_is_named_as_free_text(tool):
    """The whole tree is walked: each value is of a kind that can be completed, or listed."""
    kinds = {"flag", "file", "folder", "choice", "list", "number", "text", *completion_words.WORDS}
    values = [
        (name, value)
        for name, said in tool.known().items()
        for value in (*said["options"], *said["arguments"])
    ]
    assert len(values) > 200
    assert [v for v in values if not set(v[1].get("kind", "flag").split("|")) <= kinds] == []
    assert [
        v for v in values if v[1].get("kind") in ("choice", "list") and not v[1]["choices"]
    ] == []


def test_no_free_text_is_listed_that_is_none(tool, monkeypatch):
    """Without its entry in TEXTS, each value would be of no kind."""
    listed = tool.TEXTS
    monkeypatch.setattr(tool, "TEXTS", frozenset())
    with pytest.raises(LookupError) as e:
        tool.known()
    for name in listed:
        assert f"{name}'" in str(e.value) or f" {name}" in str(e.value), name


def test_an_option_of_no_kind_is_refused(tool, monkeypatch):
    """A new option that nobody said anything about is named, with where to say it."""
    monkeypatch.setattr(tool, "TEXTS", tool.TEXTS - {"--reason"})
    with pytest.raises(LookupError, match=r"tools/completion\.py.*retire --reason"):
        tool.known()


def test_every_command_of_the_command_line_is_known(tool):
    """No command is imported at a TAB, those of the development distribution included."""
    known = tool.known()
    assert {name for names in SECTIONS.values() for name in names} <= known.keys()
    assert set(cli.list_commands(click.Context(cli))) <= known.keys()
    assert {"dev up", "vault serve", "completion install"} <= known.keys()


# --- words ---------------------------------------------------------------------------------

BASH = {
    "commands": (("re",), ["plain,recover", "plain,retire", "plain,review", "plain,revoke"]),
    "subcommands": (("key", "s"), ["plain,show", "plain,sync"]),
    "options": (("promote", "k", "--re"), ["plain,--retire-now"]),
    "an option once": (("promote", "k", "--retire-now", "--re"), []),
    "an option again": (
        ("key", "new", "--profile", "x", "--prof"),
        ["plain,--profile"],
    ),
    "all options where no argument lacks": (
        ("owner", "show", ""),
        ["plain,--out", "plain,--json", "plain,-h", "plain,--help"],
    ),
    "choices": (("evidence", "show", "f", "--family", "s"), ["plain,sgx", "plain,snp"]),
    "choices after =": (("evidence", "show", "f", "--family", "=", "t"), ["plain,tdx"]),
    "an argument's choices": (("dev", "build", ""), ["plain,1", "plain,2"]),
    "a list": (
        ("profile", "from-evidence", "f", "--statuses", "UpToDate,Un"),
        ["plain,UpToDate,Unrated"],
    ),
    "a file": (("deliver", "b"), ["file,b"]),
    "an option's file": (("stage", "k", "--profile", ""), ["file,"]),
    "a key, or else a file": (("policy", "explain", "ph"), ["plain,photos", "file,ph"]),
    "a folder": (("collateral", "show", ""), ["dir,"]),
    "a contributed command": (("demo", "--k"), ["plain,--keep"]),
    "a contributed group": (("dev", "sta"), ["plain,stage", "plain,start", "plain,status"]),
    "a parser of another kind": (("vault", "serve", "--d"), ["plain,--data"]),
    "its folder": (("vault", "serve", "--data", ""), ["dir,"]),
    "labels": (("key", "show", "no"), ["plain,notes/data"]),
    "labels of dev": (("dev", "start", "1", "no"), ["plain,notes/data"]),
    "constellations": (("key", "new", "k", "--constellation", ""), ["plain,house"]),
    "spans, for example": (("stage", "k", "--expires", "1"), [f"plain,1{u}" for u in "dhms"]),
    "of free text nothing": (("retire", "k", "c", "--reason", ""), []),
    "of a number nothing": (("key", "new", "k", "--floor", ""), []),
    "after a word too many": (("pending", "k", "and", "more"), []),
    "of no command": (("nonsense", ""), []),
    "after an option that is none": (("key", "show", "--nonsense", "no"), []),
    "no option after --": (("key", "show", "--", "--js"), []),
}


@pytest.mark.parametrize(("typed", "expected"), BASH.values(), ids=BASH.keys())
def test_bash_is_offered(home, monkeypatch, typed, expected):
    """Each row: what is typed, and the whole answer."""
    assert offered(monkeypatch, *typed) == expected


def test_keys_are_offered_by_label_and_by_id(home, monkeypatch):
    """Labels first; an id once it is begun, with or without its algorithm."""
    [photos] = ids(home, "photos")

    assert offered(monkeypatch, "log", "ph") == ["plain,photos"]
    assert offered(monkeypatch, "log", photos[7:20]) == [f"plain,{photos[7:]}"]
    # Bash split the word at the colon, and replaces what follows it.
    assert offered(monkeypatch, "log", "sha256", ":", photos[7:20]) == [f"plain,{photos[7:]}"]
    assert len(offered(monkeypatch, "log", "sha256", ":")) == len(LABELS)
    assert offered(monkeypatch, "log", f"'{photos[:20]}") == [f"plain,{photos}"]


def test_no_label_of_others_becomes_a_command(home, monkeypatch):
    """Bash takes what it is offered as if it was typed: such a label is offered as its id."""
    [evil] = ids(home, "evil$(touch x)")
    words = offered(monkeypatch, "log", "")

    assert f"plain,{evil}" in words
    assert not [w for w in words if "$" in w or "touch" in w]
    assert offered(monkeypatch, "log", "evil") == []


@pytest.mark.parametrize(
    "label",
    ["a b", "a;b", "a|b", "$HOME", "`a`", "~root", "-rf", "a\nb", "a\x1b[2J", "a*", "a'b", '"', ""],
)
def test_only_harmless_words_are_offered(label):
    """No character of a word means anything to a shell, and none begins an option."""
    assert not completion_words.harmless(label)


def test_two_keys_of_one_label_are_offered_by_id(home, monkeypatch):
    """A label that would be refused as ambiguous is not offered."""
    words = offered(monkeypatch, "log", "")

    assert "plain,twin" not in words
    assert {f"plain,{key}" for key in ids(home, "twin")} <= set(words)


def test_code_is_offered_that_lies_here(home, monkeypatch):
    """What the birth let in, and what a promote in the outbox lets in, of this key alone."""
    [key] = ids(home, "notes/data")
    birth = code_id(profile(1))

    assert offered(monkeypatch, "promote", "notes/data", "") == [f"plain,{birth}"]
    assert offered(monkeypatch, "retire", "notes", birth[7:12]) == [f"plain,{birth[7:]}"]
    assert offered(monkeypatch, "retire", key, birth[7:12]) == [f"plain,{birth[7:]}"]
    assert offered(monkeypatch, "retire", "twin", "") == []

    policy = born(open_statement(home.key("notes/data").birth))
    home.post(signed(composer().promote(policy, promote_body(policy, profile(2)))))
    assert offered(monkeypatch, "retire", "notes/data", "") == [
        f"plain,{birth}",
        f"plain,{code_id(profile(2))}",
    ]
    assert offered(monkeypatch, "retire", "photos", "") == [f"plain,{birth}"]


def test_addresses_of_known_vaults_are_offered(home, monkeypatch):
    """Those of all constellations; bash keeps what stands before the colon."""
    addresses = [pair[0] for pair in completion_words.endpoints()]

    assert len(addresses) == 3
    host, port = addresses[0].split(":")
    assert f"plain,{addresses[0]}" in offered(monkeypatch, "attest", "")
    assert f"plain,{port}" in offered(monkeypatch, "vault", "show", host, ":")


@pytest.mark.parametrize("environment", [
    {"PLACET_HOME": "/p", "XDG_CONFIG_HOME": "/c", "HOME": "/h"},
    {"HOME": "/h", "XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d"},
    {"HOME": "/h"},
    {"HOME": "/h", "PLACET_HOME": "", "XDG_DATA_HOME": ""},
    {},
])  # fmt: skip
def test_the_folders_are_those_of_the_tool(environment):
    """Completion reads where the commands write."""
    found = Home.find(environment)
    assert completion_words.folders(environment) == (found.config, found.data)


def test_descriptions_stay_on_their_line(home, monkeypatch):
    """What others wrote does not reach a screen as a control character."""
    [key] = ids(home, "photos")
    path = next((home.data / "keys").glob(f"{key[7:]}*"))
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "label": "a\x1b[2J\nb\tc\u202e"}))

    for shell in ("zsh", "fish"):
        words = offered(monkeypatch, "log", key[:20], shell=shell)
        assert key in "".join(words).replace("\\", "")
        assert any(w.endswith("a?[2J?b?c?") for w in words)


@pytest.mark.parametrize(
    ("pieces", "words", "kept"),
    [
        (["a", "sha256", ":", "b"], ["a", "sha256:b"], "sha256:"),
        (["a", "sha256", ":"], ["a", "sha256:"], "sha256:"),
        (["a", "--b", "=", "c"], ["a", "--b=c"], ""),
        (["a", "--b", "=", "sha256", ":", "c"], ["a", "--b=sha256:c"], "sha256:"),
        (["a", "b:c"], ["a", "b:c"], ""),
        (["a", "b", ":", "c", ""], ["a", "b:c", ""], ""),
        (["a", "'b c"], ["a", "b c"], ""),
        (["a", "b\\ c"], ["a", "b c"], ""),
        ([""], [""], ""),
    ],
)
def test_words_of_bash_are_put_together(pieces, words, kept):
    """Bash splits at colons and equals signs; what it keeps is not answered again."""
    assert joined(pieces) == (words, kept)


# --- errors, and what a TAB costs ----------------------------------------------------------


def spoil_config(home):
    """Make ``config.toml`` unreadable as TOML."""
    home.file.write_text("[constellations.\x00")


def spoil_keys(home):
    """Make every key file something else."""
    texts = ["", "[]", "{", '{"label": 1, "key": []}', "[" * 100_000]
    for path, text in zip((home.data / "keys").glob("*.json"), texts, strict=True):
        path.write_text(text)


def spoil_births(home):
    """Make every birth something else."""
    births = [None, {"payload": "!"}, {"payload": "bnVsbA"}, {"payload": "eyJib2R5Ijp7fX0"}, []]
    for path, birth in zip((home.data / "keys").glob("*.json"), births, strict=True):
        path.write_text(json.dumps({**json.loads(path.read_text()), "birth": birth}))


def pipe_for_key(home):
    """Put a pipe that nobody writes where a key is: it must not be waited for."""
    for path in (home.data / "keys").glob("*.json"):
        path.unlink()
        os.mkfifo(path)


def folder_for_config(home):
    """Put a folder where a file is."""
    home.file.unlink()
    home.file.mkdir()


SPOILT = [spoil_config, spoil_keys, spoil_births, pipe_for_key, folder_for_config]
LINES = [
    ("log", ""),
    ("promote", "notes/data", ""),
    ("attest", ""),
    ("key", "new", "k", "--constellation", ""),
]


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("typed", LINES)
def test_a_spoilt_home_is_met_with_silence(home, monkeypatch, capfd, spoil, typed):
    """Fewer words are offered, nothing is said, nothing is written."""
    spoil(home)
    before = sorted(home.data.rglob("*"))

    for shell in SHELLS:
        offered(monkeypatch, *typed, shell=shell)
    assert capfd.readouterr() == ("", "")
    assert sorted(home.data.rglob("*")) == before


def raises(error):
    """Return a function that raises."""

    def call(*_: object, **__: object) -> None:
        click.echo("half an answer")
        raise error

    return call


@pytest.mark.parametrize("error", [OSError(), PlacetError("x"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_goes_wrong_is_no_answer(monkeypatch, capfd, error):
    """Not a word of an error reaches the line that somebody types."""
    monkeypatch.setattr("placet.cli.completion_shells.known_group", raises(error))

    assert offered(monkeypatch, "") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("asked", ["", "bash", "bash_", "csh_complete", "bash_complete", "_"])
def test_a_request_that_is_none_is_no_answer(monkeypatch, tmp_path, asked):
    """Neither is a request without words, and no command is run instead of it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COMP_")}
    done = subprocess.run(
        [*PLACET, "owner", "init"],
        env={**environment, ASKED: asked, "PLACET_HOME": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == (b"", b"")
    assert not list(tmp_path.iterdir())


HEAVY = ("rich", "msgspec", "cryptography.x509", "OpenSSL", "httptools", "placet.errors", "asyncio")


@pytest.mark.parametrize("typed", [("promote", "notes/data", "--"), ("key", "show", ""), ("",)])
def test_a_tab_imports_no_command(home, typed):
    """What costs time is not imported; that is what keeps a TAB quick."""
    asked = {ASKED: "bash_complete", "COMP_WORDS": "\n".join(("placet", *typed))}
    look = f"{PLACET[2]}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", look],
        env={**os.environ, **asked, "COMP_CWORD": str(len(typed))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(done.stdout.splitlines()) > 1
