"""``placet key new``: say who owns a key, which code may have it, and who guards it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import click
from msgspec import structs
from rich.text import Text

from placet.cli.arguments import DURATION, FILE, span
from placet.cli.files import read_json, vaults_file
from placet.cli.output import (
    DONE,
    Fact,
    answer,
    good,
    hint,
    json_option,
    odd,
    reported,
    short,
    warn,
    when,
)
from placet.cli.pen import check_readable, confirm, missing_signatures, send, sign, write_out
from placet.cli.policy_file import PolicyFile, read_policy
from placet.cli.policy_words import Names, by_whom
from placet.cli.reach import Target, all_or_raise, clock, visit
from placet.cli.settings import Home, KnownKey
from placet.cli.signers import public_signer
from placet.cli.witness_choice import WitnessOption, with_witnesses, witness_facts
from placet.cli.words import anchor, named, tee_facts
from placet.client.constellation import Constellation
from placet.client.signing import Composer
from placet.client.simulate import roads
from placet.client.vault_client import VaultClient
from placet.client.vaults_file import VaultsFile
from placet.core.body import BirthBody
from placet.core.messages import StatusBody
from placet.core.profile import Profile, WitnessMember
from placet.core.signer import Threshold, owner_fingerprint
from placet.core.statement import schema_of
from placet.core.table import PolicyTable, Rules
from placet.errors import MalformedError, VerificationError
from placet.policy.charter import TakenStatement, fold
from placet.policy.key_policy import rules_of
from placet.policy.principal import leaves
from placet.ratls.exchange import VerifiedPeer

SKEW = 300
"""Seconds by which a vault's clock may differ from ours without a word."""


@click.command()
@click.argument("label")
@click.option("--vaults", type=FILE, metavar="FILE", help="Vaults to choose: a vaults file.")
@click.option(
    "--constellation",
    metavar="NAME",
    help="Vaults to choose, by the name in config.toml; with --vaults, the name to give them.",
)
@click.option(
    "--profile",
    "profiles",
    type=FILE,
    multiple=True,
    required=True,
    metavar="FILE",
    help="Code that may create and open the key (JSON); repeatable.",
)
@click.option(
    "--policy",
    "rules",
    type=FILE,
    metavar="FILE",
    help="Who owns it and who may do what, as placet policy new writes it (TOML); without it "
    "the owner of `placet owner show` decides alone.",
)
@click.option(
    "--stager",
    "stagers",
    multiple=True,
    metavar="KEY",
    help="Who may put versions forward: a public key as JSON or PEM file, or base64; repeatable.",
)
@click.option(
    "--witness",
    "witnesses",
    type=WitnessOption(),
    multiple=True,
    metavar="ID@HOST:PORT",
    help="An outside witness, as placet witness serve prints it; repeatable. Beside those of "
    "the vaults file.",
)
@click.option("--floor", type=int, default=0, show_default=True, help="Lowest security version.")
@click.option(
    "--expires",
    type=DURATION,
    default="1d",
    show_default=True,
    help="How long vaults may take the birth, and the app may create the data key.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--out", type=FILE, metavar="FILE", help="Only write the signed birth to FILE.")
@json_option
@reported
def new(  # noqa: PLR0913 - its options
    *,
    label: str,
    vaults: Path | None,
    constellation: str | None,
    profiles: tuple[Path, ...],
    rules: Path | None,
    stagers: tuple[str, ...],
    witnesses: tuple[WitnessMember, ...],
    floor: int,
    expires: int,
    yes: bool,
    out: Path | None,
    as_json: bool,
) -> int:
    r"""Give birth to a key.

    Its birth statement says who owns it, which code may have it, and which vaults guard
    it. Every vault proves itself live first: which vault it is, and what code it runs. Then
    the birth statement is shown, signed with the owner's key and sent to all of them.
    The data key itself is made later, by the app, inside its TEE.

    \b
    Examples:
      placet key new notes/data --vaults vaults.json --profile notes-1.json
      placet key new notes/data --vaults vaults.json --profile notes-1.json --policy team.toml
    """
    home = Home.find()
    owner = home.owner()
    name, file = chosen_vaults(home, vaults, constellation)
    file = with_witnesses(file, witnesses, quiet=as_json)
    policy = _policy(rules, stagers, owner.principal)
    body = BirthBody(
        label=label,
        policy=PolicyTable(
            **structs.asdict(policy.birth_rules),
            profiles=tuple(read_json(p, Profile, "profile") for p in profiles),
            security_version_floor=floor,
        ),
        vault_set=file.vault_set,
    )
    principal = body.policy.owner
    _check_new(home, label)
    sent = Composer(now=clock.now(), lifetime=expires).birth(body)
    check_readable(sent)
    fold([TakenStatement(sent=sent)])
    met = [] if out else _meet(file, schema_of(sent.statement))
    facts = [
        *_vault_facts(file, met),
        *_birth_facts(body),
        ("open until", when(clock.now() + expires)),
    ]
    if not as_json and owner_fingerprint(principal) != owner.fingerprint:
        warn(
            f"the owner in {rules} has the fingerprint {owner_fingerprint(principal)}, which "
            "the app's config must name: it is not that of placet owner show"
        )
    shown = confirm(f"Birth of key {label}", facts, sent, yes=yes, quiet=as_json)
    signed = sign(sent, owner.key, principal, shown)
    home.add_constellation(name, file)
    known = KnownKey(key=signed.digest, label=label, constellation=name, birth=signed.signed())
    home.remember(known)
    lacking = missing_signatures(signed, principal)
    if out is not None or lacking is not None:
        path = out or Path(f"birth-{short(signed.digest)}.json")
        code = write_out(signed, path, home, as_json=as_json, lacking=lacking)
    else:
        code = send(Target.find(home, signed.digest), signed, home, as_json=as_json)
        if code == DONE and not as_json:
            answer(Text.assemble("key id: ", (signed.digest, "bold")))
            hint("start the app with this key id: it creates the data key at its first boot")
    if policy.rules.auto_migrate is not None and not as_json:
        hint(
            f"placet key auto-migrate on {shlex.quote(label)} --policy {shlex.quote(str(rules))}"
            "   (once it is born: no birth carries the clause)"
        )
    return code


def _policy(path: Path | None, stagers: tuple[str, ...], owner: Threshold) -> PolicyFile:
    """Return the rules of a policy file; without one, those of the owner alone."""
    if path is None:
        signers = tuple(public_signer(s) for s in stagers)
        return PolicyFile(path=Path(), rules=Rules(owner=owner, stagers=signers), unused=())
    if stagers:
        raise MalformedError(
            "--policy and --stager both say who puts versions forward",
            f"Name stagers in {path}: stagers = [...]",
        )
    file = read_policy(path)
    file.check()
    return file


def _check_new(home: Home, label: str) -> None:
    for known in home.known_keys():
        if known.label == label:
            raise MalformedError(
                f"a key with the label {label!r} is known here: {known.key}",
                "Take another label, or look at that one: placet key show " + short(known.key),
            )


def chosen_vaults(home: Home, vaults: Path | None, name: str | None) -> tuple[str, VaultsFile]:
    """Return the vaults file that options name, and what it is called in config.toml."""
    if vaults is not None:
        return name or vaults.stem, vaults_file(vaults)
    known = sorted(home.settings().constellations)
    if name is None and len(known) != 1:
        raise MalformedError(
            f"which vaults? config.toml names {len(known)} constellations",
            "Add --vaults FILE" + (f" or --constellation {' | '.join(known)}" if known else ""),
        )
    chosen = name or known[0]
    return chosen, home.constellation(chosen)


def _meet(file: VaultsFile, schema: int) -> list[tuple[VerifiedPeer, StatusBody]]:
    """Attest every vault live, and hear whether it takes this schema and what time it has."""

    async def one(vault: VaultClient) -> tuple[VerifiedPeer, StatusBody]:
        return await vault.meet(), await vault.status(os.urandom(32))

    async def everyone(vaults: Constellation) -> list[tuple[VerifiedPeer, StatusBody]]:
        return list(all_or_raise(await vaults.fan_out(one)).values.values())

    met = visit(file.vault_set, file.trust, everyone, "verifying vaults")
    for _, status in met:
        if schema not in status.schemas:
            raise VerificationError(
                f"vault {status.vault} takes no statement of schema {schema}",
                "Choose vaults of a newer release, or rules that use less of it.",
            )
    return met


def _vault_facts(file: VaultsFile, met: Sequence[tuple[VerifiedPeer, StatusBody]]) -> list[Fact]:
    facts: list[Fact] = [
        ("guarded by", f"{len(file.vaults)} vaults, any {file.k} give the key back")
    ]
    for number, member in enumerate(file.vaults, 1):
        if not met:
            facts.append((f"  vault {number}", f"{member.endpoint}  {short(member.id)}"))
            continue
        peer, status = met[number - 1]
        tcb = peer.identity.evidence.tcb.status if peer.identity else "-"
        line = good(f"{member.endpoint}  {short(member.id)}  verified live, TCB {tcb}")
        if abs(status.time - clock.now()) > SKEW:
            line += odd(f", its clock says {when(status.time)}")
        facts.append((f"  vault {number}", line))
    facts += witness_facts(file.vault_set, live=bool(met))
    facts += [("  their code", f"{named(p)}, {anchor(p.anchor)}") for p in file.profiles]
    return facts


def _birth_facts(body: BirthBody) -> list[Fact]:
    facts = [
        *_rules_facts(body),
        ("floor", f"security version {body.policy.security_version_floor}"),
    ]
    for profile in body.policy.profiles:
        first, *rest = tee_facts(profile)
        facts += [("lets in", first[1]), *((f"  {name}", value) for name, value in rest)]
    return facts


def _rules_facts(body: BirthBody) -> list[Fact]:
    rules, owner = rules_of(body.policy), body.policy.owner
    if rules == Rules(owner=owner, stagers=rules.stagers) and owner.of == leaves(owner):
        return [
            ("owner", f"{', '.join(s.label for s in leaves(owner))}; must sign: {owner.threshold}"),
            ("stagers", ", ".join(s.label for s in rules.stagers) or "the owner only"),
        ]
    names = Names.of(rules)
    acts: list[Fact] = [
        (
            f"  {road.deed}",
            f"{by_whom(road)}; waits: {names.waits(road, rules)}; counts {span(road.lifetime)}",
        )
        for road in roads(rules)
    ]
    return [
        *names.facts(rules),
        *acts,
        ("fixed for life", ", ".join(rules.immutable) or "nothing"),
        ("cool-down", f"a device added later counts after {span(rules.cooldown)}"),
    ]
