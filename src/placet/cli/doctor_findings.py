"""What could go wrong with a key soon, judged from what its vaults proved and said. Pure.

What a vault proves is evidence; what it says of itself (standing, time) is signed by nobody
else, and findings say so. What only its own machine knows (disk) its probe tells to whoever
runs it: `placet.cli.doctor_probe`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import median_low

from placet.cli.doctor_charter import of_charter
from placet.cli.doctor_visit import (
    FETCH_COLLATERAL,
    SET_CLOCK,
    Examined,
    Finding,
    Visit,
    of_key,
)
from placet.cli.output import brief, plain, when
from placet.cli.reach import SILENCE
from placet.client.signing import DAY
from placet.core.limits import MAX_SKEW
from placet.core.profile import code_id
from placet.errors import PlacetError
from placet.policy.match import code_of

SETTLED = frozenset(("UpToDate", "SWHardeningNeeded", "Unrated"))
"""TCB statuses that call for no change of firmware or its settings."""
ENOUGH = 3
"""Vaults that must agree before it is this machine's clock that is wrong."""


def findings(seen: Visit) -> tuple[Finding, ...]:
    """Return everything that wants doing, vault by vault, then for the key."""
    if seen.deleted:
        gone = "its owner deleted this key; no vault has a share of it any more"
        return (of_key("deleted", gone, f"placet key forget {seen.name}"),)
    return (*_of_vaults(seen), *_of_quorum(seen), *of_charter(seen))


# --- each vault --------------------------------------------------------------------------


def _of_vaults(seen: Visit) -> Iterator[Finding]:
    ours = _our_skew(seen.values.values())
    if ours:
        yield of_key(
            "own-clock",
            f"this machine's clock is {_off(-ours)} those of the vaults",
            "set it, on this machine: timedatectl set-ntp true",
        )
    for number, member in enumerate(seen.vault_set.vaults, 1):
        show = f"placet vault show {member.endpoint} --constellation {seen.constellation}"
        if (vault := seen.values.get(member.id)) is None:
            yield _absent(number, seen.errors.get(member.id), show)
            continue
        adopt = f"on a machine that may take over: placet vault serve --adopt {member.endpoint}"
        for what, detail, following in (
            *_standing(vault, show),
            *_time(vault, ours),
            *_collateral(vault, seen.now),
            *_sealing(vault, code_id(seen.vault_set.profiles[-1]), adopt),
        ):
            yield Finding(what=what, vault=number, detail=detail, next=following)


Told = tuple[str, str, str]


def _absent(number: int, error: PlacetError | None, show: str) -> Finding:
    if error is None or isinstance(error, SILENCE):
        what, detail = "unreachable", brief(error) or "no answer"
    else:
        what, detail = "unproven", f"it answers, and does not prove itself: {error.detail}"
    return Finding(what=what, vault=number, detail=detail, next=show)


def _standing(vault: Examined, show: str) -> Iterator[Told]:
    said = vault.standing
    if said is None or vault.serves:
        return
    detail = f"it says that it does not serve: {said.reason or said.state}; of its {said.size} log "
    detail += f"entries a witness is known to have seen {said.witnessed}"
    yield said.state, detail, f"{show}   (what each reason asks for: docs/continuity.md)"


def _time(vault: Examined, ours: int) -> Iterator[Told]:
    if abs(vault.skew - ours) > MAX_SKEW:
        detail = f"its clock is {_off(vault.skew - ours)} "
        detail += "those of the other vaults" if ours else "this machine's"
        yield "clock", detail, SET_CLOCK


def _collateral(vault: Examined, now: int) -> Iterator[Told]:
    evidence = vault.identity.evidence
    if evidence.overdue:
        detail = f"what vouches for its platform ended {when(evidence.expires)}, and still counts "
        detail += "by the grace of its profile alone"
    elif evidence.expires - now < DAY:
        detail = f"what vouches for its platform ends {when(evidence.expires)}; from then on "
        detail += "nobody believes it"
    else:
        return
    yield "collateral", detail, FETCH_COLLATERAL


def _sealing(vault: Examined, newest: str, adopt: str) -> Iterator[Told]:
    """Say what may end its ability to open its own disk, as far as evidence shows it."""
    tcb = vault.identity.evidence.tcb
    if tcb.status not in SETTLED:
        yield (
            "sealing",
            (
                f"its vendor judges its platform {tcb.status}, so an update of firmware or "
                "settings is due. Its disk is sealed to this CPU and may not open afterwards; "
                "evidence does not show whether it will"
            ),
            f"before the update, {adopt}",
        )
    if code_of(vault.identity) != newest:
        yield (
            "release",
            (
                "it runs an older release than the newest that the owner named. Its disk is "
                "sealed to that build: the newer one cannot open it, only take over while this "
                "one runs"
            ),
            adopt,
        )


def _our_skew(vaults: Iterable[Examined]) -> int:
    """Return the median skew, if so many vaults agree that ours is the clock that is wrong."""
    skews = [v.skew for v in vaults]
    middle = median_low(skews) if skews else 0
    agree = sum(abs(s - middle) <= MAX_SKEW for s in skews)
    return middle if abs(middle) > MAX_SKEW and agree >= ENOUGH else 0


def _off(seconds: int) -> str:
    return f"{abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'}"


# --- all of them together ----------------------------------------------------------------


def _of_quorum(seen: Visit) -> Iterator[Finding]:
    vaults, k = seen.vault_set, seen.vault_set.k
    show = f"placet key show {seen.name}"
    if seen.spare <= 0:
        lost = "the next one that fails stops every start of the app"
        yield of_key(
            "margin",
            f"{len(seen.able)} of {vaults.n} vaults could release, {k} are needed: "
            + (lost if not seen.spare else "the app cannot start"),
            f"bring back the vaults that are named above, then: {show}",
        )
    risky = [v for v in seen.able if seen.values[v].identity.evidence.tcb.status not in SETTLED]
    if len(risky) > max(seen.spare, 0):
        yield of_key(
            "sealing",
            f"at {len(risky)} vaults an update is due that may cost them their disk, and "
            f"{max(seen.spare, 0)} may be lost",
            f"update one, see that it is back, then the next: {show}",
        )
    operators = Counter(v.domain.operator for v in vaults.vaults if v.domain is not None)
    for operator, count in operators.items():
        if count > vaults.n - k:
            both = " and are enough to release" if count >= k else ""
            yield of_key(
                "one-operator",
                f"{plain(operator)} runs {count} of {vaults.n} vaults: they can stop the key{both}",
                "for the next key, name vaults of others: placet key new LABEL --vaults FILE",
            )
    yield from _unheard(seen)


def _unheard(seen: Visit) -> Iterator[Finding]:
    """Name witnesses that vaults say they do not hear, although they are not known to be down."""
    at: dict[str, list[int]] = {}
    for number, vault in enumerate(seen.vault_set.ids, 1):
        examined = seen.values.get(vault)
        for one in examined.standing.waiting if examined and examined.standing else ():
            if one not in seen.errors:
                at.setdefault(one, []).append(number)
    outside = {m.id: m.endpoint for m in seen.vault_set.witnesses}
    members = {m.id: m.endpoint for m in seen.vault_set.vaults} | outside
    for one, numbers in at.items():
        if one in members:
            who = "the outside witness" if one in outside else f"vault {_number(seen, one)},"
            yield of_key(
                "unheard",
                f"{_vaults(numbers)} say that nothing comes from {who} {members[one]}",
                "start it again, on its machine: placet witness serve"
                if one in outside
                else f"look at the network between them; placet vault show {members[one]} "
                f"--constellation {seen.constellation}",
            )


def _number(seen: Visit, vault: str) -> int:
    return seen.vault_set.ids.index(vault) + 1


def _vaults(numbers: Sequence[int]) -> str:
    return ("vaults " if len(numbers) > 1 else "vault ") + ", ".join(map(str, numbers))
