"""The audit as one page for people: who approved what when, what it let in, what was refused.

Self-contained: no script, nothing is fetched. All that others wrote is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape

from placet_audit.audit import Audit
from placet_audit.problems import KINDS
from placet_audit.replay import Release, Taking
from placet_audit.report import refused
from placet_audit.style import STYLE
from placet_audit.visit import Entry
from placet_audit.words import ENTRIES, count, describe, moment, plain, short, signer_of, span

SAME = 120
"""Seconds within which vaults that do the same are shown as one event."""
FOOTER = (
    "Every line was decided again from the exported logs, by a program that shares no code "
    "with the vaults and asked nobody. What it cannot see: logs that were not exported, and "
    "what a vault left out at the end of its log of which no receipt tells."
)
Row = tuple[Entry, Taking | None, Release | None]


@dataclass(slots=True)
class Event:
    """What one or several vaults did at about one time."""

    entry: Entry
    by: dict[int, Row] = field(default_factory=dict)
    """By the number of the vault."""


def page(one: Audit) -> str:
    """Return the page."""
    state = "bad" if one.findings else "good"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Audit of {_e(one.label)}</title><style>{STYLE}</style></head><body><main>",
        f"<header><p class=kicker>Audit of a data key</p><h1>{_e(one.label)}</h1>",
        f"<p class=id>{_e(one.key)}</p></header>",
        f'<section class="verdict {state}">{_verdict(one)}</section>',
        *_findings(one),
        f"<section><h2>Vaults</h2>{_vaults(one)}</section>",
        f"<section><h2>Timeline <small>UTC</small></h2><ol class=timeline>{_timeline(one)}</ol>",
        "</section>",
        *_notes(one),
        f"<footer>{FOOTER}</footer></main></body></html>\n",
    ]
    return "\n".join(parts)


def _e(text: object) -> str:
    return escape(plain(text))


def _code(digest: str | None) -> str:
    return f'<code title="{_e(digest or "")}">{_e(short(digest))}</code>'


def _verdict(one: Audit) -> str:
    releases = [r for p in one.replays.values() for r in p.releases]
    wrong = sum(not r.justified for r in releases)
    statements = {d for p in one.replays.values() for d in p.takings}
    denied = sum(map(refused, one.replays.values()))
    numbers = (
        (len(one.replays), f"of {len(one.vault_ids) or '?'} logs read"),
        (len(statements), "statements taken"),
        (len(releases), "shares released"),
        (wrong, "of them unjustified"),
        (denied, "requests refused"),
    )
    said = count(len(one.findings), "finding") if one.findings else "No findings"
    why = (
        "A statement of the owner justifies each release."
        if not one.findings
        else "These logs do not show what they must."
    )
    cells = "".join(f"<div><b>{n}</b><span>{_e(what)}</span></div>" for n, what in numbers)
    return f"<h2>{said}</h2><p>{why}</p><div class=numbers>{cells}</div>"


def _findings(one: Audit) -> Iterator[str]:
    if not one.findings:
        return
    yield "<section><h2>Findings</h2>"
    for finding in one.findings:
        where = f"vault {one.number(finding.vault)}" if finding.vault else "all vaults"
        entry = f", entry {finding.entry}" if finding.entry is not None else ""
        about = f" · statement {_code(finding.statement)}" if finding.statement else ""
        yield (
            f"<article class=finding><h3>{_e(KINDS[finding.kind])}</h3>"
            f"<p>{_e(finding.detail)}</p><p class=meta>{_e(finding.kind)} · {where}{entry}"
            f"{about}</p></article>"
        )
    yield "</section>"


def _vaults(one: Audit) -> str:
    rows = []
    for vault in one.vault_ids or list(one.replays):
        replay = one.replays.get(vault)
        if replay is None:
            cells = "<td colspan=5 class=missing>not looked at</td>"
        else:
            size = replay.trail.checkpoint.size if replay.trail.checkpoint else "not signed"
            version = replay.policy.version if replay.policy else "-"
            cells = "".join(
                f"<td>{_e(cell)}</td>"
                for cell in (version, len(replay.trail.entries), size, len(replay.releases))
            ) + f"<td>{refused(replay)}</td>"  # fmt: skip
        rows.append(f"<tr><th>{one.number(vault)}</th><td>{_code(vault)}</td>{cells}</tr>")
    head = "".join(
        f"<th>{h}</th>"
        for h in ("", "vault", "version", "entries", "of all", "released", "refused")
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _events(one: Audit) -> list[Event]:
    """Put what several vaults did at about the same time into one event."""
    events: list[Event] = []
    newest: dict[str, list[Event]] = {}
    for vault, replay in one.replays.items():
        number = one.number(vault)
        releases = {r.entry.index: r for r in replay.releases}
        takings = {t.entry.index: t for t in replay.takings.values()}
        for entry in replay.trail.entries:
            same = str([entry.said[n] for n in ("kind", "statement", "subject", "detail")])
            row = entry, takings.get(entry.index), releases.get(entry.index)
            for event in newest.setdefault(same, []):
                if number not in event.by and abs(event.entry.time - entry.time) <= SAME:
                    event.by[number] = row
                    break
            else:
                event = Event(entry, {number: row})
                newest[same].append(event)
                events.append(event)
    return sorted(events, key=lambda e: (e.entry.time, e.entry.index, min(e.by)))


def _timeline(one: Audit) -> str:
    lines, day = [], ""
    for event in _events(one):
        date, _, hour = moment(event.entry.time).partition(" ")
        if date != day:
            lines.append(f"<li class=day>{_e(date)}</li>")
            day = date
        tone, title, body = _told(one, event)
        lines.append(
            f'<li class="event {tone}"><time>{_e(hour)}</time><div><h3>{title}</h3>{body}'
            f"<p class=meta>{_which(one, event)}</p></div></li>"
        )
    return "".join(lines)


def _told(one: Audit, event: Event) -> tuple[str, str, str]:
    """Return an event's tone, title and text."""
    entry = event.entry
    said, detail = entry.said, entry.said["detail"] or {}
    if entry.kind == "taken":
        return _taken(one, event)
    if entry.kind in {"release", "recover"}:
        return _released(event)
    if entry.kind == "denied":
        return "refused", *_denied(said, detail)
    title = _e(ENTRIES.get(entry.kind, entry.kind)).capitalize()
    shown = one.statements.get(str(said["statement"]))
    body = f"<p>{_e(describe(shown))}</p>" if shown and entry.kind == "waiting" else ""
    if entry.kind == "waiting" and isinstance(detail.get("delay"), int):
        body += f"<p class=meta>for {_e(span(detail['delay']))}; any owner signer can say no</p>"
    odd = entry.kind in {"waiting", "fork", "branch-changed"}
    return ("odd" if odd else "quiet"), title, body


def _taken(one: Audit, event: Event) -> tuple[str, str, str]:
    digest = str(event.entry.said["statement"])
    shown = one.statements.get(digest)
    takings = [row[1] for row in event.by.values() if row[1] is not None]
    good = next((t.taken for t in takings if t.taken is not None), None)
    title = _e(describe(shown)) if shown else "A statement that nobody shows"
    signed = ", ".join(_e(signer_of(s)) for s in good.signers) if good else ""
    who = f"signed by <strong>{signed}</strong>" if signed else "<strong>not justified</strong>"
    rests = {one.number(v) for t in takings for v in t.rests}
    if rests:
        numbers = ", ".join(map(str, sorted(rests)))
        who += f"; its time rests on receipts of vaults {numbers}"
    wrong = any(t.taken is None for t in takings)
    return (
        ("wrong" if wrong else "taken"),
        title[:1].upper() + title[1:],
        (f"<p>{who} · statement {_code(digest)}</p>"),
    )


def _released(event: Event) -> tuple[str, str, str]:
    said = event.entry.said
    releases = [row[2] for row in event.by.values() if row[2] is not None]
    wrong = [r for r in releases if not r.justified]
    approval = releases[0].approval if releases else None
    app = f" to {_e(approval.profile['app'])}" if approval else ""
    under = f"let in by statement {_code(approval.statement)}" if approval else "let in by NOTHING"
    recipient = (said["detail"] or {}).get("recipient")
    many = "Shares" if len(event.by) > 1 else "A share"
    title = f"{many} released{app}" + (", NOT justified" if wrong else "")
    body = f"<p>code {_code(said['subject'])} · {under} · channel {_code(str(recipient))}</p>"
    return ("wrong" if wrong else "released"), title, body


def _denied(said: dict[str, object], detail: dict[str, object]) -> tuple[str, str]:
    if "suppressed" in detail:
        return f"{_e(detail['suppressed'])} more requests refused", "<p>counted, not listed</p>"
    what = {"take": "A statement", "release": "A release", "create": "A creation"}
    title = f"{what.get(str(detail.get('purpose')), 'A request')} was refused"
    reason = f" ({_e(detail['reason'])})" if "reason" in detail else ""
    about = said["statement"] or said["subject"]
    return title, f"<p>{_e(detail.get('type', ''))}{reason} · {_code(str(about))}</p>"


def _which(one: Audit, event: Event) -> str:
    numbers = sorted(event.by)
    if len(numbers) == len(one.vault_ids) > 1:
        return f"all {len(numbers)} vaults"
    if len(numbers) == 1:
        return f"vault {numbers[0]}, entry {event.by[numbers[0]][0].index}"
    return f"vaults {', '.join(map(str, numbers))}"


def _notes(one: Audit) -> Iterator[str]:
    if one.notes:
        items = "".join(f"<li>{_e(note)}</li>" for note in one.notes)
        yield f"<section><h2>Notes</h2><ul class=notes>{items}</ul></section>"
