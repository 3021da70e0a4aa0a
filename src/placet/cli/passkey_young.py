"""Owner signers that were added and count for nothing yet: shown wherever the owner looks (R5.7).

Whoever got hold of one authenticator could enrol one of his own with it. Vaults pass the
new one over during the key's cool-down; in that time every other signer is told.
"""

from __future__ import annotations

from placet.cli.output import Fact, odd, short, when
from placet.cli.policy_words import Names
from placet.core.encoding import Record, Sha256
from placet.policy.key_policy import KeyPolicy


class Young(Record):
    """One signer in its cool-down."""

    signer: Sha256
    label: str
    counts_from: int
    """Unix seconds, by the vaults' clocks."""


def young(policy: KeyPolicy, now: int) -> tuple[Young, ...]:
    """Return the signers of a key's owner that count for nothing yet."""
    names = Names.of(policy.rules).by_id
    return tuple(
        Young(signer=signer, label=names.get(signer, short(signer)), counts_from=until)
        for signer, until in policy.young
        if now < until
    )


def young_facts(policy: KeyPolicy, now: int) -> list[Fact]:
    """Return what to show of them beside everything that is to be signed."""
    return [
        (
            "new signer",
            odd(
                f"{y.label} ({short(y.signer)}) was added and counts from {when(y.counts_from)}; "
                "if that was not you, change the owner before"
            ),
        )
        for y in young(policy, now)
    ]
