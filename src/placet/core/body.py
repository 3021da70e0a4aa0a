"""What each type of statement says (spec/03, section 1)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from placet.core.encoding import Int, LeanRecord, Record, Sha256, Text
from placet.core.limits import MAX_CHARTER, MAX_HEADS, MAX_LABEL, MAX_PROFILES
from placet.core.profile import Profile, VaultSet
from placet.core.signer import Threshold
from placet.core.table import PolicyTable, Rules


class BirthBody(Record):
    """The first policy, where the shares will live, and a human name."""

    label: Annotated[str, Meta(min_length=1, max_length=MAX_LABEL)]
    policy: PolicyTable
    vault_set: VaultSet


class PromoteBody(LeanRecord):
    """Let this profile in, and say what happens to those before it."""

    profile: Profile
    provenance: Sha256 | None
    review: Sha256 | None
    earlier: Literal["keep", "retire", "retire-at"]
    retire_at: Int | None
    """Unix seconds, with ``retire-at`` only."""
    unretire: bool
    """Says plainly that retired code comes back."""
    security_version_floor: Int
    """The floor from now on; it only rises."""
    auto: Sha256 | None = None
    """Digest of the auto-migrate clause that this is a use of."""


class RetireBody(Record):
    """Never again this code, unless a later promote says so plainly."""

    code: Sha256
    reason: Text


class UpdatePolicyBody(LeanRecord):
    """Put these rules in the place of those in force, as a whole."""

    policy: Rules
    reason: Text
    vault_profiles: Annotated[tuple[Profile, ...], Meta(max_length=MAX_PROFILES)] = ()
    """Vault releases added to the vault set. Reviewers may sign this, if nothing else changes."""


class RecoverBody(Record):
    """Put a new owner in place: first the guardians' intent, then the completion."""

    owner: Threshold | None
    """The new owner; with an intent only."""
    intent: Sha256 | None
    """Digest of the intent; with a completion only."""
    reason: Text


class VoidBody(Record):
    """Say no to a statement. It uses up the version, so what was signed for it is dead."""

    statement: Sha256
    reason: Text


class MergedProfile(Record):
    """One profile that is let in after a merge."""

    profile: Profile
    until: Int | None


class MergeBody(Record):
    """End a fork: everything that holds from now on."""

    heads: Annotated[tuple[Sha256, ...], Meta(min_length=2, max_length=MAX_HEADS)]
    """Digests of the branches' last statements; sorted. ``prev`` is that of the longest."""
    policy: Rules
    profiles: Annotated[tuple[MergedProfile, ...], Meta(max_length=MAX_PROFILES)]
    security_version_floor: Int
    tombstones: Annotated[tuple[Sha256, ...], Meta(max_length=MAX_CHARTER)]
    """Sorted; all of every branch."""
    reason: Text


class DeleteBody(Record):
    """Destroy the key: every share is erased, and its id never lives again."""

    label: Annotated[str, Meta(min_length=1, max_length=MAX_LABEL)]
    """The key's own, typed out, so that nobody signs this for another key."""
    reason: Text


class StageBody(Record):
    """A version put forward. It changes nothing (I4)."""

    profile: Profile
    version: Text
    source: Text
    """Commit or other name of the source; the platform's word."""
    provenance: Sha256 | None
    review: Sha256 | None


class RevokePendingBody(Record):
    """Take back what was staged under this digest."""

    stage: Sha256
    reason: Text
