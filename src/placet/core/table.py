"""The fixed table that a key's policy is: who may do what. No rule language (DESIGN section 4).

The fields with a default came with schema 2. They are not written where they have it, so
what was signed before them keeps its bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from placet.core.encoding import Int, LeanRecord, Record, digest, encode
from placet.core.limits import (
    COOLDOWN,
    MAX_DELAY,
    MAX_LIFETIME,
    MAX_PENDING,
    MAX_PROFILES,
    MAX_SIGNERS,
    MIN_LIFETIME,
)
from placet.core.profile import Profile
from placet.core.signer import OwnKeySigner, Threshold

Delay = Annotated[int, Meta(ge=0, le=MAX_DELAY)]
ActName = Literal["promote", "retire", "update_policy", "rotate", "move", "delete"]
Field = Literal[
    "owner",
    "managers",
    "stagers",
    "stager_quota",
    "auditors",
    "guardians",
    "reviewers",
    "acts",
    "auto_migrate",
    "cooldown",
]
"""What may be fixed for life."""
Change = Literal["measurement", "image", "config"]
"""What a clause may let differ from a profile that is approved."""


class Act(LeanRecord):
    """What one kind of statement takes: the owner, and maybe the managers; and how fresh."""

    managers: bool = False
    """Whether the managers co-sign."""
    lifetime: Annotated[int, Meta(ge=MIN_LIFETIME, le=MAX_LIFETIME)] = MAX_LIFETIME
    """Most seconds between issue and end: signatures carry no time of their own."""


class Acts(LeanRecord):
    """One row for each kind of statement of the owner's."""

    promote: Act = Act()
    retire: Act = Act()
    update_policy: Act = Act()
    rotate: Act = Act()
    move: Act = Act()
    delete: Act = Act()


class Guardians(Record):
    """Who may put a new owner in place, after a delay in which the old one can say no."""

    principal: Threshold
    delay: Delay
    """Seconds from intent to completion."""
    cooldown: Delay
    """Seconds after completion in which the new owner can retire but not promote."""


class AutoMigrate(Record):
    """A clause by which others than the owner may promote, within limits that he signed."""

    signers: Threshold
    changes: Annotated[tuple[Change, ...], Meta(min_length=1, max_length=3)]
    """What may differ from an approved profile; sorted."""
    max_step: Int
    """By how much the security version may rise in one use; it never falls."""
    delay: Delay
    """Seconds in which any owner signer may veto a use."""
    expires_at: Int
    """Unix seconds from which on nothing is taken under it."""
    budget: Annotated[int, Meta(ge=1, le=MAX_PROFILES)]
    """Uses, counted from the statement that set the clause."""


class Rules(LeanRecord):
    """The table without what it lets in: what an ``update-policy`` replaces as a whole."""

    owner: Threshold
    stagers: Annotated[tuple[OwnKeySigner, ...], Meta(max_length=MAX_SIGNERS)]
    managers: Threshold | None = None
    auditors: Annotated[tuple[OwnKeySigner, ...], Meta(max_length=MAX_SIGNERS)] = ()
    """Who reads policy and log for others to rely on. They can sign nothing that counts."""
    guardians: Guardians | None = None
    reviewers: Threshold | None = None
    """Who may add a vault release to the vault set in the owner's place; nothing else."""
    acts: Acts = Acts()
    immutable: Annotated[tuple[Field, ...], Meta(max_length=16)] = ()
    """Fields fixed for life; sorted. Fields may be added, never taken away."""
    auto_migrate: AutoMigrate | None = None
    cooldown: Delay = COOLDOWN
    """Seconds for which a newly added owner signer counts for nothing. It only rises."""
    stager_quota: Annotated[int, Meta(ge=1, le=MAX_PENDING)] = MAX_PENDING
    """Stages that one stager may have pending at one vault."""


class PolicyTable(Rules, kw_only=True):
    """The table that a key is born with."""

    profiles: Annotated[tuple[Profile, ...], Meta(max_length=MAX_PROFILES)]
    security_version_floor: Int


def clause_digest(clause: AutoMigrate) -> str:
    """Return what a use of a clause names, and what the log shows beside it."""
    return digest("placet-auto-migrate/1", encode(clause))
