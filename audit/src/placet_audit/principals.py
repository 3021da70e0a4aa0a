"""Who may decide: thresholds over signers, and rules that can be kept (spec/09, section 2)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from placet_audit.canonical import Json, digest_of
from placet_audit.keys import check_signer, raw_key
from placet_audit.problems import Refused
from placet_audit.shapes import ACTS, refuse
from placet_audit.tokens import check_identity

LIFETIME = 2592000
DEFAULTS: dict[str, Any] = {
    "managers": None,
    "auditors": [],
    "guardians": None,
    "reviewers": None,
    "acts": {},
    "immutable": [],
    "auto_migrate": None,
    "cooldown": 86400,
    "stager_quota": 64,
}


def denied(detail: str) -> Refused:
    """Return a refusal of a statement that breaks a rule of the policy."""
    return Refused("statement-refused", detail)


def full(rules: Json) -> Json:
    """Return rules with every field written, so that two can be compared."""
    named = {name: rules.get(name, default) for name, default in DEFAULTS.items()}
    acts = {
        act: {"managers": False, "lifetime": LIFETIME} | named["acts"].get(act, {}) for act in ACTS
    }
    return {"owner": rules["owner"], "stagers": rules["stagers"], **named, "acts": acts}


def signer_id(signer: Json) -> str:
    """Return what makes a signer one, under any label."""
    names = ("issuer", "audience", "sub") if signer["kind"] == "oidc" else ("public_key",)
    return digest_of("placet-signer/1", {name: signer[name] for name in names})


def leaves(principal: Json) -> Iterator[Json]:
    """Yield every signer of a principal."""
    for part in principal["of"]:
        if part["kind"] == "threshold":
            yield from leaves(part)
        else:
            yield part


def ids(principal: Json) -> frozenset[str]:
    """Return the ids of a principal's signers."""
    return frozenset(map(signer_id, leaves(principal)))


def satisfied(principal: Json, signed: Collection[str]) -> bool:
    """Return whether those who signed are enough of a principal."""
    yes = sum(
        satisfied(part, signed) if part["kind"] == "threshold" else signer_id(part) in signed
        for part in principal["of"]
    )
    return bool(yes >= principal["threshold"])


def alone_on_page(principal: Json, signed: Collection[str]) -> bool:
    """Return whether one passkey alone signed, on a page of others; providers apart."""
    own = [s for s in leaves(principal) if s["kind"] != "oidc" and signer_id(s) in signed]
    return len(own) == 1 and own[0]["kind"] == "passkey" and own[0]["screen"] == "page"


def identity(signer: Json) -> tuple[str, bytes]:
    """Return what a signer is, whether it is written as a key or as a passkey."""
    if signer["kind"] == "oidc":
        return "oidc", signer_id(signer).encode()
    return raw_key(signer)


def check_principal(principal: Json, depth: int = 1) -> None:
    """2.1: it is one, and neither a page nor identity providers alone satisfy it."""
    if depth > 4 or principal["threshold"] > len(principal["of"]):  # noqa: PLR2004 - MAX_DEPTH
        raise refuse(f"principal {principal['label']!r} is too deep or asks for more than it has")
    for part in principal["of"]:
        if part["kind"] == "threshold":
            check_principal(part, depth + 1)
    if depth > 1:
        return
    signers = list(leaves(principal))
    for signer in signers:
        (check_identity if signer["kind"] == "oidc" else check_signer)(signer)
    if len(signers) > 64 or len(set(map(identity, signers))) != len(signers):  # noqa: PLR2004
        raise refuse(f"principal {principal['label']!r} names a signer twice, or too many")
    oidc = {signer_id(s) for s in signers if s["kind"] == "oidc"}
    if alone_on_page(principal, ids(principal)) or satisfied(principal, oidc):
        raise refuse(f"principal {principal['label']!r} is no one that may stand alone")


def check_rules(rules: Json) -> None:
    """2.1 to 2.4: rules that do not contradict themselves and can be repaired."""
    clause, guardians = rules["auto_migrate"], rules["guardians"]
    roles = {"owner": rules["owner"], "managers": rules["managers"]}
    roles["guardians"] = guardians and guardians["principal"]
    for principal in (*roles.values(), rules["reviewers"], clause and clause["signers"]):
        if principal:
            check_principal(principal)
    for signer in (*rules["stagers"], *rules["auditors"]):
        check_signer(signer)
    named = {role: list(leaves(p)) if p else [] for role, p in roles.items()}
    proposers = [*rules["stagers"], *(leaves(clause["signers"]) if clause else ())]
    _check_apart({**named, "auditors": rules["auditors"]}, proposers)
    _check_repairable(rules)


def _check_apart(roles: dict[str, list[Json]], proposers: list[Json]) -> None:
    """2.2: one key, one role."""
    seen: dict[tuple[str, bytes], str] = {}
    for role, signers in roles.items():
        for signer in signers:
            if seen.setdefault(identity(signer), role) != role:
                raise refuse(f"signer {signer['label']!r} has two roles")
    for signer in proposers:
        if seen.get(identity(signer), "owner") != "owner":
            raise refuse(f"signer {signer['label']!r} proposes, and co-signs, guards or watches")


def _check_repairable(rules: Json) -> None:
    """2.3 and 2.4: what managers must sign they can, and nothing is frozen by one loss."""
    managers, needed = rules["managers"], any(rules["acts"][act]["managers"] for act in ACTS)
    if needed and not managers:
        raise refuse("managers must co-sign, and there are none")
    if "owner" in rules["immutable"]:
        raise refuse("an owner fixed for life could never be repaired")
    if needed and "managers" in rules["immutable"]:
        everyone = ids(managers)
        if not all(satisfied(managers, everyone - {one}) for one in everyone):
            raise refuse("managers fixed for life, of whom one is indispensable")


def check_succession(old: Json, new: Json) -> None:
    """2.5 to 2.7: what only rises, what is fixed, and a clause that comes alone."""
    for name in old["immutable"]:
        if old[name] != new[name] or name not in new["immutable"]:
            raise denied(f"{name} is fixed for life")
    if new["cooldown"] < old["cooldown"]:
        raise denied("the cool-down only rises")
    clause = new["auto_migrate"]
    if clause and clause != old["auto_migrate"] and _apart(old) != _apart(new):
        raise denied("a clause is set by a statement that changes nothing else")


def _apart(rules: Json) -> Json:
    return {name: value for name, value in rules.items() if name != "auto_migrate"}
