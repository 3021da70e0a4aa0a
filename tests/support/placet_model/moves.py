"""What owners, guardians, builders and couriers may do next, by whoever picks.

`Pick` is hypothesis where a failing history is to be made small, and seeded randomness where
there are to be very many. Most moves are what somebody may do; some are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from placet_model import cast, oracle
from placet_model.oracle import History, Table
from placet_model.world import World

Pick = Callable[[Sequence[Any]], Any]
RARELY = (False,) * 7 + (True,)
OTHERS = (
    {"page"}, {"spare"}, {"new"}, {"heir"}, {"m1", "m2"}, {"g1", "g2"}, {"platform"},
    {"owner", "m1"},
)  # fmt: skip


def place(world: World, pick: Pick) -> History:
    """Return what somebody takes for the charter: of some vault, now or a little before."""
    pasts = [o.past for o in world.oracles if o.past]
    past: History = pick(pasts)
    back = pick((0, 0, 0, 0, 1, 2))
    return past[: max(1, len(past) - back)]


def whoever(past: History, kind: str, pick: Pick) -> set[str]:
    """Return who signs: mostly people who may."""
    if pick(RARELY):
        return set(pick(OTHERS))
    table = oracle.table(past)
    opened = oracle.recovery(past)
    if kind == "auto":
        return {"platform"}
    if kind == "intent":
        return set(pick(({"g1", "g2"}, {"g2", "g3"}, {"g1"})))
    owner = opened[0].owner if kind == "completion" and opened else table.owner
    assert owner
    names = sorted(owner.who - oracle.young(past).keys()) or sorted(owner.who)
    first = pick(range(len(names)))
    by = {(names + names)[first + i] for i in range(min(owner.need, len(names)))}
    if table.cosigned & {kind} or (table.cosigned and kind in ("merge", "update")):
        by |= {"m1", "m3"}
    return by


def promote(world: World, pick: Pick, past: History | None = None) -> str:
    """Have a version promoted."""
    past = past or place(world, pick)
    code, sv = pick(cast.CODES), pick((1, 1, 1, 2))
    earlier = pick(("keep", "keep", "retire", "retire-at"))
    body = {
        "code": code,
        "sv": sv,
        "earlier": earlier,
        "retire_at": world.time + pick((-1, cast.DAY)) if earlier == "retire-at" else None,
        "unretire": (code in oracle.tombs(past)) is not pick(RARELY),
        "floor": pick((oracle.floor(past),) * 6 + (0, 1, 2)),
    }
    return world.say(past, "promote", whoever(past, "promote", pick), **body)


def auto(world: World, pick: Pick) -> str:
    """Have the builders use the clause in force; where there is none, have the owner set one."""
    past = place(world, pick)
    clause = oracle.table(past).clause
    if clause is None and not pick(RARELY):
        table = oracle.table(past)._replace(clause=cast.CLAUSE)
        return world.say(past, "update", whoever(past, "update", pick), table=table)
    highest = max((sv for sv, end in oracle.approved(past).values() if end is None), default=1)
    tombs = oracle.tombs(past)
    body = {
        "code": pick([c for c in cast.CODES[:-1] if c not in tombs] or [1]),
        "sv": highest + pick((0, 1, 1)),
        "earlier": "keep",
        "floor": oracle.floor(past),
        "auto": clause or cast.CLAUSE,
        "unretire": False,
    }
    if pick((False, False, True)):  # beyond one of the limits
        name, wrong = pick(
            (("code", 90), ("sv", highest + 2), ("earlier", "retire"), ("unretire", True))
        )
        body[name] = wrong
    return world.say(past, "promote", whoever(past, "auto", pick), **body)


def retire(world: World, pick: Pick) -> str:
    """Have a version retired."""
    past = place(world, pick)
    code = pick(sorted(oracle.approved(past)) or [1])
    return world.say(past, "retire", whoever(past, "retire", pick), code=code)


def update(world: World, pick: Pick) -> str:
    """Have the rules changed."""
    past = place(world, pick)
    change = pick(sorted(CHANGES))
    table = CHANGES[change](oracle.table(past))
    return world.say(past, "update", whoever(past, "update", pick), table=table)


def _owner(table: Table, *, add: str = "", drop: str = "") -> Table:
    who = table.owner.who | ({add} if add else set()) - ({drop} if drop else set())
    who -= {drop}
    if len(who) < table.owner.need or who <= {"page"}:
        return table
    return table._replace(owner=table.owner._replace(who=who))


CHANGES: dict[str, Callable[[Table], Table]] = {
    "add a signer": lambda t: _owner(t, add="new"),
    "swap a signer": lambda t: _owner(t, add="new", drop="spare"),
    "drop a signer": lambda t: _owner(t, drop="owner"),
    "drop the new one": lambda t: _owner(t, drop="new"),
    "co-sign promotes": lambda t: t._replace(cosigned=t.cosigned ^ {"promote"}),
    "co-sign the rest": lambda t: t._replace(cosigned=t.cosigned ^ {"retire", "update"}),
    "set the clause": lambda t: t._replace(clause=cast.CLAUSE),
    "set another clause": lambda t: t._replace(clause=cast.CLAUSE._replace(budget=1)),
    "clause and more": lambda t: t._replace(clause=cast.CLAUSE, cooldown=t.cooldown + 1),
    "end the clause": lambda t: t._replace(clause=None),
    "longer cool-down": lambda t: t._replace(cooldown=t.cooldown + 3600),
    "shorter cool-down": lambda t: t._replace(cooldown=0),
    "fix the managers": lambda t: t._replace(fixed=t.fixed | {"managers"}),
    "other managers": lambda t: t._replace(managers=t.managers._replace(need=1)),
    "nothing": lambda t: t,
}


def void(world: World, pick: Pick) -> str:
    """Have somebody say no: to what waits, to a recovery, or to nothing much."""
    past = place(world, pick)
    names = [d for o in world.oracles for d in o.waiting]
    opened = oracle.recovery(past)
    names += [opened[0].id] if opened else []
    target = pick((names or [past[-1].said.id]) + [list(world.saids)[-1]])
    by = {pick(("owner", "spare", "page"))} if pick((True, True, False)) else None
    return world.say(past, "void", by or whoever(past, "void", pick), names=target)


def recover(world: World, pick: Pick) -> str:
    """Have guardians put forward a new owner, or that one take over."""
    past = place(world, pick)
    opened = oracle.recovery(past)
    if opened and pick((True, True, False)):
        by = whoever(past, "completion", pick)
        return world.say(past, "recover", by, names=opened[0].id)
    owner = pick(
        (cast.group(1, "heir"), cast.group(1, "heir", "page"), cast.group(1, "owner", "heir"))
    )
    return world.say(past, "recover", whoever(past, "intent", pick), owner=owner)


def merge(world: World, pick: Pick) -> str | None:
    """Have the owner end a fork; sometimes forgetting something."""
    pasts = {o.past[-1].said.id: o.past for o in world.oracles if o.past}
    if len(pasts) < 2:
        return None
    heads = sorted(pasts)
    if not pick(RARELY):  # who lags is on no branch of his own
        heads = [h for h in heads if not any(h in oracle.known(pasts[o]) for o in heads if o != h)]
        if len(heads) < 2:
            return None
    some = [pasts[h] for h in heads if h == heads[0] or pick((True, True, False))]
    some = some if len(some) > 1 else [pasts[h] for h in heads]
    longest = max(some, key=lambda p: (oracle.version(p), p[-1].said.id))
    tombs = frozenset[int]().union(*map(oracle.tombs, some))
    floor = max(map(oracle.floor, some))
    lets_in: dict[int, tuple[int, int | None]] = {}
    for past in some:
        for code, (sv, end) in oracle.approved(past).items():
            if sv >= floor and not (end is None and code in tombs):
                lets_in.setdefault(code, (sv, end))
    if pick(RARELY):
        tombs -= {pick(cast.CODES)}
    if pick(RARELY):
        lets_in[pick(cast.CODES)] = (1, None)
    table, tables = oracle.table(longest), [oracle.table(p) for p in some]
    if not pick(RARELY):  # a branch takes no clause that it has not, and no shorter cool-down
        same = all(t.clause == table.clause for t in tables)
        table = table._replace(
            clause=table.clause if same else None, cooldown=max(t.cooldown for t in tables)
        )
    by = set().union(*(whoever(p, "merge", pick) for p in some))
    return world.say(
        longest,
        "merge",
        by,
        heads=frozenset(p[-1].said.id for p in some),
        table=table,
        lets_in=lets_in,
        floor=floor,
        tombs=tombs,
    )


def delete(world: World, pick: Pick) -> str:
    """Have the owner destroy the key, or name another one's label."""
    past = place(world, pick)
    return world.say(past, "delete", whoever(past, "delete", pick), label=pick((True, False)))


def path(world: World, digest: str) -> list[str]:
    """Return a statement and what it stands on, from the birth on."""
    found: list[str] = []
    at: str | None = digest
    while at is not None:
        found.insert(0, at)
        at = world.saids[at].prev
    return found


def catch_up(world: World, source: int, target: int) -> list[str]:
    """Return what a courier would bring one vault of another's charter."""
    chain, mine = list(world.chain(source)), world.chain(target)
    if mine and mine[-1] not in chain:
        for i, digest in enumerate(chain):
            if mine[-1] in world.saids[digest].heads:
                return chain[i:]
    return chain


def be_patient(world: World, seconds: int) -> None:
    """Let time pass, and bring what waits somewhere to where it waits again."""
    world.time += seconds
    for at, vault in enumerate(world.oracles):
        for digest in list(vault.waiting):
            world.bring(at, [digest])


KINDS: tuple[Callable[[World, Pick], str | None], ...] = (
    promote, promote, retire, update, update, void, recover, recover, auto, auto, merge,
)  # fmt: skip
"""What is said, as often as it stands here."""
