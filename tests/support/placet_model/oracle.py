"""What each vault must hold and may release: a second model, written from DESIGN and spec.

It shares no code with placet, imports nothing of it, and has neither bytes nor signatures:
a statement is who signed what, where and when. Where `placet.policy` folds one policy
forward, this looks back over a vault's whole history for every answer, so that the same
mistake is not made twice. The numbers are those of spec/03 and spec/09.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

SKEW, PAGE_DELAY = 600, 86400
ROWS = frozenset({"promote", "retire", "update", "delete"})


class Group(NamedTuple):
    """A principal: so many of these people."""

    need: int
    who: frozenset[str]

    def agrees(self, signed: frozenset[str]) -> bool:
        """Return whether enough of them signed."""
        return len(self.who & signed) >= self.need


class Clause(NamedTuple):
    """An auto-migrate clause; it may let differ what codes of one app differ in."""

    signers: Group
    step: int
    delay: int
    ends: int
    budget: int


class Table(NamedTuple):
    """The rules in force."""

    owner: Group
    managers: Group
    guardians: Group
    delay: int
    """From intent to completion."""
    rest: int
    """Cool-down after a recovery."""
    cooldown: int
    """Of new owner signers."""
    cosigned: frozenset[str] = frozenset()
    clause: Clause | None = None
    fixed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Said:
    """A statement, as far as it matters. Fields that its kind has not are as they stand here."""

    id: str
    kind: str
    prev: str | None
    base: int
    issued: int
    ends: int
    signed: frozenset[str]
    code: int = 0
    sv: int = 0
    earlier: str = "keep"
    retire_at: int | None = None
    unretire: bool = False
    floor: int = 0
    auto: Clause | None = None
    table: Table | None = None
    owner: Group | None = None
    names: str | None = None
    """The statement that a void or a completion names."""
    heads: frozenset[str] = frozenset()
    lets_in: Mapping[int, tuple[int, int | None]] = field(default_factory=dict)
    """Of a birth or merge: security version and end, by code."""
    tombs: frozenset[int] = frozenset()
    label: bool = True


class Link(NamedTuple):
    """A statement that a vault took: from when delays count, and who vouched for it."""

    said: Said
    at: int
    vouched: frozenset[int]


History = tuple[Link, ...]
Bundle = tuple[Said, Mapping[int, int]]
"""A statement on its way, and when which vaults took it."""


class Refused(Exception):  # noqa: N818 - not an error: an answer
    """The vault says no."""


class Elsewhere(Refused):
    """Something else was taken in its place."""


class Waits(Refused):
    """It has to wait: which, and from when it was seen (0: it is not kept)."""

    def __init__(self, said: Said, delay: int) -> None:
        super().__init__(said.id)
        self.said, self.delay = said, delay


# --- looking back -------------------------------------------------------------------------


def version(past: History) -> int:
    """Return how many statements there are on the longest branch."""
    last = past[-1].said
    return last.base + 1


def table(past: History) -> Table:
    """Return the rules in force: the last that were written, with the last new owner."""
    found = None
    for i, link in enumerate(past):
        said = link.said
        if said.table is not None:
            found = said.table
        elif said.kind == "recover" and said.names is not None and found is not None:
            intent = next(x.said for x in past[:i] if x.said.id == said.names)
            found = found._replace(owner=intent.owner)
    if found is None:
        raise Refused("no birth")
    return found


def floor(past: History) -> int:
    """Return the highest floor that was ever set."""
    return max(x.said.floor for x in past)


def _ended(link: Link, code: int) -> bool:
    """Return whether a statement leaves a tombstone of a code that was let in before."""
    said = link.said
    return (
        (said.kind == "retire" and said.code == code)
        or (said.kind == "promote" and said.earlier != "keep" and said.code != code)
        or said.kind == "delete"
    )


def tombs(past: History) -> frozenset[int]:
    """Return the codes that were shut out, or will be, and were not let in again since."""
    found: set[int] = set()
    for i, link in enumerate(past):
        if link.said.kind == "merge":
            found = set(link.said.tombs)
        elif link.said.kind == "promote":
            found.discard(link.said.code)
        found |= {c for c in approved(past[:i]) if _ended(link, c)}
    return frozenset(found)


def approved(past: History) -> dict[int, tuple[int, int | None]]:
    """Return what is approved, with security version and end: the last word on each code."""
    codes = {c for x in past for c in x.said.lets_in} | {
        x.said.code for x in past if x.said.kind == "promote"
    }
    return {c: found for c in codes if (found := covering(past, c)) is not None}


def covering(past: History, code: int) -> tuple[int, int | None] | None:
    """Return the approval under which a code stands, or nothing."""
    ends: list[int] = []
    for link in reversed(past):
        said = link.said
        if said.kind in ("birth", "merge"):
            if code not in said.lets_in:
                return None
            sv, end = said.lets_in[code]
            return sv, min([*ends, *([end] if end is not None else [])], default=None)
        if said.kind == "promote" and said.code == code:
            return said.sv, min(ends, default=None)
        if said.kind == "promote" and said.earlier == "retire-at":
            ends.append(said.retire_at or 0)
        elif _ended(link, code):
            return None
    return None


def uses(past: History) -> int:
    """Return how often the clause in force was used."""
    count = 0
    for i, link in enumerate(past):
        if link.said.table is not None and i and link.said.table.clause != table(past[:i]).clause:
            count = 0
        count += link.said.auto is not None
    return count


def young(past: History) -> dict[str, int]:
    """Return the new signers of the owner, and from when on they count."""
    found: dict[str, int] = {}
    for i, link in enumerate(past):
        said = link.said
        if said.kind == "recover" and said.owner is None:
            found = {}  # what the guardians chose counts at once, within the cool-down
        if said.table is None or not i:
            continue
        before, after = table(past[:i]).owner.who, said.table.owner.who
        if said.table.owner == table(past[:i]).owner:
            continue
        found = {s: t for s, t in found.items() if s in after}
        found |= dict.fromkeys(after - before, link.at + said.table.cooldown)
    return found


def recovery(past: History) -> tuple[Said, int] | None:
    """Return the intent that is open, and from when on it can be completed."""
    for i in reversed(range(len(past))):
        said = past[i].said
        if said.kind == "recover":
            if said.owner is None:
                return None
            veto = any(x.said.kind == "void" and x.said.names == said.id for x in past[i:])
            return None if veto else (said, past[i].at + table(past[:i]).delay)
        changed = said.kind == "update" and said.table != table(past[:i])
        if changed or said.kind in ("merge", "delete"):
            return None
    return None


def rest_ends(past: History) -> int:
    """Return until when the last new owner lets nothing in."""
    done = [
        x.at + table(past[:i]).rest
        for i, x in enumerate(past)
        if x.said.kind == "recover" and x.said.owner is None
    ]
    return done[-1] if done else 0


def deleted(past: History) -> bool:
    """Return whether the owner destroyed the key."""
    return any(x.said.kind == "delete" for x in past)


def known(past: History) -> set[str]:
    """Return what a vault passes over: its statements, and heads that a merge ended."""
    return {x.said.id for x in past} | {h for x in past for h in x.said.heads}


def allowed(past: History, code: int, now: int) -> bool:
    """Return whether a vault may release to a code now (I1)."""
    if not past or deleted(past):
        return False
    found = covering(past, code)
    return found is not None and (found[1] is None or now < found[1]) and found[0] >= floor(past)


def view(past: History) -> dict[str, object]:
    """Return all that a vault's policy must be."""
    if not past:
        return {}
    opened = recovery(past)
    return {
        "chain": [x.said.id for x in past],
        "version": version(past),
        "table": table(past),
        "approved": {} if deleted(past) else approved(past),
        "floor": floor(past),
        "tombs": tombs(past),
        "young": young(past),
        "recovery": opened and (opened[0].id, opened[0].owner, opened[1]),
        "rest": rest_ends(past),
        "uses": uses(past),
        "deleted": deleted(past),
    }
