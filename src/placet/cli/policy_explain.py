"""``placet policy explain``: every act in one table, in plain words."""

from __future__ import annotations

from placet.cli.arguments import span
from placet.cli.output import Cell, Fact, answer, odd, print_json, show_facts, show_table, when
from placet.cli.policy_subject import Subject
from placet.cli.policy_words import MEANING, ROLES, by_whom, kind, listed
from placet.client.simulate import Road, members, roads
from placet.core.signer import Signer, signer_id
from placet.core.table import Rules


def explain_document(subject: Subject) -> dict[str, object]:
    """Return a table of rules for programs."""
    names, rules = subject.names, subject.rules
    return {
        "subject": subject.name,
        "owner": subject.fingerprint,
        "signers": [
            {"name": names.one(s), "id": signer_id(s), "roles": roles, "signer": s}
            for s, roles in _people(rules)
        ],
        "acts": [
            {
                "act": road.deed,
                "must_sign": [names.who(p) for p in road.principals],
                "delay": road.delay,
                "waits_alone": names.pages(road),
                "lifetime": road.lifetime,
                "veto": names.all(road.veto) if _may_wait(subject, road) else [],
            }
            for road in roads(rules)
        ],
        "immutable": rules.immutable,
        "cooldown": rules.cooldown,
        "stager_quota": rules.stager_quota,
        "now": subject.notes(),
    }


def show_explained(subject: Subject, *, as_json: bool) -> None:
    """Print a table of rules in plain words."""
    if as_json:
        print_json(explain_document(subject))
        return
    names, rules = subject.names, subject.rules
    answer(subject.name)
    show_facts(_facts(subject))
    rows: list[tuple[Cell, ...]] = [
        (names.one(s), ", ".join(roles), kind(s), _standing(subject, s))
        for s, roles in _people(rules)
    ]
    show_table("Who there is", ("name", "roles", "signs with", ""), rows)
    show_table(
        "Who can approve what",
        ("act", "which", "must sign", "waits", "lifetime", "can say no meanwhile"),
        [
            (
                road.deed,
                MEANING[road.deed],
                by_whom(road),
                names.waits(road, rules),
                span(road.lifetime),
                f"each of {', '.join(names.all(road.veto))}" if _may_wait(subject, road) else "-",
            )
            for road in roads(rules)
        ],
    )
    for note in subject.notes():
        answer(odd(note))


def _may_wait(subject: Subject, road: Road) -> bool:
    return bool(road.delay or subject.names.pages(road))


def _facts(subject: Subject) -> list[Fact]:
    rules = subject.rules
    facts: list[Fact] = [
        ("owner's fingerprint", subject.fingerprint),
        ("", "the config of an app that is to open the key must name it"),
        *subject.names.facts(rules),
        ("a stager's quota", f"{rules.stager_quota} versions; staging changes no access"),
        ("a device added later", f"counts after {span(rules.cooldown)}"),
        ("fixed for life", ", ".join(rules.immutable) or "nothing"),
    ]
    clause = rules.auto_migrate
    if clause is not None:
        delay, changes = span(clause.delay), listed(clause.changes)
        facts += [
            ("auto-migrate", f"{clause.budget} uses until {when(clause.expires_at)}"),
            ("", f"each {delay} after it was signed; may change {changes}"),
            ("", f"and raise the security version by at most {clause.max_step} each time"),
        ]
    return facts


def _standing(subject: Subject, signer: Signer) -> Cell:
    return odd("does not count yet") if signer_id(signer) in subject.young else ""


def _people(rules: Rules) -> list[tuple[Signer, list[str]]]:
    found: dict[str, tuple[Signer, list[str]]] = {}
    for role, signers in members(rules).items():
        for signer in signers:
            found.setdefault(signer_id(signer), (signer, []))[1].append(ROLES[role])
    return list(found.values())
