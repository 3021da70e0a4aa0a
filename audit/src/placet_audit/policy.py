"""A key's policy: what each statement changes (spec/03, section 4; spec/09, sections 4 and 5).

Signatures, place and time are `placet_audit.taking`'s. The numbers are those of spec/09.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from placet_audit.canonical import Json, digest_of
from placet_audit.principals import LIFETIME, check_rules, check_succession, denied, full, ids
from placet_audit.profile import changes, check_profile, check_vault_set, code_id
from placet_audit.shapes import ACTS, refuse
from placet_audit.statement import Statement


@dataclass(frozen=True, slots=True)
class Approval:
    """One profile that is let in, and the statement that says so."""

    profile: Json
    code: str
    statement: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """A new owner that the guardians put forward."""

    intent: str
    owner: Json
    ready: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is in force after some statements. Never changed in place."""

    key: str
    label: str
    chain: tuple[str, ...]
    version: int
    rules: Json
    vault_set: Json
    approvals: tuple[Approval, ...]
    floor: int
    tombstones: frozenset[str] = frozenset()
    evaluations: Json = field(default_factory=dict)
    young: dict[str, int] = field(default_factory=dict)
    """Owner signers that were added, and from when on each counts."""
    recovery: Recovery | None = None
    promote_from: int = 0
    """After a recovery: the time before which the new owner lets nothing in."""
    auto_uses: int = 0
    deleted: bool = False

    @property
    def head(self) -> str:
        """Return the digest of the last statement."""
        return self.chain[-1]


def clause_id(clause: Json) -> str:
    """Return the digest by which a use names its clause."""
    return digest_of("placet-auto-migrate/1", clause)


def acts_for(policy: Policy, statement: Statement) -> list[Json]:
    """Return the rows of the table that a statement falls under (spec/09, 3.4)."""
    rows = {"promote": "promote", "retire": "retire", "delete": "delete"}
    names: tuple[str, ...] = ()
    if statement.type == "merge":
        names = ACTS
    elif statement.type == "update-policy":
        old, new = policy.rules, full(statement.body["policy"])
        clause = new["auto_migrate"] and new["auto_migrate"] != old["auto_migrate"]
        shifts = clause or any(old[n] != new[n] for n in ("acts", "managers"))
        names = ACTS if shifts else ("update_policy",)
    elif statement.type in rows:
        names = (rows[statement.type],)
    return [policy.rules["acts"][name] for name in names]


def born(statement: Statement) -> Policy:
    """Return the policy that a birth begins (spec/03, 4.1)."""
    if statement.type != "birth":
        raise refuse("a charter does not start at a birth")
    body = statement.body
    table, rules = body["policy"], full(body["policy"])
    _check_lifetime(statement, [])
    check_rules(rules)
    check_vault_set(body["vault_set"])
    if rules["auto_migrate"] or not table["profiles"]:
        raise denied("a key is born with a clause, or without a profile")
    floor, approvals = table["security_version_floor"], []
    for profile in table["profiles"]:
        check_profile(profile)
        _check_floor(profile, floor)
        approvals.append(Approval(profile, code_id(profile), statement.digest))
    _check_once(approvals)
    return Policy(
        key=statement.digest,
        label=body["label"],
        chain=(statement.digest,),
        version=1,
        rules=rules,
        vault_set=body["vault_set"],
        approvals=tuple(approvals),
        floor=floor,
        evaluations=_raised({}, approvals),
    )


def follow(policy: Policy | None, statement: Statement, at: int) -> Policy:
    """Return the policy after one more statement, which was taken at ``at``.

    Raises:
        Refused: It breaks a rule of its type.
    """
    if policy is None:
        return born(statement)
    _check_lifetime(statement, acts_for(policy, statement))
    # 4.1 After a delete nothing is taken.
    if policy.deleted or policy.version >= 1024:  # noqa: PLR2004 - MAX_CHARTER
        raise denied("the key was deleted, or its charter is full")
    if statement.type not in _RULES:
        raise denied("a key is born once")
    after = _RULES[statement.type](policy, statement, at)
    before = statement.said["base_version"] if statement.type == "merge" else policy.version
    return replace(after, chain=(*policy.chain, statement.digest), version=before + 1)


def _check_lifetime(statement: Statement, rows: list[Json]) -> None:
    # 4.2 Signatures carry no time: how fresh they are is how short a statement lives.
    cap = min([LIFETIME, *(row["lifetime"] for row in rows)])
    if statement.said["expires_at"] - statement.said["issued_at"] > cap:
        raise denied(f"a statement lives longer than {cap} seconds")


def _promote(policy: Policy, statement: Statement, _: int) -> Policy:
    body = statement.body
    profile, floor, code = body["profile"], body["security_version_floor"], code_id(body["profile"])
    if "auto" in body:
        # 4.3 A use of the clause keeps within it, and is counted.
        _check_use(policy, body)
        policy = replace(policy, auto_uses=policy.auto_uses + 1)
    check_profile(profile)
    if floor < policy.floor:
        raise denied(f"a promote lowers the floor from {policy.floor} to {floor}")
    _check_floor(profile, floor)
    _check_evaluation(policy, profile)
    if (code in policy.tombstones) != body["unretire"]:
        raise denied(f"code {code} was retired and is not said to come back, or the reverse")
    others = [a for a in policy.approvals if a.code != code]
    gone = {a.code for a in others} if body["earlier"] != "keep" else set()
    if body["earlier"] == "retire":
        others = []
    elif body["retire_at"] is not None:
        end = body["retire_at"]
        others = [replace(a, until=end if a.until is None else min(a.until, end)) for a in others]
    if len(others) >= 64:  # noqa: PLR2004 - MAX_PROFILES
        raise denied("too many profiles are approved")
    new = Approval(profile, code, statement.digest)
    return replace(
        policy,
        approvals=(*others, new),
        floor=floor,
        tombstones=(policy.tombstones | gone) - {code},
        evaluations=_raised(policy.evaluations, [new]),
    )


def _check_use(policy: Policy, body: Json) -> None:
    # 5.1 to 5.3 of spec/09.
    clause = clause_of(policy, body["auto"])
    if policy.auto_uses >= clause["budget"]:
        raise denied(f"the clause was used {policy.auto_uses} times, which is its budget")
    if body["earlier"] != "keep" or body["unretire"]:
        raise denied("a use of the clause only lets in")
    if body["security_version_floor"] != policy.floor:
        raise denied("a use of the clause moves no floor")
    allowed, new = set(clause["changes"]), body["profile"]
    for approval in policy.approvals:
        step = new["security_version"] - approval.profile["security_version"]
        within = 0 <= step <= clause["max_step"] and changes(approval.profile, new) <= allowed
        if approval.until is None and within:
            return
    raise denied("a use of the clause changes more than the clause allows")


def clause_of(policy: Policy, named: str) -> Json:
    """Return the clause in force, which a use names by its digest."""
    clause: Json | None = policy.rules["auto_migrate"]
    if clause is None or clause_id(clause) != named:
        raise denied(f"no auto-migrate clause {named} is in force")
    return clause


def _retire(policy: Policy, statement: Statement, _: int) -> Policy:
    code = statement.body["code"]
    rest = tuple(a for a in policy.approvals if a.code != code)
    if len(rest) == len(policy.approvals):
        raise denied(f"code {code} is not approved, so it cannot be retired")
    return replace(policy, approvals=rest, tombstones=policy.tombstones | {code})


def _update(policy: Policy, statement: Statement, at: int) -> Policy:
    rules, added = full(statement.body["policy"]), statement.body.get("vault_profiles", [])
    # 4.4 The vault set takes vault releases; an update that changes nothing is refused.
    vault_set = policy.vault_set
    if added:
        profiles = [*vault_set["profiles"], *added]
        if any(profiles.count(p) > 1 for p in added):
            raise denied("a vault release is in the vault set already")
        vault_set = {**vault_set, "profiles": profiles}
        check_vault_set(vault_set)
    elif rules == policy.rules:
        raise denied("an update changes nothing")
    return replace(_ruled(policy, rules, at), vault_set=vault_set)


def _ruled(policy: Policy, rules: Json, at: int) -> Policy:
    old, young = policy.rules, policy.young
    if rules == old:
        return policy
    check_rules(rules)
    check_succession(old, rules)
    if rules["owner"] != old["owner"]:
        # 4.5 Who is new counts for nothing at first.
        known, until = ids(old["owner"]), at + rules["cooldown"]
        young = {
            s: young.get(s, until) for s in ids(rules["owner"]) if s not in known or s in young
        }
    # 4.6 It ends an open recovery; another clause has its whole budget.
    same = rules["auto_migrate"] == old["auto_migrate"]
    uses = policy.auto_uses if same else 0
    return replace(policy, rules=rules, young=young, recovery=None, auto_uses=uses)


def guardians_of(policy: Policy) -> Json:
    """Return the guardians of a key, if there are any."""
    guardians: Json | None = policy.rules["guardians"]
    if guardians is None:
        raise denied("a recovery of a key without guardians")
    return guardians


def open_recovery(policy: Policy, intent: str) -> Recovery:
    """Return the open recovery, if it is of this intent."""
    if policy.recovery is None or policy.recovery.intent != intent:
        raise denied(f"no recovery {intent} is open")
    return policy.recovery


def _recover(policy: Policy, statement: Statement, at: int) -> Policy:
    body, guardians = statement.body, guardians_of(policy)
    if body["owner"] is not None:
        # 4.7 Intent: one at a time, for an owner that could act.
        if policy.recovery is not None:
            raise denied("a recovery is open already")
        check_rules(policy.rules | {"owner": body["owner"]})
        ready = at + guardians["delay"]
        return replace(policy, recovery=Recovery(statement.digest, body["owner"], ready))
    # 4.8 Completion: the owner is replaced, nothing else.
    owner = open_recovery(policy, body["intent"]).owner
    later = at + guardians["cooldown"]
    rules = policy.rules | {"owner": owner}
    return replace(policy, rules=rules, recovery=None, young={}, promote_from=later)


def _void(policy: Policy, statement: Statement, _: int) -> Policy:
    # 4.9 It uses up the version, and ends the recovery whose intent it names.
    ends = policy.recovery is not None and policy.recovery.intent == statement.body["statement"]
    return replace(policy, recovery=None) if ends else policy


def _merge(policy: Policy, statement: Statement, at: int) -> Policy:
    body, rules = statement.body, full(statement.body["policy"])
    # 4.10 Nothing that was shut out on a branch comes back, and no floor falls.
    floor, stones = body["security_version_floor"], frozenset(body["tombstones"])
    clause = rules["auto_migrate"]
    if not policy.tombstones <= stones or floor < policy.floor:
        raise denied("a merge forgets a tombstone, or lowers the floor")
    if clause and clause != policy.rules["auto_migrate"]:
        raise denied("a merge sets a clause")
    approvals = []
    for merged in body["profiles"]:
        profile, until, code = merged["profile"], merged["until"], code_id(merged["profile"])
        check_profile(profile)
        _check_floor(profile, floor)
        _check_evaluation(policy, profile)
        if code in stones and until is None:
            raise denied(f"a merge lets in code {code}, which has a tombstone")
        approvals.append(Approval(profile, code, statement.digest, until))
    _check_once(approvals)
    return replace(
        _ruled(policy, rules, at),
        approvals=tuple(approvals),
        floor=floor,
        tombstones=stones,
        evaluations=_raised(policy.evaluations, approvals),
        recovery=None,
    )


def _delete(policy: Policy, statement: Statement, _: int) -> Policy:
    # 4.11 The label is this key's.
    if statement.body["label"] != policy.label:
        raise denied(f"a delete names {statement.body['label']!r}, the label is {policy.label!r}")
    stones = policy.tombstones | {a.code for a in policy.approvals}
    return replace(policy, approvals=(), tombstones=stones, recovery=None, deleted=True)


def _check_floor(profile: Json, floor: int) -> None:
    if profile["security_version"] < floor:
        raise denied(f"security version {profile['security_version']} is below the floor {floor}")


def _kind(profile: Json) -> str:
    return f"{profile['anchor']} {profile['measurement']['tee']}"


def _check_evaluation(policy: Policy, profile: Json) -> None:
    if profile["tcb"]["min_evaluation"] < policy.evaluations.get(_kind(profile), 0):
        raise denied("a profile asks for a lower TCB evaluation than one before it")


def _raised(before: Json, approvals: list[Approval]) -> Json:
    floors = dict(before)
    for approval in approvals:
        kind, asked = _kind(approval.profile), approval.profile["tcb"]["min_evaluation"]
        floors[kind] = max(floors.get(kind, 0), asked)
    return floors


def _check_once(approvals: list[Approval]) -> None:
    if len({a.code for a in approvals}) != len(approvals):
        raise refuse("the same code is named twice")


_RULES: dict[str, Callable[[Policy, Statement, int], Policy]] = {
    "promote": _promote,
    "retire": _retire,
    "update-policy": _update,
    "recover": _recover,
    "void": _void,
    "merge": _merge,
    "delete": _delete,
}
