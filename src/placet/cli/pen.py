"""Show what is about to be signed, ask, sign, send, and say where it took effect."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.text import Text

from placet.cli.content import content
from placet.cli.files import write_json
from placet.cli.output import (
    DONE,
    PARTLY,
    TOO_FEW,
    Fact,
    answer,
    bad,
    brief,
    err,
    exit_code,
    good,
    hint,
    odd,
    print_json,
    say,
    short,
    show_facts,
    show_table,
    when,
)
from placet.cli.passkey import sign_with
from placet.cli.passkey_kept import Pen, pen_id
from placet.cli.passkey_pages import Shown
from placet.cli.reach import SILENCE, Target
from placet.cli.settings import Home
from placet.client.constellation import Constellation, EffectReport
from placet.core.dsse import open_signed
from placet.core.messages import Taken
from placet.core.signer import Threshold, signer_id
from placet.core.statement import Birth, Chained, UntrustedStatement, UpdatePolicy, open_statement
from placet.core.words import six_words
from placet.errors import (
    ApprovalError,
    ApprovalWaitingError,
    MalformedError,
    PlacetError,
    PolicyDeniedError,
)
from placet.policy.principal import leaves, require


def words(digest: str) -> str:
    """Return the six words of a statement."""
    return " ".join(six_words(digest))


def confirm(
    title: str, facts: Sequence[Fact], sent: UntrustedStatement, *, yes: bool, quiet: bool
) -> Shown:
    """Show a statement that this tool composed, and ask whether to sign it.

    Args:
        title: What it is, in one line.
        facts: Its content.
        sent: Composed here; not signed yet.
        yes: Do not ask.
        quiet: Show nothing either, if nobody is asked.

    Returns:
        What was shown, for the page of a passkey that signs it (`sign`).

    Raises:
        MalformedError, PolicyDeniedError: See `ask`; nothing is signed then.
    """
    if not (yes and quiet):
        err.print()
        say(Text(title, style="bold"))
        shown = Text(words(sent.digest), style="bold cyan")
        show_facts([*facts, ("statement", sent.digest), ("six words", shown)], err)
    if not yes:
        ask("Sign this?")
    return Shown(title, facts)


def check_readable(sent: UntrustedStatement) -> None:
    """Raise `MalformedError` if vaults could not read what was composed: a text too long."""
    open_statement(sent.signed())


def ask(question: str) -> None:
    """Ask whether to go on.

    Raises:
        MalformedError: Nobody can be asked.
        PolicyDeniedError: The answer is no.
    """
    if not sys.stdin.isatty():
        raise MalformedError(
            "nobody can be asked: standard input is no terminal; nothing was signed",
            "Run it on a terminal; or, once you have read what it will do, add --yes.",
        )
    if not click.confirm(question, err=True):
        raise PolicyDeniedError("the answer was no: nothing was signed")


def sign(
    sent: UntrustedStatement, key: Pen, owner: Threshold, shown: Shown | None = None
) -> UntrustedStatement:
    """Sign with a key file, a security key or a passkey, whichever the owner has here.

    Args:
        sent: Composed here, or shown.
        key: `Owner.key`.
        owner: Those of whom it must be one.
        shown: What `confirm` showed; a passkey's page says the same. Without it, the page
            says what the statement itself says.

    Raises:
        ApprovalError: It is none of the owner's; or what the authenticator signed is not this.
        PolicyDeniedError, NotFoundError: See `sign_with`.
    """
    mine = pen_id(key)
    if mine not in map(signer_id, leaves(owner)):
        raise ApprovalError(
            f"the key kept here is {short(mine)}, which is no signer of this key's owner",
            "Name the right one: placet owner show tells which is used and which there are.",
        )
    port = Home.find().settings().owner.page_port
    return sign_with(key, sent, shown or content(sent, own=True), port=port)


def missing_signatures(sent: UntrustedStatement, owner: Threshold) -> PlacetError | None:
    """Return why the signatures of a statement are not enough, if they are not."""
    try:
        require(owner, frozenset(s.signer for s in sent.signatures))
    except ApprovalError as e:
        return e
    return None


def send(target: Target, sent: UntrustedStatement, home: Home, *, as_json: bool) -> int:
    """Bring a signed statement to all vaults, say what became of each, return the exit code.

    It is kept in the outbox first, so that whatever happens `placet key sync` completes it.
    """
    path = home.post(sent)
    report = target.visit(lambda v: _submit(v, sent), "sending")
    code = result(report)
    if (not report.missing and not report.uncounted) or _refused_by_all(report):
        path.unlink(missing_ok=True)
    if as_json:
        print_json(as_document(target, sent, report))
    else:
        _show(target, sent, report, code)
    return code


async def _submit(vaults: Constellation, sent: UntrustedStatement) -> EffectReport:
    report = await vaults.submit(sent.signed())
    if isinstance(sent.statement, UpdatePolicy) and report.confirmed:
        # What it says of the vaults is known here from now on, with their receipts.
        with contextlib.suppress(PlacetError):
            await vaults.read_charter(sent.key)
    return report


def _refused_by_all(report: EffectReport) -> bool:
    """Say whether every vault answered no, so that nothing of it is under way."""
    late = (*SILENCE, ApprovalWaitingError)
    return not report.confirmed and not any(isinstance(e, late) for e in report.missing.values())


def write_out(
    sent: UntrustedStatement,
    path: Path,
    home: Home,
    *,
    as_json: bool,
    lacking: PlacetError | None = None,
) -> int:
    """Write a signed statement for a courier to carry; nothing is sent.

    Args:
        sent: Signed.
        path: Where to.
        home: Its outbox keeps it as well, unless signatures are missing.
        as_json: For a program.
        lacking: What `missing_signatures` said.
    """
    write_json(path, sent.signed())
    if lacking is None:
        home.post(sent)
    if as_json:
        print_json(
            {
                "type": str(sent.statement.__struct_config__.tag),
                "key": sent.key,
                "statement": sent.digest,
                "words": words(sent.digest),
                "file": str(path),
                "complete": lacking is None,
            }
        )
        return DONE
    file = shlex.quote(str(path))
    if lacking is None:
        answer(f"signed, not sent: {path}")
        hint(f"placet deliver {file}   (or any courier carries it)")
    else:
        answer(f"signed, and more must sign: {lacking.detail}")
        hint(
            f"placet sign {file}   (each of the others, on their own machine; "
            f"then: placet deliver {file})"
        )
    return DONE


def result(report: EffectReport) -> int:
    """Return the exit code: in force everywhere, effective or waiting, too few, refused why."""
    if not report.missing and not report.uncounted:
        return DONE
    if report.effective or len(report.confirmed) + len(waits(report)) >= report.needed:
        return PARTLY
    total = len(report.missing) + len(report.confirmed)
    late = (*SILENCE, ApprovalWaitingError)
    said = [e for e in report.missing.values() if not isinstance(e, late)]
    # Vaults that said no count as such only if the silent ones could not turn it.
    if len(said) > total - report.needed:
        return exit_code(said[0])
    return TOO_FEW


def waits(report: EffectReport) -> tuple[int, ...]:
    """Return until when vaults have a statement wait, soonest first; 0 where one said nothing."""
    until = [
        e.members.get("until")
        for e in report.missing.values()
        if isinstance(e, ApprovalWaitingError)
    ]
    return tuple(sorted(u if isinstance(u, int) else 0 for u in until))


def as_document(
    target: Target, sent: UntrustedStatement, report: EffectReport
) -> dict[str, object]:
    """Return what became of a statement, for programs."""
    members = {m.id: (i, m.endpoint) for i, m in enumerate(target.vault_set.vaults, 1)}
    confirmed, missing = [], []
    for vault, (number, endpoint) in members.items():
        place = {"number": number, "vault": vault, "endpoint": endpoint}
        if vault in report.confirmed:
            taken = open_signed(report.confirmed[vault], Taken, vault=vault)
            confirmed.append({**place, "index": taken.index, "time": taken.time})
        elif vault in report.missing:
            e = report.missing[vault]
            missing.append({**place, "became": e.type, "why": e.detail})
    waiting = waits(report)
    return {
        "type": str(sent.statement.__struct_config__.tag),
        "key": sent.key,
        "label": target.known.label,
        "statement": sent.digest,
        "words": words(sent.digest),
        "effective": report.effective,
        "needed": report.needed,
        "tolerated": report.tolerated,
        "vaults": target.vault_set.n,
        "confirmed": confirmed,
        "unwitnessed": [v for v in members if v in report.unwitnessed],
        "missing": missing,
        "waits_until": waiting[-1] or None if waiting else None,
    }


def _show(target: Target, sent: UntrustedStatement, report: EffectReport, code: int) -> None:
    rows = []
    for number, member in enumerate(target.vault_set.vaults, 1):
        where = (str(number), member.endpoint, short(member.id))
        if member.id in report.confirmed:
            taken = open_signed(report.confirmed[member.id], Taken, vault=member.id)
            receipt = f"log entry {taken.index}, {when(taken.time)}"
            lacks = report.uncounted.get(member.id)
            state = good("confirmed") if lacks is None else odd("waits for witnesses")
            rows.append((*where, state, receipt))
        else:
            e = report.missing[member.id]
            rows.append((*where, *_not_yet(e)))
    show_table("", ("vault", "endpoint", "id", "state", ""), rows)
    answer(verdict(target, report))
    if not isinstance(sent.statement, Birth) and report.counted:
        answer(_witnesses(target, report))
    if code != DONE:
        hint(_next(target, sent, code, waiting=bool(waits(report))))


def _not_yet(e: PlacetError) -> tuple[Text, str]:
    """Return why a vault has not confirmed, in a word and in a line."""
    if isinstance(e, ApprovalWaitingError):
        until = e.members.get("until")
        return odd("waits"), f"until {when(until)}" if isinstance(until, int) else brief(e)
    return odd("not confirmed") if isinstance(e, SILENCE) else bad(e.type), brief(e)


def verdict(target: Target, report: EffectReport) -> Text:
    """Return the one line that counts (I12): how many, of how many, and who has not confirmed."""
    n, count = target.vault_set.n, report.counted
    numbers = [
        f"{i} ({m.endpoint})"
        for i, m in enumerate(target.vault_set.vaults, 1)
        if m.id in report.missing
    ]
    tail = f", not confirmed: {', '.join(numbers)}" if numbers else ""
    if report.effective:
        head = Text("effective", style="bold green")
        lie = "lies" if report.tolerated == 1 else "lie"
        liars = f", even if {report.tolerated} of them {lie}" if report.tolerated else ""
        return head + Text(
            f": {count} of {n} vaults confirmed, {report.needed} needed{liars}{tail}"
        )
    if len(report.confirmed) >= report.needed:
        head = Text("waits for witnesses", style="bold yellow")
        silent = sorted({w for lacks in report.unwitnessed.values() for w in lacks})
        return head + Text(
            f": {len(report.confirmed)} of {n} vaults took it, {report.needed} needed, but could "
            f"be put back to before it: {', '.join(map(short, silent))} have not seen it yet{tail}"
        )
    if late := waits(report):
        head = Text("waits", style="bold yellow")
        until = f" until {when(late[-1])}" if late[-1] else ""
        return head + Text(
            f"{until} at {len(late)} of {n} vaults; it takes effect when {report.needed} confirm. "
            f"Any owner signer can say no: placet void {target.argument}"
        )
    head = Text("NOT effective", style="bold red")
    return head + Text(f": {count} of {n} vaults confirmed, {report.needed} needed{tail}")


def _witnesses(target: Target, report: EffectReport) -> str:
    """Return at how many of the vaults that took it witnesses saw that, and what that is for."""
    lacks = [
        f"{i} ({m.endpoint})"
        for i, m in enumerate(target.vault_set.vaults, 1)
        if m.id in report.unwitnessed
    ]
    count = len(report.confirmed)
    seen = f"witnesses saw it at {count - len(lacks)} of {count} vaults that took it"
    return seen if not lacks else f"{seen}; not yet at {', '.join(lacks)}: put back, it is undone"


def _next(target: Target, sent: UntrustedStatement, code: int, *, waiting: bool) -> str:
    label = target.argument
    if waiting:
        return f"placet key sync {label}   (after that; anybody can, and it is safe to repeat)"
    if code in (PARTLY, TOO_FEW):
        return f"placet key sync {label}   (when the others are back; it is safe to repeat)"
    if not isinstance(sent.statement, Chained):
        return f"placet pending {label}"
    return f"placet key show {label}   (then decide again)"
