"""``placet policy simulate``: who could read these data today, and who could change that?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from rich.text import Text

from placet.cli.arguments import span
from placet.cli.key_view import in_force
from placet.cli.output import (
    DONE,
    FINDINGS,
    Cell,
    answer,
    bad,
    good,
    odd,
    print_json,
    short,
    show_facts,
    show_table,
    when,
)
from placet.cli.policy_subject import Subject
from placet.cli.policy_theft import Theft, show_theft, theft_document
from placet.cli.policy_words import MEANING, listed, waiting
from placet.client.simulate import Deed, Option, Options, Road, mend, options, roads
from placet.policy.key_policy import KeyPolicy
from placet.policy.principal import leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is supposed: signers that are gone, and signers that a thief has."""

    lost: tuple[str, ...] = ()
    stolen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Who can do what, of those who are left."""

    acts: tuple[tuple[Road, Options], ...]
    lost: tuple[str, ...]
    repair: Road | None
    """By which the full set of signers comes back; asked only where some are lost."""
    theft: Theft | None

    @property
    def code(self) -> int:
        """Return the exit code: findings where nobody could mend or stop it."""
        beyond = bool(self.lost) and self.repair is None
        return FINDINGS if beyond or (self.theft and self.theft.unstoppable) else DONE


def simulate_policy(subject: Subject, question: Question) -> Answer:
    """Answer the second question; the first is what the charter says."""
    lost = subject.ids(question.lost, "--lost")
    stolen = subject.ids(question.stolen, "--stolen")
    gone = lost | subject.young
    rules = subject.rules
    return Answer(
        acts=tuple((road, options(road, without=gone)) for road in roads(rules)),
        lost=question.lost,
        repair=mend(rules, gone) if lost else None,
        theft=Theft.of(subject, question.stolen, stolen, gone) if stolen else None,
    )


def show_simulated(subject: Subject, found: Answer, *, as_json: bool) -> int:
    """Print the answers and return the exit code."""
    if as_json:
        print_json(_document(subject, found))
        return found.code
    answer(subject.name)
    _show_today(subject.policy)
    title = "Who could change that?"
    if found.lost:
        title = f"Who could change that, without {listed(found.lost)}?"
    show_table(
        title,
        ("act", "which", "together these", "waits", "can say no meanwhile"),
        _rows(subject, found),
    )
    for note in subject.notes():
        answer(note)
    if found.lost:
        answer(_mended(subject, found))
    if found.theft:
        show_theft(subject, found.theft)
    return found.code


def _show_today(policy: KeyPolicy | None) -> None:
    if policy is None:
        show_table("Who could read these data today?", (), [])
        show_facts(
            [
                ("code", "what the birth names (placet key new --profile), inside its TEE"),
                ("with", "any k of the n vaults that the birth names (--vaults)"),
                ("nobody else", "no signer, no platform; only k vaults that are bad together"),
            ]
        )
        return
    alive = [a for a in policy.approvals if in_force(policy, a)]
    rows: list[tuple[Cell, ...]] = [
        (
            short(a.code),
            a.profile.app,
            a.profile.security_version,
            when(a.until) if a.until else "no end",
        )
        for a in alive
    ]
    columns = ("code", "app", "security version", "until")
    show_table("Who could read these data today?", columns, rows)
    k, n = policy.vault_set.k, policy.vault_set.n
    if not alive or policy.deleted:
        answer("no code is let in: nobody")
        return
    answer(f"this code inside its TEE, with any {k} of the {n} vaults")
    answer(f"nobody else: no signer, no platform; only {k} vaults that are bad together")


def _rows(subject: Subject, found: Answer) -> list[tuple[Cell, ...]]:
    """Return one row for each group; acts that the same groups can do stand side by side."""
    alike: dict[Options, list[Deed]] = {}
    for road, said in found.acts:
        alike.setdefault(said, []).append(road.deed)
    rows: list[tuple[Cell, ...]] = []
    for said, deeds in alike.items():
        groups = [_group(subject, option, deeds) for option in said.listed]
        if said.total > len(said.listed):
            groups.append((f"and {said.total - len(said.listed)} more groups", "", ""))
        groups = groups or [(bad("nobody any more"), "", "")]
        if rows:
            rows.append(("",) * 5)
        for deed, group in zip_longest(deeds, groups):
            rows.append((deed or "", MEANING[deed] if deed else "", *(group or ("", "", ""))))
    return rows


def _group(subject: Subject, option: Option, deeds: list[Deed]) -> tuple[Cell, Cell, Cell]:
    names, guardians = subject.names, subject.rules.guardians
    waits = waiting(option.waits)
    if deeds == ["recover"] and guardians is not None:
        waits += f", and {span(guardians.cooldown)} without promotes"
    return " + ".join(names.all(option.signers)), waits, ", ".join(names.all(option.veto)) or "-"


def _mended(subject: Subject, found: Answer) -> Text:
    rules, lost = subject.rules, listed(found.lost)
    if found.repair is None:
        return bad(f"{lost} cannot be replaced by anybody, ever")
    if found.repair.deed == "recover" and rules.guardians is not None:
        return odd(
            f"{lost} can be replaced: guardians put a new owner in place after "
            f"{span(rules.guardians.delay)}, who can promote {span(rules.guardians.cooldown)} later"
        )
    owners = subject.names.all(leaves(rules.owner))
    counts = f"; a new device counts after {span(rules.cooldown)}"
    added = counts if set(owners) & set(found.lost) else ""
    return good(f"{lost} can be replaced by update_policy, as above{added}")


def _document(subject: Subject, found: Answer) -> dict[str, object]:
    names, policy = subject.names, subject.policy
    today: dict[str, object] | None = None
    if policy is not None:
        today = {
            "k": policy.vault_set.k,
            "n": policy.vault_set.n,
            "code": []
            if policy.deleted
            else [
                {"code": a.code, "app": a.profile.app, "until": a.until, "statement": a.statement}
                for a in policy.approvals
                if in_force(policy, a)
            ],
        }
    return {
        "subject": subject.name,
        "today": today,
        "acts": [
            {
                "act": road.deed,
                "groups": [
                    {
                        "signers": names.all(o.signers),
                        "waits": o.waits,
                        "veto": names.all(o.veto),
                    }
                    for o in said.listed
                ],
                "total": said.total,
            }
            for road, said in found.acts
        ],
        "lost": {
            "signers": found.lost,
            "replaced_by": found.repair.deed if found.repair else None,
        }
        if found.lost
        else None,
        "stolen": theft_document(subject, found.theft) if found.theft else None,
        "now": subject.notes(),
    }
