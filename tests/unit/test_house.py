"""The house rules that no linter knows, and that the linters it has can fail."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "src").rglob("*.py"))
OURS = sorted([*SHIPPED, *(ROOT / "dev" / "src").rglob("*.py")])
TRUSTED = ("errors.py", "core", "policy", "sharing", "attest", "ratls", "storage", "vault")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
AUDIT_PYPROJECT = tomllib.loads((ROOT / "audit" / "pyproject.toml").read_text())
DEV_PYPROJECT = tomllib.loads((ROOT / "dev" / "pyproject.toml").read_text())


def named(paths):
    """Return parameters with readable ids."""
    return [pytest.param(p, id=str(p.relative_to(ROOT))) for p in paths]


def imports(source):
    """Return every module that a source imports, by statement or by name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module)):
                yield module
            case ast.Call(args=[ast.Constant(value=str(name)), *_], func=func) if (
                "import" in ast.unparse(func)
            ):
                yield name


def pins(name):
    """Return what a lock file pins, by name."""
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==([^ ;\\]+)", text, re.MULTILINE))


@pytest.mark.parametrize("path", named(SHIPPED))
def test_nothing_that_ships_imports_the_development_distribution(path):
    """Neither by statement nor by import_module: a missing wheel cannot be switched on."""
    assert not [m for m in imports(path.read_text()) if m.split(".")[0] == "placet_dev"]


@pytest.mark.parametrize(
    "line",
    [
        "import placet_dev",
        "from placet_dev.x import y",
        "def f():\n    import placet_dev.tee",
        "import_module('placet_dev.tee')",
        "__import__('placet_dev')",
    ],
)
def test_that_import_would_be_seen(line):
    """The check above can fail."""
    assert [m for m in imports(line) if m.split(".")[0] == "placet_dev"]


@pytest.mark.req("R8.6")
@pytest.mark.parametrize("path", named(OURS))
def test_no_check_is_an_assert(path):
    """``python -O`` must not switch a check off."""
    assert not [
        n.lineno for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Assert)
    ]


@pytest.mark.parametrize("path", named(OURS))
def test_a_module_stays_readable(path):
    """At most 400 lines in a trusted room, 600 elsewhere."""
    inside = path.is_relative_to(ROOT / "src" / "placet")
    trusted = inside and path.relative_to(ROOT / "src" / "placet").parts[0] in TRUSTED
    lines = path.read_text().count("\n")
    assert lines <= (400 if trusted else 600)


def test_every_module_has_a_noun():
    """A function without a home wants a noun."""
    empty = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
    assert not [p for p in OURS if p.stem in empty or p.parent.name in empty]


def test_no_tracked_file_names_a_package_registry():
    """Where packages come from is the reader's machine's affair, not this repository's."""
    # Written apart, or this file would be the one that names them.
    hosts = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com"]
    hosts += ["crates" + ".io", "proxy.go" + "lang.org", "index-" + "url =", "extra-" + "index"]
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    found = []
    for name in listed.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            data = path.read_bytes()
            found += [(name, host) for host in hosts if host.encode() in data]
    assert found == []


def test_one_version_everywhere():
    """All distributions, all packages, the pin between two and the changelog agree."""
    import placet
    import placet_audit
    import placet_dev

    version = PYPROJECT["project"]["version"]
    assert DEV_PYPROJECT["project"]["version"] == version
    assert AUDIT_PYPROJECT["project"]["version"] == placet_audit.__version__ == version
    assert f"placet[platform]=={version}" in DEV_PYPROJECT["project"]["dependencies"]
    assert placet.__version__ == placet_dev.__version__ == version
    assert re.search(rf"^## \[?{re.escape(version)}\b", changelog(), re.MULTILINE)


def changelog():
    """Return the changelog's text."""
    return (ROOT / "CHANGELOG.md").read_text()


def test_lock_files_are_hashed_and_agree():
    """Every pin carries a hash, and what ships is what was tested."""
    runtime, dev = pins("runtime.txt"), pins("dev.txt")
    assert runtime
    assert runtime.items() <= dev.items()
    for name in ("runtime.txt", "dev.txt", "lock.txt"):
        text = (ROOT / "requirements" / name).read_text()
        entries = re.findall(r"^[a-z0-9-]+(?:\[[a-z,]+\])?==.*(?:\n    .*)*", text, re.MULTILINE)
        assert len(entries) == len(pins(name)) > 0
        assert all("--hash=sha256:" in entry for entry in entries)


def test_everything_declared_is_locked():
    """A dependency of either distribution that is not locked would come from anywhere."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(r for extra in extras for r in extra)]
    needs = {canonicalize_name(Requirement(r).name) for r in wanted}
    dev = {canonicalize_name(Requirement(r).name) for r in DEV_PYPROJECT["project"]["dependencies"]}
    assert needs <= pins("runtime.txt").keys()
    assert dev - {"placet"} <= pins("dev.txt").keys()


def test_the_auditor_needs_next_to_nothing():
    """What checks the vaults rests on one library, and on none of theirs."""
    assert [Requirement(r).name for r in AUDIT_PYPROJECT["project"]["dependencies"]] == [
        "cryptography"
    ]


def test_every_lint_exception_has_its_reason():
    """An ignore without a reason is a rule that nobody decided about."""
    text = (ROOT / "pyproject.toml").read_text()
    table = text[text.index("[tool.ruff.lint]") : text.index("# --- mypy")]
    codes = re.findall(r'^  "([A-Z]+\d*)",(.*)$', table, re.MULTILINE)
    assert len(codes) > 10
    assert not [code for code, rest in codes if not re.search(r"# \S+ \S+", rest)]


def test_rooms_contribute_their_commands_by_entry_point():
    """The command line finds its siblings' commands without importing them."""
    declared = {**PYPROJECT["project"]["entry-points"]["placet.commands"]}
    declared |= DEV_PYPROJECT["project"]["entry-points"]["placet.commands"]
    declared |= AUDIT_PYPROJECT["project"]["entry-points"]["placet.commands"]
    installed = {e.name: e.value for e in metadata.entry_points(group="placet.commands")}
    assert installed == declared


def test_every_decision_is_in_the_index():
    """A page that nobody finds records nothing."""
    pages = {p.name for p in (ROOT / "docs" / "adr").glob("[0-9]*.md")} - {"0000-index.md"}
    index = (ROOT / "docs" / "adr" / "0000-index.md").read_text()
    assert set(re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", index)) == pages


# --- The import contracts, each broken once --------------------------------------------


@pytest.fixture(scope="module")
def copy_of_the_house(tmp_path_factory):
    """Return a copy of both source trees and of the contracts, to plant violations in."""
    home = tmp_path_factory.mktemp("house")
    for part in ("src", "audit/src", "dev/src"):
        shutil.copytree(ROOT / part, home / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", home)
    return home


def lint_imports(home):
    """Return the exit code and the names of the broken contracts."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": f"{home}/src:{home}/audit/src:{home}/dev/src"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, re.findall(r"^(.*\S)\s+BROKEN", done.stdout, re.MULTILINE), done.stdout


ROOMS = "Rooms: imports point down, never up or sideways"
PURE = "Pure rooms: no I/O, no clock, no randomness, no frameworks"
VERIFY = "Verifying evidence never touches a device or the network"
WEB = "The vault's trusted base stays free of the web stack"
UVICORN = "uvicorn serves the attested channel and two mains, nothing else"
AUDITOR = "../../audit/src/placet_audit/__init__.py"
APART = "The auditor shares no code with what it audits, and asks nobody"
ALONE = "Nothing imports the auditor: it is a program by itself"
SHIPS = "Nothing that ships imports the development distribution"

VIOLATIONS = {
    "upwards": ("core/statement.py", "import placet.policy", ROOMS),
    "sideways": ("client/__init__.py", "import placet.vault", ROOMS),
    "cli to a sibling": ("cli/__init__.py", "import placet.agent", ROOMS),
    "a room nobody placed": ("attic.py", "", ROOMS),
    "clock in core": ("core/statement.py", "import time", PURE),
    "randomness in sharing": ("sharing/__init__.py", "import secrets", PURE),
    "files in policy": ("policy/__init__.py", "import pathlib", PURE),
    "verify asks a device": ("attest/verify/__init__.py", "import placet.attest.produce", VERIFY),
    "verify asks the network": ("attest/verify/__init__.py", "import socket", VERIFY),
    "framework in the vault": ("vault/__init__.py", "import starlette", WEB),
    "command line in storage": ("storage/__init__.py", "import click", WEB),
    "uvicorn in the vault's rules": ("vault/__init__.py", "import uvicorn", UVICORN),
    "uvicorn in the client": ("client/__init__.py", "import uvicorn", UVICORN),
    "the auditor believes": (AUDITOR, "import placet.core.encoding", APART),
    "the auditor asks the network": (AUDITOR, "import urllib.request", APART),
    "the auditor is believed": ("cli/__init__.py", "import placet_audit", ALONE),
    "development parts": ("agent/__init__.py", "import placet_dev", SHIPS),
}


def test_the_contracts_hold(copy_of_the_house):
    """The tree as it stands keeps every contract, so a broken one below is the planted one."""
    code, broken, output = lint_imports(copy_of_the_house)
    assert (code, broken) == (0, []), output
    assert output.count("KEPT") == len(PYPROJECT["tool"]["importlinter"]["contracts"])


@pytest.mark.parametrize(("where", "line", "contract"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_planted_violation_breaks_its_contract(copy_of_the_house, where, line, contract):
    """A contract that nothing can break guards nothing."""
    path = copy_of_the_house / "src" / "placet" / where
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        code, broken, output = lint_imports(copy_of_the_house)
    finally:
        path.unlink() if before is None else path.write_text(before)
    assert code != 0
    assert contract in broken, output
