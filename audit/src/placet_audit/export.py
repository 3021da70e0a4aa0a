"""Exports: one visit to one vault's log, as JSON lines (spec/11, section 3).

Reading checks the form only: what is in an export is judged by `placet_audit.visit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from placet_audit.canonical import Json, read, unb64
from placet_audit.problems import Refused, Unreadable
from placet_audit.shapes import (
    B64,
    ENVELOPE,
    INT,
    SHA256,
    SIGNED,
    Check,
    many,
    one_of,
    record,
    text,
)

MAX_LINE = 4 * 2**20
"""Bytes of one line."""

PROOF = many(text(43, 43, "[A-Za-z0-9_-]*"), 0, 64)
LINES: Mapping[str, Check] = {
    "visit": record(
        {"record": one_of("visit"), "schema": one_of(1), "key": SHA256, "vault": SHA256}
        | {"checkpoint": text(16384), "trail": SIGNED, "at": INT}
    ),
    "statement": record(
        {"record": one_of("statement"), "signed": ENVELOPE, "receipts": many(SIGNED, 0, 64)}
        | {"place": one_of("charter", "waiting", "fork", "dropped")}
    ),
    "entry": record(
        {"record": one_of("entry"), "index": INT, "salt": B64, "entry": B64, "proof": PROOF}
    ),
    "hashes": record({"record": one_of("hashes"), "since": INT, "hashes": many(SHA256)}),
    "consistency": record({"record": one_of("consistency"), "old": INT, "proof": PROOF}),
    "end": record({"record": one_of("end"), "lines": INT}),
}
"""Every kind of line, and its fields."""


@dataclass(frozen=True, slots=True)
class Visit:
    """What one vault showed of one key, once."""

    file: str
    key: str
    vault: str
    at: int
    """When it was fetched: the word of who fetched it."""
    checkpoint: str
    trail: Json
    statements: list[Json] = field(default_factory=list)
    entries: list[Json] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    """Of every entry of the log, or none."""
    consistency: list[Json] = field(default_factory=list)

    @property
    def public(self) -> bytes:
        """Return the key that its trail is signed with; that it is the vault's is not checked."""
        return unb64(self.trail["vault_key"])


@dataclass(frozen=True, slots=True)
class Exports:
    """All that was given: visits, and receipts that apps kept."""

    visits: tuple[Visit, ...]
    receipts: tuple[Json, ...]


def read_exports(paths: Sequence[Path], receipts: Sequence[Path] = ()) -> Exports:
    """Read exports, and what apps kept.

    Args:
        paths: Files, and folders of ``*.jsonl`` files.
        receipts: An app's ``placet-receipts.jsonl``; such files are found in folders as well.

    Raises:
        Unreadable: A file is none, is cut off, or there is no visit at all.
    """
    visits, kept = list[Visit](), list[Json]()
    for file in (*_files(paths), *receipts):
        try:
            if file in receipts or file.name.startswith("placet-receipts"):
                kept += _read_receipts(file)
            else:
                visits += _read_file(file)
        except OSError as e:
            raise Unreadable(f"{file}: {e.strerror}") from e
    if not visits:
        raise Unreadable("no visit to any vault was given")
    return Exports(tuple(visits), tuple(kept))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise Unreadable(f"{path}: no *.jsonl file in it")
        yield from found


def _read_receipts(file: Path) -> list[Json]:
    """Return an app's receipts. A line that a crash cut off is nobody's receipt."""
    found = []
    for raw in _raw(file):
        try:
            line = read(raw.removesuffix(b"\n"), MAX_LINE)
            SIGNED(line)
        except Refused:
            continue
        found.append(line)
    return found


def _read_file(file: Path) -> list[Visit]:
    visits, count, ended = list[Visit](), 0, False
    try:
        for raw in _raw(file):
            line, count = _line(raw), count + 1
            if ended:
                raise Unreadable("it goes on behind its end")
            if line["record"] == "end":
                ended = _end(line, count)
            elif line["record"] == "visit":
                names = ("key", "vault", "at", "checkpoint", "trail")
                visits.append(Visit(str(file), *(line[n] for n in names)))
            elif visits:
                _ADD[line["record"]](visits[-1], line)
            else:
                raise Unreadable("it does not start at a visit")
    except (Refused, Unreadable) as e:
        raise Unreadable(f"{file}, line {count + 1}: {e}") from e
    if not ended:
        raise Unreadable(f"{file}: it has no end, so it was cut off")
    return visits


def _raw(file: Path) -> Iterator[bytes]:
    with file.open("rb") as lines:
        while raw := lines.readline(MAX_LINE + 2):
            yield raw


def _line(raw: bytes) -> Json:
    if not raw.endswith(b"\n"):
        raise Unreadable("a line has no end, or is too long")
    line = read(raw[:-1], MAX_LINE)
    kind = line.get("record")
    if not isinstance(kind, str) or kind not in LINES:
        raise Unreadable("a line of a kind that no export has")
    LINES[kind](line)
    return line


def _end(line: Json, count: int) -> bool:
    if line["lines"] != count:
        raise Unreadable(f"it says that it has {line['lines']} lines, it has {count}")
    return True


def _hashes(visit: Visit, line: Json) -> None:
    if line["since"] != len(visit.hashes):
        raise Unreadable("hashes do not follow one another")
    visit.hashes.extend(line["hashes"])


_ADD: Mapping[str, Callable[[Visit, Json], None]] = {
    "statement": lambda visit, line: visit.statements.append(line),
    "entry": lambda visit, line: visit.entries.append(line),
    "hashes": _hashes,
    "consistency": lambda visit, line: visit.consistency.append(line),
}
