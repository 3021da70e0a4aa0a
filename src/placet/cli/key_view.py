"""``placet key show``: a key's policy in force, and where each vault stands."""

from __future__ import annotations

from rich.text import Text

from placet.cli.govern_view import (
    standing_document,
    standing_facts,
    standing_notes,
    vetoables,
    waiting_table,
)
from placet.cli.look import STANDING, Look, VaultState
from placet.cli.output import (
    DONE,
    FINDINGS,
    TOO_FEW,
    Cell,
    Fact,
    answer,
    bad,
    brief,
    good,
    hint,
    moment,
    odd,
    print_json,
    short,
    show_facts,
    show_table,
    warn,
    when,
)
from placet.cli.passkey_young import young, young_facts
from placet.cli.pen import words
from placet.cli.policy_words import Names, listed
from placet.cli.reach import Target, clock
from placet.cli.words import titled
from placet.core.profile import code_id
from placet.core.statement import Chained, Delete, Retire, UntrustedStatement
from placet.policy.charter import effective_at
from placet.policy.key_policy import Approval, KeyPolicy


def show_key(target: Target, found: Look, *, as_json: bool) -> int:
    """Print a key and return the exit code."""
    policy = found.policy
    code = DONE
    if found.view.forks or found.view.wrong:
        code = FINDINGS
    elif found.answered < policy.vault_set.k:
        code = TOO_FEW
    if as_json:
        print_json(document(target, found))
    else:
        _print(target, found)
    return code


def document(target: Target, found: Look) -> dict[str, object]:
    """Return a key for programs."""
    policy = found.policy
    return {
        "label": policy.label,
        "key": policy.key,
        "constellation": target.known.constellation,
        "owner": policy.birth_owner,
        "version": policy.version,
        "head": policy.head,
        "floor": policy.floor,
        "k": policy.vault_set.k,
        "n": policy.vault_set.n,
        "vault_releases": [code_id(p) for p in policy.vault_set.profiles],
        "approvals": [
            {
                "code": a.code,
                "app": a.profile.app,
                "image": a.profile.image,
                "security_version": a.profile.security_version,
                "statement": a.statement,
                "until": a.until,
                "in_force": in_force(policy, a),
                "profile": a.profile,
            }
            for a in policy.approvals
        ],
        "tombstones": sorted(policy.tombstones),
        "stagers": policy.stagers,
        "young": young(policy, clock.now()),
        **standing_document(found),
        "statements": [_effect(found, t.sent) for t in found.taken],
        "vaults": found.vaults,
        "answered": found.answered,
        "forks": [{"prev": f.prev, "children": f.children} for f in found.view.forks],
    }


def in_force(policy: KeyPolicy, approval: Approval) -> bool:
    """Say whether an approval lets code in now."""
    alive = approval.until is None or clock.now() < approval.until
    return alive and approval.profile.security_version >= policy.floor


def _effect(found: Look, sent: UntrustedStatement) -> dict[str, object]:
    if not isinstance(sent.statement, Chained):
        raise TypeError("sent: not a statement of a charter")
    have = [v.number for v in found.vaults if v.vault in found.view.confirmed(sent.digest)]
    needed = effective_at(sent.statement, found.policy.vault_set)
    unseen = [
        v.number
        for v in found.vaults
        if v.number in have
        and not found.circle.stands(v.vault, found.witnesses(v.vault, sent.digest))
    ]
    # What takes away counts where it could not be undone by putting the vault back (spec/10, 6).
    takes_away = isinstance(sent.statement, Retire | Delete)
    counted = len(have) - len(unseen) if takes_away else len(have)
    said = titled(sent.statement)
    return {
        "statement": sent.digest,
        "type": said.kind,
        "about": said.subject,
        "words": words(sent.digest),
        "issued_at": sent.statement.issued_at,
        "confirmed": have,
        "needed": needed,
        "effective": counted >= needed,
        "unwitnessed": unseen,
        "not_confirmed": [v.number for v in found.vaults if v.number not in have],
    }


def _print(target: Target, found: Look) -> None:
    policy, vaults = found.policy, found.vaults
    facts: list[Fact] = [
        ("key id", policy.key),
        ("owner", policy.birth_owner),
        ("signers", Names.of(policy.rules).who(policy.owner)),
        ("version", f"{policy.version}, head {short(policy.head)}"),
        ("floor", f"security version {policy.floor}"),
        ("data key", _data_key(found)),
        ("stagers", ", ".join(s.label for s in policy.stagers) or "the owner only"),
        (
            "constellation",
            f"{target.known.constellation}: any {policy.vault_set.k} of {len(vaults)}",
        ),
    ]
    facts += [*_releases(found), *standing_facts(found), *young_facts(policy, clock.now())]
    answer(Text(policy.label, style="bold"))
    show_facts(facts)
    rows: list[tuple[Cell, ...]] = [
        (
            short(a.code),
            a.profile.app,
            a.profile.security_version,
            short(a.statement),
            _state(policy, a),
        )
        for a in policy.approvals
    ]
    rows += [
        (short(t), "", "", "", bad("retired"))
        for t in sorted(policy.tombstones)
        if t not in [a.code for a in policy.approvals]
    ]
    show_table("Code", ("code", "app", "security version", "approved by", "state"), rows)
    show_table(
        "Statements",
        ("version", "statement", "what", "about", "issued (UTC)", "at vaults"),
        [(i, *_statement(_effect(found, t.sent), vaults)) for i, t in enumerate(found.taken, 1)],
    )
    waiting_table(found, vetoables(found))
    show_table(
        "Vaults",
        ("vault", "endpoint", "id", "state", "version", "witnesses", "share", ""),
        [_vault(v, found) for v in vaults],
    )
    _notes(target, found)


def _releases(found: Look) -> list[Fact]:
    """Return which releases the vaults run, where the owner named several."""
    profiles = found.policy.vault_set.profiles
    if len(profiles) == 1:
        return []
    facts: list[Fact] = []
    for number, profile in enumerate(profiles, 1):
        there = [str(v.number) for v in found.vaults if v.release == number]
        where = f"runs at {listed(there)}" if there else "runs nowhere now"
        facts.append((f"vault release {number}", f"{short(code_id(profile))}, {where}"))
    return facts


def _data_key(found: Look) -> Text:
    committed = [v.share for v in found.vaults if v.share]
    n = len(found.vaults)
    ended = found.policy.birth_expires_at
    if found.policy.deleted:
        return bad("destroyed by its owner, and its shares with it")
    if not committed and clock.now() >= ended:
        return bad(f"never created, and it can no longer be: the birth ended {when(ended)}")
    if not committed:
        return odd("not created yet: the app does that at its first boot")
    text = f"created, shares at {len(committed)} of {n} vaults"
    return good(text) if len(set(committed)) == 1 else bad(text + ", and they differ")


def _state(policy: KeyPolicy, approval: Approval) -> Text:
    if approval.profile.security_version < policy.floor:
        return bad("below the floor")
    if not in_force(policy, approval):
        return bad(f"retired {when(approval.until)}")
    if approval.until is not None:
        return odd(f"approved until {when(approval.until)}")
    return good("approved")


def _statement(effect: dict[str, object], vaults: tuple[VaultState, ...]) -> tuple[Cell, ...]:
    have, needed = effect["confirmed"], effect["needed"]
    if not isinstance(have, list):
        raise TypeError("effect: not of _effect")
    count = f"{len(have)} of {len(vaults)} ({needed} needed)"
    shown = good(count) if effect["effective"] else odd(count)
    missing = effect["not_confirmed"]
    if missing and isinstance(missing, list):
        shown += Text(f", not {', '.join(map(str, missing))}", style="dim")
    if isinstance(needed, int) and len(have) >= needed and not effect["effective"]:
        shown += odd(", waits for witnesses")
    issued = effect["issued_at"]
    return (
        short(str(effect["statement"])),
        str(effect["type"]),
        str(effect["about"]),
        moment(issued if isinstance(issued, int) else None),
        shown,
    )


def _witnesses(v: VaultState, found: Look) -> Cell:
    """Return how many of its circle saw the newest statement that a vault took, and are needed."""
    if v.witnessed is None:
        return "-"
    count = f"{v.witnessed} of {len(found.circle.others(v.vault))} ({found.circle.needed} needed)"
    return good(count) if v.stands else odd(count)


def _vault(v: VaultState, found: Look) -> tuple[Cell, ...]:
    share = good("committed") if v.share else odd("none")
    return (
        v.number,
        v.endpoint,
        short(v.vault),
        STANDING[v.state],
        v.version,
        _witnesses(v, found),
        share if v.version else "-",
        brief(v.why),
    )


def _notes(target: Target, found: Look) -> None:
    policy = found.policy
    standing_notes(target, found)
    if found.answered < policy.vault_set.k:
        warn(
            f"only {found.answered} of {len(found.vaults)} vaults answered, fewer than "
            f"{policy.vault_set.k}: all of them may be old"
        )
    if any(v.state in ("behind", "unborn") for v in found.vaults):
        hint(f"placet key sync {target.argument}   (some vaults lack statements)")
    elif found.answered < len(found.vaults):
        hint(f"placet key sync {target.argument}   (when the others are back)")
    else:
        hint(f"placet pending {target.argument}")
