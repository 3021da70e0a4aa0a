"""``placet owner``: what approves, and the fingerprint that workloads name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import click
import msgspec

from placet.cli.files import read_json, write_json
from placet.cli.output import hint, json_option, reported, short, warn
from placet.cli.passkey_enrol import (
    New,
    Relying,
    asked_for,
    critical,
    enrol,
    names,
    relying_options,
)
from placet.cli.passkey_kept import pen_id
from placet.cli.passkey_view import show_owner
from placet.cli.settings import Home, Owner
from placet.cli.spare import Spare
from placet.client.authenticators import Screen
from placet.client.signing import SigningKey
from placet.core.signer import Signer, Threshold, signer_id
from placet.policy.principal import check_principal, leaves

Algorithm = Literal["ed25519", "p256"]
_file = click.Path(path_type=Path, dir_okay=False)
_algorithm = click.option(
    "--algorithm",
    type=click.Choice(["ed25519", "p256"]),
    default="ed25519",
    show_default=True,
    help="Kind of key, of a key file.",
)
_spare = click.option(
    "--spare",
    type=_file,
    metavar="FILE",
    help="Make a key that may act alone and write it to FILE: keep it elsewhere.",
)


@click.group()
def owner() -> None:
    """Make what approves, and show who that makes you.

    An owner is a principal: a key file, passkeys and security keys, of which so many must
    sign. Its fingerprint is measured into every workload that may open the owner's data,
    so it is made first; each vault checks its signatures by itself.
    """


@owner.command()
@relying_options
@_algorithm
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME",
    help="Name of a signer, in the order in which they are made; repeatable.",
)
@_spare
@click.option(
    "--with",
    "others",
    multiple=True,
    type=_file,
    metavar="FILE",
    help="Public signer of another person (JSON of their `placet owner show`); repeatable.",
)
@click.option(
    "--threshold", type=int, default=1, show_default=True, help="How many signers must sign."
)
@json_option
@reported
def init(  # noqa: PLR0913 - its options
    *,
    passkeys: int,
    security_keys: tuple[str, ...],
    rp_id: str | None,
    origins: tuple[str, ...],
    screen: Screen,
    algorithm: Algorithm,
    labels: tuple[str, ...],
    spare: Path | None,
    others: tuple[Path, ...],
    threshold: int,
    as_json: bool,
) -> None:
    r"""Make an owner: passkeys, security keys, or a key file that only you can read.

    Whoever loses the only signer of an owner can approve nothing any more: there is no
    back door. Enrol two, in two places; or take --spare, or --with the signers of others.

    \b
    Examples:
      placet owner init --security-key --security-key --rp-id approve.example.org
      placet owner init --passkey --spare /media/stick/spare.pem
      placet owner init --algorithm p256 --with colleague.json --threshold 2
    """
    home = Home.find()
    home.check_no_owner()
    asked = asked_for(passkeys, security_keys)
    relying = _relying(rp_id, origins, screen, asked=bool(asked))
    if len(labels) > max(len(asked), 1):
        raise click.UsageError(f"{len(labels)} names for {max(len(asked), 1)} signers")
    key = None if asked else SigningKey.generate(labels[0] if labels else "owner", algorithm)
    second = None
    if spare is not None:
        name = f"{key.signer.label if key else 'owner'} (spare)"
        second = Spare.at(spare, home.data, name, algorithm)
    given: tuple[Signer, ...] = (
        *((second.key.signer,) if second else ()),
        *(public_signer_of(f) for f in others),
    )
    port = home.settings().owner.page_port
    new = enrol(asked, names(asked, labels), relying, (), port=port)
    mine = [key.signer] if key else [n.kept.signer for n in new]
    principal = Threshold(label="owner", threshold=threshold, of=(*mine, *given))
    check_principal(principal)
    if second is not None:
        second.save()
    made = home.add_owner(key, principal, tuple(n.kept for n in new))
    if second is not None:
        second.done()
    show_owner(made, new, as_json=as_json)
    if not as_json:
        _next(made, spare)


@owner.command()
@relying_options
@_algorithm
@_spare
@click.option("--label", metavar="NAME", help="Name of the new signer.")
@click.option("--out", type=_file, metavar="FILE", help="Where its public part is written.")
@json_option
@reported
def add(  # noqa: PLR0913 - its options
    *,
    passkeys: int,
    security_keys: tuple[str, ...],
    rp_id: str | None,
    origins: tuple[str, ...],
    screen: Screen,
    algorithm: Algorithm,
    spare: Path | None,
    label: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    r"""Add one more signer: a passkey, a security key, or a spare key in a file.

    While no key is born it becomes part of the owner, whose fingerprint changes. After
    that a key's owner changes by a statement only: the public part is written to a file
    for its policy. A signer added to a key counts for nothing during the key's cool-down,
    in which every other signer of the owner sees it and can take it out.

    \b
    Examples:
      placet owner add --security-key --label "key in the safe"
      placet owner add --passkey --label phone --out phone.json
    """
    home = Home.find()
    before = home.owner()
    asked = asked_for(passkeys, security_keys)
    if len(asked) + (spare is not None) != 1:
        raise click.UsageError("add one: --passkey, --security-key or --spare FILE")
    new: list[New] = []
    written = Spare.at(spare, home.data, label or "owner (spare)", algorithm) if spare else None
    if written is not None:
        signer: Signer = written.key.signer
    else:
        relying = _relying(*_as_before(before, rp_id, origins), screen, asked=True)
        name = label or f"{asked[0][0]} {len(leaves(before.principal)) + 1}"
        known = [p for p in before.pens if not isinstance(p, SigningKey)]
        port = home.settings().owner.page_port
        new = enrol(asked, [name], relying, known, port=port)
        signer = new[0].kept.signer
    principal = _joined(before.principal, signer, again=written is not None and written.there)
    check_principal(principal)
    unborn = not home.known_keys()
    if written is not None:
        written.save()
    made = home.add_signer(new[0].kept if new else None, principal if unborn else None)
    file = out or (None if unborn else Path(f"{_file_name(signer.label)}.json"))
    if file is not None:
        write_json(file, signer)
    if written is not None:
        written.done()
    show_owner(made, new, as_json=as_json)
    if as_json:
        return
    if unborn:
        warn(f"the fingerprint was {short(before.fingerprint)}: build workloads with the new one")
        _next(made, spare)
        return
    warn(
        "it counts for no key yet: each key's owner changes by a statement, and then by its "
        "cool-down; until that is over every other signer is shown it, and can take it out"
    )
    hint(f"name {file} in a key's policy file: placet policy --help")


@owner.command()
@click.argument("signer", metavar="SIGNER")
@json_option
@reported
def use(*, signer: str, as_json: bool) -> None:
    """Sign with SIGNER from now on: its name, or a beginning of its id.

    For those who have several on this machine. `placet sign FILE --signer` names one once.
    """
    show_owner(Home.find().use(signer), as_json=as_json)


@owner.command()
@click.option(
    "--out",
    type=_file,
    metavar="FILE",
    help="Write the public signer, for another owner's --with or as a --stager.",
)
@json_option
@reported
def show(*, out: Path | None, as_json: bool) -> None:
    """Show the owner's fingerprint, which a workload's measured config must name."""
    found = Home.find().owner()
    if out is not None:
        mine = pen_id(found.key)
        signer = next((s for s in leaves(found.principal) if signer_id(s) == mine), None)
        write_json(out, signer or found.key.signer)
    show_owner(found, as_json=as_json)


def _joined(principal: Threshold, signer: Signer, *, again: bool) -> Threshold:
    """Return a principal with one more signer, which a try that was stopped may have added."""
    if again and signer in principal.of:
        return principal
    return msgspec.structs.replace(principal, of=(*principal.of, signer))


def public_signer_of(file: Path) -> Signer:
    """Return the public signer in a file, of whatever kind."""
    return read_json(file, cast("type[Signer]", Signer), "public signer")


def _relying(rp_id: str | None, origins: Sequence[str], screen: Screen, *, asked: bool) -> Relying:
    if not asked and (rp_id or origins or screen != "own"):
        raise click.UsageError("--rp-id, --origin and --screen are for --passkey or --security-key")
    return Relying.of(rp_id, origins, screen)


def _as_before(
    before: Owner, rp_id: str | None, origins: Sequence[str]
) -> tuple[str | None, Sequence[str]]:
    """Return RP ID and origins of the authenticators at hand, unless others are given."""
    passkeys = [p.signer for p in before.pens if not isinstance(p, SigningKey)]
    if passkeys and not rp_id and not origins:
        return passkeys[0].rp_id, passkeys[0].origins
    return rp_id, origins


def _file_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", label).strip("-") or "signer"


def _next(made: Owner, spare: Path | None) -> None:
    if spare is not None:
        hint(f"move {spare} to where this machine's loss does not reach it")
    if critical(made.principal):
        hint("placet owner add --security-key   (or --passkey, or --spare FILE; do it first)")
    hint("placet key new LABEL --vaults FILE --profile FILE")
