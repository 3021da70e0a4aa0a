"""``placet completion``: have a shell complete commands, options, keys and files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from placet.cli.completion_shells import SHELLS, script
from placet.cli.output import answer, hint, json_option, print_json, reported
from placet.errors import ConflictError, MalformedError, UnavailableError

MARK = "# Written by placet completion; install writes it again, install --uninstall removes it."


@click.group()
def completion() -> None:
    """Have a shell complete commands, options, keys and files.

    What is offered is read from files on this machine: no vault is asked at a TAB.
    """


@completion.command()
@json_option
@reported
def bash(*, as_json: bool) -> None:
    r"""Print the script for bash, 4.4 or later.

    \b
    Example:
      eval "$(placet completion bash)"
    """
    _print("bash", as_json=as_json)


@completion.command()
@json_option
@reported
def zsh(*, as_json: bool) -> None:
    r"""Print the script for zsh, to be read after compinit.

    \b
    Example:
      eval "$(placet completion zsh)"
    """
    _print("zsh", as_json=as_json)


@completion.command()
@json_option
@reported
def fish(*, as_json: bool) -> None:
    r"""Print the script for fish.

    \b
    Example:
      placet completion fish | source
    """
    _print("fish", as_json=as_json)


@completion.command()
@click.option("--shell", type=click.Choice(list(SHELLS)), help="For which; else that of $SHELL.")
@click.option("--uninstall", is_flag=True, help="Remove what was installed.")
@json_option
@reported
def install(*, shell: str | None, uninstall: bool, as_json: bool) -> None:
    """Write the script to the folder in which your shell looks for such scripts.

    Your shell's own settings are not touched. A file there that somebody else wrote is
    neither written over nor removed.
    """
    name = shell or shell_of(os.environ)
    path = place(name, os.environ)
    became = remove(path) if uninstall else write(path, installed(name))
    after = "" if uninstall else _after(name, path)
    if as_json:
        print_json({"shell": name, "file": str(path), "became": became, "next": after})
        return
    answer(f"{path}: {became}")
    hint(after)


def installed(shell: str) -> str:
    """Return a script with the mark of whoever wrote it; zsh wants its own mark first."""
    text = _script(shell).strip() + "\n"
    first, _, rest = text.partition("\n")
    return f"{first}\n{MARK}\n{rest}" if first.startswith("#compdef") else f"{MARK}\n{text}"


def shell_of(environment: Mapping[str, str]) -> str:
    """Return the shell that ``$SHELL`` names.

    Raises:
        MalformedError: It names none that can be served.
    """
    name = Path(environment.get("SHELL", "")).name
    if name not in SHELLS:
        came = f"$SHELL is {name!r}" if name else "$SHELL is not set"
        raise MalformedError(
            f"{came}; there are scripts for {', '.join(SHELLS)}",
            "Name one: placet completion install --shell bash",
        )
    return name


def place(shell: str, environment: Mapping[str, str]) -> Path:
    """Return where a user's script for a shell belongs; nothing need exist there."""
    user = Path(environment.get("HOME") or Path.home())
    data = Path(environment.get("XDG_DATA_HOME") or user / ".local" / "share")
    config = Path(environment.get("XDG_CONFIG_HOME") or user / ".config")
    if shell == "bash":
        folder = environment.get("BASH_COMPLETION_USER_DIR") or data / "bash-completion"
        return Path(folder) / "completions" / "placet"
    if shell == "zsh":
        return data / "zsh" / "site-functions" / "_placet"
    return config / "fish" / "completions" / "placet.fish"


def write(path: Path, text: str) -> str:
    """Write a script, whole or not at all; return what became of it.

    Raises:
        ConflictError: Somebody else wrote what is there.
        UnavailableError: The folder cannot be written.
    """
    before = _ours(path)
    if before == text:
        return "is already there"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, new = tempfile.mkstemp(dir=path.parent, prefix=".placet-")
        try:
            with os.fdopen(number, "w", encoding="utf-8") as f:
                f.write(text)
            Path(new).chmod(0o644)
            Path(new).replace(path)
        except OSError:
            Path(new).unlink(missing_ok=True)
            raise
    except OSError as e:
        raise UnavailableError(f"{path} cannot be written: {e.strerror}") from e
    return "written" if before is None else "written anew"


def remove(path: Path) -> str:
    """Remove a script that we wrote; return what became of it.

    Raises:
        ConflictError: Somebody else wrote what is there.
        UnavailableError: It cannot be removed.
    """
    if _ours(path) is None:
        return "was not there"
    try:
        path.unlink(missing_ok=True)
    except OSError as e:
        raise UnavailableError(f"{path} cannot be removed: {e.strerror}") from e
    return "removed"


def _ours(path: Path) -> str | None:
    """Return the script that we wrote; ``None`` if nothing is there."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as e:
        raise UnavailableError(f"{path} cannot be read: {e.strerror}") from e
    if MARK not in text.split("\n")[:2]:
        raise ConflictError(
            f"{path} is not what placet completion wrote",
            "Move it away first, or have your shell read: placet completion SHELL",
        )
    return text


def _after(shell: str, path: Path) -> str:
    if shell == "zsh":
        return f"before compinit, ~/.zshrc needs: fpath=({path.parent} $fpath)"
    if shell == "bash":
        return f"open a new shell; if it has no bash-completion, ~/.bashrc needs: source {path}"
    return "open a new shell"


def _script(shell: str) -> str:
    root = click.get_current_context().find_root().command
    if not isinstance(root, click.Group):
        raise TypeError("completion: is below no group")
    return script(shell, root)


def _print(shell: str, *, as_json: bool) -> None:
    text = _script(shell).strip()
    if as_json:
        print_json({"shell": shell, "script": text})
    else:
        click.echo(text)
