"""One vault's trail, decided again entry by entry: I1 over that log (spec/03)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from placet_audit.canonical import Json
from placet_audit.policy import Approval, Policy, follow
from placet_audit.problems import Refused
from placet_audit.statement import Statement
from placet_audit.taking import Taken, after, check_time, examine, vouchers
from placet_audit.visit import Entry, Found, Trail

KINDS = (
    *("taken", "waiting", "fork", "branch-changed", "denied", "staged", "revoked"),
    *("promised", "held", "committed", "release", "recover"),
    *("handed-over", "hand-over-confirmed", "taken-over", "carried"),
)
"""Every kind of entry in a key's trail (spec/11, section 2)."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A statement as somebody shows it, with the receipts that came with it."""

    statement: Statement
    receipts: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """One statement taken by one vault, and what justified that there."""

    entry: Entry
    statement: Statement | None
    taken: Taken | None
    """``None``: nothing justified it."""
    rests: tuple[str, ...] = ()
    """Vaults without whose receipts it could not have been taken then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A share that left, and under what."""

    entry: Entry
    approval: Approval | None
    """``None``: nothing let that code in."""
    justified: bool


@dataclass
class Replay:
    """The state of one vault's key, as its log makes it. `run` goes through all of it.

    Args:
        trail: Its entries, in order.
        shown: Statements by digest: as this vault shows them, or else as another one does.
        found: Takes a finding.
    """

    trail: Trail
    shown: Mapping[str, Shown]
    found: Found
    policy: Policy | None = None
    takings: dict[str, Taking] = field(default_factory=dict)
    """By digest of the statement: when it was taken last."""
    releases: list[Release] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    merged: set[str] = field(default_factory=set)
    _policies: dict[str, Policy] = field(default_factory=dict)
    _unjustified: set[str] = field(default_factory=set)
    _held: set[str] = field(default_factory=set)
    _committed: str | None = None
    _here: bool | None = None
    """Whether the key was taken over from an older process; false: it was handed to a newer one."""
    _problems: list[str] = field(default_factory=list)

    def run(self) -> Replay:
        """Decide everything again, and report what does not follow from the log before it."""
        entries = self.trail.entries
        at = 0
        while at < len(entries):
            entry = entries[at]
            if entry.kind == "taken":
                run = _run(entries, at)
                self._take(run)
                at += len(run)
                continue
            self._follow(entry)
            at += 1
        return self

    def _follow(self, entry: Entry) -> None:
        statement, kind = entry.said["statement"], entry.kind
        if kind == "waiting":
            self.waiting.setdefault(statement, entry.time)
        elif kind in {"release", "recover"}:
            self._release(entry)
        elif kind in {"promised", "held", "committed"}:
            self._create(entry)
        elif kind == "carried":
            self._carry(entry)
        elif kind in {"taken-over", "handed-over"}:
            self._hand_over(entry)
        elif kind not in KINDS:
            self.found("entry-unknown", f"its kind is {kind!r}", entry.index, statement)

    def _hand_over(self, entry: Entry) -> None:
        """A record comes first of all that is here of the key, or goes, and is not served again."""
        first = self.policy is None and not self.takings and self._here is None
        if entry.kind == "taken-over" and not (first and self.trail.line):
            self._wrong("share-misplaced", "the key was here before it was taken over", entry)
        self._here = entry.kind == "taken-over"

    def _carry(self, entry: Entry) -> None:
        """Follow a statement that an older process of this vault took; its receipt says when."""
        digest, vault = str(entry.said["statement"]), self.trail.visit.vault
        shown = self.shown.get(digest)
        if self._here is None or shown is None:
            kind = "statement-missing" if shown is None else "statement-misplaced"
            self.found(kind, "it was not taken over with the key", entry.index, digest)
            self._skip(digest)
            return
        before = self.policy
        try:
            vault_set = before.vault_set if before else shown.statement.body["vault_set"]
            receipts = vouchers(vault_set, shown.statement, shown.receipts)
            now = receipts.get(vault, entry.time)
            taken = examine(
                before, shown.statement, receipts=receipts, now=now, waiting={}, k=vault_set["k"]
            )
            self.policy = after(before, taken)
        except KeyError:
            self._report(Refused("statement-misplaced", "it is no birth"), entry, digest)
            self._follow_anyway(shown.statement, entry.time)
            taken = None
        except Refused as e:
            self._report(e, entry, digest)
            self._follow_anyway(shown.statement, entry.time)
            taken = None
        if shown.statement.type == "merge":
            self.merged |= set(shown.statement.body["heads"])
        self.takings[digest] = Taking(
            entry=entry, statement=shown.statement, taken=taken, rests=(vault,)
        )
        if self.policy is not None:
            self._policies[self.policy.head] = self.policy

    # --- statements --------------------------------------------------------------------------

    def _take(self, run: Sequence[Entry]) -> None:
        """Take a run of statements: they were written at one time, one behind the other."""
        steps: list[tuple[Policy | None, Entry, Taken]] = []
        self._change_branch(run)
        for entry in run:
            digest, before = str(entry.said["statement"]), self.policy
            shown = self.shown.get(digest)
            if shown is None:
                self.found("statement-missing", "no export shows it", entry.index, digest)
                self._skip(digest)
                self.takings[digest] = Taking(entry=entry, statement=None, taken=None)
                continue
            taken = self._examined(entry, shown)
            if taken is not None:
                steps.append((before, entry, taken))
            rests = tuple(taken.vouchers) if taken and self._rests(before, entry, taken) else ()
            self.takings[digest] = Taking(
                entry=entry, statement=shown.statement, taken=taken, rests=rests
            )
        for i, (before, entry, taken) in enumerate(steps):
            later = [step[2] for step in steps[i + 1 :]]
            try:
                check_time(before, taken, later, now=entry.time, waiting=self.waiting)
            except Refused as e:
                self._report(e, entry, taken.statement.digest)
        if self.policy is not None:
            self._policies[self.policy.head] = self.policy

    def _examined(self, entry: Entry, shown: Shown) -> Taken | None:
        """Follow one statement, whatever is wrong with it: what comes later stands on it."""
        statement, before, refusal = shown.statement, self.policy, None
        taken: Taken | None = None
        try:
            vault_set = before.vault_set if before else statement.body["vault_set"]
            taken = examine(
                before,
                statement,
                receipts=self._receipts(vault_set, shown),
                now=entry.time,
                waiting=self.waiting,
                k=vault_set["k"],
            )
            self.policy = after(before, taken)
            self._check_marks(entry, taken)
        except KeyError:
            refusal = Refused("statement-misplaced", "the first statement is no birth")
        except Refused as e:
            refusal = e
        if refusal is not None:
            self._report(refusal, entry, statement.digest)
            taken = None
        if self.policy is before:
            self._follow_anyway(statement, entry.time)
        if statement.type == "merge":
            self.merged |= set(statement.body["heads"])
        if self.policy is not None:
            self._policies[self.policy.head] = self.policy
        return taken

    def _rests(self, before: Policy | None, entry: Entry, taken: Taken) -> bool:
        """Return whether receipts had to stand for its time, or for who counted then."""
        if not taken.vouched:
            return False
        now, waiting = entry.time, self.waiting
        try:
            again = examine(
                before, taken.statement, receipts={}, now=now, waiting=waiting, k=taken.k
            )
            check_time(before, again, (), now=now, waiting=waiting)
        except Refused:
            return True
        return False

    def _follow_anyway(self, statement: Statement, at: int) -> None:
        try:
            self.policy = follow(self.policy, statement, at)
        except (Refused, KeyError):
            self._skip(statement.digest)

    def _skip(self, digest: str) -> None:
        self._unjustified.add(digest)
        if self.policy is not None:
            chain, version = (*self.policy.chain, digest), self.policy.version + 1
            self.policy = replace(self.policy, chain=chain, version=version)

    def _report(self, refusal: Refused, entry: Entry, statement: str) -> None:
        self._unjustified.add(statement)
        self.found(refusal.kind, refusal.detail, entry.index, statement)

    def _receipts(self, vault_set: Json, shown: Shown) -> dict[str, int]:
        receipts = vouchers(vault_set, shown.statement, shown.receipts)
        # Its own is of this very taking, or of one that is not in its record any more.
        receipts.pop(self.trail.visit.vault, None)
        return receipts

    def _change_branch(self, run: Sequence[Entry]) -> None:
        """Go back to where a run leaves the charter, if k vaults vouch for it (spec/03, 3.7)."""
        entry, policy = run[0], self.policy
        first = self.shown.get(str(entry.said["statement"]))
        if policy is None or first is None or policy.head in first.statement.parents:
            return
        spots = [i for i, one in enumerate(policy.chain) if one in first.statement.parents]
        base = self._policies.get(policy.chain[spots[-1]]) if spots else None
        if base is None:
            return  # `examine` says that it stands nowhere
        came = [self.shown[d] for e in run if (d := str(e.said["statement"])) in self.shown]
        gone = [self.shown[d] for d in policy.chain[spots[-1] + 1 :] if d in self.shown]
        k = base.vault_set["k"]
        won = any(len(self._receipts(base.vault_set, s)) >= k for s in came)
        lost = any(len(vouchers(base.vault_set, s.statement, s.receipts)) >= k for s in gone)
        if not won or lost:
            refusal = Refused(
                "statement-misplaced",
                f"it leaves the branch of {policy.head}, and k vaults do not vouch for that",
            )
            self._report(refusal, entry, first.statement.digest)
        self.policy = base

    def _check_marks(self, entry: Entry, taken: Taken) -> None:
        """Check what an entry says of how a statement was approved."""
        clause = taken.statement.body.get("auto")
        marks = {f"jwk{i or ''}": jwk for i, jwk in enumerate(taken.tokens)}
        if clause is not None:
            marks["mark"] = "auto"
        if (entry.said["subject"], entry.said["detail"] or {}) != (clause, marks):
            raise Refused("entry-false", "its marks are not those of what was signed")

    # --- decisions ---------------------------------------------------------------------------

    def _release(self, entry: Entry) -> None:
        said, policy = entry.said, self.policy
        detail = said["detail"] or {}
        approval = None
        if policy is not None and not policy.deleted:
            approval = next((a for a in policy.approvals if a.code == said["subject"]), None)
        count = len(self._problems)
        if policy is None or approval is None:
            gone = policy is not None and said["subject"] in policy.tombstones
            kind = "release-retired" if gone else "release-unjustified"
            self._wrong(kind, f"code {said['subject']} was not approved then", entry)
        else:
            self._check_approval(entry, approval, policy)
            about = {"recipient": detail.get("recipient"), "version": policy.version}
            if said["statement"] != approval.statement or detail != about:
                self._wrong(
                    "entry-false",
                    f"it names statement {said['statement']} at version {detail.get('version')}; "
                    f"{approval.statement} at version {policy.version} lets that code in",
                    entry,
                )
        if self._here is False:
            self._wrong("share-misplaced", "the key had been handed over before", entry)
        elif (
            self._committed is None
            and self._here is None
            and (entry.kind == "release" or not self._held)
        ):
            # What was committed before a take-over stands in the older process's log.
            self._wrong("share-misplaced", "no share was committed or held before it", entry)
        good = len(self._problems) == count
        self.releases.append(Release(entry=entry, approval=approval, justified=good))

    def _create(self, entry: Entry) -> None:
        """Check a step of creation: under an approval, and in an order that can be."""
        said, policy = entry.said, self.policy
        found = [a for a in policy.approvals if a.statement == said["statement"]] if policy else []
        alive = [a for a in found if a.until is None or entry.time < a.until]
        if policy is None or policy.deleted or not found:
            self._wrong("release-unjustified", "no approval of that statement was in force", entry)
        else:
            self._check_approval(entry, (alive or found)[0], policy)
        manifest = said["subject"]
        if entry.kind == "held":
            self._held.add(manifest)
        if entry.kind == "committed":
            unheld = manifest not in self._held and self._here is None
            if unheld or self._committed not in {None, manifest}:
                self._wrong("share-misplaced", "what is committed was not held before", entry)
            self._committed = manifest

    def _check_approval(self, entry: Entry, approval: Approval, policy: Policy) -> None:
        if approval.until is not None and entry.time >= approval.until:
            self._wrong("release-retired", f"its overlap ended at {approval.until}", entry)
        if approval.profile["security_version"] < policy.floor:
            self._wrong("release-retired", f"it is below the floor of {policy.floor}", entry)
        at = policy.chain.index(approval.statement) + 1
        rests = [d for d in policy.chain[:at] if d in self._unjustified]
        if rests:
            self._wrong(
                "release-unjustified",
                f"it rests on statement {rests[0]}, which must not have been taken",
                entry,
            )

    def _wrong(self, kind: str, detail: str, entry: Entry) -> None:
        self._problems.append(kind)
        self.found(kind, detail, entry.index, entry.said["statement"])

    @property
    def manifest(self) -> str | None:
        """Return the manifest whose share was committed."""
        return self._committed


def _run(entries: Sequence[Entry], at: int) -> list[Entry]:
    """Return statements that were taken together: side by side in the log, at one time."""
    run = [entries[at]]
    for entry in entries[at + 1 :]:
        same = (entry.kind, entry.time, entry.index) == ("taken", run[-1].time, run[-1].index + 1)
        if not same:
            break
        run.append(entry)
    return run
