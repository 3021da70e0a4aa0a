"""``placet key new``: say who owns a key, which code may have it, and who guards it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
from rich.text import Text

from placet.cli.arguments import DURATION, FILE
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
    when,
)
from placet.cli.pen import check_readable, confirm, missing_signatures, send, sign, write_out
from placet.cli.reach import Target, all_or_raise, clock, visit
from placet.cli.settings import Home, KnownKey
from placet.cli.signers import public_signer
from placet.cli.words import anchor, named, tee_facts
from placet.client.constellation import Constellation
from placet.client.signing import Composer
from placet.client.vault_client import VaultClient
from placet.client.vaults_file import VaultsFile
from placet.core.body import BirthBody
from placet.core.messages import StatusBody
from placet.core.profile import Profile
from placet.core.table import PolicyTable
from placet.errors import MalformedError, VerificationError
from placet.policy.charter import TakenStatement, fold
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
    "--stager",
    "stagers",
    multiple=True,
    metavar="KEY",
    help="Who may put versions forward: a public key as JSON or PEM file, or base64; repeatable.",
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
    stagers: tuple[str, ...],
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
    Example:
      placet key new notes/data --vaults vaults.json --profile notes-1.json
    """
    home = Home.find()
    owner = home.owner()
    name, file = chosen_vaults(home, vaults, constellation)
    body = BirthBody(
        label=label,
        policy=PolicyTable(
            owner=owner.principal,
            stagers=tuple(public_signer(s) for s in stagers),
            profiles=tuple(read_json(p, Profile, "profile") for p in profiles),
            security_version_floor=floor,
        ),
        vault_set=file.vault_set,
    )
    _check_new(home, label)
    sent = Composer(now=clock.now(), lifetime=expires).birth(body)
    check_readable(sent)
    fold([TakenStatement(sent=sent)])
    met = [] if out else _meet(file)
    facts = [
        *_vault_facts(file, met),
        *_birth_facts(body),
        ("open until", when(clock.now() + expires)),
    ]
    confirm(f"Birth of key {label}", facts, sent, yes=yes, quiet=as_json)
    signed = sign(sent, owner.key, owner.principal)
    home.add_constellation(name, file)
    known = KnownKey(key=signed.digest, label=label, constellation=name, birth=signed.signed())
    home.remember(known)
    lacking = missing_signatures(signed, owner.principal)
    if out is not None or lacking is not None:
        path = out or Path(f"birth-{short(signed.digest)}.json")
        return write_out(signed, path, home, as_json=as_json, lacking=lacking)
    code = send(Target.find(home, signed.digest), signed, home, as_json=as_json)
    if code == DONE and not as_json:
        answer(Text.assemble("key id: ", (signed.digest, "bold")))
        hint("start the app with this key id: it creates the data key at its first boot")
    return code


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


def _meet(file: VaultsFile) -> list[tuple[VerifiedPeer, StatusBody]]:
    """Attest every vault live, and hear which schemas it takes and what time it has."""

    async def one(vault: VaultClient) -> tuple[VerifiedPeer, StatusBody]:
        return await vault.meet(), await vault.status(os.urandom(32))

    async def everyone(vaults: Constellation) -> list[tuple[VerifiedPeer, StatusBody]]:
        return list(all_or_raise(await vaults.fan_out(one)).values.values())

    met = visit(file.vault_set, file.trust, everyone, "verifying vaults")
    for _, status in met:
        if 1 not in status.schemas:
            raise VerificationError(f"vault {status.vault} takes no statement of schema 1")
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
    facts += [("  their code", f"{named(p)}, {anchor(p.anchor)}") for p in file.profiles]
    return facts


def _birth_facts(body: BirthBody) -> list[Fact]:
    owner = body.policy.owner
    facts: list[Fact] = [
        ("owner", f"{', '.join(s.label for s in owner.of)}; must sign: {owner.threshold}"),
        ("stagers", ", ".join(s.label for s in body.policy.stagers) or "the owner only"),
        ("floor", f"security version {body.policy.security_version_floor}"),
    ]
    for profile in body.policy.profiles:
        first, *rest = tee_facts(profile)
        facts += [("lets in", first[1]), *((f"  {name}", value) for name, value in rest)]
    return facts
