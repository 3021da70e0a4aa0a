"""The whole audit: from what was exported to what was found (spec/11, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from placet_audit.between import (
    check_receipts,
    compare_charters,
    compare_visits,
    kept_receipts,
    signed_time,
)
from placet_audit.canonical import Json
from placet_audit.export import Exports, Visit
from placet_audit.problems import Finding, Refused, Unreadable
from placet_audit.replay import Replay, Shown
from placet_audit.statement import Statement, open_statement
from placet_audit.visit import Found, Trail, read_trail


@dataclass
class Audit:
    """What was read of one key, what it decides, and what is wrong with it."""

    key: str
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    replays: dict[str, Replay] = field(default_factory=dict)
    """By vault, in the order of the vault set; of one that was upgraded, its newest log."""
    logs: dict[tuple[str, str], Replay] = field(default_factory=dict)
    """By vault and line: every log that was read."""
    statements: dict[str, Statement] = field(default_factory=dict)
    birth: Statement | None = None
    receipts: int = 0
    """How many of the apps' receipts were looked for."""

    @property
    def label(self) -> str:
        """Return the key's human name."""
        return self.birth.body["label"] if self.birth else "(its birth is not shown)"

    @property
    def vault_ids(self) -> list[str]:
        """Return the ids of the vault set, in order."""
        return [v["id"] for v in self.birth.body["vault_set"]["vaults"]] if self.birth else []

    def number(self, vault: str) -> int:
        """Return a vault's place in the set, from 1; 0 for a stranger."""
        return self.vault_ids.index(vault) + 1 if vault in self.vault_ids else 0

    def find(
        self, kind: str, detail: str, vault: str, entry: int | None, statement: str | None
    ) -> None:
        """Note what is wrong, once."""
        finding = Finding(
            kind=kind, vault=vault, entry=entry, statement=statement, detail=detail
        )  # fmt: skip
        if finding not in self.findings:
            self.findings.append(finding)


def audit(exports: Exports, *, key: str | None = None) -> Audit:
    """Check everything that was exported of a key.

    Args:
        exports: From `read_exports`.
        key: The key id that is meant; ``None``: the one key that all exports are of.

    Raises:
        Unreadable: The exports are of no key, or of several and none was named.
    """
    keys = {v.key for v in exports.visits}
    if key is None and len(keys) != 1:
        raise Unreadable(f"exports are of {len(keys)} keys; say which: --key")
    one = Audit(key or keys.pop())
    visits = [v for v in exports.visits if v.key == one.key]
    if not visits:
        raise Unreadable(f"no export is of key {one.key}")
    return _run(one, visits, exports.receipts)


def _run(one: Audit, visits: Sequence[Visit], receipts: Sequence[Json]) -> Audit:
    shown = {id(visit): _shown(one, visit) for visit in visits}
    one.birth = one.statements.get(one.key)
    trails: dict[str, dict[str, list[Trail]]] = {}
    for visit in visits:
        trail = read_trail(visit, _of_vault(one, visit.vault))
        trails.setdefault(visit.vault, {}).setdefault(trail.line, []).append(trail)
    anywhere = {d: s for table in shown.values() for d, s in table.items()}
    vaults = one.vault_ids or list(trails)
    for vault in vaults:
        if vault not in trails:
            continue
        others = {d: Shown(s.statement) for d, s in anywhere.items()}
        for line, logs in sorted(trails[vault].items(), key=lambda i: signed_time(i[1][-1])):
            trail = compare_visits(logs, one.find)
            own = {d: s for t in logs for d, s in shown[id(t.visit)].items()}
            replay = Replay(trail, others | own, _of_vault(one, vault)).run()
            one.logs[vault, line] = replay
            _check_charter(one, trail, replay)
            if vault in one.replays:
                one.notes.append(
                    f"vault {one.number(vault)} was upgraded: of an older process's log "
                    f"{len(one.replays[vault].releases)} releases were decided again"
                )
            one.replays[vault] = replay
    for vault in trails.keys() - set(vaults):
        one.notes.append(f"vault {vault} is none of this key's: it was not looked at")
    _check_between(one, visits, receipts)
    return one


def _of_vault(one: Audit, vault: str) -> Found:
    def found(kind: str, detail: str, entry: int | None, statement: str | None) -> None:
        one.find(kind, detail, vault, entry, statement)

    return found


def _shown(one: Audit, visit: Visit) -> dict[str, Shown]:
    """Return what a visit shows, each statement with every receipt that came with it."""
    found: dict[str, Shown] = {}
    for line in visit.statements:
        try:
            statement = open_statement(line["signed"])
        except Refused as e:
            one.find(e.kind, e.detail, visit.vault, None, None)
            continue
        if statement.key != one.key:
            one.find("statement-misplaced", f"it is of {statement.key}", visit.vault, None, None)
            continue
        before = found.get(statement.digest)
        receipts = (*(before.receipts if before else ()), *line["receipts"])
        found[statement.digest] = Shown(statement, receipts)
        one.statements.setdefault(statement.digest, statement)
    return found


def _check_charter(one: Audit, trail: Trail, replay: Replay) -> None:
    """Check that the charter that a vault shows is the one that its log took."""
    lines = [s for s in trail.visit.statements if s["place"] == "charter"]
    said: list[str] = []
    for line in lines:
        try:
            said.append(open_statement(line["signed"]).digest)
        except Refused:
            continue  # reported where it was read
    chain = list(replay.policy.chain) if replay.policy else []
    for digest in said:
        if digest not in chain:
            one.find("statement-unlogged", "its log did not take it, or left it again",
                     trail.visit.vault, None, digest)  # fmt: skip
    if all(d in chain for d in said) and said != chain:
        one.find(
            "statement-missing",
            f"its charter has {len(said)} statements, its log took {len(chain)}",
            trail.visit.vault,
            None,
            None,
        )


def _check_between(one: Audit, visits: Sequence[Visit], receipts: Sequence[Json]) -> None:
    vaults = one.vault_ids
    brought = [r for v in visits for line in v.statements for r in line["receipts"]]
    taken, _ = kept_receipts(vaults, brought, "taken", one.key)
    released, others = kept_receipts(vaults, receipts, "released", one.key)
    one.receipts = len(released)
    if others:
        one.notes.append(f"{others} receipts are of no vault of this key, or of another key")
    check_receipts(one.logs, [*taken, *released], one.find, one.notes.append)
    compare_charters(one.replays, one.number, one.find, one.notes.append)
    missing = [v for v in vaults if v not in one.replays]
    if not one.birth or not missing:
        return
    k, n = one.birth.body["vault_set"]["k"], len(vaults)
    for vault in missing:
        one.notes.append(f"vault {one.number(vault)} ({vault[7:19]}) was not looked at")
    if len(one.replays) < n - k + 1:
        one.find(
            "too-few-vaults",
            f"{len(one.replays)} of {n} logs were read; with fewer than {n - k + 1} the {k} that "
            "were not read could have let the key go",
            missing[0],
            None,
            None,
        )
