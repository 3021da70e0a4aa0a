"""``placet evidence``: look at a quote, report or document, and verify it offline."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import click
from rich.text import Text

from placet.attest.trust import TrustAnchor
from placet.attest.verify import verify_evidence
from placet.cli.arguments import FILE
from placet.cli.evidence_fields import Fields
from placet.cli.evidence_files import Found, read_evidence, read_rules, trusted
from placet.cli.output import (
    DONE,
    REFUSED,
    Fact,
    answer,
    bad,
    good,
    hint,
    json_option,
    odd,
    print_json,
    reported,
    show_facts,
    show_table,
    warn,
    when,
)
from placet.cli.words import anchor as anchor_in_words
from placet.core.attestation import Family, VerifiedEvidence
from placet.core.encoding import MAX_INT
from placet.core.profile import TcbRules
from placet.errors import EvidenceError, TcbError
from placet.policy.match import judge_platform

INTEL = (
    ("size", "evidence and collateral are within their limits"),
    ("encoding", "both are read as bytes"),
    ("collateral", "collateral has all of its parts"),
    ("sgx-version", "the quote's version is one that is proven here"),
    ("header", "header names the TEE, a known version and ECDSA P-256"),
    ("outer-certification", "certification data is a QE report of its length"),
    ("length", "every length fits the one around it"),
    ("trailing", "nothing follows the quote"),
    ("debug", "debug mode is off"),
    ("migration", "it cannot migrate, and no service domain is bound to it"),
    ("sept-ve", "exceptions on private pages are off"),
    ("chain", "the quote carries one PCK chain"),
    ("anchor", "chain ends in a trusted root"),
    ("issuer-chain", "TCB info and QE identity are signed by the TCB signer of that root"),
    ("crl-not-yet-valid", "revocation lists have begun"),
    ("collateral-ended", "collateral has not ended"),
    ("dates", "certificates count at this time"),
    ("quote", "chain, revocation, QE identity, TCB level and signatures hold"),
    ("pce-id", "TCB info is about the PCE that certified"),
    ("tcb-revoked", "the platform is not revoked"),
    ("tcb-status", "the platform has a known status"),
)
SNP = (
    ("size", "report and collateral are within their limits"),
    ("encoding", "both are read as bytes"),
    ("collateral", "the signing key's certificate is there, each thing once"),
    ("length", "the report is whole"),
    ("header", "version and signature scheme are known"),
    ("certificate-table", "certificate table is well-formed"),
    ("signing-key", "a VCEK or VLEK signed, and the certificate is of that kind"),
    ("anchor", "chain ends in a trusted root"),
    ("chain", "each certificate was issued by the next"),
    ("dates", "certificates count at this time"),
    ("crl", "revocation list, if there is one, is signed by the root"),
    ("crl-not-yet-valid", "it has begun"),
    ("crl-ended", "it has not ended"),
    ("revoked", "no certificate of the chain is on it"),
    ("reported-tcb", "the certificate is for the report's TCB version"),
    ("chip-id", "the certificate is for the report's chip, or a provider's"),
    ("product", "root, certificate and CPU are of one product"),
    ("trailing", "nothing unsigned stands around the signature"),
    ("signature", "the report is signed by that key"),
    ("debug", "the guest's policy forbids debugging"),
    ("migration", "the guest's policy forbids migration"),
)
NITRO = (
    ("size", "document is within its limit"),
    ("encoding", "it is read as bytes"),
    ("collateral", "nothing is stapled that is not used"),
    ("header", "COSE_Sign1 with ES384, and nothing around it"),
    ("document", "every field is of its type and size"),
    ("anchor", "chain begins with a trusted root"),
    ("chain", "each certificate was issued by the one before"),
    ("dates", "certificates and timestamp count at this time"),
    ("signature", "the document is signed by its certificate's key"),
    ("debug", "debug mode is off"),
)
CHECKS: Mapping[Family, tuple[tuple[str, str], ...]] = {
    "sgx": tuple(c for c in INTEL if c[0] not in ("outer-certification", "migration", "sept-ve")),
    "tdx": tuple(c for c in INTEL if c[0] != "sgx-version"),
    "snp": SNP,
    "nitro": NITRO,
}
"""What is checked of each family, in order, and what it means that it holds."""

FAMILY = click.option(
    "--family",
    type=click.Choice(["sgx", "tdx", "snp", "nitro"]),
    help="What it is; by default what it looks like.",
)
COLLATERAL = click.option(
    "--collateral",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="Collateral as JSON, or certificates (PEM, DER). Repeatable.",
)
ROOT = click.option(
    "--root", type=FILE, metavar="FILE", help="A root in place of the vendors', this once."
)
AT = click.option(
    "--at",
    type=click.IntRange(0, MAX_INT),
    metavar="UNIX",
    help="When: by default a document's own timestamp, else now.",
)


@click.group()
def evidence() -> None:
    """Look at attestation evidence, and verify it offline."""


@evidence.command()
@click.argument("file", type=FILE)
@FAMILY
@json_option
@reported
def show(*, file: Path, family: Family | None, as_json: bool) -> None:
    """Show what evidence says about itself. Nothing is verified.

    FILE is a quote, report or document, as bytes or hex.
    """
    found = read_evidence(file, family=family)
    if as_json:
        print_json({"verified": False, **_claims(found.fields)})
        return
    show_facts(_facts(found.fields))
    warn("nothing of this is verified")
    hint(f"placet evidence verify {file}")


@evidence.command()
@click.argument("file", type=FILE)
@FAMILY
@COLLATERAL
@ROOT
@AT
@click.option("--policy", type=FILE, metavar="FILE", help="A profile's TCB rules as JSON.")
@json_option
@reported
def verify(
    *,
    file: Path,
    family: Family | None,
    collateral: tuple[Path, ...],
    root: Path | None,
    at: int | None,
    policy: Path | None,
    as_json: bool,
) -> int:
    r"""Verify evidence offline, and say which check refused it.

    Without --policy it judges whether the evidence is genuine: signatures, chain,
    revocation, dates, debug and migration. A revoked, unknown or absent status of the
    platform is refused, others are reported. With --policy the platform has to meet a
    profile's rules as well. Whose connection the evidence is for is not part of it.

    \b
    Exit codes: 0 accepted, 3 refused, 2 unreadable input.

    \b
    Examples:
      placet evidence verify quote.bin --collateral collateral.json
      placet evidence verify report.bin --collateral vcek.der --policy rules.json
      placet evidence verify document.cose --json
    """
    found = read_evidence(file, collateral, family)
    rules = None if policy is None else read_rules(policy)
    anchors = trusted(root, found)
    now = at if at is not None else (found.fields.made or int(time.time()))
    outcome = judge(found, anchors, now, rules)
    if as_json:
        print_json(outcome.document())
    else:
        outcome.show()
    return DONE if outcome.problem is None else REFUSED


class Outcome:
    """What became of each check, and what the evidence shows."""

    def __init__(self, found: Found, anchors: tuple[TrustAnchor, ...], now: int) -> None:
        self.found, self.anchors, self.now = found, anchors, now
        self.shown: VerifiedEvidence | None = None
        self.checks: list[tuple[str, bool, str]] = []
        self.problem: EvidenceError | None = None

    def refuse(self, error: EvidenceError) -> None:
        """Note that a check refused; those before it had passed."""
        self.problem = error
        failed = str(error.members.get("check", "quote"))
        for name, meaning in CHECKS[self.found.evidence.family]:
            if name == failed:
                break
            self.checks.append((name, True, meaning))
        self.checks.append((failed, False, error.detail))

    def accept(self, shown: VerifiedEvidence, rules: TcbRules | None) -> None:
        """Note that it is genuine, and what the rules say of its platform."""
        self.shown = shown
        self.checks = [(n, True, meaning) for n, meaning in CHECKS[self.found.evidence.family]]
        for name, (holds, otherwise) in (
            () if rules is None else judge_platform(rules, shown).items()
        ):
            # The status was looked at before: known, and none that nobody may accept.
            self.checks = [c for c in self.checks if c[0] != name]
            self.checks.append((name, holds, "the rules are met" if holds else otherwise))
            if not holds and self.problem is None:
                self.problem = TcbError(
                    otherwise, "Update the platform, or change the rules.", check=name
                )

    def document(self) -> dict[str, object]:
        """Return it as JSON."""
        shown = self.shown
        tcb = None if shown is None else shown.tcb
        return {
            "verdict": "accepted" if self.problem is None else "refused",
            **_claims(self.found.fields),
            "tcb": {
                "status": tcb.status if tcb else None,
                "advisories": list(tcb.advisories) if tcb else [],
                "evaluation": tcb.evaluation if tcb else None,
                "date": tcb.date or None if tcb else None,
            },
            "at": self.now,
            "root": shown.anchor if shown else self.roots(),
            "families": shown.families if shown else [],
            "hardware_id": shown.hardware_id if shown else None,
            "features": sorted(shown.features) if shown else [],
            "collateral_expires": shown.expires if shown else None,
            "checks": [{"name": n, "ok": ok, "detail": text} for n, ok, text in self.checks],
            "problem": None if self.problem is None else self.problem.problem(),
        }

    def show(self) -> None:
        """Print it for a person."""
        show_facts(_facts(self.found.fields))
        if self.shown is not None:
            show_facts(_platform(self.shown))
        show_table(
            "Checks",
            ("", "check", ""),
            [(good("ok") if ok else bad("no"), name, text) for name, ok, text in self.checks],
        )
        roots = self.shown.anchor if self.shown else ", ".join(self.roots())
        answer("")
        under = f"at {when(self.now)}, under {roots}"
        if self.problem is None:
            answer(Text.assemble(good("accepted"), f" {under}"))
        else:
            answer(Text.assemble(bad("refused"), f" by {self.checks_failed()} {under}"))
            hint(self.problem.hint)

    def roots(self) -> list[str]:
        """Return the names of the roots that could have vouched for it."""
        return list(dict.fromkeys(a.name for a in self.anchors))

    def checks_failed(self) -> str:
        """Return the names of the checks that refused."""
        return ", ".join(name for name, ok, _ in self.checks if not ok)


def judge(
    found: Found, anchors: tuple[TrustAnchor, ...], now: int, rules: TcbRules | None
) -> Outcome:
    """Verify evidence and apply rules, check by check."""
    outcome = Outcome(found, anchors, now)
    try:
        grace = 0 if rules is None else rules.grace
        shown = verify_evidence(found.evidence, trust=anchors, now=now, grace=grace)
    except EvidenceError as e:
        outcome.refuse(e)
    else:
        outcome.accept(shown, rules)
    return outcome


def _claims(fields: Fields) -> dict[str, object]:
    return {
        "family": fields.family,
        "format_version": fields.version,
        "measurements": fields.measurements,
        "report_data": fields.report_data,
        "debug": fields.debug,
    }


def _facts(fields: Fields) -> list[Fact]:
    version = "" if fields.version is None else f", version {fields.version}"
    facts: list[Fact] = [("family", f"{fields.family}{version}")]
    facts += [
        (name, str(value))
        for name, value in fields.measurements.items()
        if value is not None and not isinstance(value, dict) and set(str(value)) != {"0"}
    ]
    facts.append(("report data", fields.report_data))
    if fields.made is not None:
        facts.append(("made", when(fields.made)))
    mode = {True: bad("on"), False: good("off"), None: odd("unknown")}[fields.debug]
    return [*facts, ("debug", mode)]


def _platform(shown: VerifiedEvidence) -> list[Fact]:
    tcb = shown.tcb
    status = good(tcb.status) if tcb.status == "UpToDate" else odd(tcb.status)
    return [
        ("TCB status", status),
        ("advisories", ", ".join(tcb.advisories) or "none"),
        ("evaluation", str(tcb.evaluation or "-")),
        ("TCB date", when(tcb.date or None)),
        ("CPU", ", ".join(shown.families)),
        ("machine", shown.hardware_id),
        ("features", ", ".join(sorted(shown.features)) or "none"),
        ("counts until", when(shown.expires)),
        ("vouched for by", anchor_in_words(shown.anchor)),
    ]
