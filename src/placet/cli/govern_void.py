"""``placet void`` and ``placet key delete``: the owner's no, and the end of a key."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from placet.cli.arguments import key_argument
from placet.cli.forward import named_code
from placet.cli.govern import decide, vetoable
from placet.cli.govern_view import Vetoable, show_vetoable, vetoables
from placet.cli.how import How, decides
from placet.cli.look import Look, look
from placet.cli.output import Fact, bad, odd, print_json, short, when
from placet.cli.reach import Target, clock
from placet.cli.settings import Home
from placet.client.constellation import Constellation
from placet.core.messages import CourierItem
from placet.errors import NotFoundError, PolicyDeniedError

_digest = re.compile(r"sha256:[0-9a-f]{64}")


@click.command()
@key_argument
@click.argument("statement", metavar="STATEMENT", required=False)
@click.option("--reason", help="For those who read the statement; needed to say no.")
@decides(key_file=True)
def void(
    *,
    name: str,
    statement: str | None,
    reason: str | None,
    how: How,
) -> int:
    r"""Say no to what waits, or to a recovery. Without STATEMENT: list what there is.

    One signer of the owner is enough, alone. The no uses up the key's version, so whatever
    else was signed for it is dead too. What took effect already is not undone by it.

    \b
    Examples:
      placet void notes/data
      placet void notes/data 4f2bb614 --reason "that was not me"
    """
    home = Home.find()
    target = Target.find(home, name)
    found = target.visit(lambda v: look(v, target.key), "asking")
    if statement is None:
        listed = vetoables(found)
        if how.as_json:
            print_json({"key": target.key, "label": target.known.label, "open": listed})
        else:
            show_vetoable(target, found, listed)
        return 0
    if not reason:
        raise click.UsageError("say why: --reason TEXT")
    found.decidable()
    digest = _chosen(home, target, found, statement)
    one = next((v for v in vetoables(found) if v.statement == digest), None)
    if one is not None and how.out is None:
        # Each vault lets one signer veto alone only what it sees waiting itself.
        found = target.visit(lambda v: _everywhere(v, target, digest), "showing it to all")
    how = how.about(f"No, for key {target.name}", urgent=True)
    facts = _facts(found, digest, one, reason)
    return decide(home, target, found, lambda c: c.void(found.policy, digest, reason), facts, how)


@click.command()
@key_argument
@click.option("--reason", default="no longer needed", show_default=True, help="For readers.")
@click.option("--type-out", metavar="LABEL", help="The key's label, as a terminal would ask.")
@decides()
def delete(
    *,
    name: str,
    reason: str,
    type_out: str | None,
    how: How,
) -> int:
    """Destroy a key: its data can never be read again. This cannot be undone.

    Every vault erases its share. Effective when n-k+1 vaults confirm: the others are too
    few to give the key back. A data key that was handed out before is not called back;
    only the end of the app that holds it does that.
    """
    home = Home.find()
    target = Target.find(home, name)
    found = target.visit(lambda v: look(v, target.key), "asking").decidable()
    shares = sum(1 for v in found.vaults if v.share)
    facts: list[Fact] = [
        ("destroys", bad(f"{found.policy.label}: nobody can read its data any more, ever")),
        ("shares", bad(f"{shares} of {len(found.vaults)} vaults hold one and erase it")),
        ("undone", bad("by nobody")),
        ("stays", "the key's charter and its label, as a tombstone"),
        ("reason", reason),
    ]
    how = how.about(f"Delete key {target.name}", sentence=found.policy.label, typed=type_out)
    return decide(home, target, found, lambda c: c.delete(found.policy, reason), facts, how)


def _chosen(home: Home, target: Target, found: Look, name: str) -> str:
    """Return the digest of what is said no to.

    Raises:
        PolicyDeniedError: It took effect already.
        NotFoundError: It is none that is known; a whole digest is taken at its word.
    """
    policy, open_ = found.policy, vetoable(found)
    undelivered = [
        s.digest
        for _, s in home.outbox(target.key)
        if getattr(s.statement, "prev", None) == policy.head
    ]
    known: Sequence[str] = [*open_, *undelivered, *policy.chain]
    try:
        digest = named_code(known, name, f"placet void {target.argument}")
    except NotFoundError:
        if not _digest.fullmatch(name):
            raise
        return name
    if digest in policy.chain and digest not in open_:
        raise PolicyDeniedError(
            f"statement {short(digest)} took effect: a no comes too late for it",
            f"Shut code out: placet retire {target.argument} CODE; change rules: placet key update",
        )
    return digest


async def _everywhere(vaults: Constellation, target: Target, digest: str) -> Look:
    """Show what waits to the vaults that lack it. Where its time has come it is *not* brought."""
    await vaults.courier(target.key)
    found = await look(vaults, target.key)
    waiting = next((w for w in found.view.waiting if w.sent.digest == digest), None)
    lack = [v.vault for v in found.vaults if waiting and v.vault not in waiting.until]
    if waiting is None or not lack:
        return found
    run = (CourierItem(signed=waiting.sent.signed(), receipts=()),)
    await vaults.fan_out(lambda v: v.take(run), only=lack)
    return await look(vaults, target.key)


def _facts(found: Look, digest: str, one: Vetoable | None, reason: str) -> list[Fact]:
    facts: list[Fact] = [("says no to", bad(digest))]
    if one is None:
        facts.append(("", odd("no vault shows it: the whole owner must sign this")))
    else:
        facts += [("  what", one.type), ("  about", one.about)]
        facts.append(("  takes effect", odd(when(one.until) if one.until else "not known")))
        late = one.until is not None and one.until <= clock.now()
        if late:
            facts.append(("", bad("its time has come: whoever brings it first wins")))
    others = [v for v in vetoables(found) if v.statement != digest]
    if any(v.kind == "recovery" for v in others):
        facts.append(("stays open", odd("a recovery: a no of its own ends it")))
    return [*facts, ("reason", reason)]
