"""A key's policy, and how each statement changes it. Pure, and reads no clock (spec/03, section 4).

Signatures, place and time are **not** checked here: `placet.policy.charter` does that
before it follows a statement.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from placet.core.limits import MAX_CHARTER, MAX_LIFETIME, MAX_PROFILES
from placet.core.profile import Profile, VaultSet, check_profile, check_vault_set, code_id
from placet.core.signer import Signer, Threshold, owner_fingerprint
from placet.core.statement import Birth, Promote, Retire, UntrustedStatement
from placet.errors import ConflictError, MalformedError, PolicyDeniedError
from placet.policy.principal import check_principal
from placet.policy.signers import signer_key_check


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One profile that is let in, and the statement that says so."""

    profile: Profile
    code: str
    statement: str
    until: int | None
    """Unix seconds from which on it is retired; ``None``: no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """The policy of one key in force: the fold of its charter. Never changed in place."""

    key: str
    label: str
    chain: tuple[str, ...]
    """Digests of every statement taken, oldest first; the last is the head."""
    owner: Threshold
    birth_owner: str
    birth_expires_at: int
    stagers: tuple[Signer, ...]
    vault_set: VaultSet
    approvals: tuple[Approval, ...]
    floor: int
    tombstones: frozenset[str]
    evaluations: tuple[tuple[str, int], ...]
    """The highest ``min_evaluation`` so far of each vendor's kind of TEE."""

    @property
    def head(self) -> str:
        """Return the digest that the next statement must name as ``prev``."""
        return self.chain[-1]

    @property
    def version(self) -> int:
        """Return how many statements there are: 1 after birth, then only rising."""
        return len(self.chain)


def birth_of(sent: UntrustedStatement) -> Birth:
    """Return the birth statement that ``sent`` is.

    Raises:
        MalformedError: It is none.
    """
    if not isinstance(sent.statement, Birth):
        raise MalformedError("charter does not start at a birth statement")
    return sent.statement


def follow(policy: KeyPolicy | None, sent: UntrustedStatement) -> KeyPolicy:
    """Return the policy after one more statement.

    Args:
        policy: Before it; ``None`` before a birth.
        sent: Stands on the head of ``policy`` and is signed as it demands: **not** checked.

    Raises:
        MalformedError, PolicyDeniedError, ConflictError: It breaks a rule of its type.
    """
    statement = sent.statement
    if statement.expires_at - statement.issued_at > MAX_LIFETIME:
        raise PolicyDeniedError(
            f"statement lives {statement.expires_at - statement.issued_at} seconds, "
            f"at most {MAX_LIFETIME} are allowed"
        )
    if policy is None:
        return _born(sent)
    if policy.version >= MAX_CHARTER:
        raise PolicyDeniedError(f"charter is full at {MAX_CHARTER} statements")
    chain = (*policy.chain, sent.digest)
    if isinstance(statement, Promote):
        return replace(_promoted(policy, statement, sent.digest), chain=chain)
    if isinstance(statement, Retire):
        return replace(_retired(policy, statement), chain=chain)
    raise ConflictError("a key is born once", head=policy.head, version=policy.version)


def _born(sent: UntrustedStatement) -> KeyPolicy:
    # 4.1 A birth can be kept: its owner can act, its vaults can answer, its code can match.
    birth = birth_of(sent)
    table, vault_set = birth.body.policy, birth.body.vault_set
    check_principal(table.owner)
    for stager in table.stagers:
        signer_key_check(stager)
    check_vault_set(vault_set)
    if not table.profiles:
        raise MalformedError("birth names no profile: nobody could ever create the key")
    for profile in table.profiles:
        check_profile(profile)
        _check_floor(profile, table.security_version_floor)
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
        owner=table.owner,
        birth_owner=owner_fingerprint(table.owner),
        birth_expires_at=birth.expires_at,
        stagers=table.stagers,
        vault_set=vault_set,
        approvals=approvals,
        floor=table.security_version_floor,
        tombstones=frozenset(),
        evaluations=_raised((), table.profiles),
    )


def _promoted(policy: KeyPolicy, statement: Promote, digest: str) -> KeyPolicy:
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
    _check_floor(body.profile, body.security_version_floor)
    _check_evaluation(body.profile, policy.evaluations)
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
        evaluations=_raised(policy.evaluations, (body.profile,)),
    )


def _retired(policy: KeyPolicy, statement: Retire) -> KeyPolicy:
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


def _check_floor(profile: Profile, floor: int) -> None:
    if profile.security_version < floor:
        raise PolicyDeniedError(
            f"security version {profile.security_version} is below the floor of {floor}",
            reason="below-floor",
        )


def _kind(profile: Profile) -> str:
    return f"{profile.anchor} {profile.measurement.__struct_config__.tag}"


def _raised(
    before: tuple[tuple[str, int], ...], profiles: Iterable[Profile]
) -> tuple[tuple[str, int], ...]:
    floors = dict(before)
    for profile in profiles:
        kind = _kind(profile)
        floors[kind] = max(floors.get(kind, 0), profile.tcb.min_evaluation)
    return tuple(sorted(floors.items()))


def _check_evaluation(profile: Profile, floors: tuple[tuple[str, int], ...]) -> None:
    floor, asked = dict(floors).get(_kind(profile), 0), profile.tcb.min_evaluation
    if asked < floor:
        raise PolicyDeniedError(
            f"promote lowers the lowest TCB evaluation from {floor} to {asked}; it only rises",
            f"Ask for at least {floor} in the profile's TCB rules.",
            reason="evaluation-lowered",
        )
