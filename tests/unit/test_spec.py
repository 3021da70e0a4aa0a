"""What is written and what runs say the same: steps, sections, tables and links."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from placet.cli import output
from placet.cli.main import cli
from placet.core import limits
from placet.errors import PlacetError, from_problem
from placet.vault.routes import ROUTES
from placet_dev.demo.story import STORY

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "placet"
SPECS = {p.name[:2]: p for p in sorted((ROOT / "spec").glob("[0-9]*.md"))}
SKIPPED = {".venv", ".git", "build", "dist", ".hypothesis", ".pytest_cache", "node_modules"}
PAGES = [p for p in sorted(ROOT.rglob("*.md")) if not SKIPPED & set(p.relative_to(ROOT).parts)]

STEPS = {
    **dict.fromkeys([("02", n) for n in (4, 6, 8, 9)], "attest/verify/*.py"),
    ("03", 2): "policy/webauthn.py",
    ("03", 3): "policy/[bc][rh]a*.py",
    ("03", 4): "policy/key_policy.py",
    ("03", 5): "policy/[gm]a*.py",
    **dict.fromkeys([("04", n) for n in (2, 4, 5, 6)], "sharing/*.py"),
    ("04", 3): "core/manifest.py",
    ("05", 3): "ratls/*.py",
    ("07", 5): "[rv]a*/[cdels]*.py",
    ("08", 1): "client/*.py",
    ("08", 2): "vault/*.py",
    **dict.fromkeys([("08", n) for n in (3, 5)], "agent/*.py"),
    ("09", 2): "policy/rules.py",
    ("09", 3): "policy/authority.py",
    ("09", 4): "policy/governance.py",
    ("09", 5): "policy/auto_migrate.py",
    ("11", 5): "cl*/[jv][oa]u*.py",
    ("12", 2): "policy/handover.py",
    ("12", 3): "vault/handover.py",
    ("12", 4): "vault/[tp][ar][ke]*.py",
    **dict.fromkeys([("10", n) for n in (2, 3)], "policy/continuity.py"),
}
"""Where the numbered steps of a section are done: all of them, and no others."""

OF_THE_WHOLE = {
    **dict.fromkeys([("02", 1), ("02", 2)], ""),
    ("04", 1): "sharing/shamir.py",
    **dict.fromkeys([("06", n) for n in range(1, 8)], ""),
    ("12", 1): "client/following.py",
    ("12", 5): "vault/witnessing.py",
}
"""Numbered properties that no one line keeps; a module may still name one where it matters."""

STEP = re.compile(r"# (\d)\.(\d+)(?: to \d\.(\d+))?(?: |$)", re.MULTILINE)
NUMBERED = re.compile(r"^(\d)\.(\d+) ", re.MULTILINE)
HEADING = re.compile(r"^## (\d)\. ", re.MULTILINE)
CITATION = re.compile(
    r"spec/(?P<spec>\d\d)(?:-[a-z-]+\.md)?"
    r"(?:,? sections? (?P<first>\d)(?:(?P<join>, | and | to )(?P<last>\d)(?!\.))?"
    r"|, (?P<step>\d\.\d+)(?: to (?P<until>\d\.\d+))?)?"
)
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:|#)([^)\s#]+)(?:#[^)]*)?\)")


def specified(spec):
    """Return the steps that a page numbers, by section."""
    found = {}
    for section, number in NUMBERED.findall(SPECS[spec].read_text()):
        found.setdefault(int(section), set()).add(int(number))
    return found


def commented(path):
    """Return the steps that a module's comments carry, by section."""
    found = {}
    for section, first, last in STEP.findall(path.read_text()):
        found.setdefault(int(section), set()).update(range(int(first), int(last or first) + 1))
    return found


def prose(path):
    """Return a text with its line breaks, comment marks and indentation taken out."""
    return re.sub(r"\s*\n\s*(?:# ?)?", " ", path.read_text())


NUMBERING = [p for p in sorted(SOURCE.rglob("*.py")) if commented(p)]


def sections_cited(match):
    """Return the section numbers that one citation names."""
    if match["step"]:
        return {int(match["step"][0])}
    if not match["first"]:
        return set()
    first, last = int(match["first"]), int(match["last"] or match["first"])
    return set(range(first, last + 1)) if match["join"] == " to " else {first, last}


@pytest.mark.parametrize(("spec", "section"), STEPS, ids=str)
def test_a_section_and_the_code_that_does_it_have_the_same_steps(spec, section):
    """No step is written that nothing does, and none is done that is not written."""
    modules = SOURCE.glob(STEPS[spec, section])
    done = set().union(*(commented(path).get(section, set()) for path in modules))
    assert done == specified(spec)[section]


def test_every_numbered_step_is_accounted_for():
    """A section that gets numbers says who does them, or that the whole keeps them."""
    numbered = {(spec, section) for spec in SPECS for section in specified(spec)}
    assert numbered == STEPS.keys() | OF_THE_WHOLE.keys()


@pytest.mark.parametrize("path", NUMBERING, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_with_steps_names_its_page(path):
    """Who reads `# 3.2` learns from the same file of which page it is."""
    places = [
        (spec, section)
        for (spec, section), modules in [*STEPS.items(), *OF_THE_WHOLE.items()]
        if modules and path in SOURCE.glob(modules)
    ]
    assert commented(path).keys() <= {section for _, section in places}
    specs = {spec for spec, section in places if section in commented(path)}
    assert specs <= {match["spec"] for match in CITATION.finditer(prose(path))}


def test_every_citation_resolves():
    """A section or step that anything here cites exists."""
    places = [*SOURCE.rglob("*.py"), *(ROOT / "dev" / "src").rglob("*.py"), *PAGES]
    places += (ROOT / "tests").rglob("*.py")
    broken = []
    for path in places:
        for match in CITATION.finditer(prose(path)):
            page = SPECS.get(match["spec"])
            headings = {int(n) for n in HEADING.findall(page.read_text())} if page else set()
            wrong = not page or not sections_cited(match) <= headings
            for step in filter(None, (match["step"], match["until"])):
                section, _, number = step.partition(".")
                wrong |= int(number) not in specified(match["spec"]).get(int(section), set())
            if wrong:
                broken.append((str(path.relative_to(ROOT)), match[0]))
    assert broken == []


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("spec/08, section 2", {2}),
        ("spec/03 sections 1 and 4", {1, 4}),
        ("spec/01, sections 1 to 4", {1, 2, 3, 4}),
        ("spec/03, 5.1", {5}),
        ("spec/05", set()),
    ],
)
def test_citations_are_read_whole(text, sections):
    """The check above can fail."""
    assert sections_cited(CITATION.fullmatch(text)) == sections


def test_sections_count_up():
    """Pages have sections 1, 2, 3 ..., in order, and are numbered without a gap themselves."""
    assert sorted(SPECS) == [f"{number:02}" for number in range(len(SPECS))]
    assert len(SPECS) == len(list((ROOT / "spec").glob("[0-9]*.md")))
    for path in SPECS.values():
        found = [int(n) for n in HEADING.findall(path.read_text())]
        assert found == list(range(1, len(found) + 1)), path.name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_resolves(page):
    """A link to a page that was moved helps nobody."""
    links = LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_limit_is_written():
    """spec/01, section 5 has each limit with its value, and no other."""
    row = re.compile(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \| ([\d, ]+) \|", re.MULTILINE)
    written = [
        (name, value)
        for names, values in row.findall(SPECS["01"].read_text())
        for name, value in zip(re.findall(r"`(\w+)`", names), values.split(", "), strict=True)
        if name.startswith("MAX_") or name.endswith(("_RATE", "_BURST"))
    ]
    real = {name: value for name, value in vars(limits).items() if name.startswith("MAX_")}
    real |= {n: v for n, v in vars(limits).items() if n.endswith(("_RATE", "_BURST"))}
    assert {name: int(value) for name, value in written} == real


def problems(root):
    """Return the status of every problem type."""
    found = {root.type: root.status}
    for child in root.__subclasses__():
        found |= problems(child)
    return found


@pytest.mark.req("R8.6")
def test_every_problem_is_written():
    """spec/07, section 4 has each type with its status, and each comes back as itself."""
    written = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", SPECS["07"].read_text(), re.MULTILINE)
    shipped = {
        kind: status
        for kind, status in problems(PlacetError).items()
        if type(from_problem({"type": kind})).__module__ == "placet.errors"
    }
    assert {kind: int(status) for kind, status in written} == shipped


def test_every_route_is_written():
    """spec/07, section 2 has each request and who may make it."""
    row = re.compile(r"^\| (GET|POST) \| `([^?`]+)(?:\?[^`]*)?` \| ([a-z]+)", re.MULTILINE)
    written = {(m, path, who) for m, path, who in row.findall(SPECS["07"].read_text())}
    assert written == {(route.method, route.path, route.who) for route in ROUTES}


def test_every_exit_code_is_written():
    """README's table has the codes that the command line ends with."""
    text = (ROOT / "README.md").read_text()
    written = dict(re.findall(r"^\| (\d+) \| ([a-z`][^|]+) \|", text, re.MULTILINE))
    names = ("DONE", "FINDINGS", "USAGE", "REFUSED", "TOO_FEW", "PARTLY", "CONFLICT")
    assert [written[str(getattr(output, n))] for n in names] == [
        "done", "findings", "usage or unreadable input", "refused", "too few vaults",
        "partly effective", "conflict",
    ]  # fmt: skip
    assert {"75", "77"} <= written.keys()


def test_the_readme_names_every_room():
    """The map of the rooms lists each room, and the trusted ones as trusted."""
    text = (ROOT / "README.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z]+)` \| .* \| (yes|no) \|$", text, re.MULTILINE))
    rooms = {p.name for p in SOURCE.iterdir() if (p / "__init__.py").exists()} | {"errors"}
    budget = tomllib.loads((ROOT / "spec" / "tcb.toml").read_text())["budget"]
    assert rows.keys() == rooms
    assert {room for room, trusted in rows.items() if trusted == "yes"} == budget.keys()


def shown():
    """Return every command line of ours that a block of README or docs shows."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text().replace("\\\n", " ")
        yield from re.findall(r"^ {4,}(placet .*)$", text, re.MULTILINE)


def options_of(command):
    """Return the options of a command; of one that parses its own line, those of its help."""
    if command.context_settings.get("ignore_unknown_options"):
        told = CliRunner().invoke(command, ["--help"]).output
        return set(re.findall(r"--[a-z-]+", told))
    return {name for param in command.params for name in param.opts}


@pytest.mark.parametrize("line", sorted(set(shown())))
def test_every_command_that_is_shown_exists(line):
    """Its name, and each of its options."""
    _, *words = shlex.split(line, comments=True)
    command, context = cli, click.Context(cli)
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
        assert command is not None
    own = words[: words.index("--")] if "--" in words else words
    assert {w.split("=")[0] for w in own if w.startswith("--")} <= options_of(command)


def names(group, prefix=""):
    """Return the names of all commands below a group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from names(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


def test_the_readme_has_every_command():
    """Its table of commands is whole, and lists nothing else."""
    text = (ROOT / "README.md").read_text()
    written = set()
    for row in re.findall(r"^\| (`placet [^|]*) \|", text, re.MULTILINE):
        group = ""
        for part in re.findall(r"`([^`]+)`", row):
            *before, name = part.removeprefix("placet ").split()
            group = " ".join(before) if part.startswith("placet ") else group
            written.add(f"{group} {name}".strip())
    assert written == set(names(cli))


def test_the_readme_shows_the_demo_as_it_is():
    """The steps that it prints are those of the story, in order."""
    text = (ROOT / "README.md").read_text()
    row = re.compile(r"^     (\S.*?) +(works|refused) +as it must be +[0-9.]+$", re.MULTILINE)
    assert row.findall(text) == [(step.name, step.kind) for step in STORY]
