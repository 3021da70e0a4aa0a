"""What one log alone cannot show: visits of one vault, several vaults, and what apps kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from placet_audit.canonical import Json, open_signed, unb64
from placet_audit.problems import Refused
from placet_audit.replay import Replay
from placet_audit.shapes import RELEASED, TAKEN
from placet_audit.tree import leaf_hash, root_of, verify_consistency
from placet_audit.visit import Trail

Found = Callable[[str, str, str, int | None, str | None], None]
"""Takes a finding: its kind, detail, vault, entry and statement."""
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt that a vault signed, and whose word it would break if its log lacks it."""

    record: str
    """``taken`` or ``released``."""
    said: Json


def signed_time(trail: Trail) -> int:
    """Return the vault's own time when it signed where its trail ended."""
    try:
        return int(open_signed(trail.visit.trail, "trail", trail.visit.vault, "")["time"])
    except Refused:
        return trail.visit.at


def compare_visits(trails: Sequence[Trail], found: Found) -> Trail:
    """Check that visits to one vault show one log that only grew; return the longest."""
    ordered = sorted(trails, key=signed_time)
    for i, new in enumerate(ordered):
        for old in ordered[:i]:
            try:
                _compare(old, new)
            except Refused as e:
                found(e.kind, e.detail, new.visit.vault, None, None)
    return max(ordered, key=lambda t: (t.checkpoint.size if t.checkpoint else 0, len(t.entries)))


def _compare(old: Trail, new: Trail) -> None:
    if old.checkpoint is None or new.checkpoint is None:
        return
    if new.checkpoint.size < old.checkpoint.size:
        raise Refused(
            "log-went-back",
            f"{old.checkpoint.size} entries in {old.visit.file}, then {new.checkpoint.size} in "
            f"{new.visit.file}",
        )
    same = [e.hashed for e in new.entries[: len(old.entries)]] == [e.hashed for e in old.entries]
    if not same:
        raise Refused("log-forked", f"{old.visit.file} and {new.visit.file} show two trails")
    size = old.checkpoint.size
    if new.visit.hashes:
        if root_of([leaf_hash(h) for h in new.visit.hashes[:size]]) != old.checkpoint.root:
            raise Refused("log-forked", f"{new.visit.file} does not continue {old.visit.file}")
        return
    proofs = [line["proof"] for line in new.visit.consistency if line["old"] == size]
    if size == new.checkpoint.size:
        proofs = [[]]
    if not proofs:
        raise Refused(
            "log-forked",
            f"nothing shows that {new.visit.file} continues {old.visit.file}: export the hashes",
        )
    verify_consistency(old.checkpoint, new.checkpoint, [unb64(p) for p in proofs[0]])


def kept_receipts(
    vaults: Sequence[str], receipts: Sequence[Json], record: str, key: str
) -> tuple[list[Kept], int]:
    """Return the receipts of these vaults about a key, and how many were of others.

    Signatures decide: whoever brings a receipt can add what he likes.
    """
    shape, found, others = {"taken": TAKEN, "released": RELEASED}[record], list[Kept](), 0
    for receipt in receipts:
        for vault in vaults:
            try:
                said = open_signed(receipt, record, vault, "")
                shape(said)
            except Refused:
                continue
            if (said["vault"], said["key"]) == (vault, key):
                found.append(Kept(record, said))
                break
        else:
            others += 1
    return found, others


def check_receipts(
    replays: Mapping[tuple[str, str], Replay], kept: Sequence[Kept], found: Found, note: Note
) -> None:
    """Check that what vaults signed for is in their logs, just so."""
    newer, seen = 0, list[Kept]()
    for one in kept:
        if one in seen:
            continue
        seen.append(one)
        # Of a vault that was upgraded, each process has a log of its own (spec/12).
        replay, said = replays.get((one.said["vault"], one.said.get("line", ""))), one.said
        if replay is None:
            continue
        size = replay.trail.checkpoint.size if replay.trail.checkpoint else 0
        if said["index"] >= size and said["time"] >= signed_time(replay.trail):
            newer += 1
        elif not _logged(replay, one):
            found(
                "receipt-without-entry",
                f"it signed that entry {said['index']} is a {one.record} of this, at "
                f"{said['time']}; its log does not say so",
                said["vault"],
                said["index"],
                said["statement"],
            )
    if newer:
        note(f"{newer} receipts are newer than the logs that were read: export again to judge them")


def _logged(replay: Replay, kept: Kept) -> bool:
    said = kept.said
    for entry in replay.trail.entries:
        if entry.index != said["index"]:
            continue
        detail = entry.said["detail"] or {}
        if (entry.time, entry.said["statement"]) != (said["time"], said["statement"]):
            return False
        if kept.record == "taken":
            return entry.kind == "taken"
        about = (entry.said["subject"], detail.get("recipient"), detail.get("version"))
        committed = entry.kind == "recover" or replay.manifest in (None, said["manifest"])
        same = about == (said["code"], said["recipient"], said["version"])
        return entry.kind in {"release", "recover"} and same and committed
    return False


def compare_charters(
    replays: Mapping[str, Replay], number: Callable[[str], int], found: Found, note: Note
) -> None:
    """Check that vaults are on one branch; which of them lag behind is a note."""
    heads = {v: r.policy for v, r in replays.items() if r.policy is not None}
    behind: dict[str, int] = {}
    for (vault, policy), (other, policy2) in combinations(heads.items(), 2):
        one = policy.head in policy2.chain or policy.head in replays[other].merged
        two = policy2.head in policy.chain or policy2.head in replays[vault].merged
        if one != two:
            late, ahead = (vault, policy2) if one else (other, policy)
            behind[late] = max(ahead.version, behind.get(late, 0))
        elif not one:
            found(
                "charters-fork",
                f"it is at {policy.head} (version {policy.version}), vault {number(other)} at "
                f"{policy2.head} (version {policy2.version}); the owner ends this by a merge",
                vault,
                None,
                policy.head,
            )
    for late, version in sorted(behind.items(), key=lambda item: number(item[0])):
        own = heads[late].version
        note(f"vault {number(late)} is behind: at version {own}, others at {version}")
