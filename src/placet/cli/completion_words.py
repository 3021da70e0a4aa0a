"""Words that a shell may offer: what lies in the owner's folder, and a few examples.

Everything is read from files, never asked of a vault, and *nothing is verified*: a word
that is offered decides nothing, and the command that takes it checks it again. This
module is imported at every TAB, so it imports next to nothing; `settings` would cost more
than a TAB may.

Bash puts what it is offered on the command line as it is. Labels come from others
(`placet key add`), so a word is offered only if no shell gives a meaning to any of its
characters; in place of a label that has others stands its key id.
"""

from __future__ import annotations

import base64
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

Pair = tuple[str, str]
"""A word, and what it is."""

PREFIX = "sha256:"
MAX_FILE = 1 << 20
MAX_FILES = 1000
SPANS = ("1h", "12h", "1d", "7d", "30d")
"""Examples of a span of time."""

_harmless = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,199}")
_digits = re.compile(r"(sha256:)?[0-9a-f]+")


class NotAtHandError(Exception):
    """A file is not what this tool writes; whoever asked for words gets fewer."""


def folders(environment: Mapping[str, str] = os.environ) -> tuple[Path, Path]:
    """Return where ``config.toml`` is and where all else is, as `settings.Home.find` does."""
    if home := environment.get("PLACET_HOME"):
        return Path(home), Path(home)
    user = Path(environment.get("HOME") or Path.home())
    config = environment.get("XDG_CONFIG_HOME") or user / ".config"
    data = environment.get("XDG_DATA_HOME") or user / ".local" / "share"
    return Path(config) / "placet", Path(data) / "placet"


def harmless(word: str) -> bool:
    """Return whether a shell takes a word as it is, and no command for an option."""
    return _harmless.fullmatch(word) is not None


# --- keys, and the code that their owner let in --------------------------------------------


def keys(incomplete: str) -> list[Pair]:
    """Return labels of known keys; ids where a label will not do, or where one is begun."""
    known = _known()
    count = [label for label, _ in known]
    words = [
        (label, "a key") if harmless(label) and count.count(label) == 1 else (key, label)
        for label, key in known
    ]
    if incomplete and (PREFIX.startswith(incomplete) or _digits.fullmatch(incomplete)):
        words += [(key, label) for label, key in known if (key, label) not in words]
    return _bare(words, incomplete)


def codes(incomplete: str, name: str) -> list[Pair]:
    """Return the code that statements kept here name for a key; none if it could be two keys."""
    known = _known()
    exact = {key for label, key in known if name in (label, key, key.removeprefix(PREFIX))}
    chosen = exact or {key for label, key in known if name and label.startswith(name)}
    if len(chosen) != 1:
        return []
    profiles = import_module("placet.core.profile")
    convert = import_module("msgspec").convert
    found = {}
    for profile, what in _profiles(chosen.pop()):
        try:
            measured = convert(profile["measurement"], profiles.Measurement)
            code = profiles.code_digest(
                profile["app"], profile["image"], profile["config"], measured
            )
        except (KeyError, TypeError, ValueError):  # msgspec's errors are ValueErrors
            continue
        found[code] = what
    return _bare(list(found.items()), incomplete)


def _bare(words: list[Pair], incomplete: str) -> list[Pair]:
    """Return digests without their algorithm where one was begun without."""
    if not _digits.fullmatch(incomplete) or incomplete.startswith(PREFIX):
        return words
    return [(word.removeprefix(PREFIX), what) for word, what in words]


def _known() -> list[Pair]:
    """Return labels and ids of the keys in the folder."""
    return [
        (said["label"], said["key"])
        for said in _documents(folders()[1] / "keys")
        if isinstance(said.get("label"), str) and harmless(str(said.get("key", "")))
    ]


def _profiles(key: str) -> Iterator[tuple[Any, str]]:
    """Return profiles out of a key's birth and of what waits in the outbox for it."""
    for said in _documents(folders()[1] / "keys"):
        if said.get("key") == key:
            yield from ((p, "let in at birth") for p in _named(_statement(said.get("birth"))))
    for said in _documents(folders()[1] / "outbox"):
        statement = _statement(said)
        if statement.get("key") == key:
            what = f"in a {statement.get('type')} that waits to be taken"
            yield from ((p, what) for p in _named(statement))


def _named(statement: dict[str, Any]) -> list[Any]:
    """Return the profiles that a statement names."""
    body = statement.get("body")
    if not isinstance(body, dict):
        return []
    policy = body.get("policy")
    several = policy.get("profiles") if isinstance(policy, dict) else None
    return [body.get("profile"), *(several if isinstance(several, list) else ())]


def _statement(signed: object) -> dict[str, Any]:
    """Return what a signed statement says; its signatures are *not* looked at."""
    try:
        payload = str(signed["payload"])  # type: ignore[index] # whatever it is: see below
        said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (KeyError, TypeError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


# --- constellations ------------------------------------------------------------------------


def constellations() -> list[Pair]:
    """Return the names of constellations."""
    return [(name, "a constellation") for name in _constellations()]


def endpoints() -> list[Pair]:
    """Return the addresses of the vaults of all constellations, as ``host:port``."""
    found = {}
    for name, entry in _constellations().items():
        try:
            vaults = _read(folders()[1] / str(entry["vaults"]))["vaults"]
            found.update({str(v["endpoint"]).removeprefix("https://"): name for v in vaults})
        except (KeyError, TypeError, NotAtHandError):
            continue
    return [(address, f"a vault of {name}") for address, name in found.items()]


def _constellations() -> dict[str, Any]:
    try:
        said = tomllib.loads(_text(folders()[0] / "config.toml"))
    except (NotAtHandError, tomllib.TOMLDecodeError):
        return {}
    found = said.get("constellations")
    return found if isinstance(found, dict) else {}


# --- spans of time, and lists --------------------------------------------------------------


def spans(incomplete: str) -> list[Pair]:
    """Return examples of a span of time; after digits, the units that may follow."""
    if incomplete.isdecimal() and incomplete.isascii():
        units = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
        return [(incomplete + letter, unit) for letter, unit in units.items()]
    return [(span, "for example") for span in SPANS]


def listed(choices: tuple[str, ...], incomplete: str) -> list[Pair]:
    """Return what may come next in a list with commas between, the beginning included."""
    before, comma, _ = incomplete.rpartition(",")
    taken = set(before.split(","))
    return [(f"{before}{comma}{choice}", "") for choice in choices if choice not in taken]


# --- files ---------------------------------------------------------------------------------


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Return the JSON documents of a folder that can be read; the others are passed over."""
    for path in sorted(folder.glob("*.json"))[:MAX_FILES]:
        try:
            yield _read(path)
        except NotAtHandError:
            continue


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(_text(path))
    except (ValueError, RecursionError) as e:
        raise NotAtHandError(path) from e
    if not isinstance(said, dict):
        raise NotAtHandError(path)
    return said


def _text(path: Path) -> str:
    try:
        # A pipe or a device would never end.
        if not path.is_file() or path.stat().st_size > MAX_FILE:
            raise NotAtHandError(path)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise NotAtHandError(path) from e


WORDS: dict[str, Callable[[str, Mapping[str, Any]], list[Pair]]] = {
    "key": lambda incomplete, _: keys(incomplete),
    "id": lambda *_: [(key, label) for label, key in _known()],
    "code": lambda incomplete, given: codes(incomplete, str(given.get("name") or "")),
    "constellation": lambda *_: constellations(),
    "endpoint": lambda *_: endpoints(),
    "span": lambda incomplete, _: spans(incomplete),
}
"""Words by kind, out of what was begun and of what the command line has so far."""


def offer(kind: str, incomplete: str, given: Mapping[str, Any]) -> list[Pair]:
    """Return the harmless words of a kind that begin as was begun."""
    found = WORDS[kind](incomplete, given)
    return [(w, _line(what)) for w, what in found if w.startswith(incomplete) and harmless(w)]


def _line(what: str) -> str:
    """Return what stands beside a word; others may have written it, so it stays one line."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in what)[:80]
