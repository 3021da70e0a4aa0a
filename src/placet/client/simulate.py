"""Who could do what under a table of rules, asked before anything is signed. Pure.

No vault decides by this. It answers people: which smallest groups of signers suffice for an
act, how long that waits, who can say no, what is left when signers are lost, and what who
steals some could do. `placet.policy.authority` is what vaults decide by; a test compares
the two. What code an approved app runs, and how devices are kept, is **not** looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product
from typing import Literal

from placet.core.limits import MAX_LIFETIME, PAGE_DELAY
from placet.core.signer import Signer, Threshold, signer_id
from placet.core.table import Rules
from placet.policy.principal import alone_on_page, any_of, leaves, satisfied
from placet.policy.rules import ACTS

Deed = Literal[
    "promote",
    "retire",
    "update_policy",
    "rotate",
    "move",
    "delete",
    "co_signing",
    "vault_release",
    "recover",
    "auto_migrate",
]
THROUGH_VAULTS: tuple[Deed, ...] = ("update_policy", "vault_release", "move")
"""Acts that say which vaults, or which code of theirs, may hold shares."""
MOST = 12
"""Groups that are listed of one act, unless told otherwise; how many there are is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """One way to one act: principals that must all agree, and what it then waits for."""

    deed: Deed
    principals: tuple[Threshold, ...]
    owner: Threshold | None
    """The one that waits where it signed alone on a page of others."""
    delay: int = 0
    lifetime: int = MAX_LIFETIME
    veto: tuple[Signer, ...] = ()
    """Who can say no while it waits, each alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A group that suffices for an act; without any one of them it would not."""

    signers: tuple[Signer, ...]
    waits: int
    veto: tuple[Signer, ...]
    """Others, each of whom can say no while it waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The smallest groups that suffice for an act."""

    listed: tuple[Option, ...]
    total: int
    """How many there are; more than are listed, maybe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approach:
    """Acts, one after the other, at whose end signers let in code of their choice."""

    steps: tuple[Deed, ...]
    waits: int
    veto: tuple[Signer, ...]
    """Who can say no to the first step while it waits. To what follows nobody can for sure."""
    limits: Literal["none", "clause", "vaults"] = "none"
    """``clause``: only what the clause allows. ``vaults``: through vaults of their choice,
    k of which must be in place."""


def roads(rules: Rules) -> tuple[Road, ...]:
    """Return every way to every act under these rules; they passed `check_rules`."""
    nay = any_of(rules.owner, "veto").of
    veto = tuple(s for s in nay if not isinstance(s, Threshold))
    found = []
    for name in ACTS:
        act = getattr(rules.acts, name)
        both = (rules.owner, rules.managers) if act.managers else (rules.owner,)
        found.append(
            Road(
                deed=name,
                principals=tuple(p for p in both if p is not None),
                owner=rules.owner,
                lifetime=act.lifetime,
                veto=veto,
            )
        )
    if rules.managers is not None and any(len(r.principals) > 1 for r in found):
        # Who co-signs anything co-signs what would end that (spec/09, step 3.4).
        found.append(
            Road(
                deed="co_signing",
                principals=(rules.owner, rules.managers),
                owner=rules.owner,
                lifetime=min(r.lifetime for r in found),
                veto=veto,
            )
        )
    if rules.reviewers is not None:
        lifetime = rules.acts.update_policy.lifetime
        found.append(_others("vault_release", rules.reviewers, 0, veto, lifetime))
    if rules.guardians is not None:
        found.append(_others("recover", rules.guardians.principal, rules.guardians.delay, veto))
    if rules.auto_migrate is not None:
        clause, lifetime = rules.auto_migrate, rules.acts.promote.lifetime
        found.append(_others("auto_migrate", clause.signers, clause.delay, veto, lifetime))
    return tuple(found)


def options(road: Road, *, without: frozenset[str] = frozenset(), most: int = MOST) -> Options:
    """Return the smallest groups that suffice for an act.

    Args:
        road: Of `roads`; no signer is in two of its principals.
        without: Ids of signers that cannot sign.
        most: How many to list; the rest is only counted.
    """
    total, groups = 1, []
    for principal in road.principals:
        total *= _count(principal, without)
        groups.append(tuple(islice(_groups(principal, without), most)))
    # The first `most` of a product take at most `most` of each factor.
    joined = (tuple(s for part in chosen for s in part) for chosen in product(*groups))
    listed = tuple(_option(road, group, without) for group in islice(joined, most))
    return Options(listed=listed, total=total)


def alone(road: Road, have: frozenset[str]) -> Option | None:
    """Return the act as the holders of these signer ids do it, if they are enough."""
    if not all(satisfied(p, have) for p in road.principals):
        return None
    held = [s for p in road.principals for s in leaves(p) if signer_id(s) in have]
    return _option(road, tuple(held), have)


def approaches(rules: Rules, have: frozenset[str]) -> tuple[Approach, ...]:
    """Return how the holders of these signer ids alone could let code in, quickest first."""
    by = {road.deed: option for road in roads(rules) if (option := alone(road, have))}
    found = []
    if "promote" in by:
        found.append(_approach(("promote",), by["promote"]))
    elif "recover" in by and rules.guardians is not None and _managers_agree(rules, have):
        found.append(_approach(("recover", "promote"), by["recover"], rules.guardians.cooldown))
    if "auto_migrate" in by:
        found.append(_approach(("auto_migrate",), by["auto_migrate"], limits="clause"))
    found += [_approach((d,), by[d], limits="vaults") for d in THROUGH_VAULTS if d in by]
    return tuple(sorted(found, key=lambda a: (a.waits, a.limits, len(a.steps))))


def mend(rules: Rules, without: frozenset[str]) -> Road | None:
    """Return how signers that are gone are replaced, if they can be.

    The owner changes the rules, with the managers where they are to be replaced; or
    guardians put a new owner in place, who can.
    """
    by = {road.deed: road for road in roads(rules)}
    lost = {f for f, signers in members(rules).items() if without & set(map(signer_id, signers))}
    if lost & set(rules.immutable):
        return None
    update = by["update_policy"]
    if "managers" in lost and "co_signing" in by:
        # Guardians replace no manager: too many lost are lost for ever.
        update = by["co_signing"]
        if not _count(update.principals[1], without):
            return None
    if options(update, without=without).total:
        return update
    recover = by.get("recover")
    return recover if recover and options(recover, without=without).total else None


def principals(rules: Rules) -> dict[str, Threshold]:
    """Return the principals of a table, by field; one that is not there is left out."""
    found: dict[str, Threshold | None] = {
        "owner": rules.owner,
        "managers": rules.managers,
        "guardians": rules.guardians.principal if rules.guardians else None,
        "reviewers": rules.reviewers,
        "auto_migrate": rules.auto_migrate.signers if rules.auto_migrate else None,
    }
    return {field: who for field, who in found.items() if who is not None}


def members(rules: Rules) -> dict[str, tuple[Signer, ...]]:
    """Return everybody whom a table names, by field; a field that names nobody is left out."""
    found = {field: leaves(who) for field, who in principals(rules).items()}
    plain = (("stagers", rules.stagers), ("auditors", rules.auditors))
    return {**found, **{field: signers for field, signers in plain if signers}}


def _others(
    deed: Deed, who: Threshold, delay: int, veto: tuple[Signer, ...], lifetime: int = MAX_LIFETIME
) -> Road:
    return Road(deed=deed, principals=(who,), owner=None, delay=delay, lifetime=lifetime, veto=veto)


def _option(road: Road, group: tuple[Signer, ...], without: frozenset[str]) -> Option:
    ids = frozenset(map(signer_id, group))
    waits = max(road.delay, _page_wait(road.owner, ids))
    veto = tuple(s for s in road.veto if signer_id(s) not in ids | without)
    return Option(signers=group, waits=waits, veto=veto if waits else ())


def _approach(
    steps: tuple[Deed, ...],
    first: Option,
    then: int = 0,
    limits: Literal["none", "clause", "vaults"] = "none",
) -> Approach:
    return Approach(steps=steps, waits=first.waits + then, veto=first.veto, limits=limits)


def _page_wait(owner: Threshold | None, signed: frozenset[str]) -> int:
    return PAGE_DELAY if owner is not None and alone_on_page(owner, signed) else 0


def _managers_agree(rules: Rules, have: frozenset[str]) -> bool:
    """Return whether no manager beside these holders is asked where a new owner promotes."""
    managers = rules.managers if rules.acts.promote.managers else None
    return managers is None or satisfied(managers, have)


def _groups(part: Signer | Threshold, without: frozenset[str]) -> Iterator[tuple[Signer, ...]]:
    """Yield the smallest groups that satisfy a part; each once, since no signer is in it twice."""
    if not isinstance(part, Threshold):
        if signer_id(part) not in without:
            yield (part,)
        return
    able = [p for p in part.of if _count(p, without)]
    for chosen in combinations(able, part.threshold):
        yield from _joined(chosen, without)


def _joined(
    parts: Sequence[Signer | Threshold], without: frozenset[str]
) -> Iterator[tuple[Signer, ...]]:
    if not parts:
        yield ()
        return
    for first in _groups(parts[0], without):
        for rest in _joined(parts[1:], without):
            yield first + rest


def _count(part: Signer | Threshold, without: frozenset[str]) -> int:
    """Return how many smallest groups satisfy a part, without listing them."""
    if not isinstance(part, Threshold):
        return int(signer_id(part) not in without)
    # counts[j]: ways to satisfy exactly j of the parts so far, each in a smallest way.
    counts = [1] + [0] * part.threshold
    for each in part.of:
        ways = _count(each, without)
        for j in range(part.threshold, 0, -1):
            counts[j] += counts[j - 1] * ways
    return counts[part.threshold]
