"""What a statement says, in full, for whoever is to sign it.

It is read from the very bytes that are signed, and from nothing that was sent beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from placet.cli.arguments import span
from placet.cli.output import Fact, bad, odd, plain, short, when
from placet.cli.passkey_pages import Shown
from placet.cli.policy_words import Names, kind
from placet.cli.words import named, tee_facts, titled, until
from placet.core.body import (
    BirthBody,
    MergeBody,
    PromoteBody,
    RecoverBody,
    RetireBody,
    StageBody,
    UpdatePolicyBody,
)
from placet.core.signer import owner_fingerprint, signer_id
from placet.core.statement import UntrustedStatement
from placet.core.table import Rules, clause_digest
from placet.core.words import six_words
from placet.policy.principal import leaves


def content(sent: UntrustedStatement, *, own: bool) -> Shown:
    """Return a statement's title and everything that it would change.

    Args:
        sent: The statement.
        own: Whether this tool composed it.
    """
    what = titled(sent.statement).kind
    title = f"{what} of key {short(sent.key)}" if sent.key else f"{what} for every key of an app"
    facts = [
        *_body(sent),
        ("signed by", f"{len(sent.signatures)} so far"),
        ("expires", until(sent.statement)),
    ]
    return Shown(title, facts, own=own)


def identity(sent: UntrustedStatement) -> list[Fact]:
    """Return what tells a statement from all others."""
    return [("statement", sent.digest), ("six words", " ".join(six_words(sent.digest)))]


def _body(sent: UntrustedStatement) -> list[Fact]:
    body = sent.statement.body
    say = _BODIES.get(type(body))
    if say is not None:
        return say(body)
    # What is left has flat bodies: a digest or a label, and a reason.
    return [(name, str(getattr(body, name))) for name in body.__struct_fields__]


def _birth(body: BirthBody) -> list[Fact]:
    facts: list[Fact] = [
        ("label", body.label),
        ("guarded by", f"{body.vault_set.n} vaults, any {body.vault_set.k} give the key back"),
        *(("  vault", f"{m.endpoint}  {m.id}") for m in body.vault_set.vaults),
        *(("  their code", named(p)) for p in body.vault_set.profiles),
        *_rules(body.policy),
        ("floor", str(body.policy.security_version_floor)),
    ]
    for profile in body.policy.profiles:
        facts += [("lets in", ""), *tee_facts(profile)]
    return facts


def _promote(body: PromoteBody) -> list[Fact]:
    at = f" {when(body.retire_at)}" if body.retire_at is not None else ""
    facts: list[Fact] = [
        ("lets in", ""),
        *tee_facts(body.profile),
        ("earlier ones", odd(body.earlier + at)),
        ("brings back", "retired code" if body.unretire else "nothing that was retired"),
        ("floor", str(body.security_version_floor)),
    ]
    if body.auto is not None:
        facts.append(("automatic", odd(f"a use of the clause {short(body.auto)}")))
    return facts


def _update(body: UpdatePolicyBody) -> list[Fact]:
    releases: list[Fact] = [("vault release", named(p)) for p in body.vault_profiles]
    return [*_rules(body.policy), *releases, ("reason", body.reason)]


def _stage(body: StageBody) -> list[Fact]:
    put: list[Fact] = [("version", body.version), ("source", body.source)]
    return [("puts forward", ""), *tee_facts(body.profile), *put]


def _retire(body: RetireBody) -> list[Fact]:
    return [("shuts out", bad(body.code)), ("reason", body.reason)]


def _recover(body: RecoverBody) -> list[Fact]:
    if body.owner is None:
        return [("completes", str(body.intent)), ("reason", body.reason)]
    who = f"{body.owner.threshold} of {', '.join(s.label for s in body.owner.of)}"
    # Anybody can be called by any name: what a signer is called proves nothing.
    keys: list[Fact] = [
        (f"  {plain(s.label)}", f"{kind(s)}, {signer_id(s)}") for s in leaves(body.owner)
    ]
    prints: list[Fact] = [("  fingerprint", owner_fingerprint(body.owner))]
    return [("new owner", bad(who)), *keys, *prints, ("reason", body.reason)]


def _merge(body: MergeBody) -> list[Fact]:
    return [
        *(("ends branch", head) for head in body.heads),
        *_rules(body.policy),
        *(
            ("lets in", f"{named(p.profile)}, {'for good' if p.until is None else when(p.until)}")
            for p in body.profiles
        ),
        *(("shut out", code) for code in body.tombstones),
        ("floor", str(body.security_version_floor)),
        ("reason", body.reason),
    ]


def _rules(rules: Rules) -> list[Fact]:
    acts = {name: getattr(rules.acts, name) for name in rules.acts.__struct_fields__}
    joint = [name.replace("_", "-") for name, act in acts.items() if act.managers]
    facts: list[Fact] = [
        *Names.of(rules).facts(rules),
        ("managers sign", ", ".join(joint) or "nothing"),
        ("a device added later", f"counts after {span(rules.cooldown)}"),
        ("fixed for life", ", ".join(rules.immutable) or "nothing"),
    ]
    if rules.guardians is not None:
        facts.append(
            ("recovery", f"{span(rules.guardians.delay)} after the guardians asked for it")
        )
    if (clause := rules.auto_migrate) is not None:
        limits = f"{clause.budget} uses until {when(clause.expires_at)}"
        facts.append(("auto-migrate", bad(f"{limits}, clause {short(clause_digest(clause))}")))
    return facts


_BODIES: dict[type, Callable[[Any], list[Fact]]] = {
    BirthBody: _birth,
    PromoteBody: _promote,
    UpdatePolicyBody: _update,
    MergeBody: _merge,
    RecoverBody: _recover,
    RetireBody: _retire,
    StageBody: _stage,
}
