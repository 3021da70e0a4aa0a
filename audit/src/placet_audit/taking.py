"""Was a statement rightly taken, at that vault, at that time? (spec/03 and 09, section 3).

The numbers are those of spec/03.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from placet_audit.canonical import Json, open_signed
from placet_audit.keys import unsigned, verify
from placet_audit.policy import (
    Policy,
    acts_for,
    clause_of,
    follow,
    guardians_of,
    open_recovery,
)
from placet_audit.principals import (
    alone_on_page,
    check_principal,
    denied,
    full,
    ids,
    leaves,
    satisfied,
    signer_id,
)
from placet_audit.problems import Refused
from placet_audit.shapes import SIGNED, TAKEN
from placet_audit.statement import Statement
from placet_audit.tokens import verify_token

SKEW = 600
"""Seconds by which an owner's clock may be ahead of a vault's."""
PAGE_DELAY = 86400


@dataclass(frozen=True, slots=True)
class Way:
    """Principals that together may approve a statement, and how long it then waits."""

    principals: tuple[Json, ...]
    owner: Json | None = None
    """The one that waits a day where it signed alone on a page of others."""
    delay: int = 0
    names: str | None = None
    """It is a way only where the statement of this digest waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A statement that this vault took, and what justified that."""

    statement: Statement
    signed: frozenset[str]
    """Ids of those who signed and counted."""
    signers: tuple[Json, ...]
    ends: int
    """From when on it was dead: its end, or that of a token that signs it."""
    wait: int
    vouchers: Mapping[str, int]
    """Vaults that signed that they took it, and when."""
    k: int
    at: int
    """From when on delays count that it begins."""
    tokens: tuple[str, ...]

    @property
    def vouched(self) -> bool:
        """Return whether k vaults took it, by their own clocks."""
        return len(self.vouchers) >= self.k


def vouchers(vault_set: Json, statement: Statement, receipts: Sequence[Json]) -> dict[str, int]:
    """Return which vaults of a set signed that they took this statement, and when."""
    found: dict[str, int] = {}
    for receipt in receipts:
        for vault in vault_set["vaults"]:
            try:
                SIGNED(receipt)
                said = open_signed(receipt, "taken", vault["id"], "log-not-signed")
                TAKEN(said)
            except Refused:
                continue
            about = (said["vault"], said["key"], said["statement"])
            if about == (vault["id"], statement.key, statement.digest):
                found.setdefault(vault["id"], said["time"])
    return found


def ways(policy: Policy | None, statement: Statement) -> list[Way]:
    """Return every way in which a statement may be approved (spec/09, section 3)."""
    body = statement.body
    if policy is None:
        owner = body["policy"]["owner"]
        check_principal(owner)
        return [Way((owner,), owner)]
    rules = policy.rules
    if statement.type == "promote" and "auto" in body:
        clause = clause_of(policy, body["auto"])
        return [Way((clause["signers"],), delay=clause["delay"])]
    if statement.type == "recover":
        if body["owner"] is not None:
            return [Way((guardians_of(policy)["principal"],))]
        owner = open_recovery(policy, body["intent"]).owner
        return [Way((owner,), owner)]
    managers = any(row["managers"] for row in acts_for(policy, statement)) and rules["managers"]
    owner = rules["owner"]
    found = [Way((owner, managers) if managers else (owner,), owner)]
    if statement.type == "void":
        own = [s for s in leaves(owner) if s["kind"] != "oidc"]
        veto = {"kind": "threshold", "label": "any owner signer", "threshold": 1, "of": own}
        found.append(Way((veto,), names=body["statement"]))
    if statement.type == "update-policy" and rules["reviewers"] and full(body["policy"]) == rules:
        found.append(Way((rules["reviewers"],)))
    return found


def examine(
    policy: Policy | None,
    statement: Statement,
    *,
    receipts: Mapping[str, int],
    now: int,
    waiting: Mapping[str, int],
    k: int,
) -> Taken:
    """Return who approved a statement in its place; `Refused` if those were too few.

    Args:
        policy: In force before it; ``None`` before a birth.
        statement: In question.
        receipts: What `vouchers` found, of the set in force before it.
        now: When the vault took it, in Unix seconds by its log.
        waiting: Statements that waited at this vault: since when.
        k: Of that set.
    """
    # 3.2 It stands on the head.
    _check_place(policy, statement)
    # 3.3 Signed by those who must.
    found = ways(policy, statement)
    known = {signer_id(s): s for way in found for p in way.principals for s in leaves(p)}
    signed, ends, tokens = set[str](), statement.said["expires_at"], list[str]()
    for signature in statement.signatures:
        signer = known.get(signature["signer"])
        if signer is None:
            continue
        if signer["kind"] == "oidc":
            until, jwk = verify_token(signer, signature, statement.digest, statement.said)
            ends = min(ends, until)
            tokens.append(jwk)
        else:
            verify(signer, signature, statement.digest, statement.payload)
        signed.add(signature["signer"])
    vouched = len(receipts) >= k
    young = policy.young if policy and not vouched else {}
    signed -= {s for s, until in young.items() if now < until}
    seen = set(waiting) | ({policy.recovery.intent} if policy and policy.recovery else set())
    if vouched and statement.type == "void":
        seen.add(statement.body["statement"])
    return Taken(
        statement=statement,
        signed=frozenset(signed),
        signers=tuple(known[s] for s in sorted(signed)),
        ends=ends,
        wait=_wait(found, signed, seen),
        vouchers=dict(receipts),
        k=k,
        at=min(now, max(receipts.values())) if vouched else now,
        tokens=tuple(tokens),
    )


def check_time(
    policy: Policy | None,
    taken: Taken,
    later: Sequence[Taken],
    *,
    now: int,
    waiting: Mapping[str, int],
) -> None:
    """Check that a statement came in time and waited; receipts of k vaults stand for both.

    Args:
        policy: In force before it.
        taken: What `examine` found.
        later: What was taken behind it in the same run.
        now: When the vault took it.
        waiting: Statements that waited at this vault: since when.
    """
    # 3.5 and 3.6 (b) k vaults say that they took it.
    if taken.vouched:
        return
    said = taken.statement.said
    # 3.5 (a) alive, or (c) a later one in time was signed by who could have signed this one.
    if not said["issued_at"] - SKEW <= now < taken.ends:
        found = ways(policy, taken.statement)
        if not any(_could_sign(found, one.signed, taken.statement) for one in later):
            raise Refused(
                "statement-late", f"it was good from {said['issued_at']} to {taken.ends}, "
                f"it was taken at {now}, and {len(taken.vouchers)} vaults vouch for it, not "
                f"{taken.k}",
            )  # fmt: skip
    # 3.6 It waited out its delay.
    _check_delays(policy, taken, now, waiting)


def after(policy: Policy | None, taken: Taken) -> Policy:
    """Return the policy after a statement that was taken (spec/03, 3.4)."""
    return follow(policy, taken.statement, taken.at)


def _check_place(policy: Policy | None, statement: Statement) -> None:
    said = statement.said
    if policy is None:
        if statement.type != "birth":
            raise _misplaced("the first statement is no birth")
        return
    if statement.key != policy.key:
        raise _misplaced(f"it is about key {statement.key}")
    if policy.head not in statement.parents:
        raise _misplaced(f"it does not stand on {policy.head}")
    if statement.type == "merge":
        if said["prev"] not in statement.parents or policy.version > said["base_version"]:
            raise _misplaced(f"it merges at version {said['base_version']}, not {policy.version}")
    elif said["base_version"] != policy.version:
        raise _misplaced(f"it is for version {said['base_version']}, not {policy.version}")


def _misplaced(detail: str) -> Refused:
    return Refused("statement-misplaced", detail)


def _wait(found: Sequence[Way], signed: Collection[str], seen: Collection[str]) -> int:
    """Return the shortest wait of the ways that were taken."""
    waits = []
    for way in found:
        open_way = way.names is None or way.names in seen
        if open_way and all(satisfied(p, signed) for p in way.principals):
            page = way.owner is not None and alone_on_page(way.owner, signed)
            waits.append(max(way.delay, PAGE_DELAY if page else 0))
    if waits:
        return min(waits)
    needed = " and ".join(
        f"{p['threshold']} of {len(p['of'])} of {p['label']!r}" for p in found[0].principals
    )
    raise unsigned(f"{needed} must sign; {len(signed)} signed who counted then")


def _could_sign(found: Sequence[Way], signed: Collection[str], statement: Statement) -> bool:
    named = {statement.body["statement"]} if statement.type == "void" else set[str]()
    try:
        return _wait(found, signed, named) == 0
    except Refused:
        return False


def _check_delays(
    policy: Policy | None, taken: Taken, now: int, waiting: Mapping[str, int]
) -> None:
    statement = taken.statement
    if policy is not None:
        _check_clause(policy, statement, now)
        _check_recovery(policy, statement, now)
        if statement.type in {"update-policy", "merge"}:
            _check_left(policy, statement.body["policy"]["owner"], now)
    if taken.wait:
        since = waiting.get(statement.digest)
        if since is None or now < since + taken.wait:
            raise _early(f"it waits {taken.wait} seconds from {since}, it was taken at {now}")


def _check_clause(policy: Policy, statement: Statement, now: int) -> None:
    clause = policy.rules["auto_migrate"]
    if "auto" in statement.body and clause and now >= clause["expires_at"]:
        raise denied(f"the clause ended at {clause['expires_at']}, it was used at {now}")


def _check_recovery(policy: Policy, statement: Statement, now: int) -> None:
    """Check when a recovery is completed, and what the new owner may do at first."""
    body, kind = statement.body, statement.type
    done = kind == "recover" and body["intent"] and policy.recovery
    if done and now < done.ready:
        raise _early(f"a recovery may be completed from {done.ready} on")
    if now >= policy.promote_from or kind in {"retire", "void", "recover"}:
        return
    clause = policy.rules["auto_migrate"]
    if kind != "update-policy" or full(body["policy"])["auto_migrate"] != clause:
        raise _early(f"after a recovery nothing is let in before {policy.promote_from}")


def _check_left(policy: Policy, owner: Json, now: int) -> None:
    """Check that one tap did not put everybody else out."""
    old = policy.rules["owner"]
    counting = {s for s in ids(old) if now >= policy.young.get(s, 0)}
    if owner != old and not satisfied(owner, counting & ids(owner)):
        raise denied("it leaves nobody in the owner who counts before the cool-down ends")


def _early(detail: str) -> Refused:
    return Refused("statement-early", detail)
