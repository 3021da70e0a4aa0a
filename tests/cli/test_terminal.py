"""What a person sees on a terminal, and that nobody else writes on it."""

from __future__ import annotations

import re

import pytest

from placet.core.words import six_words

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def readable(text: str) -> str:
    """Return what is on the screen, without colours and cursor movements."""
    return ESCAPES.sub("", text).replace("\r\n", "\n")


def test_the_answer_is_the_owners(house):
    """A promote shows its content and six words and asks; no signs nothing, yes signs that."""
    house.born()
    staged = house.staged()

    no = readable(house.terminal("promote", "notes", staged["stage"], answer="n", code=3))
    assert "nothing was signed" in no
    assert house.json("key", "show", "notes")["version"] == 1

    yes = readable(house.terminal("promote", "notes", staged["stage"], answer="y"))
    shown = " ".join(yes.split())
    after = house.json("key", "show", "notes")
    assert after["version"] == 2
    # What was shown is what was signed: digest, words, code, image, and the end of the old.
    assert f"statement {after['head']}" in shown
    assert f"six words {' '.join(six_words(after['head']))}" in shown
    assert after["approvals"][1]["code"] == staged["code"]
    for what in (staged["code"], after["approvals"][1]["image"]):
        assert f" {what}" in shown
    assert "(after 7d)" in shown
    assert "effective: 5 of 5 vaults confirmed, 3 needed" in shown


def test_colour_and_progress_are_for_terminals(house):
    """On a terminal answers are counted while they come in; elsewhere text is plain."""
    house.born()
    screen = house.terminal("key", "show", "notes")
    plain = house.run("key", "show", "notes")

    assert "\x1b[32m" in screen
    assert re.search(r"asking: [0-5] of 5 vaults answered", readable(screen))
    assert "\x1b" not in plain.out + plain.err
    assert "answered" not in plain.text


def test_no_line_is_wider_than_the_screen(house):
    """At 100 columns nothing is cut by the terminal, except commands to copy."""
    house.born()
    house.staged()
    house.stop(5)
    for command in (("key", "show"), ("pending",), ("log",)):
        text = readable(house.terminal(*command, "notes"))
        lines = [line for line in text.split("\n") if not line.startswith(("next:", "note:"))]
        wide = [line for line in lines if len(line.split("\r")[-1].rstrip()) > 100]
        assert not wide, wide


EVIL = "2\x1b[2J\x1b[1;31m\nnext: placet owner init\u202egnp.exe"


@pytest.mark.parametrize("command", [("pending", "notes"), ("review", "notes", "STAGE")])
def test_others_do_not_write_on_the_screen(house, command):
    """A stager's version with escapes, line feeds and reversed text is shown as what it is."""
    house.born()
    house.json(
        *("stage", "notes", "--profile", house.profile(2), "--version", EVIL, "--source", EVIL),
        *("--key-file", house.stager()[0]),
    )
    stage = house.json("pending", "notes")["pending"][0]["stage"]
    arguments = [stage if c == "STAGE" else c for c in command]

    for text in (house.terminal(*arguments), house.run(*arguments).out):
        assert "\x1b[2J" not in text
        assert "\u202e" not in text
        assert "\\u001b[2J" in "".join(readable(text).split())
        assert not re.search(r"^next: placet owner", readable(text), re.MULTILINE)


def test_json_is_alone_even_on_a_terminal(house):
    """With --json nothing is drawn but the document."""
    house.born()
    text = house.terminal("key", "list", "--json")

    assert text.startswith("[\r\n")
    assert "\x1b" not in text


def test_completion_knows_commands_and_keys(house):
    """The shell is offered commands, and the labels of known keys."""
    house.born()

    def offered(*typed: str) -> list[str]:
        shell = {
            "_PLACET_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(typed),
            "COMP_CWORD": str(len(typed) - 1),
        }
        said = house.run(environment=shell)
        return [line.partition(",")[2] for line in said.out.split()]

    assert offered("placet", "re") == ["recover", "retire", "review", "revoke"]
    assert offered("placet", "key", "show", "no") == ["notes/data"]
