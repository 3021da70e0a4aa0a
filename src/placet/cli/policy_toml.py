"""TOML that people write, read strictly: every refusal names file and key, and what to write.

Nothing here knows what a policy is; that is `placet.cli.policy_file`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from placet.cli.arguments import SECONDS, span
from placet.cli.files import read_bytes
from placet.errors import MalformedError

_duration = re.compile(r"([0-9]{1,7})([dhms])")
_bare = re.compile(r"[A-Za-z0-9_-]+")
_kinds: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),  # before int, which it is one of
    (int, "a number"),
    (float, "a number with a point"),
    (str, "a text"),
    (datetime, "a time"),
    (list, "a list"),
    (dict, "a table"),
)


def near(name: str, known: Iterable[str]) -> str:
    """Return a half-sentence with what was probably meant, or all that could be."""
    names = sorted(known)
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if found:
        return f"Did you mean {found[0]}?"
    return f"There is: {', '.join(names)}." if names else "There is none."


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a file, and the key path at which it stands.

    Args:
        file: As errors name it.
        path: Keys from the top, joined by dots; empty at the top.
        values: What tomllib read.
    """

    file: Path
    path: str
    values: Mapping[str, object]

    def at(self, key: str) -> str:
        """Return the path of a key, as it could be written in the file."""
        shown = key if _bare.fullmatch(key) else f'"{key}"'
        return f"{self.path}.{shown}" if self.path else shown

    def wrong(self, key: str, expected: str, write: str, came: object = None) -> NoReturn:
        """Refuse what stands at a key, or that nothing does.

        Raises:
            MalformedError: Always; who wrote the file is wrong.
        """
        got = "nothing" if came is None else _shown(came)
        raise MalformedError(
            f"{self.file}: {self.at(key)}: expected {expected}, got {got}", f"Write {write}"
        )

    def only(self, *known: str) -> None:
        """Refuse keys that mean nothing: a typing error must not pass for a default."""
        for key in self.values:
            if key not in known:
                where = f"in [{self.path}]" if self.path else "at the top"
                raise MalformedError(
                    f"{self.file}: {self.at(key)}: no such key {where}", near(key, known)
                )

    def has(self, key: str) -> bool:
        """Return whether a key is written."""
        return key in self.values

    def text(self, key: str, write: str) -> str:
        """Return a text that must be there."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value:
            self.wrong(key, "a text", write, value)
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.wrong(key, "true or false", f"{key} = true", value)
        return value

    def number(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """Return a whole number within bounds."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.wrong(key, f"a number from {least} to {most}", f"{key} = {least}", value)
        return value

    def duration(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """Return seconds, written as a text such as ``"7d"``."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        match = _duration.fullmatch(value) if isinstance(value, str) else None
        seconds = int(match[1]) * SECONDS[match[2]] if match else -1
        if not least <= seconds <= most:
            wanted = f"a span of time from {span(least)} to {span(most)}"
            self.wrong(key, wanted, f'{key} = "7d", or h, m, s in place of d', value)
        return seconds

    def moment(self, key: str) -> int:
        """Return a time in Unix seconds; a time without its zone would be anybody's guess."""
        value = self.values.get(key)
        if not isinstance(value, datetime) or value.tzinfo is None:
            wanted = "a time with its zone, without quotes"
            self.wrong(key, wanted, f"{key} = 2030-01-31T00:00:00Z", value)
        return int(value.timestamp())

    def texts(self, key: str, write: str) -> tuple[str, ...]:
        """Return a list of texts, none twice; an absent one is empty."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            self.wrong(key, "a list of texts", write, value)
        for index, item in enumerate(value):
            if item in value[:index]:
                self.wrong(key, "each once", f"{item!r} once", value)
        return tuple(value)

    def chosen(self, key: str, known: Sequence[str], write: str) -> tuple[str, ...]:
        """Return a list of words out of those known, sorted."""
        found = self.texts(key, write)
        for word in found:
            if word not in known:
                raise MalformedError(
                    f"{self.file}: {self.at(key)}: {word!r} means nothing here", near(word, known)
                )
        return tuple(sorted(found))

    def table(self, key: str, write: str) -> Table:
        """Return a table that must be there."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            self.wrong(key, "a table", write, value)
        return Table(self.file, self.at(key), value)

    def tables(self, key: str, write: str) -> Iterator[tuple[str, Table]]:
        """Yield the tables of a table by name; an absent one has none."""
        if self.has(key):
            outer = self.table(key, write)
            for name in outer.values:
                yield name, outer.table(name, write)


def read_toml(file: Path) -> Table:
    """Read a file's top table.

    Raises:
        NotFoundError: It cannot be read.
        MalformedError: It is no TOML; the parser's words name the line.
    """
    try:
        return Table(file, "", tomllib.loads(read_bytes(file).decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise MalformedError(
            f"{file}: expected TOML, got: {e}",
            "A form to fill in: placet policy new --preset solo",
        ) from e
    except RecursionError as e:
        raise MalformedError(f"{file}: nested too deeply") from e


def _shown(value: object) -> str:
    """Return a value as errors quote it: shortly, and with what it is."""
    kind = next((name for shape, name in _kinds if isinstance(value, shape)), "a date or hour")
    if isinstance(value, dict | list):
        return kind
    quoted = repr(value) if isinstance(value, str) else str(value)
    return f"{quoted[:60]} ({kind})"
