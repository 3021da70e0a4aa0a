"""What a peer proved, live or by its certificate, for a person and for a program."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from rich.text import Text

from placet.cli.live import Check, Met
from placet.cli.output import Fact, answer, bad, good, odd, show_facts, warn, when
from placet.cli.words import anchor
from placet.core.attestation import Claims, Role, VerifiedEvidence, claims_of
from placet.core.config import Config, VaultConfig
from placet.core.profile import code_digest
from placet.errors import EvidenceError
from placet.ratls.wrapper import ShownKey

SESSION = "Proved just now, over this very connection"
KEY = "Shown by its certificate: bound to its key, not to this connection, and made at any time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a peer proved: live, by its certificate, or both."""

    endpoint: str
    met: Met | None
    shown: ShownKey | None
    spki: str
    checks: tuple[Check, ...]

    @property
    def evidence(self) -> VerifiedEvidence:
        """Return the evidence that says most: the live one, if there is any."""
        return self.met.identity.evidence if self.met else self._key.evidence

    @property
    def claims(self) -> Claims:
        """Return what it says about itself."""
        return self.met.identity.claims if self.met else claims_of(self._key.claims)

    @property
    def role(self) -> Role:
        """Return what it is."""
        return self.met.identity.role if self.met else self._key.claims.role

    @property
    def config(self) -> Config | None:
        """Return its measured config, if its certificate shows it."""
        return self.shown.config if self.shown else None

    @property
    def _key(self) -> ShownKey:
        if self.shown is None:
            raise EvidenceError("the peer proved nothing")
        return self.shown


def _opens(config: Config | None) -> tuple[str | None, str]:
    """Return the fingerprint of the owner whose keys it may open, and that in words."""
    if config is None:
        return None, "not shown"
    if isinstance(config, VaultConfig):
        return None, "none: a vault opens nothing"
    opens = config.opens
    if opens.label is not None:
        return opens.owner, f"{opens.owner}, label {opens.label}"
    return opens.owner, f"{opens.owner}, labels {opens.label_prefix or ''}..."


def document(seen: Seen) -> dict[str, object]:
    """Return it for a program."""
    evidence, claims = seen.evidence, seen.claims
    return {
        "endpoint": seen.endpoint,
        "bound_to": "session" if seen.met else "key",
        "certificate_evidence": seen.shown is not None,
        "spki": seen.spki,
        "role": seen.role,
        "vault": claims.instance if seen.role == "vault" else None,
        "instance": claims.instance,
        "family": evidence.measurement.__struct_config__.tag,
        "measurement": evidence.measurement,
        "code": code_digest(claims.app, claims.image, claims.config, evidence.measurement),
        "app": claims.app,
        "image": claims.image,
        "config": claims.config,
        "measured_config": seen.config,
        "owner": _opens(seen.config)[0],
        "anchor": evidence.anchor,
        "insecure": _insecure(evidence),
        "tcb": evidence.tcb,
        "families": evidence.families,
        "features": sorted(evidence.features),
        "hardware_id": evidence.hardware_id,
        "collateral_expires": evidence.expires,
        "boot": claims.boot,
        "checks": [{"holds": holds, "text": text} for holds, text in seen.checks],
    }


def show(seen: Seen) -> None:
    """Print it for a person."""
    answer(Text(SESSION if seen.met else KEY, style="bold"))
    show_facts(_facts(seen))
    answer("")
    for holds, text in seen.checks:
        answer(good(text) if holds else bad(text))
    if seen.met and seen.shown:
        answer(Text("(that is bound to its key alone, and made at any time)", style="dim"))
    if not seen.met:
        warn("whoever has this key can show this evidence: look, and rely on a session instead")
    if _insecure(seen.evidence):
        warn("software vouches for it: this protects nobody")


def _facts(seen: Seen) -> list[Fact]:
    evidence, claims, tcb = seen.evidence, seen.claims, seen.evidence.tcb
    vouched = anchor(evidence.anchor)
    facts: list[Fact] = [
        ("role", seen.role),
        ("vault id" if seen.role == "vault" else "instance", claims.instance),
        ("endpoint", seen.endpoint),
        ("app", claims.app),
        *(
            (n, str(v))
            for n, v in msgspec.to_builtins(evidence.measurement).items()
            if v is not None
        ),
        ("image", claims.image),
        ("config", claims.config),
        ("may open keys of", _opens(seen.config)[1]),
        ("vouched for by", bad(vouched) if _insecure(evidence) else vouched),
        ("TCB status", good(tcb.status) if tcb.status == "UpToDate" else odd(tcb.status)),
        ("TCB evaluation", f"{tcb.evaluation or '-'}, level of {when(tcb.date or None)}"),
        ("advisories", ", ".join(tcb.advisories) or "none"),
        ("CPU family", ", ".join(evidence.families)),
        ("boot", claims.boot),
        ("key", seen.spki),
    ]
    config = seen.config
    if config is not None:
        facts.append(("started as", " ".join(config.argv)))
        facts.append(
            ("it trusts", ", ".join(anchor(r.anchor) for r in config.trust_roots) or "nobody")
        )
    if seen.met:
        status = seen.met.head.body
        facts += [("start number", str(status.boots)), ("its clock", when(status.time))]
    return facts


def _insecure(evidence: VerifiedEvidence) -> bool:
    return evidence.anchor.startswith("software:")
