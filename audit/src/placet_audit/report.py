"""What an audit says: as a document for programs, and as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from placet_audit.audit import Audit
from placet_audit.canonical import Json
from placet_audit.problems import KINDS
from placet_audit.replay import Release, Replay, Taking
from placet_audit.words import count, describe, moment, plain, short, signer_of


def document(one: Audit) -> Json:
    """Return everything for a program; digests are whole."""
    return {
        "schema": 1,
        "key": one.key,
        "label": one.label,
        "clean": not one.findings,
        "vaults": [
            {
                "number": one.number(vault),
                "vault": vault,
                "log": replay.trail.checkpoint.size if replay.trail.checkpoint else None,
                "entries": len(replay.trail.entries),
                "version": replay.policy.version if replay.policy else None,
                "head": replay.policy.head if replay.policy else None,
                "statements": [_taking(d, t) for d, t in replay.takings.items()],
                "releases": [_release(r) for r in replay.releases],
                "refused": refused(replay),
            }
            for vault, replay in one.replays.items()
        ],
        "receipts": one.receipts,
        "findings": [f.document() for f in one.findings],
        "notes": one.notes,
    }


def refused(replay: Replay) -> int:
    """Return how many requests a vault refused: those it logged, and those it only counted."""
    total = 0
    for entry in replay.trail.entries:
        if entry.kind == "denied":
            counted = (entry.said["detail"] or {}).get("suppressed", 1)
            total += counted if isinstance(counted, int) else 1
    return total


def _taking(digest: str, taking: Taking) -> Json:
    signers = taking.taken.signers if taking.taken else ()
    return {
        "statement": digest,
        "type": taking.statement.type if taking.statement else None,
        "entry": taking.entry.index,
        "time": taking.entry.time,
        "justified": taking.taken is not None,
        "signed_by": [{"label": s["label"], "kind": s["kind"]} for s in signers],
        "rests_on_receipts_of": list(taking.rests),
    }


def _release(release: Release) -> Json:
    return {
        "entry": release.entry.index,
        "time": release.entry.time,
        "kind": release.entry.kind,
        "code": release.entry.said["subject"],
        "recipient": (release.entry.said["detail"] or {}).get("recipient"),
        "statement": release.approval.statement if release.approval else None,
        "justified": release.justified,
    }


def text(one: Audit) -> Iterator[str]:
    """Yield the lines that a person reads."""
    yield f"Audit of {plain(one.label)}"
    yield f"key {one.key}"
    yield ""
    for vault, replay in one.replays.items():
        yield _vault(one, vault, replay)
    yield ""
    yield "Statements"
    for digest in _order(one):
        yield from _statement(one, digest)
    yield ""
    yield "Releases"
    for line in list(_releases(one)) or ["none"]:
        yield f"  {line}"
    if one.receipts:
        kept = count(one.receipts, "receipt")
        yield f"  {kept} of what the app kept, looked for in the logs"
    yield ""
    for note in one.notes:
        yield f"note: {plain(note)}"
    yield from _verdict(one)


def _vault(one: Audit, vault: str, replay: Replay) -> str:
    size = replay.trail.checkpoint.size if replay.trail.checkpoint else "an unsigned number of"
    version = replay.policy.version if replay.policy else "no"
    return (
        f"vault {one.number(vault)}  {short(vault)}  {len(replay.trail.entries)} of {size} log "
        f"entries are this key's; version {version}; {count(len(replay.releases), 'release')}, "
        f"{count(refused(replay), 'refusal')}"
    )


def _order(one: Audit) -> list[str]:
    """Return the statements that any vault took, in the order in which the first took them."""
    first: dict[str, tuple[int, int]] = {}
    for replay in one.replays.values():
        for at, (digest, taking) in enumerate(replay.takings.items()):
            first[digest] = min(first.get(digest, (taking.entry.time, at)), (taking.entry.time, at))
    return sorted(first, key=lambda d: first[d])


def _statement(one: Audit, digest: str) -> Iterator[str]:
    by = {one.number(v): r.takings[digest] for v, r in one.replays.items() if digest in r.takings}
    number, taking = min(by.items(), key=lambda item: (item[1].taken is None, item[0]))
    shown = one.statements.get(digest)
    yield f"  {moment(taking.entry.time)}  {short(digest)}  " + (
        describe(shown) if shown else "(nobody shows it)"
    )
    names = ", ".join(signer_of(s) for s in taking.taken.signers) if taking.taken else ""
    who = f"signed by {names}" if names else "NOT justified"
    yield f"{'':23}{who}; taken at {_vaults(list(by), one)}"
    for number, one_taking in by.items():
        if one_taking.rests:
            vaults = _vaults([one.number(v) for v in one_taking.rests], one)
            yield f"{'':23}at vault {number} it rests on receipts of {vaults}"


def _vaults(numbers: list[int], one: Audit) -> str:
    if sorted(numbers) == list(range(1, len(one.vault_ids) + 1)):
        return f"all {len(numbers)} vaults"
    return f"vault{'s' if len(numbers) > 1 else ''} {', '.join(map(str, sorted(numbers)))}"


def _releases(one: Audit) -> Iterator[str]:
    found = [(r.entry.time, one.number(v), r) for v, p in one.replays.items() for r in p.releases]
    for time, number, release in sorted(found, key=lambda x: (x[0], x[1], x[2].entry.index)):
        said = release.entry.said
        under = (
            f"under {short(release.approval.statement)}" if release.approval else "under NOTHING"
        )
        mark = "" if release.justified else "  NOT justified"
        yield (
            f"{moment(time)}  vault {number} entry {release.entry.index}: code "
            f"{short(said['subject'])} {under}, to "
            f"{short(str((said['detail'] or {}).get('recipient')))}{mark}"
        )


def _verdict(one: Audit) -> Iterator[str]:
    for finding in one.findings:
        where = f"vault {one.number(finding.vault)}" if finding.vault else "all vaults"
        entry = f" entry {finding.entry}" if finding.entry is not None else ""
        yield f"FINDING {finding.kind}: {where}{entry}"
        yield f"  {KINDS[finding.kind]}"
        yield f"  {plain(finding.detail)}"
        if finding.statement:
            yield f"  statement {finding.statement}"
    releases = sum(len(r.releases) for r in one.replays.values())
    if one.findings:
        yield f"{count(len(one.findings), 'finding')}. These logs do not show what they must."
    elif releases:
        yield f"No findings: a statement of the owner justifies each of {releases} releases."
    else:
        yield "No findings, and nothing was released."
