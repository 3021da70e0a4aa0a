"""What in a key's charter wants doing: where vaults differ, what waits, who and what ends. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from placet.cli.doctor_visit import Finding, Visit, of_key
from placet.cli.govern_view import vetoables
from placet.cli.look import Look
from placet.cli.output import plain, short, when
from placet.cli.policy_words import Names
from placet.core.signer import signer_id
from placet.errors import PlacetError
from placet.policy.key_policy import KeyPolicy
from placet.policy.principal import leaves, satisfied

SOON = 2 * 24 * 3600
"""Seconds before an approval's end that are told: less than a promote leaves by itself."""


def of_charter(seen: Visit) -> Iterator[Finding]:
    """Return what wants doing about it."""
    found, name = seen.look, seen.name
    if isinstance(found, PlacetError):
        yield of_key("charter", f"no charter was seen: {found.detail}", f"placet key sync {name}")
        return
    sync = f"placet key sync {name}"
    for state in found.vaults:
        if state.state in ("behind", "unborn"):
            detail = f"it is at version {state.version or 0} of {found.policy.version}"
            yield Finding(what="behind", vault=state.number, detail=detail, next=sync)
        elif state.state == "fork" and found.fork is None:
            detail = "it is on a branch that k vaults decided against"
            yield Finding(what="behind", vault=state.number, detail=detail, next=sync)
        elif state.state == "unbelievable":
            detail = f"what it shows of the key is not believed: {state.why}"
            export = f"placet audit export {name} --out FOLDER"
            yield Finding(what="not-believed", vault=state.number, detail=detail, next=export)
    yield from _shares(seen, found)
    if (fork := found.fork) is not None:
        detail = f"{len(fork.children)} statements stand on {short(fork.prev)}, none at k vaults"
        yield of_key("fork", detail, f"placet merge {name}")
    for one in vetoables(found):
        until = f"until {when(one.until)}" if one.until else "for more vaults to see it"
        yield of_key(
            one.kind,
            f"{one.type} ({one.about}) waits {until}; is it yours? If not, any one of you says no",
            f'placet void {name} {short(one.statement)} --reason "why"',
        )
    yield from _of_owner(seen, found.policy)
    yield from _approvals(seen, found.policy)


def _shares(seen: Visit, found: Look) -> Iterator[Finding]:
    shares = found.view.manifests
    for number, vault in enumerate(seen.vault_set.ids, 1):
        if shares and vault in found.view.chains and vault not in shares:
            yield Finding(
                what="no-share",
                vault=number,
                detail="it has no share of the data key, which others have",
                next="start the app once, which finishes what it began: placet run --help",
            )


def _of_owner(seen: Visit, policy: KeyPolicy) -> Iterator[Finding]:
    signers = {signer_id(s): s for s in leaves(policy.owner)}
    alone = [
        signer
        for i, signer in signers.items()
        if not satisfied(policy.owner, frozenset(signers.keys() - {i}))
    ]
    if alone and policy.rules.guardians is None:
        who = ", ".join(plain(n) for n in Names.of(policy.rules).all(alone))
        each = "without it" if len(alone) == 1 else "without any one of these"
        yield of_key(
            "one-signer",
            f"{each} nothing can be approved, retired or changed any more: {who}. No guardian "
            "could put another in its place",
            f"placet owner add; then put it into the policy: placet key update {seen.name} "
            "--policy FILE",
        )


def _approvals(seen: Visit, policy: KeyPolicy) -> Iterator[Finding]:
    alive = [
        a
        for a in policy.approvals
        if (a.until is None or a.until > seen.now) and a.profile.security_version >= policy.floor
    ]
    lasting = [a for a in alive if a.until is None or a.until - seen.now >= SOON]
    ending = [a for a in alive if a not in lasting]
    if not alive:
        none = "no version is approved: no app gets the data key"
        yield of_key("nothing-approved", none, f"placet pending {seen.name}")
    for one in ending:
        rest = "" if lasting else ", and no other approval lasts longer than two days"
        yield of_key(
            "ends-soon",
            f"{plain(one.profile.app)} {short(one.code)} is let in until {when(one.until)}{rest}",
            f"placet pending {seen.name}",
        )
