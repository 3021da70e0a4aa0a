"""Digests, profiles and statements in words that people can judge by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from placet.cli.arguments import span
from placet.cli.bits import switched
from placet.cli.output import Fact, short, when
from placet.core.body import (
    BirthBody,
    DeleteBody,
    MergeBody,
    PromoteBody,
    RecoverBody,
    RetireBody,
    RevokePendingBody,
    StageBody,
    UpdatePolicyBody,
    VoidBody,
)
from placet.core.encoding import Record
from placet.core.profile import (
    Profile,
    SgxMeasurement,
    SnpMeasurement,
    TcbRules,
    TdxMeasurement,
    code_id,
)
from placet.core.statement import Statement

MEANING = {
    "app": "name of the app",
    "image": "the app's own files (container image)",
    "config": "arguments, environment, trust roots, and which keys it may open",
    "security version": "the app's count of security fixes",
    "anchor": "who vouches for the hardware",
    "tee": "kind of hardware",
    "mrtd": "what the machine starts with (firmware; in the software TEE agent and packages)",
    "rtmr0": "firmware's configuration",
    "rtmr1": "kernel and boot loader",
    "rtmr2": "kernel's command line and first files",
    "rtmr3": "what is started on it: the image",
    "mr_config_id": "the config, as the hardware keeps it",
    "td_attributes": "what the hardware grants and forbids (debug is refused)",
    "xfam": "CPU features that may be used",
    "measurement": "what the machine starts with",
    "host_data": "its config and image, as the hardware keeps them",
    "vmpl": "its privilege level; 0 is the highest",
    "policy": "what the hardware grants and forbids (debug is refused)",
    "id_key_digest": "who signed its identity (narrows only)",
    "author_key_digest": "who vouches for that signer (narrows only)",
    "guest_svn": "its lowest security version (narrows only)",
    "pcr0": "the enclave's image",
    "pcr1": "its kernel and first files",
    "pcr2": "its app",
    "pcr3": "the role of the machine around it (narrows only)",
    "pcr4": "the machine around it (narrows only)",
    "pcr8": "who signed its image (narrows only)",
    "mrenclave": "all code and data that the enclave starts with",
    "mrsigner": "who signed the enclave (narrows only)",
    "isv_prod_id": "the signer's product (narrows only)",
    "isv_svn": "the enclave's lowest security version (narrows only)",
    "tcb statuses": "states of the platform that are accepted",
    "tcb allowed advisories": "known flaws that are accepted",
    "tcb denied advisories": "known flaws that are not",
    "tcb denied families": "kinds of CPU that are not accepted",
    "tcb hardware ids": "machines that it may run on",
    "tcb lowest evaluation": "how recent the vendor's judgement must be",
    "tcb lowest version": "the lowest accepted firmware (AMD, byte by byte)",
    "tcb highest vmpl": "the least privileged level that is accepted (AMD)",
    "tcb features": "what the platform must have switched on",
    "tcb grace": "for how long the vendor's judgement counts after its end",
}
"""What a field of a profile means."""


class Difference(Record):
    """One field of two profiles."""

    field: str
    before: str | None
    after: str | None
    meaning: str

    @property
    def same(self) -> bool:
        """Say whether it does not differ."""
        return self.before == self.after


def fields(profile: Profile) -> dict[str, str]:
    """Return a profile as texts, by field."""
    m, rules = profile.measurement, profile.tcb
    found = {
        "app": profile.app,
        "image": profile.image,
        "config": profile.config,
        "security version": str(profile.security_version),
        "anchor": profile.anchor,
        "tee": str(m.__struct_config__.tag),
    }
    for name in m.__struct_fields__:
        value = getattr(m, name)
        found[name] = "any" if value is None else str(value)
    return {**found, **_rules(rules)}


def _rules(rules: TcbRules) -> dict[str, str]:
    def listed(values: Iterable[str] | None, none: str) -> str:
        return none if values is None else ", ".join(sorted(values)) or "none"

    return {
        "tcb statuses": listed(rules.statuses, "none"),
        "tcb allowed advisories": listed(rules.allowed_advisories, "any that is not denied"),
        "tcb denied advisories": listed(rules.denied_advisories, "none"),
        "tcb denied families": listed(rules.denied_families, "none"),
        "tcb hardware ids": listed(rules.hardware_ids, "any machine"),
        "tcb lowest evaluation": str(rules.min_evaluation),
        **_later_rules(rules),
    }


def _later_rules(rules: TcbRules) -> dict[str, str]:
    """Return those rules that are not written where they say nothing."""
    found = {
        "tcb lowest version": rules.min_tcb or "",
        "tcb highest vmpl": str(rules.max_vmpl or ""),
        "tcb features": ", ".join(sorted(rules.features)),
        "tcb grace": span(rules.grace) if rules.grace else "",
    }
    return {name: text for name, text in found.items() if text}


def compare(before: Profile | None, after: Profile) -> tuple[Difference, ...]:
    """Return every field of two profiles; without one before, all differ."""
    old, new = fields(before) if before is not None else {}, fields(after)
    return tuple(
        Difference(
            field=f,
            before=old.get(f),
            after=new.get(f),
            meaning=_meaning(f, old.get(f), new.get(f)),
        )
        for f in (*new, *(f for f in old if f not in new))
    )


def _meaning(field: str, before: str | None, after: str | None) -> str:
    """Return what a field means, and which of its bits were switched."""
    switches = ", ".join(s.text for s in switched(field, before, after))
    return f"{MEANING.get(field, '')}: {switches}" if switches else MEANING.get(field, "")


def abbreviated(value: str | None) -> str:
    """Return a value shortly: digests and measurements by their first digits."""
    if value is None:
        return "-"
    bare = value.rpartition(":")[2]
    longish = len(bare) > 24 and all(c in "0123456789abcdef" for c in bare)  # noqa: PLR2004 - a digest
    return f"{value[: len(value) - len(bare)]}{bare[:16]}…" if longish else value


def looser(before: TcbRules, after: TcbRules) -> list[str]:
    """Return in which ways rules on platforms accept more than others did."""
    statuses = sorted(set(after.statuses) - set(before.statuses))
    advisories = sorted(set(before.denied_advisories) - set(after.denied_advisories))
    families = sorted(set(before.denied_families) - set(after.denied_families))
    features = sorted(set(before.features) - set(after.features))
    table = {
        f"it accepts platforms with TCB status {', '.join(statuses)}": bool(statuses),
        "it accepts advisories that were not accepted": _wider(
            before.allowed_advisories, after.allowed_advisories
        ),
        f"it no longer denies {', '.join(advisories)}": bool(advisories),
        f"it no longer denies CPU families {', '.join(families)}": bool(families),
        "it may run on more machines": _wider(before.hardware_ids, after.hardware_ids),
        "it accepts an older judgement of the vendor": after.min_evaluation < before.min_evaluation,
        "it accepts older firmware": _lower(after.min_tcb, before.min_tcb),
        f"it accepts privilege levels down to {after.max_vmpl}": after.max_vmpl > before.max_vmpl,
        f"it no longer asks for {', '.join(features)}": bool(features),
        f"it accepts a judgement that ended up to {span(after.grace)} ago": after.grace
        > before.grace,
    }
    return [text for text, holds in table.items() if holds]


def stricter(before: TcbRules, after: TcbRules) -> list[str]:
    """Return in which ways rules on platforms accept less than others did.

    Rules can do both: a list with one thing more and another less is wider and narrower.
    """
    statuses = sorted(set(before.statuses) - set(after.statuses))
    advisories = sorted(set(after.denied_advisories) - set(before.denied_advisories))
    families = sorted(set(after.denied_families) - set(before.denied_families))
    features = sorted(set(after.features) - set(before.features))
    table = {
        f"it no longer accepts platforms with TCB status {', '.join(statuses)}": bool(statuses),
        "it accepts fewer advisories": _wider(after.allowed_advisories, before.allowed_advisories),
        f"it denies {', '.join(advisories)}": bool(advisories),
        f"it denies CPU families {', '.join(families)}": bool(families),
        "it may run on fewer machines": _wider(after.hardware_ids, before.hardware_ids),
        "it asks for a newer judgement of the vendor": after.min_evaluation > before.min_evaluation,
        "it asks for newer firmware": _lower(before.min_tcb, after.min_tcb),
        f"it accepts privilege levels down to {after.max_vmpl} only": after.max_vmpl
        < before.max_vmpl,
        f"it asks for {', '.join(features)}": bool(features),
        f"a judgement counts for {span(after.grace)} after its end, no longer for "
        f"{span(before.grace)}": after.grace < before.grace,
    }
    return [text for text, holds in table.items() if holds]


def _wider(before: Iterable[str] | None, after: Iterable[str] | None) -> bool:
    """Say whether a list of what is accepted grew; ``None`` accepts all."""
    return before is not None and (after is None or not set(after) <= set(before))


def _lower(after: str | None, before: str | None) -> bool:
    """Say whether a byte of a TCB floor fell, or all of it is gone."""
    pairs = zip(bytes.fromhex(after or "00" * 8), bytes.fromhex(before or ""), strict=False)
    return any(new < old for new, old in pairs)


def named(profile: Profile) -> str:
    """Return a profile in a few words."""
    return f"{profile.app}, security version {profile.security_version}, {short(code_id(profile))}"


def anchor(name: str) -> str:
    """Return a trust anchor in words; what protects nobody says so."""
    if name.startswith("software:"):
        return f"software (INSECURE, for development): {short(name)}"
    return name


@dataclass(frozen=True, slots=True)
class Titled:
    """A statement's kind in words, and what it is about."""

    kind: str
    subject: str


def titled(statement: Statement) -> Titled:
    """Return what a statement does, in one line."""
    say = _subjects[type(statement.body)]
    return Titled(str(statement.__struct_config__.tag), say(statement.body))


def _recovery(body: RecoverBody) -> str:
    if body.owner is None:
        return f"completes {short(body.intent or '')}"
    return f"new owner: {', '.join(part.label for part in body.owner.of)}"


def _promotion(body: PromoteBody) -> str:
    return named(body.profile) + (", by the clause" if body.auto is not None else "")


_subjects: dict[type, Callable[[Any], str]] = {
    BirthBody: lambda body: str(body.label),
    PromoteBody: _promotion,
    RetireBody: lambda body: short(body.code),
    UpdatePolicyBody: lambda body: str(body.reason),
    RecoverBody: _recovery,
    VoidBody: lambda body: f"no to {short(body.statement)}",
    MergeBody: lambda body: f"{len(body.heads)} branches",
    DeleteBody: lambda body: str(body.label),
    StageBody: lambda body: f"{body.profile.app} {body.version}",
    RevokePendingBody: lambda body: short(body.stage),
}


def tee_facts(profile: Profile) -> list[Fact]:
    """Return what identifies code, in full."""
    m = profile.measurement
    facts: list[Fact] = [
        ("app", profile.app),
        ("security version", str(profile.security_version)),
        ("code", code_id(profile)),
        ("image", profile.image),
        ("config", profile.config),
    ]
    if isinstance(m, TdxMeasurement):
        facts.append(("measurement", f"TDX: MRTD {short(m.mrtd)}, RTMR3 {short(m.rtmr3)}"))
    elif isinstance(m, SgxMeasurement):
        facts.append(("measurement", f"SGX: MRENCLAVE {short(m.mrenclave)}"))
    elif isinstance(m, SnpMeasurement):
        facts.append(("measurement", f"SEV-SNP: {short(m.measurement)}, VMPL {m.vmpl}"))
    else:
        facts.append(("measurement", f"Nitro: PCR0 {short(m.pcr0)}, PCR2 {short(m.pcr2)}"))
    return [*facts, ("vouched for by", anchor(profile.anchor))]


def until(statement: Statement) -> str:
    """Return for how long vaults may take a statement."""
    return f"vaults may take it until {when(statement.expires_at)}"
