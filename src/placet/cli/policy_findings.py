"""What is legal in a policy, and what its author may regret."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from placet.cli.arguments import span
from placet.client.simulate import options, roads
from placet.core.encoding import Record
from placet.core.signer import OidcSigner, PasskeySigner, Signer
from placet.core.table import Rules
from placet.policy.principal import leaves
from placet.policy.rules import ACTS, indispensable

DAY = 86400


class Finding(Record):
    """One thing to think about twice."""

    finding: str
    """A name that programs read."""
    text: str


def findings(rules: Rules, unused: tuple[str, ...] = ()) -> tuple[Finding, ...]:
    """Return what to think about twice in rules that `check_rules` passed.

    Args:
        rules: The table.
        unused: Names that a policy file gives to signers and then mentions nowhere.
    """
    found = [*_owner(rules), *_waits(rules), *_managers(rules), *_lone(rules)]
    if unused:
        text = f"named and nowhere used: {', '.join(unused)}"
        found.append(Finding(finding="unused-signers", text=text))
    return tuple(found)


def _owner(rules: Rules) -> Iterator[Finding]:
    lone = indispensable(rules.owner)
    own = [s for s in leaves(rules.owner) if not isinstance(s, OidcSigner)]
    devices = [s for s in lone if not isinstance(s, OidcSigner)]
    oidc = [s for s in lone if isinstance(s, OidcSigner)]
    lost = "guardians can put a new owner in place" if rules.guardians else "nothing helps"
    if len(own) == 1:
        yield Finding(
            finding="one-device",
            text=f"the owner has one device, {own[0].label}: when it is lost, {lost}",
        )
    elif devices:
        yield Finding(
            finding="owner-without-spare",
            text=f"the owner can do nothing without {_names(devices)}: when that is lost, {lost}",
        )
    if oidc:
        yield Finding(
            finding="oidc-for-everything",
            text=f"the owner can do nothing without {_names(oidc)}: who runs that provider can "
            "stop every change, and shutting a version out as well",
        )
    if all(isinstance(s, PasskeySigner) and s.screen == "page" for s in own):
        yield Finding(
            finding="page-only",
            text="every device of the owner's signs on a page that others serve: what one of them "
            "signs alone waits 1d, and shutting a version out as well",
        )


def _waits(rules: Rules) -> Iterator[Finding]:
    guardians, clause = rules.guardians, rules.auto_migrate
    spans = [("short-cooldown", "a device that is added counts after", rules.cooldown)]
    if guardians is not None:
        spans += [
            ("short-guardian-delay", "a recovery can be vetoed for", guardians.delay),
            ("short-guardian-cooldown", "a new owner can promote after", guardians.cooldown),
        ]
    if clause is not None:
        yield Finding(
            finding="auto-migrate",
            text=f"{_names(leaves(clause.signers))} may let versions in without the owner: at most "
            f"{clause.budget}, each {span(clause.delay)} after it was signed",
        )
        spans.append(("short-auto-delay", "a use of the clause can be vetoed for", clause.delay))
    for name, what, seconds in spans:
        if seconds < DAY:
            yield Finding(finding=name, text=f"{what} {span(seconds)}, less than a day")


def _managers(rules: Rules) -> Iterator[Finding]:
    acts, managers = rules.acts, rules.managers
    if managers is None:
        return
    asked = [name for name in ACTS if getattr(acts, name).managers]
    if not asked:
        yield Finding(
            finding="idle-managers", text="managers are named, and [acts] asks them for nothing"
        )
    around = [name for name in ("update_policy", "move") if name not in asked]
    if "promote" in asked and around:
        yield Finding(
            finding="managers-avoidable",
            text=f"managers co-sign promote and not {' or '.join(around)}, by which the owner "
            "alone can have the key held by vaults of his choice",
        )
    lone = indispensable(managers)
    if asked and lone:
        yield Finding(
            finding="managers-without-spare",
            text=f"managers cannot do without {_names(lone)}: when that is lost, what they "
            "co-sign is lost for ever, since only they and the owner replace a manager",
        )


def _lone(rules: Rules) -> Iterator[Finding]:
    """Yield where one signer alone begins what reads as if it took several."""
    for road in roads(rules):
        one = [o.signers[0] for o in options(road).listed if len(o.signers) == 1]
        if one and road.deed == "recover":
            yield Finding(
                finding="lone-guardian",
                text=f"one guardian alone can begin a recovery: {_names(one)}",
            )
        if one and road.deed == "vault_release":
            yield Finding(
                finding="lone-reviewer",
                text=f"one reviewer alone can let vault code in: {_names(one)}",
            )


def _names(signers: Iterable[Signer]) -> str:
    return ", ".join(s.label for s in signers)
