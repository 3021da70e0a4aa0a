"""The three wheels, built and installed as users get them."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from placet_testing.charters import profile
from placet_testing.constellations import begin
from placet_testing.exports import export, write

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the distributions from this tree."""
    out = tmp_path_factory.mktemp("wheels")
    for source in (ROOT, ROOT / "dev", ROOT / "audit"):
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out]
        subprocess.run([*command, source], check=True, capture_output=True)
    return {path.name.partition("-")[0]: path for path in out.glob("*.whl")}


def installed(
    wheels: list[Path], target: Path, *, needs: tuple[str, ...] = ("",)
) -> dict[str, str]:
    """Install wheels into a folder; return the environment in which only they are placet.

    Of the libraries there are those whose names start so: all, if it is not said.
    """
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", target, *wheels], check=True)
    # Libraries come from this environment, without its own installs of these.
    libraries = target.with_name("libraries")
    libraries.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        ours = entry.name.startswith(("placet", "_editable", "__editable"))
        if entry.name.startswith(needs) and not ours:
            (libraries / entry.name).symlink_to(entry)
    return {**os.environ, "PYTHONPATH": f"{target}{os.pathsep}{libraries}"}


def run(
    environ: dict[str, str],
    *arguments: str | Path,
    code: str = "from placet.cli.main import main; main()",
) -> subprocess.CompletedProcess[str]:
    """Run ``placet``, or other code, from the installed wheels."""
    return subprocess.run(
        [sys.executable, "-S", "-c", code, *arguments],
        env=environ,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_placet_alone_starts_and_says_what_a_demo_needs(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    """Without placet-dev there is no demo, and the refusal names what to install."""
    environ = installed([wheels["placet"]], tmp_path / "site")
    assert run(environ, "--version").stdout.startswith("placet, version ")
    assert run(environ, "vault", "serve", "--help").returncode == 0
    assert run(environ, "run", "--help").returncode == 0
    missing = run(environ, "demo")
    assert missing.returncode == 2
    assert "placet-dev" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_both_wheels_start(wheels: dict[str, Path], tmp_path: Path) -> None:
    """With placet-dev the demo and the local constellation are commands."""
    environ = installed([wheels["placet"], wheels["placet_dev"]], tmp_path / "site")
    for command in ("demo", "dev"):
        done = run(environ, command, "--help")
        assert done.returncode == 0, done.stderr


@pytest.mark.req("R7.1")
def test_placet_audit_alone_verifies(wheels: dict[str, Path], tmp_path: Path) -> None:
    """Neither placet nor anything that it needs is there: cryptography is all."""
    needs = ("cryptography", "cffi", "_cffi", "pycparser")
    environ = installed([wheels["placet_audit"]], tmp_path / "site", needs=needs)
    for name in ("placet", "msgspec", "uvicorn"):
        assert "ModuleNotFoundError" in run(environ, code=f"import {name}").stderr
    story = begin(tmp_path)
    try:
        story.release(0, profile(1))
        rows = export(story, tmp_path / "out")[0]
    finally:
        story.close()
    code = "from placet_audit.main import main; main()"
    page = tmp_path / "page.html"
    clean = run(environ, "verify", tmp_path / "out", "--html", page, code=code)
    assert (clean.returncode, clean.stderr) == (0, ""), clean.stdout
    assert "<html" in page.read_text()
    # It looks: the same with the entry of the release left out.
    entries = [row for row in rows if row["record"] == "entry"]
    write(tmp_path / "out" / "vault-1.jsonl", [row for row in rows if row is not entries[-1]])
    assert run(environ, "verify", tmp_path / "out", code=code).returncode == 3
    # And it is where it says: what it was given is no export.
    assert run(environ, "verify", page, code=code).returncode == 2


def test_nothing_of_development_ships(wheels: dict[str, Path]) -> None:
    """No software TEE, no test and no lint setting is in the wheel of placet."""
    names = zipfile.ZipFile(wheels["placet"]).namelist()
    assert "placet/py.typed" in names
    assert "placet/openssl.cnf" in names
    assert not [n for n in names if "placet_dev" in n or "/test" in n or n.endswith("ruff.toml")]
