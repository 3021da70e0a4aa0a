"""Real shells on a pseudo-terminal: what TAB makes of a line that somebody types."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from placet_testing.charters import birth_body, composer, signed, vault_set

from placet.cli.settings import Home, KnownKey

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """#!/bin/sh
# What is asked for completion is answered by placet; what would be run is only shown.
if [ -n "$_PLACET_COMPLETE$REALLY" ]; then
    exec {python} -c 'from placet.cli.main import main; main()' "$@"
fi
printf 'RAN'
printf ' <%s>' "$@"
echo ' END'
"""
READY = "READY>"
SECONDS = 20
TAB, ENTER, CANCEL = "\t", "\r", "\x15"
START = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
    "fish": ("fish", "-i"),
}
SHELLS = [
    name
    for name in START
    if name == "bash" or shutil.which(name) or not os.environ.get("PLACET_REQUIRE_ALL")
]
"""Bash must be there. Where every skip is a failure, the others are tested if they are."""
SETUP = {
    "bash": (
        "bind 'set show-all-if-ambiguous on'; bind 'set bell-style none'",
        "bind 'set completion-query-items 0'; bind 'set page-completions off'",
        "bind 'set enable-bracketed-paste off'",
    ),
    "zsh": (
        "unsetopt prompt_cr prompt_sp zle_bracketed_paste; LISTMAX=0",
        "autoload -Uz compinit; compinit -u -D",
    ),
    "fish": (
        "function fish_prompt; echo 'READ''Y>'; end; function fish_greeting; end",
        "set -g fish_autosuggestion_enabled 0",
    ),
}
LOAD = {
    "bash": 'eval "$(REALLY=1 placet completion bash)"',
    "zsh": 'eval "$(REALLY=1 placet completion zsh)"',
    "fish": "REALLY=1 placet completion fish | source",
}
ESCAPES = re.compile(r"\x1b(\[[0-9;?>=]*[a-zA-Z]|\][^\x07]*\x07|[()][A-Z0-9]|[=>])|[\x07\x0f]")


class Typed:
    """A shell on a terminal, in which somebody types."""

    def __init__(self, shell: str, home: Path, folder: Path) -> None:
        self.text = ""
        bin_folder = folder / "bin"
        environment = {
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PLACET_HOME": str(home),
            "HOME": str(folder / "user"),
            "TERM": "xterm",
            "PS1": READY,
            "PROMPT": READY,
            "INPUTRC": "/dev/null",
            "COLUMNS": "200",
        }
        for name in ("REALLY", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "_PLACET_COMPLETE"):
            environment.pop(name, None)
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ("setsid", "--ctty", *START[shell]),  # fish ends without a controlling terminal
            cwd=folder / "work",
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.shell = shell

    def type(self, keys: str, until: str) -> str:
        """Type; return what the screen shows from then on, up to a pattern."""
        os.write(self.master, keys.encode())
        seen, end = "", time.monotonic() + SECONDS
        while not re.search(until, readable(seen)):
            left = end - time.monotonic()
            assert left > 0, f"no {until!r} after {keys!r} in {readable(seen)!r}"
            if select.select([self.master], [], [], left)[0]:
                seen += os.read(self.master, 4096).decode(errors="replace")
                if "\x1b[c" in seen or "\x1b[0c" in seen:  # fish asks what terminal this is
                    os.write(self.master, b"\x1b[?1;2c")
        self.text += seen
        return readable(seen)

    def completed(self, line: str) -> list[str]:
        """Type a line, TAB at its end, and ENTER; return the words that ran."""
        said = self.type(f"{line}{TAB}{ENTER}", r"RAN[^\n]* END")
        found = re.findall(r"RAN(.*?) END", said)
        return re.findall(r"<(.*?)>", found[-1])

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(10)
        os.close(self.master)


def readable(text: str) -> str:
    """Return what is on the screen, without colours and cursor movements."""
    return ESCAPES.sub("", text).replace("\r\n", "\n")


@pytest.fixture
def place(tmp_path):
    """Return a folder with a program, a home with keys, files to name, and a user's folder."""
    for name in ("bin", "work", "user"):
        (tmp_path / name).mkdir()
    program = tmp_path / "bin" / "placet"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    (tmp_path / "work" / "birth of a key.json").touch()
    (tmp_path / "work" / "collateral").mkdir()
    (tmp_path / "work" / "collect.txt").touch()
    home = Home(tmp_path / "home", tmp_path / "home")
    for label in ("notes/data", "photos", "evil$(touch owned)"):
        sent = signed(composer(seed=label).birth(birth_body(label=label)))
        home.remember(
            KnownKey(key=sent.digest, label=label, constellation="house", birth=sent.signed())
        )
    members = msgspec.to_builtins(vault_set(n=3, k=2).vaults)
    (home.data / "house.json").write_text(json.dumps({"vaults": members}))
    home.file.write_text('[constellations.house]\nvaults = "house.json"\n')
    return tmp_path


@pytest.fixture
def start(place):
    """Return a function that starts a shell which has read our script."""
    started = []

    def shell(name: str, load: str | None = None) -> Typed:
        if not shutil.which(name):
            pytest.skip(f"no {name} is installed")
        typed = Typed(name, place / "home", place)
        started.append(typed)
        for command in (*SETUP[name], load or LOAD[name]):
            typed.type(f"{command}{ENTER}", "")
        # A sum, so that the echo of the command is not taken for its output.
        count = {"fish": "(math 40 + 2)"}.get(name, "$((40 + 2))")
        typed.type(f"echo ready {count}{ENTER}", "ready 42")
        return typed

    yield shell
    for typed in started:
        typed.close()


def key_of(place: Path, label: str) -> str:
    """Return the id of a key."""
    home = Home(place / "home", place / "home")
    return next(k.key for k in home.known_keys() if k.label == label)


LINES = {
    "a command": ("placet prom", ["promote"]),
    "a subcommand": ("placet key sh", ["key", "show"]),
    "a contributed command": ("placet dev stat", ["dev", "status"]),
    "an option": (
        "placet promote notes/data --retire-n",
        ["promote", "notes/data", "--retire-now"],
    ),
    "an option of a parser": ("placet run --vol", ["run", "--volume"]),
    "a choice": (
        "placet evidence show x --family td",
        ["evidence", "show", "x", "--family", "tdx"],
    ),
    "a label": ("placet promote no", ["promote", "notes/data"]),
    "a constellation": (
        "placet attest x --constellation h",
        ["attest", "x", "--constellation", "house"],
    ),
    "an address": ("placet attest 127.0.0.1:9002", ["attest", "127.0.0.1:9002"]),
    "a file": ("placet deliver bir", ["deliver", "birth of a key.json"]),
    "a folder, not a file": ("placet collateral show coll", ["collateral", "show", "collateral"]),
    "a list": (
        "placet profile from-evidence x --statuses UpToDate,Unr",
        ["profile", "from-evidence", "x", "--statuses", "UpToDate,Unrated"],
    ),
    "nothing": ("placet retire x y --reason no", ["retire", "x", "y", "--reason", "no"]),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_line_is_completed(start, place, shell):
    """Each row: what is typed before TAB, and the words that run on ENTER."""
    typed = start(shell)

    for name, (line, words) in LINES.items():
        ran = typed.completed(line)
        assert [word.removesuffix("/") for word in ran] == words, name
    key = key_of(place, "photos")
    # Both forms of an id: with its colon, at which bash splits words, and bare.
    assert typed.completed(f"placet log {key[:14]}") == ["log", key]
    assert typed.completed(f"placet log {key[7:14]}") == ["log", key[7:]]
    assert typed.completed(f"placet log '{key[:14]}") == ["log", key]


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_ambiguous_is_listed(start, shell):
    """Two TABs show the commands that begin as was typed, and no others."""
    typed = start(shell)

    said = typed.type(f"placet re{TAB}{TAB}", r"(?s)(?=.*retire)(?=.*review)(?=.*revoke)")
    assert "deliver" not in said


@pytest.mark.parametrize("shell", SHELLS)
def test_no_label_of_others_is_run(start, place, shell):
    """A label with a command in it is offered as its key's id, and nothing of it runs."""
    typed = start(shell)

    assert typed.completed("placet log evil") == ["log", "evil"]
    key = key_of(place, "evil$(touch owned)")
    assert typed.completed(f"placet log {key[:14]}") == ["log", key]
    assert not list(place.rglob("owned"))


@pytest.mark.parametrize("shell", SHELLS)
def test_an_error_is_not_seen(start, place, shell):
    """With a spoilt home, and with a program that fails, the line stays as it was typed."""
    typed = start(shell)
    for path in (place / "home" / "keys").glob("*.json"):
        path.write_text("{")
    (place / "home" / "config.toml").write_text("[")

    assert typed.completed("placet promote no") == ["promote", "no"]
    assert "Traceback" not in typed.text
    assert "Error" not in typed.text


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_installed_is_read(start, place, shell):
    """What `placet completion install` wrote completes, read as the shell reads such files."""
    if not shutil.which(shell):
        pytest.skip(f"no {shell} is installed")
    done = subprocess.run(
        [place / "bin" / "placet", "completion", "install", "--shell", shell, "--json"],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("XDG", "BASH_COMP"))},
            "HOME": str(place / "user"),
            "REALLY": "1",
        },
        capture_output=True,
        check=True,
    )
    file = Path(json.loads(done.stdout)["file"])
    load = {
        "bash": f"source {file}",
        "zsh": f"fpath=({file.parent} $fpath); compinit -u -D",
        "fish": "true",
    }[shell]

    typed = start(shell, load)
    assert typed.completed("placet prom") == ["promote"]
    assert typed.completed("placet promote no") == ["promote", "notes/data"]
