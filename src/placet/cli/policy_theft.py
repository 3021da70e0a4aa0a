"""What who stole some signers could do alone, and who could stop it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from placet.cli.output import Cell, answer, bad, good, odd, show_table
from placet.cli.policy_subject import Subject
from placet.cli.policy_words import MEANING, listed, waiting
from placet.client.simulate import (
    Approach,
    Option,
    Options,
    Road,
    alone,
    approaches,
    members,
    mend,
    options,
    roads,
)
from placet.core.signer import signer_id

LIMITS = {
    "none": "any code that they choose could read the data",
    "clause": "code within the clause could read the data",
    "vaults": "k vaults that they choose could have the key",
}
"""What stands at the end of an approach."""

FEW = 3
"""Groups that are named in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theft:
    """A thief with some signers, and everybody else."""

    stolen: tuple[str, ...]
    could: tuple[tuple[Road, Option], ...]
    """Acts for which what was stolen is enough."""
    lets_in: tuple[Approach, ...]
    """Ways at whose end others read the data."""
    vetoes: bool
    """Whether the thief can say no to what waits."""
    stages: bool
    """Whether the thief can put versions forward, which changes no access."""
    repair: tuple[Road, Options] | None
    """By which the others take the stolen signers out."""

    @classmethod
    def of(
        cls, subject: Subject, labels: tuple[str, ...], stolen: frozenset[str], gone: frozenset[str]
    ) -> Theft:
        """Return what a thief could do.

        Args:
            subject: Whose rules.
            labels: Names of what was stolen.
            stolen: Its ids.
            gone: Ids of signers that count for nothing, for the thief or anybody.
        """
        rules = subject.rules
        have, rest = stolen - gone, stolen | gone
        ways = roads(rules)
        road = mend(rules, rest)
        return cls(
            stolen=labels,
            could=tuple((r, option) for r in ways if (option := alone(r, have)) is not None),
            lets_in=approaches(rules, have),
            vetoes=any(
                signer_id(s) in have
                for r in ways
                if r.delay or subject.names.pages(r)
                for s in r.veto
            ),
            stages=any(signer_id(s) in stolen for s in members(rules).get("stagers", ())),
            repair=(road, options(road, without=rest)) if road else None,
        )

    @property
    def unstoppable(self) -> bool:
        """Return whether the thief could let code in and nobody could say no."""
        return any(not a.veto for a in self.lets_in)


def show_theft(subject: Subject, theft: Theft) -> None:
    """Print what a thief could do."""
    names, who = subject.names, listed(theft.stolen)
    rows: list[tuple[Cell, ...]] = [
        (
            road.deed,
            MEANING[road.deed],
            waiting(option.waits),
            ", ".join(names.all(option.veto)) or bad("nobody"),
        )
        for road, option in theft.could
    ]
    if theft.stages:
        rows.append(("stage", "put versions forward", "at once", "changes no access"))
    if theft.vetoes:
        waiting_acts = "say no to what waits for it"
        rows.append(("void", waiting_acts, "at once", bad("nobody")))
    title = f"What could a thief of {who} do alone?"
    if rows:
        show_table(title, ("act", "which", "waits", "could say no in time"), rows)
    else:
        show_table(title, (), [])
        answer(good("nothing"))
    for approach in theft.lets_in:
        answer(_said(subject, approach))
    if rows and not theft.lets_in:
        answer(good(f"a thief of {who} alone could not let any code in"))
    answer(_taken_out(subject, theft))


def theft_document(subject: Subject, theft: Theft) -> dict[str, object]:
    """Return the same for programs."""
    names = subject.names
    road, rest = theft.repair or (None, None)
    return {
        "signers": theft.stolen,
        "could": [
            {"act": r.deed, "waits": o.waits, "veto": names.all(o.veto)} for r, o in theft.could
        ],
        "lets_in": [
            {"steps": a.steps, "waits": a.waits, "veto": names.all(a.veto), "limits": a.limits}
            for a in theft.lets_in
        ],
        "vetoes": theft.vetoes,
        "stages": theft.stages,
        "taken_out_by": {
            "act": road.deed,
            "groups": [names.all(o.signers) for o in rest.listed],
            "total": rest.total,
        }
        if road and rest
        else None,
    }


def _said(subject: Subject, approach: Approach) -> Text:
    steps = ", then ".join(approach.steps)
    when = "at once" if not approach.waits else f"after {waiting(approach.waits)}"
    head = f"{LIMITS[approach.limits]} {when}, by {steps}: "
    if approach.veto:
        return odd(head + f"each of {', '.join(subject.names.all(approach.veto))} can say no")
    return bad(head + "nobody can say no")


def _taken_out(subject: Subject, theft: Theft) -> Text:
    names, who = subject.names, listed(theft.stolen)
    if theft.repair is None:
        return bad(f"{who} cannot be taken out of the rules by the others")
    road, rest = theft.repair
    groups = "; ".join(" + ".join(names.all(o.signers)) for o in rest.listed[:FEW])
    more = f"; and {rest.total - FEW} more groups" if rest.total > FEW else ""
    text = f"{who} can be taken out by {road.deed}, {waiting(road.delay)}: {groups}{more}"
    if road.deed == "recover" and theft.vetoes:
        return bad(f"{text}; but the thief can say no to it")
    return good(f"{text}; be quicker than the thief" if theft.lets_in else text)
