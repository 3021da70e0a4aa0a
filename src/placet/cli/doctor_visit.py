"""What one look at a key and its vaults brought, and what a finding about it is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from placet.cli.look import Look
from placet.core.attestation import AttestedIdentity
from placet.core.encoding import Record
from placet.core.messages import StandingReport
from placet.core.profile import VaultSet
from placet.errors import PlacetError

SET_CLOCK = "on its machine: timedatectl set-ntp true"
FETCH_COLLATERAL = "on its machine: placet collateral fetch --into FOLDER --wanted"


class Finding(Record, kw_only=True):
    """One thing that wants doing. Programs read ``what``, people the rest."""

    what: str
    vault: int | None
    """Its number in the vault set; nothing where the key itself is meant."""
    detail: str
    next: str
    """What to type, and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """One vault that answered."""

    identity: AttestedIdentity
    """Verified, over the connection that carried the rest."""
    skew: int
    """Seconds by which its clock is ahead of this machine's."""
    entries: int
    """Of its log."""
    standing: StandingReport | None
    """What it says; nothing, from a vault of before."""

    @property
    def serves(self) -> bool:
        """Return whether it says that it does."""
        return self.standing is None or self.standing.state == "standing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What one look at a key and its vaults brought."""

    name: str
    """The key, as a shell takes it."""
    constellation: str
    vault_set: VaultSet
    values: Mapping[str, Examined]
    errors: Mapping[str, PlacetError]
    look: Look | PlacetError
    """The charter as vaults show it, or why there is none."""
    now: int

    @property
    def able(self) -> frozenset[str]:
        """Return the vaults that could release now: they serve, and have the share that most have.

        Before the key is created nobody has one, and none is asked for.
        """
        serving = {v for v, e in self.values.items() if e.serves}
        shares = {} if isinstance(self.look, PlacetError) else self.look.view.manifests
        if shares:
            most = Counter(shares.values()).most_common(1)[0][0]
            serving &= {v for v, manifest in shares.items() if manifest == most}
        return frozenset(serving & set(self.vault_set.ids))

    @property
    def spare(self) -> int:
        """Return how many of those may be lost; below 0, how many are lacking."""
        return len(self.able) - self.vault_set.k

    @property
    def deleted(self) -> bool:
        """Return whether its owner destroyed the key."""
        return not isinstance(self.look, PlacetError) and self.look.policy.deleted


def of_key(what: str, detail: str, following: str) -> Finding:
    """Return a finding about the key itself."""
    return Finding(what=what, vault=None, detail=detail, next=following)
