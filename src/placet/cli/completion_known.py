"""The command line as `completion_known.json` knows it, so that a TAB imports no command.

To import one command costs more than a TAB may (it brings TLS, evidence and policy with
it), so what a shell is to be told of a command lies in a table. ``tools/completion.py``
writes that table from the commands themselves, and a test fails when they differ. A
command that the table does not have, because another distribution contributes it, is
imported after all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from placet.cli.completion_words import Pair, listed, offer

TABLE = Path(__file__).with_name("completion_known.json")
Known = Mapping[str, Mapping[str, Any]]
Items = list[CompletionItem[Any]]


class Kind(click.ParamType[Any]):
    """What a value is, as far as a shell is told. It converts nothing.

    Args:
        kind: ``file``, ``folder``, ``choice``, ``list``, ``number``, ``text``, or a kind of
            `completion_words.WORDS`; several have ``|`` between them.
        choices: What there is to choose from.
    """

    def __init__(self, kind: str, choices: Sequence[str] = ()) -> None:
        self.name = kind
        self.choices = tuple(choices)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
        """Return what may stand here; of ``number`` and ``text`` nobody knows."""
        del param
        return [item for kind in self.name.split("|") for item in self._of(kind, ctx, incomplete)]

    def _of(self, kind: str, ctx: click.Context, incomplete: str) -> Items:
        match kind:
            case "file":
                return [CompletionItem(incomplete, type="file")]
            case "folder":
                return [CompletionItem(incomplete, type="dir")]
            case "choice":
                return _items((c, "") for c in self.choices if c.startswith(incomplete))
            case "list":
                found = listed(self.choices, incomplete)
                return _items((w, h) for w, h in found if w.startswith(incomplete))
            case "number" | "text":
                return []
        return _items(offer(kind, incomplete, ctx.params))


class KnownCommand(click.Command):
    """A command that can be completed, and nothing else."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> Items:
        """Return its options, also where nothing is begun: no argument is lacking there."""
        return super().shell_complete(ctx, incomplete or "-")


class KnownGroup(click.Group):
    """A group of the table.

    Args:
        known: The table.
        live: The group itself; the root's names no command's module until it is asked.
        path: Names that lead here; the root has none.
    """

    def __init__(self, known: Known, live: click.Group, path: tuple[str, ...] = ()) -> None:
        super().__init__(" ".join(path) or None, params=_params(known.get(" ".join(path), {})))
        self._known, self._live, self._path = known, live, path

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names below this group; only the root has some that are not in the table."""
        if not self._path:
            return self._live.list_commands(ctx)
        below = [tuple(name.split(" ")) for name in self._known]
        return [names[-1] for names in below if names and names[:-1] == self._path]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command out of the table, and else the command itself."""
        path = (*self._path, cmd_name)
        found = self._known.get(" ".join(path))
        if found is None:
            live = None if self._path else self._live.get_command(ctx, cmd_name)
            # For a name that is none click would offer this group's commands again.
            return live or KnownCommand(cmd_name, add_help_option=False)
        if found.get("group"):
            return KnownGroup(self._known, self._live, path)
        settings = {"ignore_unknown_options": True}
        return KnownCommand(
            cmd_name, params=_params(found), context_settings=settings, add_help_option=False
        )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> Items:
        """Return names and options. None is imported for its summary."""
        below = [n for n in self.list_commands(ctx) if n.startswith(incomplete)]
        names = [(n, str(self._help(n))) for n in below]
        return [*_items(names), *click.Command.shell_complete(self, ctx, incomplete)]

    def _help(self, name: str) -> str:
        return str(self._known.get(" ".join((*self._path, name)), {}).get("help", ""))


def known_group(live: click.Group) -> KnownGroup:
    """Return the command line, as the table has it."""
    return KnownGroup(json.loads(TABLE.read_text(encoding="utf-8")), live)


def _params(entry: Mapping[str, Any]) -> list[click.Parameter]:
    params: list[click.Parameter] = []
    for said in entry.get("options", ()):
        kind = said.get("kind")
        given: dict[str, Any] = {"help": said.get("help"), "multiple": said.get("multiple", False)}
        if kind is None:
            given["is_flag"] = True
        else:
            given |= {"type": Kind(kind, said.get("choices", ())), "nargs": said.get("nargs", 1)}
        params.append(click.Option(said["names"], **given))
    for said in entry.get("arguments", ()):
        kind = Kind(said["kind"], said.get("choices", ()))
        params.append(click.Argument([said["name"]], type=kind, nargs=said.get("nargs", 1)))
    return params


def _items(words: Iterable[Pair]) -> Items:
    return [CompletionItem(word, help=what or None) for word, what in words]
