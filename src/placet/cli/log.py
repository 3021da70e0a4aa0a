"""``placet log``: what each vault did with a key, from its own chained log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import click
from rich.text import Text

from placet.cli.arguments import key_argument, span
from placet.cli.output import (
    DONE,
    FINDINGS,
    TOO_FEW,
    Cell,
    answer,
    bad,
    brief,
    err,
    good,
    hint,
    json_option,
    moment,
    odd,
    print_json,
    reported,
    short,
    show_table,
)
from placet.cli.reach import SILENCE, Target
from placet.cli.settings import Home
from placet.cli.trail import Trail, read_trail
from placet.client.constellation import Constellation
from placet.client.fan_out import Outcome, Outcomes
from placet.core.logentry import LogEntry

SAME = 120
"""Seconds within which vaults that do the same are shown in one line."""

WHAT = {
    "taken": "statement taken",
    "staged": "version staged",
    "revoked": "stage revoked",
    "promised": "creation promised",
    "held": "share held",
    "committed": "share committed",
    "release": "share released",
    "recover": "share released to finish creation",
    "denied": "request denied",
    "waiting": "statement waits",
    "fork": "another branch seen",
    "branch-changed": "branch changed",
}


@click.command()
@key_argument
@click.option("--each", is_flag=True, help="One line for each vault's entry; do not merge.")
@json_option
@reported
def log(*, name: str, each: bool, as_json: bool) -> int:
    """Show what each vault did with a key, and check that its log is a chain.

    Checked for every vault: no entry of the key is missing in between, each follows the
    one before it, every release rests on a statement that was taken earlier, and the
    vault signed its checkpoint. Exit code 1 when a vault's log is not that.
    """
    target = Target.find(Home.find(), name)

    async def read(vaults: Constellation) -> Outcomes[Trail]:
        return await vaults.fan_out(lambda v: read_trail(v, target.key))

    outcomes = target.visit(read, "reading logs")
    if as_json:
        print_json(_document(target, outcomes))
    else:
        _show(target, outcomes, each=each)
    if any(not isinstance(e, SILENCE) for e in outcomes.errors.values()):
        return FINDINGS
    return DONE if len(outcomes.values) >= target.vault_set.k else TOO_FEW


def _document(target: Target, outcomes: Outcomes[Trail]) -> dict[str, object]:
    vaults = []
    for number, o in enumerate(outcomes.each, 1):
        place = {"number": number, "vault": o.vault, "endpoint": o.endpoint}
        error = {"became": o.error.type, "why": o.error.detail} if o.error else None
        trail = o.value
        shown = {
            "size": trail.checkpoint.size if trail else None,
            "verified": trail is not None,
            "error": error,
            "entries": trail.entries if trail else [],
        }
        vaults.append({**place, **shown})
    return {"key": target.key, "label": target.known.label, "vaults": vaults}


def _show(target: Target, outcomes: Outcomes[Trail], *, each: bool) -> None:
    answer(Text(f"Logs of {target.name}", style="bold"))
    show_table(
        "",
        ("vault", "endpoint", "id", "log", "of this key", "of all"),
        [_vault(n, o) for n, o in enumerate(outcomes.each, 1)],
    )
    trails = {n: o.value for n, o in enumerate(outcomes.each, 1) if o.value is not None}
    rows = _lines(trails) if each else _merged(trails, target.vault_set.n)
    show_table("Entries", ("when (UTC)", "what", "vaults", "statement", "about", ""), rows)
    if not each and err.is_terminal:
        hint(f"placet log {target.argument} --each   (one line for each entry, with its number)")


def _vault(number: int, o: Outcome[Trail]) -> tuple[Cell, ...]:
    where = (number, o.endpoint, short(o.vault))
    if o.value is not None:
        size = o.value.checkpoint.size
        return (*where, good("chain holds"), f"{len(o.value.entries)} entries", f"{size} entries")
    silent = isinstance(o.error, SILENCE)
    why = brief(o.error)
    return (*where, odd("no answer") if silent else bad("NOT a chain"), why, "")


def _about(entry: LogEntry) -> tuple[Cell, Cell, Cell]:
    detail = entry.detail or {}
    extra = ", ".join(_said(k, v) for k, v in detail.items())
    return (
        short(entry.statement) if entry.statement else "",
        short(entry.subject) if entry.subject else "",
        extra,
    )


def _said(name: str, value: str | int) -> str:
    """Return one detail of an entry; a use of the clause stands out by its mark."""
    if name == "delay" and isinstance(value, int):
        return f"for {span(value)}"
    if name == "mark":
        return "auto: by the clause that it is about"
    return f"{name} {short(str(value)) if str(value).startswith('sha256:') else value}"


def _what(entry: LogEntry) -> Cell:
    text = WHAT.get(entry.kind, entry.kind)
    if entry.kind in ("waiting", "fork", "branch-changed"):
        return odd(text)
    return bad(text) if entry.kind == "denied" else text


def _lines(trails: Mapping[int, Trail]) -> list[tuple[Cell, ...]]:
    every = [(e.time, number, e) for number, t in trails.items() for e in t.entries]
    every.sort(key=lambda x: (x[0], x[1], x[2].index))
    return [
        (moment(time), _what(e), f"{number} entry {e.index}", *_about(e))
        for time, number, e in every
    ]


def _merged(trails: Mapping[int, Trail], n: int) -> list[tuple[Cell, ...]]:
    """Put what several vaults did at about the same time into one line."""
    groups: dict[object, list[list[tuple[int, LogEntry]]]] = defaultdict(list)
    for number, trail in trails.items():
        for entry in trail.entries:
            same = (entry.kind, entry.statement, entry.subject, str(entry.detail))
            for group in groups[same]:
                others = [v for v, _ in group]
                if number not in others and abs(group[0][1].time - entry.time) <= SAME:
                    group.append((number, entry))
                    break
            else:
                groups[same].append([(number, entry)])
    lines = [group for found in groups.values() for group in found]
    lines.sort(key=lambda g: (min(e.time for _, e in g), min(e.index for _, e in g)))
    return [
        (moment(g[0][1].time), _what(g[0][1]), _which([v for v, _ in g], n), *_about(g[0][1]))
        for g in lines
    ]


def _which(numbers: list[int], n: int) -> Cell:
    if len(numbers) == n:
        return f"all {n}"
    return ", ".join(map(str, sorted(numbers)))
