"""A key's policy, and what lets code in or shuts it out. Pure, reads no clock (spec/03, section 4).

Signatures, place and time are **not** checked here: `placet.policy.charter` does that
before it follows a statement.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from placet.core.limits import MAX_PROFILES
from placet.core.profile import Profile, VaultSet, check_profile, check_vault_set, code_id
from placet.core.signer import OwnKeySigner, Threshold, owner_fingerprint
from placet.core.statement import Birth, Promote, Retire, UntrustedStatement
from placet.core.table import Rules
from placet.errors import MalformedError, PolicyDeniedError
from placet.policy.rules import check_rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One profile that is let in, and the statement that says so."""

    profile: Profile
    code: str
    statement: str
    until: int | None
    """Unix seconds from which on it is retired; ``None``: no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """A new owner that the guardians put forward, not in place yet."""

    intent: str
    owner: Threshold
    since: int
    """Unix seconds: when the intent was taken."""
    ready: int
    """From when on it can be completed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """The policy of one key in force: the fold of its charter. Never changed in place."""

    key: str
    label: str
    chain: tuple[str, ...]
    """Digests of every statement taken, oldest first; the last is the head."""
    version: int
    """How many statements there are, on the longest branch: 1 after birth, then only rising."""
    rules: Rules
    birth_owner: str
    birth_expires_at: int
    vault_set: VaultSet
    approvals: tuple[Approval, ...]
    floor: int
    tombstones: frozenset[str]
    evaluations: tuple[tuple[str, int], ...]
    """The highest ``min_evaluation`` so far of each vendor's kind of TEE."""
    merged: frozenset[str] = frozenset()
    """Heads of other branches that a merge ended."""
    young: tuple[tuple[str, int], ...] = ()
    """Ids of owner signers that were added, and from when on each of them counts."""
    recovery: Recovery | None = None
    promote_from: int = 0
    """After a recovery: Unix seconds before which the new owner may only retire and void."""
    auto_uses: int = 0
    """How often the auto-migrate clause in force was used."""
    deleted: bool = False

    @property
    def head(self) -> str:
        """Return the digest that the next statement must name as ``prev``."""
        return self.chain[-1]

    @property
    def owner(self) -> Threshold:
        """Return the principal that owns the key now."""
        return self.rules.owner

    @property
    def stagers(self) -> tuple[OwnKeySigner, ...]:
        """Return who may put versions forward."""
        return self.rules.stagers

    def knows(self, statement: str) -> bool:
        """Return whether a statement is part of what this policy came from."""
        return statement in self.chain or statement in self.merged


def birth_of(sent: UntrustedStatement) -> Birth:
    """Return the birth statement that ``sent`` is.

    Raises:
        MalformedError: It is none.
    """
    if not isinstance(sent.statement, Birth):
        raise MalformedError("charter does not start at a birth statement")
    return sent.statement


def born(sent: UntrustedStatement) -> KeyPolicy:
    """Return the policy that a birth statement begins; its signatures are **not** checked.

    Raises:
        MalformedError, PolicyDeniedError: It cannot be kept.
    """
    # 4.1 A birth can be kept: its owner can act, its vaults can answer, its code can match.
    birth = birth_of(sent)
    table, vault_set = birth.body.policy, birth.body.vault_set
    rules = rules_of(table)
    check_rules(rules)
    if rules.auto_migrate is not None:
        raise PolicyDeniedError(
            "a key is born without an auto-migrate clause",
            "Turn it on by a statement of its own: placet key auto-migrate.",
            reason="auto-not-alone",
        )
    check_vault_set(vault_set)
    if not table.profiles:
        raise MalformedError("birth names no profile: nobody could ever create the key")
    for profile in table.profiles:
        check_profile(profile)
        check_floor(profile, table.security_version_floor)
    approvals = tuple(
        Approval(profile=p, code=code_id(p), statement=sent.digest, until=None)
        for p in table.profiles
    )
    if len({a.code for a in approvals}) != len(approvals):
        raise MalformedError("birth names the same code twice")
    return KeyPolicy(
        key=sent.digest,
        label=birth.body.label,
        chain=(sent.digest,),
        version=1,
        rules=rules,
        birth_owner=owner_fingerprint(table.owner),
        birth_expires_at=birth.expires_at,
        vault_set=vault_set,
        approvals=approvals,
        floor=table.security_version_floor,
        tombstones=frozenset(),
        evaluations=raised((), table.profiles),
    )


def promoted(policy: KeyPolicy, statement: Promote, digest: str) -> KeyPolicy:
    """Return the policy after a promote.

    Raises:
        PolicyDeniedError: It lowers a floor, stands below one, brings retired code back
            without saying so, or there is no room; ``reason`` names which.
        MalformedError: Its profile is none.
    """
    body = statement.body
    code = code_id(body.profile)
    check_profile(body.profile)
    # 4.2 Both floors only rise, and what is let in stands on them.
    if body.security_version_floor < policy.floor:
        raise PolicyDeniedError(
            f"promote lowers the security version floor from {policy.floor} "
            f"to {body.security_version_floor}; it only rises",
            reason="floor-lowered",
        )
    check_floor(body.profile, body.security_version_floor)
    check_evaluation(body.profile, policy.evaluations)
    # 4.3 Retired code comes back only by a promote that says so plainly.
    if (code in policy.tombstones) != body.unretire:
        raise PolicyDeniedError(
            f"code {code} was retired and this promote does not say that it comes back"
            if code in policy.tombstones
            else f"promote says that code {code} comes back, and it was never retired",
            "Say so with --unretire, if that is what you want.",
            reason="retired" if code in policy.tombstones else "never-retired",
        )
    # 4.4 It says what happens to those before it.
    others = tuple(a for a in policy.approvals if a.code != code)
    gone: frozenset[str] = frozenset()
    if body.earlier != "keep":
        gone = frozenset(a.code for a in others)
    if body.earlier == "retire":
        others = ()
    elif body.retire_at is not None:
        others = tuple(
            replace(a, until=body.retire_at if a.until is None else min(a.until, body.retire_at))
            for a in others
        )
    if len(others) >= MAX_PROFILES:
        raise PolicyDeniedError(f"{MAX_PROFILES} profiles are approved already: retire some")
    new = Approval(profile=body.profile, code=code, statement=digest, until=None)
    return replace(
        policy,
        approvals=(*others, new),
        floor=body.security_version_floor,
        tombstones=(policy.tombstones | gone) - {code},
        evaluations=raised(policy.evaluations, (body.profile,)),
    )


def retired(policy: KeyPolicy, statement: Retire) -> KeyPolicy:
    """Return the policy after a retire.

    Raises:
        PolicyDeniedError: That code is not approved.
    """
    # 4.5 What is retired was approved; it leaves a tombstone.
    code = statement.body.code
    rest = tuple(a for a in policy.approvals if a.code != code)
    if len(rest) == len(policy.approvals):
        raise PolicyDeniedError(
            f"code {code} is not approved, so it cannot be retired",
            "See what is approved: placet key show KEY.",
            reason="not-approved",
        )
    return replace(policy, approvals=rest, tombstones=policy.tombstones | {code})


def rules_of(table: Rules) -> Rules:
    """Return the rules alone of a table that also has profiles and a floor."""
    return Rules(**{name: getattr(table, name) for name in Rules.__struct_fields__})


def check_floor(profile: Profile, floor: int) -> None:
    """Raise `PolicyDeniedError` if a profile stands below the security version floor."""
    if profile.security_version < floor:
        raise PolicyDeniedError(
            f"security version {profile.security_version} is below the floor of {floor}",
            reason="below-floor",
        )


def _kind(profile: Profile) -> str:
    return f"{profile.anchor} {profile.measurement.__struct_config__.tag}"


def raised(
    before: tuple[tuple[str, int], ...], profiles: Iterable[Profile]
) -> tuple[tuple[str, int], ...]:
    """Return the lowest TCB evaluations that may be asked for after these profiles."""
    floors = dict(before)
    for profile in profiles:
        kind = _kind(profile)
        floors[kind] = max(floors.get(kind, 0), profile.tcb.min_evaluation)
    return tuple(sorted(floors.items()))


def check_evaluation(profile: Profile, floors: tuple[tuple[str, int], ...]) -> None:
    """Raise `PolicyDeniedError` if a profile asks for less than one before it."""
    floor, asked = dict(floors).get(_kind(profile), 0), profile.tcb.min_evaluation
    if asked < floor:
        raise PolicyDeniedError(
            f"promote lowers the lowest TCB evaluation from {floor} to {asked}; it only rises",
            f"Ask for at least {floor} in the profile's TCB rules.",
            reason="evaluation-lowered",
        )
