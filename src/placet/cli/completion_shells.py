"""What shells and ``placet`` say to each other: scripts, words that were typed, answers.

A script runs ``placet`` with ``_PLACET_COMPLETE`` and the words of the command line in its
environment, and understands the same answers as click's own scripts, which are not taken:
bash's would replace ``sha256:`` by itself, zsh's fails every second time when it is found by
autoload, and fish's ends a word or a summary at its first comma.

`answer` is all that happens when a shell asks: no command runs, no vault is asked, no file
is written, and whatever goes wrong, nothing is said.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from placet.cli.completion_known import known_group

ASKED = "_PLACET_COMPLETE"
"""The variable that asks for an answer (``bash_complete``) or for a script (``bash_source``)."""

BASH = """\
# bash 4.4 and later. Words come from `%(prog_name)s`, files from bash itself.
%(complete_func)s() {
    local line said IFS=$'\\n'
    COMPREPLY=()
    said=$(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null) || return 0
    while IFS= read -r line; do
        case $line in
            plain,*) COMPREPLY+=("${line#plain,}") ;;
            file,*) compopt -o default ;;
            dir,*) compopt -o dirnames ;;
        esac
    done <<<"$said"
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local -a plain described response
    local type key descr
    response=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete "${words[1]}" 2>/dev/null)}")
    for type key descr in ${response}; do
        case $type in
            plain) [[ $descr == _ ]] && plain+=("$key") || described+=("$key:$descr") ;;
            file) _path_files -f ;;
            dir) _path_files -/ ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described -U
    (( $#plain )) && compadd -U -V unsorted -a plain
}
# Found by autoload, this file is the function that is called; else it only defines one.
if [[ $funcstack[1] == _%(prog_name)s ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

FISH = """\
function %(complete_func)s
    set -l words (commandline -cp)
    set -l word (commandline -t)
    for line in (COMP_WORDS=$words COMP_CWORD=$word %(complete_var)s=fish_complete \\
            %(prog_name)s 2>/dev/null)
        set -l said (string split -m 1 "," -- $line)
        switch $said[1]
            case file
                __fish_complete_path $said[2]
            case dir
                __fish_complete_directories $said[2]
            case plain
                echo $said[2]
        end
    end
end
complete --command %(prog_name)s --no-files --keep-order --arguments "(%(complete_func)s)"
"""


class Bash(BashComplete):
    """Bash, which splits words at ``:`` and ``=`` as well, and replaces the last piece only."""

    source_template = BASH

    def source(self) -> str:
        """Return the script. Which bash will read it cannot be known here."""
        return ShellComplete.source(self)

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, whole again, and what is begun of the next."""
        pieces = os.environ["COMP_WORDS"].split("\n")
        last = int(os.environ["COMP_CWORD"])
        words, self._kept = joined(pieces[: last + 1])
        incomplete = words.pop() if words else ""
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return an answer without what bash leaves standing before the cursor."""
        return f"{item.type},{str(item.value).removeprefix(self._kept)}"


class Zsh(ZshComplete):
    """Zsh, with our script."""

    source_template = ZSH


class Fish(FishComplete):
    """Fish, with our script."""

    source_template = FISH


SHELLS: Mapping[str, type[ShellComplete]] = {
    "bash": Bash,
    "zsh": Zsh,
    "fish": Fish,
}


def joined(pieces: Sequence[str]) -> tuple[list[str], str]:
    """Return whole words out of bash's pieces, and what of the last word's value is kept.

    A piece of nothing but ``:`` and ``=`` was split off by bash. Bash tells nobody whether a
    blank stood beside it: ``a : b`` is taken for ``a:b``.
    """
    words: list[str] = []
    kept, glue = "", False
    for piece in pieces:
        split = bool(piece) and not piece.strip(":=")
        if words and (split or glue):
            kept = words[-1] + piece if split else words[-1]
            words[-1] += piece
        else:
            kept = ""
            words.append(piece)
        glue = split
    if kept.startswith("-"):
        kept = kept.partition("=")[2]  # of --option=VALUE, VALUE is what is completed
    return [(split_arg_string(w) or [""])[0] for w in words], kept


def script(shell: str, live: click.Group) -> str:
    """Return what a shell has to read, once, to complete ``placet``."""
    return SHELLS[shell](live, {}, "placet", ASKED).source()


def answer(environment: Mapping[str, str], live: click.Group) -> str:
    """Return what a shell asked for; nothing if anything at all goes wrong.

    Args:
        environment: Has `ASKED`.
        live: The commands themselves, for those that the table does not know.
    """
    shell, _, what = environment[ASKED].partition("_")
    # Who types must not see what went wrong: it would stand in the middle of the command.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            if what == "source":
                return script(shell, live)
            return SHELLS[shell](known_group(live), {}, "placet", ASKED).complete() + "\n"
        except (Exception, SystemExit, KeyboardInterrupt):  # noqa: BLE001 - see above
            return ""
