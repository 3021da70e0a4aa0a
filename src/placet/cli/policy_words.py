"""Rules in plain words: who, what, how long, and who can say no."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from placet.cli.arguments import span
from placet.cli.output import Fact, short
from placet.client.simulate import Deed, Road, members, principals
from placet.core.signer import KeySigner, OidcSigner, Signer, Threshold, signer_id
from placet.core.table import Rules
from placet.policy.principal import alone_on_page, leaves, satisfied

MEANING: dict[Deed, str] = {
    "promote": "let a version in",
    "retire": "shut a version out",
    "update_policy": "change the rules, add vault code",
    "rotate": "split the key anew",
    "move": "take the key to other vaults",
    "delete": "destroy the key",
    "co_signing": "change who co-signs what, set a clause",
    "vault_release": "add vault code, nothing else",
    "recover": "put a new owner in place",
    "auto_migrate": "let a version in within the clause",
}
ROLES = {
    "owner": "owner",
    "managers": "manager",
    "guardians": "guardian",
    "reviewers": "reviewer",
    "auto_migrate": "clause",
    "stagers": "stager",
    "auditors": "auditor",
}

PLURAL = {
    "owner": "owner",
    "managers": "managers",
    "guardians": "guardians",
    "reviewers": "reviewers",
    "auto_migrate": "clause's signers",
}
"""Roles that are principals, as a table names them."""
BY: dict[Deed, str] = {
    "vault_release": PLURAL["reviewers"],
    "recover": PLURAL["guardians"],
    "auto_migrate": PLURAL["auto_migrate"],
}
"""Who does what is not the owner's; the owner and maybe the managers do the rest."""


@dataclass(frozen=True, slots=True)
class Names:
    """What each signer is called: its label, and more where two have the same.

    Args:
        by_id: Names by signer id.
    """

    by_id: dict[str, str]

    @classmethod
    def of(cls, rules: Rules) -> Names:
        """Return the names of all signers of a table of rules."""
        labels = {signer_id(s): s.label for group in members(rules).values() for s in group}
        shared = [*labels.values()]
        return cls(
            {
                i: label if shared.count(label) == 1 else f"{label} ({short(i)})"
                for i, label in labels.items()
            }
        )

    def one(self, signer: Signer) -> str:
        """Return the name of a signer."""
        return self.by_id.get(signer_id(signer), signer.label)

    def all(self, signers: Iterable[Signer]) -> list[str]:
        """Return the names of some signers."""
        return [self.one(s) for s in signers]

    def who(self, part: Signer | Threshold) -> str:
        """Return a principal as one would say it."""
        if not isinstance(part, Threshold):
            return self.one(part)
        said = [self._within(p) for p in part.of]
        if part.threshold == len(said):
            return listed(said)
        if part.threshold == 1:
            return listed(said, "or")
        return f"{part.threshold} of {', '.join(said)}"

    def facts(self, rules: Rules) -> list[Fact]:
        """Return who has which role."""
        found: list[Fact] = [(PLURAL[r], self.who(p)) for r, p in principals(rules).items()]
        plain = (("stagers", rules.stagers), ("auditors", rules.auditors))
        return found + [(role, ", ".join(self.all(signers))) for role, signers in plain if signers]

    def waits(self, road: Road, rules: Rules) -> str:
        """Return how long an act waits, and for whom."""
        if road.deed == "recover" and rules.guardians is not None:
            return f"{span(road.delay)}, and {span(rules.guardians.cooldown)} without promotes"
        if road.delay:
            return span(road.delay)
        pages = self.pages(road)
        return f"1d if {listed(pages, 'or')} signs alone" if pages else "no"

    def pages(self, road: Road) -> list[str]:
        """Return the owner's signers who are enough alone, and wait since a page shows them."""
        if road.owner is None:
            return []
        ids = {signer_id(s): s for s in leaves(road.owner)}
        return [
            self.one(s)
            for i, s in ids.items()
            if satisfied(road.owner, frozenset({i})) and alone_on_page(road.owner, frozenset({i}))
        ]

    def _within(self, part: Signer | Threshold) -> str:
        said = self.who(part)
        return f"({said})" if isinstance(part, Threshold) and len(part.of) > 1 else said


def by_whom(road: Road) -> str:
    """Return the roles that must sign for an act."""
    together = " and managers" if len(road.principals) > 1 else ""
    return BY.get(road.deed, PLURAL["owner"]) + together


def kind(signer: Signer) -> str:
    """Return what a signer signs with."""
    if isinstance(signer, KeySigner):
        return f"key, {signer.algorithm}"
    if isinstance(signer, OidcSigner):
        return f"identity at {signer.issuer}"
    where = "on a page of others" if signer.screen == "page" else "on a screen of its own"
    return f"passkey for {signer.rp_id}, {where}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return names as a sentence has them."""
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else "".join(names)


def waiting(seconds: int) -> str:
    """Return how long something waits."""
    return span(seconds) if seconds else "at once"
