"""``placet key``: give birth to keys, look at them, bring their vaults up to date."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
from rich.text import Text

from placet.cli.durations import DURATION
from placet.cli.files import read_json, vaults_file
from placet.cli.key_view import show_key
from placet.cli.output import (
    CONFLICT,
    DONE,
    PARTLY,
    TOO_FEW,
    Fact,
    answer,
    good,
    hint,
    json_option,
    odd,
    plain,
    print_json,
    reported,
    short,
    show_table,
    when,
)
from placet.cli.pen import ask, confirm, missing_signatures, send, sign, words, write_out
from placet.cli.reach import STANDING, Look, Target, all_or_raise, clock, look, visit
from placet.cli.settings import Home, KnownKey
from placet.cli.signers import public_signer
from placet.cli.words import anchor, named, tee_facts
from placet.client.constellation import Constellation
from placet.client.signing import DAY, Composer
from placet.client.vault_client import VaultClient
from placet.client.vaults_file import VaultsFile
from placet.core.messages import StatusBody
from placet.core.profile import Profile
from placet.core.statement import BirthBody, PolicyTable, open_statement
from placet.errors import KeyNotBornError, MalformedError, VerificationError
from placet.policy.charter import TakenStatement, fold
from placet.ratls.exchange import VerifiedPeer

FILE = click.Path(path_type=Path, dir_okay=False)
SKEW = 300
"""Seconds by which a vault's clock may differ from ours without a word."""


@click.group()
def key() -> None:
    """Give birth to keys, and look at them.

    A KEY is named by its label, its key id, or a unique beginning of either.
    """


@key.command()
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
    default=DAY,
    show_default="1d",
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
    r"""Give birth to a key: say who owns it, which code may have it, who guards it.

    Every vault proves itself live first: which vault it is, and what code it runs. Then
    the birth statement is shown, signed with the owner's key and sent to all of them.
    The data key itself is made later, by the app, inside its TEE.

    \b
    Example:
      placet key new notes/data --vaults vaults.json --profile notes-1.json
    """
    home = Home.find()
    owner = home.owner()
    name, file = _chosen(home, vaults, constellation)
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


@key.command("list")
@json_option
@reported
def list_keys(*, as_json: bool) -> None:
    """List the keys that are known here. Nobody is asked; see `placet key show`."""
    keys = Home.find().known_keys()
    if as_json:
        print_json(
            [{"label": k.label, "key": k.key, "constellation": k.constellation} for k in keys]
        )
    elif not keys:
        answer("No key is known here.")
        hint("placet key new LABEL --vaults FILE --profile FILE")
    else:
        show_table(
            "",
            ("label", "key", "vaults", "born"),
            [
                (k.label, k.key, k.constellation, when(open_statement(k.birth).statement.issued_at))
                for k in keys
            ],
        )


@key.command()
@click.argument("name", metavar="KEY")
@json_option
@reported
def show(*, name: str, as_json: bool) -> int:
    """Show a key's policy in force, and where each vault stands.

    All vaults are asked. Exit code 1 when they contradict each other, 4 when fewer than
    k answered, so that all of them may be old.
    """
    target = Target.find(Home.find(), name)
    return show_key(target, target.visit(lambda v: look(v, target.key), "asking"), as_json=as_json)


@key.command()
@click.argument("name", metavar="KEY")
@json_option
@reported
def sync(*, name: str, as_json: bool) -> int:
    """Bring a key's vaults up to date: what was signed here, then what some of them lack.

    Only statements that were signed already are carried; repeating it is safe.
    """
    home = Home.find()
    target = Target.find(home, name)
    found, delivered = target.visit(lambda v: _sync(v, target, home), "bringing up to date")
    code = _synced(found)
    if as_json:
        print_json(
            {
                "key": target.key,
                "version": found.policy.version,
                "head": found.policy.head,
                "delivered": delivered,
                "vaults": found.vaults,
            }
        )
        return code
    for digest in delivered:
        answer(f"delivered {short(digest)}: {words(digest)}")
    rows = [(v.number, v.endpoint, STANDING[v.state], v.version, v.why or "") for v in found.vaults]
    show_table(target.name, ("vault", "endpoint", "state", "version", ""), rows)
    level = sum(v.state == "current" for v in found.vaults)
    answer(f"{level} of {len(rows)} vaults are at version {found.policy.version}")
    if code != DONE:
        hint(f"placet key sync {target.argument}   (again, when the others are back)")
    return code


@key.command()
@click.argument("key_id", metavar="KEYID")
@click.option("--vaults", type=FILE, metavar="FILE", help="A vaults file.")
@click.option("--constellation", metavar="NAME", help="A name in config.toml.")
@json_option
@reported
def add(*, key_id: str, vaults: Path | None, constellation: str | None, as_json: bool) -> None:
    """Get to know a key that was born elsewhere, by its full key id.

    The birth statement comes from the vaults; that it is the right one the key id shows.
    """
    home = Home.find()
    name, file = _chosen(home, vaults, constellation)
    found = visit(file.vault_set, file.trust, lambda v: look(v, key_id), "asking")
    birth = found.view.items[0].signed
    if not set(found.policy.vault_set.ids) <= {v.id for v in file.vaults}:
        raise VerificationError(f"key {key_id} names vaults that the vaults file does not")
    home.add_constellation(name, file)
    known = KnownKey(key=key_id, label=found.policy.label, constellation=name, birth=birth)
    home.remember(known)
    if as_json:
        print_json({"label": known.label, "key": known.key, "constellation": name})
    else:
        answer(f"{known.label} is known now: {known.key}")
        hint(f"placet key show {short(known.key)}")


@key.command()
@click.argument("name", metavar="KEY")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@reported
def forget(*, name: str, yes: bool, as_json: bool) -> None:
    """Let this tool forget a key. Vaults and data stay as they are.

    `placet key add KEYID` makes it known again.
    """
    home = Home.find()
    known = home.key(name)
    if not yes:
        ask(f"Forget {plain(known.label)} {known.key}?")
    home.forget(known)
    if as_json:
        print_json({"label": known.label, "key": known.key})
    else:
        answer(f"forgotten: {known.label} {known.key}")


def _check_new(home: Home, label: str) -> None:
    for known in home.known_keys():
        if known.label == label:
            raise MalformedError(
                f"a key with the label {label!r} is known here: {known.key}",
                "Take another label, or look at that one: placet key show " + short(known.key),
            )


def _chosen(home: Home, vaults: Path | None, name: str | None) -> tuple[str, VaultsFile]:
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


async def _sync(vaults: Constellation, target: Target, home: Home) -> tuple[Look, list[str]]:
    delivered = []
    try:
        chain = (await look(vaults, target.key)).policy.chain
    except KeyNotBornError:
        await vaults.submit(target.known.birth)
        chain = ()
    for path, sent in home.outbox(target.key):
        if sent.digest not in chain and sent.statement.expires_at > clock.now():
            report = await vaults.submit(sent.signed())
            if not report.confirmed:
                continue
            delivered.append(sent.digest)
        path.unlink(missing_ok=True)
    await vaults.courier(target.key)
    return await look(vaults, target.key), delivered


def _synced(found: Look) -> int:
    states = [v.state for v in found.vaults]
    if found.view.forks:
        return CONFLICT
    if all(s == "current" for s in states):
        return DONE
    return PARTLY if states.count("current") >= found.policy.vault_set.k else TOO_FEW
