"""``placet recover``: guardians put a new owner in place, after a delay, unless the old says no."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from placet.cli.arguments import FILE, key_argument, span
from placet.cli.files import read_json
from placet.cli.govern import decide
from placet.cli.govern_ways import who_can_veto
from placet.cli.how import How, decides, reason_option
from placet.cli.look import Look, look
from placet.cli.output import (
    DONE,
    Fact,
    answer,
    bad,
    good,
    hint,
    json_option,
    odd,
    plain,
    print_json,
    reported,
    short,
    show_facts,
    when,
)
from placet.cli.policy_words import Names, kind
from placet.cli.reach import Target, clock
from placet.cli.settings import Home
from placet.client.signing import DAY
from placet.core.signer import Signer, Threshold, owner_fingerprint, signer_id
from placet.errors import ApprovalWaitingError, MalformedError, PolicyDeniedError
from placet.policy.key_policy import KeyPolicy, Recovery
from placet.policy.principal import check_principal, leaves

WEEK = 7 * DAY


@click.group()
def recover() -> None:
    """Put a new owner in place of one who lost every signer.

    The guardians that the policy names sign an intent. From then on a delay runs, in which
    any signer of the old owner says no by placet void. After it the new owner completes.
    That changes who owns, never what runs: nothing can be let in during the cool-down that
    follows.
    """


@recover.command()
@key_argument
@click.option(
    "--new-owner",
    "files",
    type=FILE,
    multiple=True,
    required=True,
    metavar="FILE",
    help="Public signer of the new owner (JSON of their `placet owner show`); repeatable.",
)
@click.option(
    "--threshold", type=int, default=1, show_default=True, help="How many of them must sign."
)
@reason_option
@decides(key_file=True)
def start(
    *,
    name: str,
    files: tuple[Path, ...],
    threshold: int,
    reason: str,
    how: How,
) -> int:
    r"""Sign, as a guardian, that a new owner shall be put in place.

    The statement is written to a file until enough guardians signed it: each adds a
    signature by placet sign FILE, and anyone delivers it. Ask the new owner for the six
    words by voice: whoever can exchange these files could become the owner.

    \b
    Example:
      placet recover start notes/data --new-owner phone.json --reason "both keys burnt"
    """
    home = Home.find()
    target = Target.find(home, name)
    found = target.visit(lambda v: look(v, target.key), "asking").decidable()
    owner = _owner(files, threshold)
    # Guardians are asked one after the other.
    how = how.about(f"Recovery of key {target.name}", usual=WEEK)
    return decide(
        home,
        target,
        found,
        lambda c: c.recover(found.policy, owner, reason),
        _start_facts(found.policy, owner, reason),
        how,
    )


@recover.command("show")
@key_argument
@json_option
@reported
def show_recovery(*, name: str, as_json: bool) -> int:
    """Show whether a recovery is open, until when the old owner can say no, and who guards."""
    target = Target.find(Home.find(), name)
    found = target.visit(lambda v: look(v, target.key), "asking")
    if as_json:
        print_json(_document(target, found))
        return DONE
    policy, recovery = found.policy, found.policy.recovery
    answer(f"Recovery of {target.name}")
    show_facts([*_guard_facts(policy), *_open_facts(policy)])
    if recovery is not None and clock.now() < recovery.ready:
        hint(f'placet void {target.argument} {short(recovery.intent)} --reason "why"   (to say no)')
    elif recovery is not None:
        hint(f"placet recover complete {target.argument}   (the new owner)")
    return DONE


@recover.command()
@key_argument
@click.option("--reason", default="recovery", show_default=True, help="For readers.")
@decides(key_file=True)
def complete(
    *,
    name: str,
    reason: str,
    how: How,
) -> int:
    """Become the owner, as the new one, once the guardians' delay is over.

    Before that nothing is signed, and the exit code is 5. Afterwards the new owner can
    retire and say no at once, and let code in only after the cool-down.
    """
    home = Home.find()
    target = Target.find(home, name)
    found = target.visit(lambda v: look(v, target.key), "asking").decidable()
    policy = found.policy
    recovery = _open(policy, target)
    if clock.now() < recovery.ready:
        raise ApprovalWaitingError(
            f"the recovery of {target.name} can be completed from {when(recovery.ready)} on; "
            f"until then {who_can_veto(policy.rules)} can say no",
            f"Run it again then: placet recover complete {target.argument}",
            statement=recovery.intent,
            until=recovery.ready,
        )
    how = how.about(f"New owner of key {target.name}")
    return decide(
        home,
        target,
        found,
        lambda c: c.complete(policy, recovery.intent, reason),
        _complete_facts(policy, recovery),
        how,
    )


def _owner(files: Sequence[Path], threshold: int) -> Threshold:
    """Return the principal of these signers; or the one that a single file holds.

    Raises:
        NotFoundError, MalformedError, UnrepairableError: A file is no signer, or all of
            them together are no owner.
    """
    parts = [_part(f) for f in files]
    whole = [p for p in parts if isinstance(p, Threshold)]
    if whole and len(parts) > 1:
        raise MalformedError("a file with a whole owner stands alone", "Name signers, or that.")
    owner = whole[0] if whole else Threshold(label="owner", threshold=threshold, of=tuple(parts))
    check_principal(owner)
    return owner


def _part(file: Path) -> Signer | Threshold:
    found: Signer | Threshold = read_json(file, Signer | Threshold, "signer")  # type: ignore[arg-type] # a union
    return found


def _start_facts(policy: KeyPolicy, owner: Threshold, reason: str) -> list[Fact]:
    guardians = policy.rules.guardians
    facts: list[Fact] = [
        ("new owner", bad(Names.of(policy.rules).who(owner))),
        *_keys(owner),
        ("instead of", Names.of(policy.rules).who(policy.owner)),
    ]
    if guardians is not None:
        facts += [
            ("delay", odd(f"{span(guardians.delay)} from when vaults take it")),
            ("can say no", f"{who_can_veto(policy.rules)}, each alone, until it is completed"),
            ("then", f"{span(guardians.cooldown)} in which nothing is let in"),
        ]
    return [*facts, ("reason", reason)]


def _keys(owner: Threshold) -> list[Fact]:
    """Return the keys of an owner: whoever asks to be called like the old one can be."""
    keys: list[Fact] = [
        (f"  {plain(s.label)}", f"{kind(s)}, {signer_id(s)}") for s in leaves(owner)
    ]
    return [*keys, ("  fingerprint", owner_fingerprint(owner))]


def _complete_facts(policy: KeyPolicy, recovery: Recovery) -> list[Fact]:
    guardians = policy.rules.guardians
    cooldown = guardians.cooldown if guardians else 0
    return [
        ("new owner", Names.of(policy.rules).who(recovery.owner)),
        *_keys(recovery.owner),
        ("instead of", Names.of(policy.rules).who(policy.owner)),
        ("completes", recovery.intent),
        ("lets in", f"nothing, for {span(cooldown)}; what is approved stays"),
        ("app's config", "goes on naming the owner at birth: no app is rebuilt"),
    ]


def _guard_facts(policy: KeyPolicy) -> list[Fact]:
    guardians, names = policy.rules.guardians, Names.of(policy.rules)
    owner: Fact = ("owner", names.who(policy.owner))
    if guardians is None:
        return [owner, ("guardians", odd("nobody: this key cannot be recovered"))]
    return [
        owner,
        ("guardians", names.who(guardians.principal)),
        ("delay", f"{span(guardians.delay)}, then {span(guardians.cooldown)} without promotes"),
    ]


def _open_facts(policy: KeyPolicy) -> list[Fact]:
    recovery, now = policy.recovery, clock.now()
    if recovery is None:
        facts: list[Fact] = [("open", good("no"))]
        if now < policy.promote_from:
            facts.append(("cool-down", odd(f"nothing is let in until {when(policy.promote_from)}")))
        return facts
    return [
        ("open", bad(f"yes, {recovery.intent}")),
        ("  new owner", bad(Names.of(policy.rules).who(recovery.owner))),
        *_keys(recovery.owner),
        ("  since", when(recovery.since)),
        ("  from", odd(f"{when(recovery.ready)} on it can be completed")),
        ("  can say no", f"{who_can_veto(policy.rules)}, each alone, until it is completed"),
    ]


def _document(target: Target, found: Look) -> dict[str, object]:
    policy = found.policy
    recovery, guardians = policy.recovery, policy.rules.guardians
    return {
        "key": target.key,
        "label": policy.label,
        "guardians": guardians,
        "open": recovery is not None,
        "intent": recovery.intent if recovery else None,
        "new_owner": recovery.owner if recovery else None,
        "since": recovery.since if recovery else None,
        "ready": recovery.ready if recovery else None,
        "promote_from": policy.promote_from or None,
    }


def _open(policy: KeyPolicy, target: Target) -> Recovery:
    if policy.recovery is None:
        raise PolicyDeniedError(
            f"no recovery of {target.name} is open: it was vetoed, completed or never taken",
            f"See: placet recover show {target.argument}",
            reason="no-recovery",
        )
    return policy.recovery
