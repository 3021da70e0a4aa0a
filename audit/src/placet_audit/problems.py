"""What an audit says is wrong: kinds of findings, and the two ways in which a check fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KINDS: Final = {
    # The log by itself (spec/06, sections 3 to 5).
    "log-not-signed": "A checkpoint or a trail's end is not signed by this vault.",
    "entry-not-in-log": "An entry is not in the tree of the vault's signed checkpoint.",
    "trail-broken": "An entry of the key was removed, repeated, moved or edited.",
    "trail-cut": "The vault signed a longer trail than the one that is shown.",
    "entry-unknown": "An entry is of a kind that this auditor does not know.",
    # Statements, as the vault took them (spec/03, sections 3 and 4; spec/09).
    "statement-missing": "The log says that a statement was taken, and nobody shows it.",
    "statement-unlogged": "A charter shows a statement that the vault's log does not have.",
    "statement-malformed": "A statement is none, or breaks a rule of its type.",
    "statement-misplaced": "A statement does not stand on the one before it.",
    "statement-unsigned": "Too few of those signed who counted at that version.",
    "statement-late": "A statement was taken too late, and k vaults do not vouch for it.",
    "statement-early": "A statement was taken before its delay was over.",
    "statement-refused": "A statement breaks a rule of the policy: it must not be taken.",
    # Decisions under them (spec/03, section 5).
    "release-unjustified": "A share left, and no statement in force let that code in.",
    "release-retired": "A share left to code that was retired, or stood below the floor.",
    "entry-false": "An entry says something else than what was decided.",
    "share-misplaced": "A share was held, committed or released in an impossible order.",
    # Between visits, vaults, and what apps kept.
    "log-went-back": "A later visit shows a shorter log than an earlier one.",
    "log-forked": "One vault signed two histories.",
    "receipt-without-entry": "A vault signed a receipt, and its log does not say so.",
    "charters-fork": "Vaults are on branches that nobody ended.",
    "too-few-vaults": "So few logs were read that a key could be gathered without them.",
}
"""Every finding's kind, and what it means."""


class Unreadable(Exception):  # noqa: N818 - a verdict on a file, beside `Refused`
    """What was given is no export. Nothing in it was judged."""


class Refused(Exception):  # noqa: N818 - a verdict, as the log's reader takes it
    """One check failed. Who asked for it knows the place, and makes a `Finding` of it.

    Args:
        kind: One of `KINDS`.
        detail: What was expected, and what came.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong, where, and why."""

    kind: str
    vault: str | None
    """Id of the vault whose log or word it is."""
    entry: int | None
    """Index of the log entry."""
    statement: str | None
    detail: str
    """What was expected, and what came."""

    def document(self) -> dict[str, object]:
        """Return it for a program."""
        return {
            "kind": self.kind,
            "meaning": KINDS[self.kind],
            "vault": self.vault,
            "entry": self.entry,
            "statement": self.statement,
            "detail": self.detail,
        }
