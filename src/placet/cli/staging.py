"""``placet stage``, ``pending`` and ``revoke``: put versions forward. It changes no access."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import click
from rich.text import Text

from placet.cli.arguments import DURATION, FILE, key_argument
from placet.cli.content import content
from placet.cli.files import load_key, read_json
from placet.cli.forward import Forward, Staged, named_code, read_forward
from placet.cli.govern_view import vetoables, waiting_table
from placet.cli.look import Look
from placet.cli.output import (
    DONE,
    FINDINGS,
    PARTLY,
    TOO_FEW,
    Cell,
    answer,
    bad,
    brief,
    exit_code,
    good,
    hint,
    json_option,
    moment,
    odd,
    print_json,
    reported,
    short,
    show_table,
    warn,
)
from placet.cli.passkey import sign_with
from placet.cli.passkey_kept import Pen
from placet.cli.pen import check_readable
from placet.cli.reach import SILENCE, Target, clock
from placet.cli.settings import Home
from placet.client.constellation import Constellation
from placet.client.fan_out import Outcomes
from placet.client.signing import Composer
from placet.core.body import StageBody
from placet.core.messages import StageAnswer
from placet.core.profile import Profile, check_profile, code_id
from placet.core.statement import UntrustedStatement


@click.command()
@key_argument
@click.option("--profile", type=FILE, required=True, metavar="FILE", help="The new code (JSON).")
@click.option("--version", required=True, help="Its name for people.")
@click.option("--source", required=True, metavar="COMMIT", help="What it was built from.")
@click.option("--key-file", type=FILE, metavar="FILE", help="The stager's key; else the owner's.")
@click.option("--every-key", is_flag=True, help="For all keys of the app, not for this one only.")
@click.option(
    "--expires", type=DURATION, default="30d", show_default=True, help="When it is let go."
)
@json_option
@reported
def stage(
    *,
    name: str,
    profile: Path,
    version: str,
    source: str,
    key_file: Path | None,
    every_key: bool,
    expires: int,
    as_json: bool,
) -> int:
    r"""Put a version forward for a key. It changes no access: its owner decides.

    \b
    Example:
      placet stage notes/data --profile notes-2.json --version 2 --source 1c9f3e0
    """
    home = Home.find()
    target = Target.find(home, name)
    signer = _signer(home, key_file)
    body = StageBody(
        profile=read_json(profile, Profile, "profile"),
        version=version,
        source=source,
        provenance=None,
        review=None,
    )
    check_profile(body.profile)
    composer = Composer(now=clock.now(), lifetime=expires)
    sent = _signed(composer.stage(None if every_key else target.key, body), signer)
    said = {"stage": sent.digest, "code": code_id(body.profile), "version": version}
    return _post(target, sent, said, as_json=as_json)


@click.command()
@key_argument
@json_option
@reported
def pending(*, name: str, as_json: bool) -> int:
    """List what is put forward for a key or waits, and where vaults differ.

    Nothing of it has any access. What a vault shows counts only if somebody signed it who
    may stage; exit code 1 when a vault shows something else.
    """
    target = Target.find(Home.find(), name)
    found, forward = target.visit(lambda v: read_forward(v, target.key), "asking")
    if as_json:
        print_json(_document(target, found, forward))
    else:
        _show(target, found, forward)
    return FINDINGS if forward.forged else DONE


@click.command()
@key_argument
@click.argument("staged", metavar="STAGE")
@click.option("--reason", required=True, help="For those who read the log.")
@click.option("--key-file", type=FILE, metavar="FILE", help="The stager's key; else the owner's.")
@json_option
@reported
def revoke(*, name: str, staged: str, reason: str, key_file: Path | None, as_json: bool) -> int:
    """Take back what was put forward: STAGE is its digest, or a beginning of that.

    The stager may, and the owner. Code that was promoted stays: see `placet retire`.
    """
    home = Home.find()
    target = Target.find(home, name)
    signer = _signer(home, key_file)
    _, forward = target.visit(lambda v: read_forward(v, target.key), "asking")
    digest = named_code(
        [s.sent.digest for s in forward.staged], staged, f"placet pending {target.argument}"
    )
    composed = Composer(now=clock.now()).revoke(target.key, digest, reason)
    return _post(target, _signed(composed, signer), {"stage": digest}, as_json=as_json, gone=True)


def _signer(home: Home, key_file: Path | None) -> Pen:
    return load_key(key_file) if key_file is not None else home.owner().key


def _signed(sent: UntrustedStatement, signer: Pen) -> UntrustedStatement:
    """Sign what is put forward or taken back; whether this signer may is for vaults to say."""
    return sign_with(
        signer, sent, content(sent, own=True), port=Home.find().settings().owner.page_port
    )


def _post(
    target: Target,
    sent: UntrustedStatement,
    said: Mapping[str, str],
    *,
    as_json: bool,
    gone: bool = False,
) -> int:
    check_readable(sent)

    async def post(vaults: Constellation) -> Outcomes[StageAnswer]:
        return await vaults.fan_out(lambda v: v.stage(sent.signed()))

    outcomes = target.visit(post, "taking back" if gone else "staging")
    code = _code(outcomes)
    done = "taken back" if gone else "pending"
    rows: list[tuple[Cell, ...]] = []
    vaults = []
    for number, o in enumerate(outcomes.each, 1):
        e = o.error
        state = (
            good(done) if e is None else odd("no answer") if isinstance(e, SILENCE) else bad(e.type)
        )
        rows.append((number, o.endpoint, short(o.vault), state, brief(e)))
        became = {"became": done if e is None else e.type, "why": e.detail if e else None}
        vaults.append({"number": number, "vault": o.vault, "endpoint": o.endpoint, **became})
    if as_json:
        print_json({"key": target.key, **said, "vaults": vaults})
        return code
    show_table("", ("vault", "endpoint", "id", "state", ""), rows)
    answer(f"{done} at {len(outcomes.values)} of {len(rows)} vaults: stage {short(said['stage'])}")
    if code == DONE and not gone:
        hint(f"placet review {target.argument} {short(said['stage'])}   (its owner decides)")
    elif code in (PARTLY, TOO_FEW):
        hint("run it again when the others are back; the owner can decide without them")
    return code


def _code(outcomes: Outcomes[StageAnswer]) -> int:
    if not outcomes.errors:
        return DONE
    if outcomes.values:
        return PARTLY
    said = [e for e in outcomes.errors.values() if not isinstance(e, SILENCE)]
    return exit_code(said[0]) if said else TOO_FEW


def describe(staged: Staged, forward: Forward) -> dict[str, object]:
    """Return something pending, for programs."""
    body = staged.stage.body
    return {
        "stage": staged.sent.digest,
        "code": staged.code,
        "version": body.version,
        "source": body.source,
        "staged_by": staged.staged_by,
        "issued_at": staged.stage.issued_at,
        "expires_at": staged.stage.expires_at,
        "every_key": staged.stage.key is None,
        "profile": staged.profile,
        "provenance": body.provenance,
        "review": body.review,
        "at": staged.at,
        "lacking": forward.lack(staged),
    }


def _document(target: Target, found: Look, forward: Forward) -> dict[str, object]:
    return {
        "key": target.key,
        "label": target.known.label,
        "version": found.policy.version,
        "answered": forward.answered,
        "pending": [describe(s, forward) for s in forward.staged],
        "waiting": vetoables(found),
        "forged": [{"vault": n, "why": why} for n, why in forward.forged],
    }


def _standing(found: Look) -> Callable[[str], Cell]:
    approved = {a.code for a in found.policy.approvals}

    def standing(code: str) -> Cell:
        if code in approved:
            return good("approved")
        return bad("was retired") if code in found.policy.tombstones else odd("awaits the owner")

    return standing


def _show(target: Target, found: Look, forward: Forward) -> None:
    n, waiting = target.vault_set.n, vetoables(found)
    waiting_table(found, waiting)
    for number, why in forward.forged:
        warn(f"vault {number} shows something that nobody staged who may: {why}")
    if not forward.staged:
        answer(f"Nothing is put forward for {target.name}.")
        return
    standing = _standing(found)
    rows: list[tuple[Cell, ...]] = []
    for s in forward.staged:
        lacking = forward.lack(s)
        at: Cell = good(f"{len(s.at)} of {n}")
        if lacking:
            at = odd(f"{len(s.at)} of {n}, not {', '.join(map(str, lacking))}")
        body = s.stage.body
        rows.append(
            (
                short(s.sent.digest),
                f"{s.profile.app} {body.version}",
                short(body.source) if body.source.startswith("sha") else body.source[:16],
                short(s.code),
                s.staged_by,
                moment(s.stage.issued_at),
                at,
                standing(s.code),
            )
        )
    columns = (
        "stage",
        "version",
        "source",
        "code",
        "staged by",
        "when (UTC)",
        "at vaults",
        "state",
    )
    answer(Text(f"Put forward for {target.name}", style="bold"))
    show_table("", columns, rows)
    silent = n - len(forward.answered)
    if silent:
        warn(f"{silent} of {n} vaults did not answer")
    newest = forward.staged[-1]
    hint(f"placet review {target.argument} {short(newest.sent.digest)}")
