"""docs/who-can-approve-what.md shows what the commands print, word for word.

``PLACET_GOLDEN=write`` writes its blocks anew; read the difference before it is committed.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from placet_testing.charters import NOW, person

from placet.cli import policy
from placet.cli.main import cli
from placet.cli.policy_presets import TO_FILL

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "who-can-approve-what.md"
BLOCK = re.compile(
    r"^    \$ (?P<line>placet .*)\n(?P<said>(?:(?!    \$ )(?:    .*)?\n)*?)"
    r"(?=\n*^(?:\S|    \$ )|\Z)",  # the page goes on, or another command does
    re.MULTILINE,
)
PEOPLE = sorted({name for roles in TO_FILL.values() for names in roles.values() for name in names})


class FixedClock:
    """A clock that stands."""

    def now(self) -> int:
        """Return the one time there is."""
        return NOW


def blocks(text: str) -> list[tuple[str, str]]:
    """Return each command of a page and what it is said to print."""
    return [(m["line"], m["said"]) for m in BLOCK.finditer(text)]


def run(line: str) -> str:
    """Run a command line and return what it prints, as a block of a page."""
    said = CliRunner().invoke(cli, shlex.split(line)[1:], prog_name="placet")
    assert said.exception is None or isinstance(said.exception, SystemExit)
    text = f"{said.stdout}{said.stderr}"
    code = f"[{said.exit_code}]\n" if said.exit_code else ""
    lines = (f"    {each}".rstrip() for each in f"{text}{code}".splitlines())
    return "\n".join(lines) + "\n"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Work in a folder with everybody's public signers, on a day that stands."""
    for name in PEOPLE:
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(person(name).signer))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACET_HOME", str(tmp_path))
    monkeypatch.setattr(policy, "clock", FixedClock())


def test_the_guide_shows_what_commands_print(desk):
    """Every block is run in order, in one folder."""
    text = GUIDE.read_text()
    shown = blocks(text)
    assert len(shown) > 2 * len(TO_FILL)
    printed = [(line, run(line)) for line, _ in shown]
    if os.environ.get("PLACET_GOLDEN") == "write":
        answers = iter(printed)
        text = BLOCK.sub(lambda m: f"    $ {m['line']}\n{next(answers)[1]}", text)
        GUIDE.write_text(text)
    assert [(line, said.rstrip()) for line, said in blocks(text)] == [
        (line, said.rstrip()) for line, said in printed
    ]


@pytest.mark.parametrize("preset", list(TO_FILL))
def test_the_guide_has_a_worked_example_of_each_preset(preset):
    """It is written, asked both questions, and met with a theft and a loss."""
    lines = [line for line, _ in blocks(GUIDE.read_text())]
    assert any(f"policy new --preset {preset}" in line for line in lines)
    asked = [line for line in lines if f"simulate {preset}.toml" in line]
    assert any("--" not in line for line in asked)
    assert any("--stolen" in line for line in asked)
    assert any("--lost" in line for line in asked)


def test_a_block_that_lies_would_be_seen():
    """The comparison can fail: blocks end where the page goes on."""
    one = "    $ placet policy x\n    said\n\n    more\n"
    text = f"Text.\n\n{one}\nText.\n\n    $ placet y\n    z\n\n    $ placet z\n"
    assert blocks(text) == [
        ("placet policy x", "    said\n\n    more\n"),
        ("placet y", "    z\n"),
        ("placet z", ""),
    ]
