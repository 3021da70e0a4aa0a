"""``placet doctor``: what could go wrong with keys soon, and what to type against it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click
from rich.text import Text

from placet.cli.arguments import key_arguments
from placet.cli.doctor_findings import findings
from placet.cli.doctor_probe import probe, probe_document, probe_findings, show_probes
from placet.cli.doctor_visit import Examined, Finding, Visit
from placet.cli.look import Look, look
from placet.cli.output import (
    DONE,
    FINDINGS,
    TOO_FEW,
    Cell,
    answer,
    bad,
    good,
    json_option,
    moment,
    odd,
    plain,
    print_json,
    reported,
    show_table,
)
from placet.cli.reach import Target, clock
from placet.cli.settings import Home
from placet.client.constellation import NONCE, Constellation
from placet.client.fan_out import Outcomes
from placet.client.heads import Head
from placet.client.vault_client import VaultClient
from placet.errors import NotFoundError, PlacetError


@click.command()
@key_arguments
@click.option(
    "--probe",
    "probes",
    multiple=True,
    metavar="HOST:PORT",
    help="Ask a vault of yours by its probe too: disk, lease; repeatable.",
)
@json_option
@reported
def doctor(*, names: tuple[str, ...], probes: tuple[str, ...], as_json: bool) -> int:
    r"""Look for what could go wrong soon: at the vaults of keys, and in their charters.

    Of each vault: does it answer, prove itself and serve; its clock; until when what vouches
    for its platform counts; whether it might lose its sealed disk. Of each key: how many
    vaults may be lost, who alone can stop it, what waits, what is about to end. Without KEY,
    all keys that are known here. Exit code 1 with findings, 4 when a key could not be
    released now. Nothing is changed anywhere. An operator adds --probe, for what a vault
    tells nobody else.

    \b
    Examples:
      placet doctor
      placet doctor --probe 127.0.0.1:9443
      placet doctor notes/data --json
    """
    home = Home.find()
    named = names or tuple(known.key for known in home.known_keys())
    probed = [probe(where) for where in probes]
    if not (named or probed):
        raise NotFoundError(
            "no key is known here", "Make one: placet key new. Or add one: placet key add"
        )
    worst, documents = DONE, list[dict[str, object]]()
    for name in named:
        target = Target.find(home, name)
        seen = _visit(target)
        found = findings(seen)
        code = FINDINGS if found else DONE
        if seen.spare < 0 and not seen.deleted:
            code = TOO_FEW
        worst = max(worst, code)
        if as_json:
            documents.append(_document(target, seen, found))
        else:
            _show(target, seen, found)
    told = [tuple(probe_findings(one)) for one in probed]
    if as_json:
        of_probes = [probe_document(*both) for both in zip(probed, told, strict=True)]
        print_json({"keys": documents} | ({"probes": of_probes} if of_probes else {}))
    elif probed:
        show_probes(probed)
        _tell([one for each in told for one in each])
    return max(worst, FINDINGS) if any(told) else worst


def _visit(target: Target) -> Visit:
    async def examine(vaults: Constellation) -> tuple[Outcomes[Examined], Look | PlacetError]:
        # The charter first: it says where the vaults are now, and what they may run.
        try:
            found: Look | PlacetError = await look(vaults, target.key)
        except PlacetError as e:
            found = e
        return await vaults.fan_out(_examine), found

    outcomes, found = target.visit(examine, f"examining {target.name}")
    return Visit(
        name=target.argument,
        constellation=target.known.constellation,
        vault_set=target.vault_set,
        values=outcomes.values,
        errors=outcomes.errors,
        look=found,
        now=clock.now(),
    )


async def _examine(vault: VaultClient) -> Examined:
    identity = await vault.identity()
    status = await vault.standing(os.urandom(NONCE))
    head = Head.of(status.status, vault.id)
    return Examined(
        identity=identity,
        skew=head.body.time - clock.now(),
        entries=head.checkpoint.size,
        standing=status.standing,
    )


def _document(target: Target, seen: Visit, found: Sequence[Finding]) -> dict[str, object]:
    vaults = seen.vault_set
    return {
        "key": target.key,
        "label": target.known.label,
        "n": vaults.n,
        "k": vaults.k,
        "able": len(seen.able),
        "vaults": [
            {"number": number, "vault": member.id, "endpoint": member.endpoint}
            | _of_vault(seen.values.get(member.id), member.id in seen.able)
            for number, member in enumerate(vaults.vaults, 1)
        ],
        "findings": found,
    }


def _of_vault(vault: Examined | None, able: bool) -> dict[str, object]:  # noqa: FBT001 - a member
    if vault is None:
        return {"answered": False, "able": able}
    return {
        "answered": True,
        "able": able,
        "says": vault.standing,
        "skew": vault.skew,
        "entries": vault.entries,
        "tcb": vault.identity.evidence.tcb.status,
        "collateral_expires": vault.identity.evidence.expires,
    }


def _show(target: Target, seen: Visit, found: Sequence[Finding]) -> None:
    rows = list[tuple[Cell, ...]]()
    for number, member in enumerate(seen.vault_set.vaults, 1):
        vault, where = seen.values.get(member.id), plain(member.endpoint)
        if vault is None:
            rows.append((number, where, bad("no proof"), "", "", "", ""))
            continue
        state = vault.standing.state if vault.standing is not None else "standing"
        evidence = vault.identity.evidence
        told = good("serves") if vault.serves else bad(state)
        until = moment(evidence.expires)
        rows.append(
            (number, where, told, f"{vault.skew:+d} s", vault.entries, evidence.tcb.status, until)
        )
    columns = ("", "endpoint", "says", "clock", "log", "TCB", "vouched for until (UTC)")
    show_table(target.name, columns, rows)
    able, vaults = len(seen.able), seen.vault_set
    if not seen.deleted:
        left = f"{seen.spare} may be lost" if seen.spare >= 0 else "too few"
        line = f"{able} of {vaults.n} vaults could release now, {vaults.k} are needed: {left}"
        answer((good if seen.spare > 0 else odd if not seen.spare else bad)(line))
    _tell(found)


def _tell(found: Sequence[Finding]) -> None:
    for one in found:
        where = f"vault {one.vault}: " if one.vault else ""
        answer(Text.assemble("- ", where, odd(one.what), f": {plain(one.detail)}"))
        answer(Text.assemble(("  next: ", "dim"), plain(one.next)))
    if not found:
        answer(good("nothing wants doing"))
