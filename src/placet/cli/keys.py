"""``placet key``: give birth to keys, look at them, bring their vaults up to date."""

from __future__ import annotations

import re
from pathlib import Path

import click

from placet.cli.arguments import FILE, key_argument
from placet.cli.birth import chosen_vaults, new
from placet.cli.govern_rules import auto_migrate, update
from placet.cli.govern_void import delete
from placet.cli.key_view import show_key
from placet.cli.look import STANDING, Look, look, look_whole
from placet.cli.output import (
    CONFLICT,
    DONE,
    PARTLY,
    TOO_FEW,
    answer,
    brief,
    hint,
    json_option,
    moment,
    plain,
    print_json,
    reported,
    short,
    show_table,
)
from placet.cli.pen import ask, words
from placet.cli.reach import Target, clock, visit
from placet.cli.settings import Home, KnownKey
from placet.client.charters import open_birth
from placet.client.constellation import Constellation
from placet.core.statement import Delete, Retire, open_statement
from placet.errors import KeyNotBornError, MalformedError, VerificationError

SKEW = 300
"""Seconds by which a vault's clock may differ from ours without a word."""


KEY_ID = re.compile(r"sha256:[0-9a-f]{64}")


@click.group()
def key() -> None:
    """Give birth to keys, look at them, and change who may do what.

    A KEY is named by its label, its key id, or a unique beginning of either.
    """


for command in (new, update, auto_migrate, delete):
    key.add_command(command)


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
            ("label", "key", "vaults", "born (UTC)"),
            [
                (
                    k.label,
                    short(k.key),
                    k.constellation,
                    moment(open_statement(k.birth).statement.issued_at),
                )
                for k in keys
            ],
        )


@key.command()
@key_argument
@json_option
@reported
def show(*, name: str, as_json: bool) -> int:
    """Show a key's policy and where its vaults stand.

    All vaults are asked, and what their witnesses signed. Exit code 1 when they contradict
    each other, 4 when fewer than k answered, so that all of them may be old.
    """
    target = Target.find(Home.find(), name)
    found = target.visit(lambda v: look_whole(v, target.key), "asking")
    return show_key(target, found, as_json=as_json)


@key.command()
@key_argument
@json_option
@reported
def sync(*, name: str, as_json: bool) -> int:
    """Bring a key's vaults up to date.

    First what was signed here and has not arrived, then what some vaults lack, then what
    waited and may take effect now. Only statements that were signed already are carried;
    repeating it is safe.
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
    rows = [
        (v.number, v.endpoint, STANDING[v.state], v.version, brief(v.why)) for v in found.vaults
    ]
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
    """Get to know a key born elsewhere, by its key id.

    The birth statement comes from the vaults; that it is the right one the key id shows.
    """
    if not KEY_ID.fullmatch(key_id):
        raise MalformedError(f"{key_id!r} is no key id", "Write all of it: sha256:<64 digits>")
    home = Home.find()
    name, file = chosen_vaults(home, vaults, constellation)
    found = visit(file.vault_set, file.trust, lambda v: look(v, key_id), "asking", key=key_id)
    birth = found.view.items[0].signed
    if not set(found.policy.vault_set.ids) <= {v.id for v in file.vaults}:
        raise VerificationError(f"key {key_id} names vaults that the vaults file does not")
    home.add_constellation(name, file)
    known = KnownKey(key=key_id, label=found.policy.label, constellation=name, birth=birth)
    home.remember(known)
    if found.policy.vault_set != open_birth(key_id, birth).vault_set:
        home.keep_charter(known, found.view.items)
    if as_json:
        print_json({"label": known.label, "key": known.key, "constellation": name})
    else:
        answer(f"{known.label} is known now: {known.key}")
        hint(f"placet key show {short(known.key)}")


@key.command()
@key_argument
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


async def _sync(vaults: Constellation, target: Target, home: Home) -> tuple[Look, list[str]]:
    delivered = []
    try:
        chain = (await look(vaults, target.key)).policy.chain
    except KeyNotBornError:
        await vaults.submit(target.known.birth)
        chain = ()
    for path, sent in home.outbox(target.key):
        # What takes away is kept until witnesses saw it: asking again says whether they did.
        again = sent.digest not in chain or isinstance(sent.statement, Retire | Delete)
        if again and sent.statement.expires_at > clock.now():
            report = await vaults.submit(sent.signed())
            if not report.confirmed:
                continue
            delivered.append(sent.digest)
            if report.uncounted:
                continue
        path.unlink(missing_ok=True)
    await vaults.courier(target.key)
    delivered += await _bring_waiting(vaults, target)
    return await look(vaults, target.key), delivered


async def _bring_waiting(vaults: Constellation, target: Target) -> list[str]:
    """Bring what waits, soonest first: each vault takes it when its own delay is over.

    A vault that had not seen it begins to wait now, where every signer can see it.
    """
    waiting = (await look(vaults, target.key)).view.waiting
    return [
        one.sent.digest
        for one in sorted(waiting, key=lambda w: min(w.until.values()))
        if (await vaults.submit(one.sent.signed())).confirmed
    ]


def _synced(found: Look) -> int:
    states = [v.state for v in found.vaults]
    if found.view.forks:
        return CONFLICT
    if all(s == "current" for s in states):
        return DONE
    return PARTLY if states.count("current") >= found.policy.vault_set.k else TOO_FEW
