"""``placet vault show``: what a vault proves, live, to anyone who asks."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.text import Text

from placet.attest.trust import trust_from_config
from placet.cli.arguments import FILE
from placet.cli.files import local_files, read_json
from placet.cli.from_evidence import profile_of
from placet.cli.live import Check, address, check_listed, listed_vaults, meet, read_root, roots_of
from placet.cli.output import (
    DONE,
    FINDINGS,
    Fact,
    answer,
    bad,
    good,
    hint,
    json_option,
    print_json,
    reported,
    show_facts,
    warn,
    when,
)
from placet.cli.reach import connector
from placet.cli.words import anchor
from placet.client.heads import Head
from placet.client.vaults_file import VaultsFile, write_vaults
from placet.core.attestation import AttestedIdentity
from placet.core.checkpoint import line_of
from placet.core.config import TrustRoot
from placet.core.messages import StatusBody
from placet.core.profile import Profile, VaultMember, code_id
from placet.errors import MalformedError


@click.command()
@click.argument("url", metavar="HOST:PORT")
@click.option("--vaults", type=FILE, metavar="FILE", help="A vaults file: its roots, and a check.")
@click.option("--constellation", metavar="NAME", help="The same, by its name in config.toml.")
@click.option(
    "--trust-root", type=FILE, metavar="FILE", help="A root: JSON, or a certificate (PEM, DER)."
)
@click.option("--tcb-signer", default="", help="Who signs under a root that is a certificate.")
@click.option("--security-version", type=int, default=1, show_default=True, help="For --add.")
@click.option("--add", type=FILE, metavar="FILE", help="Add it to this vaults file, or start one.")
@json_option
@reported
def show(
    *,
    url: str,
    vaults: Path | None,
    constellation: str | None,
    trust_root: Path | None,
    tcb_signer: str,
    security_version: int,
    add: Path | None,
    as_json: bool,
) -> int:
    r"""Attest a vault, live, and show what it proved: a look, not trust.

    Any genuine TEE under the given roots is shown, whatever code it runs. Compare its
    measurement with the one that its builders publish, or that you build yourself; what
    then goes into a vaults file and a birth statement is trusted. Exit code 1 when it is
    not the vault, or not the code, that the vaults file names.

    \b
    Examples:
      placet vault show vault1.example:7443 --trust-root intel.pem
      placet vault show 127.0.0.1:7461 --vaults vaults.json
    """
    endpoint, _, _ = address(url)
    listed = listed_vaults(vaults, constellation)
    roots = (read_root(trust_root, tcb_signer),) if trust_root else roots_of(listed)
    if not roots:
        raise MalformedError(
            "which root may vouch for it? none is named and config.toml knows none",
            "Add --vaults FILE, or --trust-root FILE",
        )
    met = meet(endpoint, trust_from_config(roots), connector().verify)
    identity, status = met.identity, met.head.body
    profile = _profile(identity, security_version)
    checks = check_listed(listed, identity)
    if as_json:
        print_json(_document(endpoint, identity, status, profile, checks))
    else:
        _show(endpoint, identity, met.head, profile, checks)
    if add is not None:
        _add(add, VaultMember(id=status.vault, endpoint=endpoint, domain=None), profile, roots)
        if not as_json:
            hint(f"placet key new LABEL --vaults {add} --profile FILE   (when all are in it)")
    return DONE if all(holds for holds, _ in checks) else FINDINGS


def _profile(identity: AttestedIdentity, security_version: int) -> Profile:
    """Return the profile that names exactly this code, on platforms like this one."""
    claims = identity.claims
    return profile_of(
        identity.evidence,
        app=claims.app,
        image=claims.image,
        config=claims.config,
        security_version=security_version,
        narrow=True,
    )


def _document(
    endpoint: str,
    identity: AttestedIdentity,
    status: StatusBody,
    profile: Profile,
    checks: tuple[Check, ...],
) -> dict[str, object]:
    evidence = identity.evidence
    return {
        "vault": status.vault,
        "endpoint": endpoint,
        "measurement": evidence.measurement,
        "code": code_id(profile),
        "image": profile.image,
        "config": profile.config,
        "anchor": evidence.anchor,
        "tcb": evidence.tcb,
        "families": evidence.families,
        "collateral_expires": evidence.expires,
        "boot": status.boot,
        "boots": status.boots,
        "time": status.time,
        "schemas": status.schemas,
        "checkpoint": status.checkpoint,
        "line": line_of(status.checkpoint, status.vault),
        "member": {"id": status.vault, "endpoint": endpoint, "domain": None},
        "profile": profile,
        "checks": [{"holds": holds, "text": text} for holds, text in checks],
    }


def _show(
    endpoint: str,
    identity: AttestedIdentity,
    head: Head,
    profile: Profile,
    checks: tuple[Check, ...],
) -> None:
    status = head.body
    evidence, tcb = identity.evidence, identity.evidence.tcb
    measured = msgspec.to_builtins(evidence.measurement)
    facts: list[Fact] = [
        ("vault id", status.vault),
        ("endpoint", endpoint),
        ("app", profile.app),
        *((name, str(value)) for name, value in measured.items() if value is not None),
        ("image", profile.image),
        ("config", profile.config),
        ("vouched for by", anchor(evidence.anchor)),
        ("TCB", f"{tcb.status}, evaluation {tcb.evaluation}, level of {when(tcb.date)}"),
        ("advisories", ", ".join(tcb.advisories) or "none"),
        ("CPU family", ", ".join(evidence.families)),
        ("boot", f"{status.boot}, start number {status.boots}"),
        ("its clock", when(status.time)),
        ("log", f"{head.checkpoint.size} entries"),
    ]
    if line := head.line:
        facts.append(("took over", f"from an older process of this vault; its log is line {line}"))
    answer(Text("Proved just now, over this very connection", style="bold"))
    show_facts(facts)
    answer("")
    for holds, text in checks:
        answer(good(text) if holds else bad(text))
    answer(Text("profile:", style="dim"))
    answer(Text(msgspec.json.encode(profile).decode()))
    if not checks:
        warn("this shows that it is genuine, not that its code is one to trust")


def _add(path: Path, member: VaultMember, profile: Profile, roots: tuple[TrustRoot, ...]) -> None:
    """Add a vault to a vaults file; k is a majority."""
    with local_files():
        old = read_json(path, VaultsFile, "vaults file") if path.exists() else None
    members = [m for m in old.vaults if m.id != member.id] if old else []
    profiles = list(old.profiles) if old else []
    if code_id(profile) not in map(code_id, profiles):
        profiles.append(profile)
    known = {r.root: r for r in (*(old.trust_roots if old else ()), *roots)}
    members.append(member)
    file = VaultsFile(
        k=len(members) // 2 + 1,
        vaults=tuple(members),
        profiles=tuple(profiles),
        trust_roots=tuple(known.values()),
    )
    with local_files():
        write_vaults(path, file)
