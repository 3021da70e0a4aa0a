"""One path for every statement of a key's chain: compose, check, show, ask, sign, send.

What vaults would refuse is refused here first, with their rules and their reasons, before
anybody is asked; vaults check it again, by their own clocks.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.text import Text

from placet.cli.arguments import span
from placet.cli.govern_ways import lacking, pen_for, who_can_veto
from placet.cli.how import How
from placet.cli.look import Look
from placet.cli.output import Fact, odd, plain, say, short, when
from placet.cli.passkey_kept import Pen, pen_id
from placet.cli.passkey_young import young_facts
from placet.cli.pen import check_readable, confirm, send, sign, words, write_out
from placet.cli.reach import Target, clock
from placet.cli.settings import Home
from placet.cli.statement_files import anybody
from placet.cli.words import titled, until
from placet.client.signing import DAY, Composer
from placet.core.limits import MAX_LIFETIME
from placet.core.statement import Chained, UntrustedStatement
from placet.errors import ApprovalError, ConflictError, MalformedError, PolicyDeniedError
from placet.policy.authority import Way, signers_of, wait_of, ways
from placet.policy.charter import effective_at
from placet.policy.governance import acts_for, check_alive, follow
from placet.policy.key_policy import KeyPolicy
from placet.policy.timing import check_delays, check_place, seen_waiting, without_young

Write = Callable[[Composer], UntrustedStatement]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A statement that can be signed here, and what then becomes of it."""

    sent: UntrustedStatement
    found: tuple[Way, ...]
    pen: Pen
    missing: ApprovalError | None
    """Whose signatures it lacks beside that of ``pen``."""
    wait: int
    """Seconds that it then waits, if it lacks none."""


def decide(  # noqa: PLR0917 - what is decided, and how
    home: Home,
    target: Target,
    found: Look,
    write: Write,
    facts: Sequence[Fact],
    how: How,
    branches: Sequence[KeyPolicy] = (),
) -> int:
    """Compose a statement, check it, show it, ask, sign it, send it; return the exit code.

    Args:
        home: The owner's folders.
        target: The key.
        found: Its charter as vaults show it.
        write: Composes the statement; called more than once, and the last one counts.
        facts: What it does, for people.
        how: How it is shown, signed and sent.
        branches: The policies that it follows on, where that is not the one of ``found``.

    Raises:
        PlacetError: Whatever vaults would refuse it for; or it cannot be signed here.
    """
    policies = tuple(branches) or (found.policy,)
    _check_undelivered(home, target, found, how)
    ready = _ready(home, found, write, how, policies)
    sent = ready.sent
    shown = confirm(
        how.title,
        [*facts, *_circumstances(target, found, ready)],
        sent,
        yes=how.yes or how.sentence is not None,
        quiet=how.as_json and how.yes,
    )
    if how.sentence is not None:
        _type_out(how)
    signed = sign(sent, ready.pen, anybody(ready.found), shown)
    if how.out is not None or ready.missing is not None:
        out = how.out or Path(f"statement-{short(signed.digest)}.json")
        return write_out(signed, out, home, as_json=how.as_json, lacking=ready.missing)
    return send(target, signed, home, as_json=how.as_json)


def check_composed(policy: KeyPolicy, sent: UntrustedStatement, *, now: int) -> None:
    """Refuse a statement that no vault would take, whoever signs it.

    Raises:
        PlacetError: As vaults say it: `placet.policy.charter.take`.
    """
    check_alive(policy)
    check_readable(sent)
    check_place(policy, sent)
    ways(policy, sent)
    follow(policy, sent, at=now)
    check_delays(policy, sent, wait=0, now=now, waiting={})


def vetoable(found: Look) -> frozenset[str]:
    """Return what any one owner signer can say no to, as far as vaults show it."""
    return seen_waiting(found.policy, {w.sent.digest: 0 for w in found.view.waiting})


def _ready(
    home: Home, found: Look, write: Write, how: How, policies: tuple[KeyPolicy, ...]
) -> _Ready:
    now = clock.now()
    # Who signs and how long that waits is known once there is a statement to ask about.
    draft = write(Composer(now=now, lifetime=how.usual))
    for policy in policies:
        check_alive(policy)
        check_place(policy, draft)
    cap = min([MAX_LIFETIME, *(a.lifetime for p in policies for a in acts_for(p, draft))])
    possible = tuple(way for p in policies for way in ways(p, draft))
    pen = pen_for(home, signers_of(possible), how.key_file)
    wait = max(_wait(p, draft, pen, vetoable(found), now) for p in policies)
    fitting = min(cap, max(how.usual, wait + DAY))
    lifetime = fitting if how.expires is None else how.expires
    sent = write(Composer(now=now, lifetime=lifetime))
    for policy in policies:
        check_composed(policy, sent, now=now)
    mine, seen = frozenset({pen_id(pen)}), vetoable(found)
    # On a branch each asks for itself; who lacks most is named.
    lacks = [lacking(ways(p, sent), mine, policy=p, seen=seen, now=now) for p in policies]
    missing = next((e for e in lacks if e is not None), None)
    if missing is None and how.out is None and wait >= lifetime:
        raise PolicyDeniedError(
            f"signed like that it waits {span(wait)}, and vaults may take it for "
            f"{span(lifetime)} only: it would never take effect",
            "Have another signer of the owner sign it as well (--out FILE, placet sign FILE), "
            "or give it longer: --expires.",
        )
    return _Ready(sent=sent, found=possible, pen=pen, missing=missing, wait=wait)


def _wait(
    policy: KeyPolicy, sent: UntrustedStatement, pen: Pen, seen: frozenset[str], now: int
) -> int:
    """Return how long it would wait with this one signature, or at least, with more."""
    possible = ways(policy, sent)
    try:
        return wait_of(possible, without_young(policy, frozenset({pen_id(pen)}), now), seen=seen)
    except ApprovalError:
        return min(way.delay for way in possible)


def _circumstances(target: Target, found: Look, ready: _Ready) -> list[Fact]:
    """Return where a statement stands, who else signs it, and when it takes effect."""
    policy, statement = found.policy, ready.sent.statement
    if not isinstance(statement, Chained):
        raise TypeError("sent: has no place in a charter")
    needed = effective_at(statement, policy.vault_set)
    facts: list[Fact] = [
        ("stands on", f"version {policy.version}, head {short(policy.head)}"),
        ("effective", f"when {needed} of {policy.vault_set.n} vaults confirm"),
    ]
    if ready.missing is not None:
        facts.append(("must sign too", odd(ready.missing.detail)))
    if ready.wait:
        facts.append(
            (
                "waits",
                odd(
                    f"{span(ready.wait)}, until {when(clock.now() + ready.wait)} at the earliest; "
                    f"meanwhile {who_can_veto(policy.rules)} can say no: placet void "
                    f"{target.argument}"
                ),
            )
        )
    facts += [
        ("ends", odd(f"{titled(w.sent.statement).kind} {short(w.sent.digest)}, which waits"))
        for w in found.view.waiting
        if w.sent.digest != ready.sent.digest
    ]
    facts += young_facts(policy, clock.now())
    return [*facts, ("expires", until(statement))]


def _type_out(how: How) -> None:
    """Have a person type out what they are about to do.

    Raises:
        MalformedError: Nobody can be asked.
        PolicyDeniedError: Something else was typed.
    """
    typed = how.typed
    if typed is None and (how.yes or not sys.stdin.isatty()):
        raise MalformedError(
            "this is not done by --yes: it is typed out, word for word; nothing was signed",
            f"Run it on a terminal, or add --type-out {shlex.quote(plain(how.sentence or ''))}",
        )
    if typed is None:
        say(Text.assemble("To sign this, type: ", (plain(how.sentence or ""), "bold")))
        typed = click.prompt("", prompt_suffix="> ", err=True)
    if typed != how.sentence:
        raise PolicyDeniedError("that is not what was to be typed: nothing was signed")


def _check_undelivered(home: Home, target: Target, found: Look, how: How) -> None:
    """Refuse to sign a second statement in the place of one that may still arrive."""
    shown = {w.sent.digest for w in found.view.waiting}
    for path, earlier in home.outbox(target.key):
        dead = earlier.statement.expires_at <= clock.now()
        if dead or found.policy.knows(earlier.digest):
            path.unlink(missing_ok=True)
        elif getattr(earlier.statement, "prev", None) == found.policy.head:
            if how.urgent or earlier.digest in shown:
                continue  # It is to end here; or it waits in plain sight, and stops nobody.
            raise ConflictError(
                f"statement {short(earlier.digest)} ({words(earlier.digest)}) was signed here "
                "and no vault shows it yet; both on the same head would split the charter",
                f"Deliver it: placet key sync {target.argument}   or, if nobody else has it, "
                f"take it back: rm {shlex.quote(str(path))}",
            )
