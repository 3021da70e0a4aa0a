"""``placet completion``: what it prints, and the one file that it writes and removes."""

from __future__ import annotations

import json
import os
import stat

import pytest
from click.testing import CliRunner

from placet.cli.completion import MARK
from placet.cli.completion_shells import ASKED, SHELLS, answer
from placet.cli.main import cli
from placet.cli.output import CONFLICT, DONE, TOO_FEW, USAGE

PLACES = {
    "bash": ".local/share/bash-completion/completions/placet",
    "zsh": ".local/share/zsh/site-functions/_placet",
    "fish": ".config/fish/completions/placet.fish",
}
ELSEWHERE = {
    "bash": "data/bash-completion/completions/placet",
    "zsh": "data/zsh/site-functions/_placet",
    "fish": "config/fish/completions/placet.fish",
}


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Return the folder of a user of whom nothing else is known."""
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR", "SHELL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def run(*arguments: str, code: int = DONE) -> str:
    """Run ``placet completion`` and return its output."""
    done = CliRunner().invoke(cli, ["completion", *arguments], prog_name="placet")
    assert done.exit_code == code, done.output
    return done.stdout


def install(*arguments: str, code: int = DONE) -> dict[str, str]:
    """Run ``placet completion install --json`` and return its document."""
    return json.loads(run("install", *arguments, "--json", code=code))


def files(folder) -> list[str]:
    """Return all files below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_printed(user, monkeypatch, shell):
    """As text, in a document, and to whoever asks as click's users do; nothing is written."""
    script = run(shell)

    assert json.loads(run(shell, "--json")) == {"shell": shell, "script": script.rstrip("\n")}
    monkeypatch.setenv(ASKED, f"{shell}_source")
    assert answer(os.environ, cli).strip() == script.strip()
    assert f"{shell}_complete" in script
    assert files(user) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_written_once_and_removed(user, shell):
    """Again changes nothing, an older one is replaced, and removing leaves no file."""
    file = user / PLACES[shell]

    first = install("--shell", shell)
    before = file.stat()
    assert first == {"shell": shell, "file": str(file), "became": "written", "next": first["next"]}
    assert install("--shell", shell)["became"] == "is already there"
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    file.write_text(file.read_text() + "# of an older release\n")
    assert install("--shell", shell)["became"] == "written anew"
    assert run(shell).strip().split("\n")[-1] == file.read_text().rstrip("\n").split("\n")[-1]
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert files(user) == [PLACES[shell]]

    assert install("--shell", shell, "--uninstall")["became"] == "removed"
    assert install("--shell", shell, "--uninstall")["became"] == "was not there"
    assert files(user) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_xdg_folders_are_followed(user, monkeypatch, shell):
    """Where the environment names folders, those are taken."""
    monkeypatch.setenv("XDG_DATA_HOME", str(user / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(user / "config"))

    assert install("--shell", shell)["file"] == str(user / ELSEWHERE[shell])


def test_bash_completion_has_a_folder_of_its_own(user, monkeypatch):
    """The variable that bash-completion reads comes first."""
    monkeypatch.setenv("BASH_COMPLETION_USER_DIR", str(user / "own"))

    assert install("--shell", "bash")["file"] == str(user / "own/completions/placet")


def test_the_shell_is_that_of_the_user(user, monkeypatch):
    """Without --shell it is what $SHELL names; what it says to do next names the file."""
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert str((user / PLACES["zsh"]).parent) in install()["next"]
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert str(user / PLACES["bash"]) in install()["next"]


@pytest.mark.parametrize("shell", [None, "", "/bin/sh", "/usr/bin/tcsh"])
def test_a_shell_without_a_script_is_named(user, monkeypatch, shell):
    """Nothing is written for it, and the hint says how to name another."""
    if shell is not None:
        monkeypatch.setenv("SHELL", shell)

    said = install(code=USAGE)
    assert "bash, zsh, fish" in said["detail"]
    assert "--shell bash" in json.dumps(said)
    assert files(user) == []


@pytest.mark.parametrize("arguments", [(), ("--uninstall",)])
@pytest.mark.parametrize("text", ["", "complete -F mine placet\n", f"\n\n{MARK}\n"])
def test_what_others_wrote_stays(user, text, arguments):
    """It is neither written over nor removed."""
    file = user / PLACES["bash"]
    file.parent.mkdir(parents=True)
    file.write_text(text)

    said = install("--shell", "bash", *arguments, code=CONFLICT)
    assert str(file) in said["detail"]
    assert file.read_text() == text


def test_a_folder_that_cannot_be_written_is_named(user):
    """A file stands where the folder should be: that is said, and nothing is left behind."""
    (user / ".local").write_text("")

    said = install("--shell", "bash", code=TOO_FEW)
    assert str(user / PLACES["bash"]) in said["detail"]
    assert files(user) == [".local"]


def test_no_half_of_a_script_stays(user, monkeypatch):
    """If the last step fails, the new file is gone and the old one is whole."""
    install("--shell", "bash")
    file = user / PLACES["bash"]
    file.write_text(f"{MARK}\n# older\n")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("placet.cli.completion.Path.replace", fails)
    said = install("--shell", "bash", code=TOO_FEW)
    assert "No space left on device" in said["detail"]
    assert file.read_text() == f"{MARK}\n# older\n"
    assert files(user) == [PLACES["bash"]]


def test_the_command_is_named_where_it_is_looked_for(user):
    """The help of the whole says how to begin."""
    done = CliRunner().invoke(cli, ["--help"], prog_name="placet")
    assert "placet completion install" in done.output
