"""The worked example of docs/audit.md is what the auditor says; its page stands alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path

import pytest
from placet_testing.charters import composer, person, profile, signed
from placet_testing.constellations import Story, run_of
from placet_testing.exports import audited, export
from placet_testing.governed import DAY, PAGE, any_one, governed
from placet_testing.liars import force, let_go

from placet.client.signing import Composer, promote_body
from placet.errors import PlacetError
from placet_audit.main import command
from placet_audit.page import page
from placet_audit.problems import KINDS
from placet_audit.words import plain

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs" / "audit.md").read_text()
V1, V2, V3 = profile(1), profile(2), profile(3)


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Yield two days of a key: a waiting promote, releases, a retire, a flood of refusals."""
    (tmp_path / "vaults").mkdir()
    made = governed(tmp_path / "vaults")
    made.gather(V1)
    made.clock.time += 3600
    long = Composer(now=made.clock.time, rng=composer().rng, lifetime=3 * DAY)
    sent = PAGE.sign(long.promote(made.policy, promote_body(made.policy, V2)))
    for bench in made.benches:
        with suppress(PlacetError):
            bench.vault.take(run_of(sent))
    made.clock.time += DAY
    made.take(sent)
    made.gather(V2, at=(1, 2, 3))
    made.clock.time += 7200
    made.retire(V1)
    for _ in range(25):
        with suppress(PlacetError):
            made.release(1, V1)
    made.clock.time += 60
    made.benches[1].log.settle(now=made.clock.time)
    yield made
    made.close()


def cheat(story: Story) -> None:
    """Have vault 3 let retired code in, and vault 4 take what a manager signed alone."""
    let_go(story, V1, story.key, at=2)
    body = promote_body(story.policy, V3)
    force(story, signed(composer(story.clock.time).promote(story.policy, body), "m1"), at=3)


def said(story: Story, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, int]:
    """Return what the command prints, and its exit code."""
    export(story, folder, only=(0, 1, 2, 3))
    code = command([str(folder)])
    return capsys.readouterr().out, code


def shown(start: str) -> str:
    """Return the block of docs/audit.md that begins with a line."""
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", DOCS, re.MULTILINE)
    found = [b for b in blocks if b.strip("\n").startswith("    " + start)]
    assert len(found) == 1, start
    return re.sub(r"(?m)^    ", "", found[0].strip("\n")) + "\n"


@pytest.mark.req("R7.1")
def test_the_example_is_what_the_auditor_says(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word for word, for logs that are clean and for two vaults that cheat."""
    text, code = said(story, tmp_path / "good", capsys)
    assert (text, code) == (shown("Audit of notes/data"), 0)
    cheat(story)
    text, code = said(story, tmp_path / "bad", capsys)
    assert (text[text.index("FINDING") :], code) == (shown("FINDING release-retired"), 3)


def test_every_kind_of_finding_is_explained() -> None:
    """The table has each kind with its meaning, and no other."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", DOCS, re.MULTILINE)
    assert dict(rows) == KINDS


@pytest.mark.req("R7.5")
def test_refusals_that_were_only_counted_are_counted(story: Story, tmp_path: Path) -> None:
    """Ten were logged one by one, and the rest is a number, in every form of the report."""
    export(story, tmp_path / "out")
    result = audited(tmp_path / "out")
    assert "15 more requests refused" in page(result)
    assert ">25<" in page(result).replace("<td>", ">").replace("</td>", "<")


class Reader(HTMLParser):
    """Collects what a page would load or run, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what leads out of the page."""
        named = {name for name, _ in attrs}
        if tag in {"script", "link", "img", "iframe", "object"} or named & {"src", "href"}:
            self.loads.append(tag)
        self.loads += [n for n in named if n.startswith("on")]

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data


def test_the_page_is_whole_and_loads_nothing(story: Story, tmp_path: Path) -> None:
    """Who approved what when, what it let in, what was refused; nothing comes from elsewhere."""
    cheat(story)
    target = tmp_path / "page.html"
    export(story, tmp_path / "out", only=(0, 1, 2, 3))
    assert command([str(tmp_path / "out"), "--html", str(target)]) == 3
    reader = Reader()
    reader.feed(target.read_text())
    assert reader.loads == []
    for words in (
        "Gives birth to notes/data", "signed by owner (key)", "page (passkey, on a page of others)",
        "any owner signer can say no", "Shares released to notes", "A release was refused",
        "Retires code", "NOT justified", "2 findings", "not looked at",
    ):  # fmt: skip
        assert words in reader.text


def test_what_others_wrote_is_shown_harmlessly(tmp_path: Path) -> None:
    """A label or a reason with markup, a bell and a turned direction is text on page and screen."""
    (tmp_path / "vaults").mkdir()
    evil = "<script>alert(1)</script>"
    owner = any_one("owner", *(person(n).signer for n in ("owner", "spare")))
    story = governed(tmp_path / "vaults", owner=owner)
    retire = composer().retire(story.policy, story.policy.approvals[0].code, f"{evil}\x07\u202e")
    story.take(signed(retire))
    export(story, tmp_path / "out")
    story.close()
    result = audited(tmp_path / "out")
    assert evil not in page(result)
    assert "\x07" not in page(result)
    assert "\\u202e" in plain("\u202e")


def test_it_runs_where_placet_is_not(story: Story, tmp_path: Path) -> None:
    """Without placet, msgspec or a socket: only the standard library and `cryptography`."""
    export(story, tmp_path / "out", only=(0, 1, 2))
    program = f"""
import sys, socket
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"placet", "placet_dev", "msgspec", "click"}}:
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, Absent())
socket.socket = None
sys.path[:0] = [{str(ROOT / "audit" / "src")!r}]
from placet_audit.main import command
code = command([{str(tmp_path / "out")!r}, "--json"])
assert not [m for m in sys.modules if m.partition(".")[0] in ("placet", "msgspec", "click")]
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["clean"] is True
