"""``placet owner``: the key that approves, and the fingerprint that workloads name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from placet.cli.files import local_files, read_json, write_json
from placet.cli.output import answer, hint, json_option, print_json, reported, short, show_facts
from placet.cli.settings import Home, Owner
from placet.client.signing import SigningKey
from placet.core.signer import KeySigner, Threshold, signer_id
from placet.policy.principal import check_principal, leaves


@click.group()
def owner() -> None:
    """Make the key that approves, and show who that makes you.

    An owner is a principal: one key, or several of which so many must sign. Its
    fingerprint is measured into every workload that may open the owner's data, so it is
    made first and never changes during a key's life.
    """


@owner.command()
@click.option(
    "--algorithm",
    type=click.Choice(["ed25519", "p256"]),
    default="ed25519",
    show_default=True,
    help="Kind of key.",
)
@click.option("--label", default="owner", show_default=True, help="Name of this signer.")
@click.option(
    "--spare",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Make a second key that may act alone and write it to FILE: keep it elsewhere.",
)
@click.option(
    "--with",
    "others",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Public signer of another person (JSON of their `placet owner show`); repeatable.",
)
@click.option(
    "--threshold", type=int, default=1, show_default=True, help="How many signers must sign."
)
@json_option
@reported
def init(
    *,
    algorithm: Literal["ed25519", "p256"],
    label: str,
    spare: Path | None,
    others: tuple[Path, ...],
    threshold: int,
    as_json: bool,
) -> None:
    r"""Make an owner key: a PEM file that only you can read.

    Whoever loses the only key of an owner can approve nothing any more: there is no back
    door. Take --spare, or --with the signers of others.

    \b
    Examples:
      placet owner init --spare /media/stick/spare.pem
      placet owner init --algorithm p256 --with colleague.json --threshold 2
    """
    home = Home.find()
    key = SigningKey.generate(label, algorithm)
    signers = [key.signer, *(read_json(f, KeySigner, "public signer") for f in others)]
    second = SigningKey.generate(f"{label} (spare)", algorithm) if spare else None
    if second is not None:
        signers.append(second.signer)
    principal = Threshold(label="owner", threshold=threshold, of=tuple(signers))
    check_principal(principal)
    home.check_no_owner()
    if second is not None and spare is not None:
        with local_files():
            second.save(spare)
    made = home.add_owner(key, principal)
    _show(made, as_json=as_json)
    if not as_json:
        if spare is not None:
            hint(f"move {spare} to where this machine's loss does not reach it")
        hint("placet key new LABEL --vaults FILE --profile FILE")


@owner.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the public signer, for another owner's --with or as a --stager.",
)
@json_option
@reported
def show(*, out: Path | None, as_json: bool) -> None:
    """Show the owner's fingerprint, which a workload's measured config must name."""
    found = Home.find().owner()
    if out is not None:
        mine = signer_id(found.key.signer)
        signer = next((s for s in leaves(found.principal) if signer_id(s) == mine), None)
        write_json(out, signer or found.key.signer)
    _show(found, as_json=as_json)


def _show(owner: Owner, *, as_json: bool) -> None:
    mine = signer_id(owner.key.signer)
    if as_json:
        print_json(
            {
                "fingerprint": owner.fingerprint,
                "key_file": str(owner.path),
                "signer": mine,
                "principal": owner.principal,
            }
        )
        return
    answer(owner.fingerprint)
    signers = leaves(owner.principal)
    facts: list[tuple[str, str]] = [
        ("key file", str(owner.path)),
        ("must sign", f"{owner.principal.threshold} of {len(owner.principal.of)}"),
    ]
    for signer in signers:
        kind = signer.algorithm if isinstance(signer, KeySigner) else "passkey"
        here = ", its key is here" if signer_id(signer) == mine else ""
        facts.append(("signer", f"{signer.label}: {kind}, {short(signer_id(signer))}{here}"))
    show_facts(facts)
