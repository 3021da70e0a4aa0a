"""Whose signatures a statement has, whose it lacks, and how long it then waits.

Vaults decide that by `placet.policy.authority`; here the same is asked before anything is
sent, and said in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from placet.cli.files import load_key
from placet.cli.output import when
from placet.cli.passkey_kept import Pen, pen_id
from placet.cli.policy_words import Names, listed
from placet.cli.settings import Home
from placet.core.signer import Signer, Threshold, signer_id
from placet.core.table import Rules
from placet.errors import ApprovalError
from placet.policy.authority import Way, wait_of
from placet.policy.key_policy import KeyPolicy
from placet.policy.principal import any_of, leaves, require
from placet.policy.timing import without_young


def pen_for(home: Home, signers: Sequence[Signer], key_file: Path | None) -> Pen:
    """Return what signs: the key file that is named, else what of this machine's may.

    Whether it is one of ``signers`` is *not* checked, `placet.cli.pen.sign` does that: where
    nothing at hand is, the usual one is returned, for the error to name.

    Raises:
        NotFoundError: There is nothing that could sign here.
    """
    if key_file is not None:
        return load_key(key_file)
    owner = home.owner()
    ids = {signer_id(s) for s in signers}
    fitting = [p for p in (owner.key, *owner.pens) if pen_id(p) in ids]
    return fitting[0] if fitting else owner.key


def lacking(
    found: Sequence[Way],
    signed: frozenset[str],
    *,
    policy: KeyPolicy | None = None,
    seen: frozenset[str],
    now: int,
) -> ApprovalError | None:
    """Return whose signatures are still missing, if they are.

    Args:
        found: The ways in which the statement may be approved.
        signed: Ids of those who signed.
        policy: Before the statement; ``None`` before a birth.
        seen: Statements that one owner signer alone may veto.
        now: Unix seconds; a signer in its cool-down counts for nothing.
    """
    counting = without_young(policy, signed, now)
    try:
        wait_of(found, counting, seen=seen)
    except ApprovalError:
        pass
    else:
        return None
    open_ways = [w for w in found if w.names is None or w.names in seen]
    each = [[text for p in w.principals if (text := _lacks(p, counting))] for w in open_ways]
    # Of several ways, the one that lacks the fewest principals is the one to go.
    _, fewest = min((len(texts), texts) for texts in each)
    return ApprovalError(
        "; ".join(fewest) + _young(policy, signed - counting),
        "Have them sign the same statement: placet sign FILE, then placet deliver FILE",
    )


def vetoers(rules: Rules) -> tuple[Signer, ...]:
    """Return the signers of whom each alone can say no to what waits."""
    return leaves(any_of(rules.owner, "any signer of the owner"))


def who_can_veto(rules: Rules) -> str:
    """Return their names as a sentence has them."""
    return listed(Names.of(rules).all(vetoers(rules)), "or")


def _lacks(principal: Threshold, signed: frozenset[str]) -> str | None:
    try:
        require(principal, signed)
    except ApprovalError as e:
        count = e.members["came"]
        return (
            f"{principal.label}: {principal.threshold} of {len(principal.of)} must sign, "
            f"{count} did"
        )
    return None


def _young(policy: KeyPolicy | None, passed_over: frozenset[str]) -> str:
    if policy is None or not passed_over:
        return ""
    names, until = Names.of(policy.rules).by_id, dict(policy.young)
    said = [f"{names.get(s, s)} counts from {when(until[s])}" for s in sorted(passed_over)]
    return f" ({'; '.join(said)})"
