"""What a vault must answer to a run of statements: the oracle's second half (`oracle`).

Written from spec/03, section 3, and spec/09, section 3; it shares no code with placet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from placet_model.oracle import (
    PAGE_DELAY,
    ROWS,
    SKEW,
    Bundle,
    Elsewhere,
    Group,
    History,
    Link,
    Refused,
    Said,
    Waits,
    approved,
    covering,
    deleted,
    floor,
    known,
    recovery,
    rest_ends,
    table,
    tombs,
    uses,
    version,
    young,
)

PAGE = frozenset({"page"})
"""Signers whose one screen is served by others."""


@dataclass(frozen=True)
class Vault:
    """What one vault remembers of a key."""

    past: History = ()
    waiting: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """By digest: on which head a statement waits, and since when."""


def deliver(vault: Vault, run: Sequence[Bundle], *, now: int, k: int, me: int) -> Vault:
    """Return a vault after it was brought a run.

    Raises:
        Refused: It says no. A `Waits` holds in ``args[1]`` what it remembers all the same.
    """
    try:
        return _extend(vault, run, now, k, me)
    except Waits as wait:
        before = _until(vault, run, wait.said)
        if before:
            vault = _extend(vault, before, now, k, me)
        if wait.delay:
            head = vault.past[-1].said.id
            kept = {d: w for d, w in vault.waiting.items() if w[0] == head}
            kept.setdefault(wait.said.id, (head, now))
            vault = replace(vault, waiting=kept)
        wait.args = (wait.said.id, vault)
        raise
    except Elsewhere:
        try:
            return _change(vault, run, now, k, me)
        except Waits as wait:
            wait.args = (wait.said.id, vault)  # all of another branch, or none
            raise


def _fresh(vault: Vault, run: Sequence[Bundle]) -> Sequence[Bundle]:
    seen = known(vault.past)
    last = max((i for i, (said, _) in enumerate(run) if said.id in seen), default=-1)
    return run[last + 1 :]


def _until(vault: Vault, run: Sequence[Bundle], said: Said) -> Sequence[Bundle]:
    fresh = _fresh(vault, run)
    return fresh[: [x.id for x, _ in fresh].index(said.id)]


def _extend(vault: Vault, run: Sequence[Bundle], now: int, k: int, me: int) -> Vault:
    past = vault.past
    steps: list[tuple[History, Said, bool, frozenset[str], int]] = []
    waits = {d: at for d, (head, at) in vault.waiting.items() if past and head == past[-1].said.id}
    for said, times in _fresh(vault, run):
        backed = len(times) >= k
        _in_place(past, said)
        # What strangers to a statement signed is passed over, for its ancestors too.
        signed = said.signed & _asked(past, said)
        signed -= frozenset() if backed else _too_young(past, now)
        wait = _wait(past, said, signed, veto=backed or said.names in waits)
        _fits(past, said)
        at = min(now, max(times.values())) if backed else now
        steps.append((past, said, backed, signed, wait))
        past = (*past, Link(said, at, frozenset(times) | {me}))
    for i, (before, said, backed, _, _) in enumerate(steps):
        if not (
            backed
            or said.issued - SKEW <= now < said.ends
            or _excused(before, said, steps[i + 1 :])
        ):
            raise Refused("too late")
    for before, said, backed, _, wait in steps:
        if not backed:
            _passed(before, said, wait, waits, now)
    if not past:
        raise Refused("nothing")
    return replace(vault, past=past)


def _change(vault: Vault, run: Sequence[Bundle], now: int, k: int, me: int) -> Vault:
    """3.7: k vaults took something of another branch, and not k anything of the one here."""
    mine, fresh = [x.said.id for x in vault.past], _fresh(vault, run)
    if not fresh:
        raise Refused("nothing new")
    new = fresh
    if not set(mine[:-1]) & _under(fresh[0][0]):  # on what a merge here ended: from before that
        new = run[max((i + 1 for i, (x, _) in enumerate(run) if x.id in mine), default=0) :]
    spots = [i + 1 for i, d in enumerate(mine[:-1]) if d in _under(new[0][0])]
    if not spots:
        raise Refused("leaves nowhere")
    against = [i for i, x in enumerate(vault.past) if _under(x.said) & _under(fresh[0][0])]
    if not against or all(len(times) < k for _, times in fresh):
        raise Refused("no winner")
    if any(len(x.vouched) >= k for x in vault.past[against[0] :]):
        raise Refused("no loser")
    stays, goes = vault.past[: spots[-1]], vault.past[spots[-1] :]
    shown = {x.said.id for x in stays} | {x.id for x, _ in new}
    if any(x.said.kind == "merge" and not x.said.heads & shown for x in goes):
        raise Refused("what a merge ended is no branch")
    return replace(vault, past=_extend(Vault(stays), new, now, k, me).past)


def _under(said: Said) -> frozenset[str | None]:
    """Return what a statement may stand on."""
    return frozenset(said.heads) if said.kind == "merge" else frozenset({said.prev}) - {None}


def _excused(
    before: History, said: Said, later: Sequence[tuple[History, Said, bool, frozenset[str], int]]
) -> bool:
    """3.5 (c): who signed a later one could have signed this one, without waiting."""
    for _, _, _, signed, _ in later:
        try:
            if _wait(before, said, signed, veto=True) == 0:
                return True
        except Refused:
            continue
    return False


def _too_young(past: History, now: int) -> frozenset[str]:
    return frozenset(s for s, until in young(past).items() if now < until) if past else frozenset()


def _in_place(past: History, said: Said) -> None:
    """3.2: it stands on the head."""
    if not past:
        if said.kind != "birth":
            raise Refused("ancestors are missing")
        return
    head, at = past[-1].said.id, version(past)
    if said.kind == "merge":
        if said.prev not in said.heads:
            raise Refused("malformed")
        fits = head in said.heads and at <= said.base
    else:
        fits = said.prev == head and said.base == at
    if not fits:
        ahead = said.base > at and (said.kind == "merge" or said.prev != head)
        raise Refused("ancestors are missing") if ahead else Elsewhere("another one")


def _rows(past: History, said: Said) -> frozenset[str]:
    """3.4: the rows that a statement falls under."""
    if said.kind == "merge":
        return ROWS
    if said.kind == "update" and said.table:
        old, new = table(past), said.table
        grants = new.clause is not None and new.clause != old.clause
        if grants or (new.managers, new.cosigned) != (old.managers, old.cosigned):
            return ROWS
    return frozenset({said.kind})


def _wait(past: History, said: Said, signed: frozenset[str], *, veto: bool) -> int:
    """3.1 to 3.5: enough people signed; return how long it waits."""
    if not past:
        assert said.table
        return _by(said.table.owner, signed)
    rules, opened = table(past), recovery(past)
    if said.kind == "promote" and said.auto is not None:
        if said.auto != rules.clause:
            raise Refused("no such clause")
        if not rules.clause.signers.agrees(signed):
            raise Refused("clause's signers")
        return rules.clause.delay
    if said.kind == "recover" and said.owner is not None:
        if not rules.guardians.agrees(signed):
            raise Refused("guardians")
        return 0
    if said.kind == "recover":
        if opened is None or opened[0].id != said.names or opened[0].owner is None:
            raise Refused("no recovery")
        return _by(opened[0].owner, signed)
    if said.kind == "void" and (veto or (opened and opened[0].id == said.names)):
        if rules.owner.who & signed:
            return 0
        raise Refused("no owner signer")
    wait = _by(rules.owner, signed)
    if _rows(past, said) & rules.cosigned and not rules.managers.agrees(signed):
        raise Refused("managers")
    return wait


def _asked(past: History, said: Said) -> frozenset[str]:
    """Return everybody whose signature of a statement may count."""
    if not past:
        return said.table.owner.who if said.table else frozenset()
    rules, opened = table(past), recovery(past)
    if said.auto is not None:
        return rules.clause.signers.who if rules.clause else frozenset()
    if said.kind == "recover" and said.owner is not None:
        return rules.guardians.who
    if said.kind == "recover":
        return opened[0].owner.who if opened and opened[0].owner else frozenset()
    co_sign = _rows(past, said) & rules.cosigned
    return rules.owner.who | (rules.managers.who if co_sign else frozenset())


def _by(owner: Group, signed: frozenset[str]) -> int:
    if not owner.agrees(signed):
        raise Refused("owner")
    return PAGE_DELAY if owner.who & signed <= PAGE else 0


def _passed(past: History, said: Said, wait: int, waits: Mapping[str, int], now: int) -> None:
    """3.6: everything has passed that must, by this vault's clock."""
    if not past:
        if wait:
            raise Refused("a birth cannot wait")
        return
    rules, opened = table(past), recovery(past)
    if said.auto is not None and now >= said.auto.ends:
        raise Refused("clause ended")
    if now < rest_ends(past) and said.kind not in ("retire", "void", "recover"):
        clause = said.table.clause if said.table else None
        if said.kind != "update" or (clause is not None and clause != rules.clause):
            raise Refused("cool-down of a recovery")
    if said.kind == "recover" and said.owner is None and opened and now < opened[1]:
        raise Waits(said, 0)
    if said.kind == "update" and said.table and said.table.owner != rules.owner:
        old = rules.owner.who - _too_young(past, now)
        if not said.table.owner.agrees(old):
            raise Refused("leaves nobody who counts")
    if wait and (said.id not in waits or now < waits[said.id] + wait):
        raise Waits(said, wait)


# --- the rules of each type (spec/03 section 4, spec/09 section 4) --------------------------


def _fits(past: History, said: Said) -> None:
    if past and deleted(past):
        raise Refused("key is deleted")
    if past and said.kind == "birth":
        raise Elsewhere("born once")
    _rules.get(said.kind, lambda *_: None)(past, said)


def _promote(past: History, said: Said) -> None:
    if said.auto is not None:
        _use(past, said)
    if said.floor < floor(past) or said.sv < said.floor:
        raise Refused("floor")
    if (said.code in tombs(past)) is not said.unretire:
        raise Refused("unretire")


def _use(past: History, said: Said) -> None:
    clause = table(past).clause
    if clause is None or said.auto != clause or uses(past) >= clause.budget:
        raise Refused("clause")
    if said.earlier != "keep" or said.unretire or said.floor != floor(past):
        raise Refused("only lets in")
    if not any(
        end is None and 0 <= said.sv - sv <= clause.step and foreign(code) == foreign(said.code)
        for code, (sv, end) in approved(past).items()
    ):
        raise Refused("differs too much")


def foreign(code: int) -> bool:
    """Return whether a code is of another app, which no clause may bring in."""
    return code >= 90


def _retire(past: History, said: Said) -> None:
    if covering(past, said.code) is None:
        raise Refused("not approved")


def _update(past: History, said: Said) -> None:
    old, new = table(past), said.table
    if new is None or new == old:
        raise Refused("changes nothing")
    _follows(past, said)


def _follows(past: History, said: Said) -> None:
    """2.5 to 2.7: one table after another."""
    old, new = table(past), said.table
    assert new
    if any(getattr(old, f) != getattr(new, f) for f in old.fixed) or not old.fixed <= new.fixed:
        raise Refused("fixed for life")
    if new.cooldown < old.cooldown:
        raise Refused("cool-down falls")
    grants = new.clause is not None and new.clause != old.clause
    if grants and new._replace(clause=None) != old._replace(clause=None):
        raise Refused("clause is not alone")


def _recover(past: History, said: Said) -> None:
    if said.owner is not None and recovery(past):
        raise Refused("one at a time")


def _merge(past: History, said: Said) -> None:
    if not tombs(past) <= said.tombs or said.floor < floor(past):
        raise Refused("forgets")
    assert said.table
    if said.table.clause is not None and said.table.clause != table(past).clause:
        raise Refused("sets a clause")
    for code, (sv, end) in said.lets_in.items():
        if sv < said.floor or (code in said.tombs and end is None):
            raise Refused("lets in what was shut out")
    _follows(past, said)


def _delete(_: History, said: Said) -> None:
    if not said.label:
        raise Refused("label")


_rules: dict[str, Callable[[History, Said], None]] = {
    "promote": _promote,
    "retire": _retire,
    "update": _update,
    "recover": _recover,
    "merge": _merge,
    "delete": _delete,
}
