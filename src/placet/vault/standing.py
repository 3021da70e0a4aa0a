"""Whether this vault may serve: what its witnesses answered, and since when (spec/10, section 3).

No I/O but reading and writing its own records: `placet.vault.peers` does the asking.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import UNSET

from placet.core.continuity import (
    Beat,
    WitnessAnswer,
    Witnessed,
    WitnessRequest,
    checkpoint_at,
)
from placet.core.dsse import Signed, sign_record, vault_id
from placet.core.encoding import b64
from placet.core.limits import LEASE, MAX_SKEW
from placet.core.messages import StandingReport
from placet.core.profile import VaultSet
from placet.errors import PlacetError, QuarantinedError, UnavailableError, VaultStartingError
from placet.policy.continuity import Again, Circle, check_standing, judge
from placet.storage.log import Log
from placet.storage.store import Put, Store
from placet.vault.circles import Circles, Peer
from placet.vault.standing_rule import LeaseClock

YOUNG = 30
"""Seconds after a start, or a new vault set, in which a caller's patience is worth asking for."""

log = logging.getLogger("placet.vault")


@dataclass(frozen=True, slots=True)
class Asked:
    """A beat under way, and when it left."""

    beat: Beat
    request: WitnessRequest
    at: float
    wall: float
    now: int


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float
    wall: float
    skew: int
    witnessed: Witnessed
    signed: Signed


class Standing:
    """The standing of one start of a vault. Nothing switches it off (I17).

    Args:
        key: This vault's identity key.
        boot: This start's id.
        boots: Its number.
        store: Remembers the vault sets of the keys here.
        log: This vault's.
        clock: For leases.
        rng: Cryptographically secure.
        begin: Called once, when it first stands: it logs the start.
        line: Of a process that took over: the name of its own log.
    """

    def __init__(  # noqa: PLR0913 - one keyword a part
        self,
        *,
        key: Ed25519PrivateKey,
        boot: str,
        boots: int,
        store: Store,
        log: Log,
        clock: LeaseClock,
        rng: Callable[[int], bytes],
        begin: Callable[[], object],
        line: str = "",
    ) -> None:
        self._key, self._boot, self._boots, self._line = key, boot, boots, line
        self._public = key.public_key().public_bytes_raw()
        self.id = vault_id(self._public)
        self._store, self._log, self._clock, self._rng = store, log, clock, rng
        self._begin, self._began, self._begun = begin, False, False
        store.watch(kept=self._kept, lost=self._void)
        self._circles = Circles(self.id, store)
        self._stood = set[Circle]()
        self._answers = dict[str, _Answer]()
        self._caught_up = set[str]()
        self._lost = set[str]()
        self._sizes = dict[str, int]()
        self._quarantine: QuarantinedError | None = None
        self._young = clock.monotonic()
        self.changed: Callable[[Iterable[str]], object] = lambda _: None
        """Called with the peers to ask at once."""
        self.stood: Callable[[], object] = lambda: None
        """Called when answers came in."""

    # --- what the service asks -----------------------------------------------------------

    def check(self, vault_set: VaultSet) -> None:
        """Raise unless keys of this set are served now.

        Raises:
            QuarantinedError: This vault is not the newest of its kind.
            VaultStartingError: Its witnesses did not answer, or not within the lease.
        """
        self._check(Circle.of(vault_set), self._caught_up)

    def check_any(self) -> None:
        """Raise unless this vault serves a key of any set, or has none."""
        self._check_any(self._caught_up)

    def check_writing(self, vault_set: VaultSet | None) -> None:
        """Raise unless witnesses say that this is the newest of its kind, if not up to date."""
        if vault_set is None:
            self._check_any(None)
        else:
            self._check(Circle.of(vault_set), None)

    def begin_alone(self) -> None:
        """Begin at once where no key is that others could know more about."""
        if self.knows_nobody():
            self._check_any(None)

    def knows_nobody(self) -> bool:
        """Say whether no vault set was ever taken here."""
        return not self._circles.all

    def puts(self, vault_set: VaultSet) -> tuple[Put, ...]:
        """Return what is to be stored with a statement of a key of this set."""
        return self._circles.puts(vault_set)

    def took(self, vault_set: VaultSet) -> None:
        """Hear that a statement was taken: its witnesses are told at once."""
        if self._circles.learn(vault_set):
            self._young = self._clock.monotonic()
        self.changed(Circle.of(vault_set).others(self.id))

    def check_witnessed(self, vault_set: VaultSet, index: int) -> None:
        """Raise unless enough of a set's circle saw a log of this vault that holds an entry.

        Raises:
            VaultStartingError: Too few did, so far.
        """
        circle = Circle.of(vault_set)
        seen = {p for p, a in self._answers.items() if a.witnessed.size > index}
        if not circle.stands(self.id, seen):
            waiting = [one for one in circle.others(self.id) if one not in seen]
            raise VaultStartingError(
                f"log entry {index} was not witnessed by {circle.needed} others yet",
                "It goes on by itself when they did. Bring back those that are named.",
                reason="unwitnessed",
                needed=circle.needed,
                waiting=waiting,
            )

    def report(self) -> StandingReport:
        """Say how it stands."""
        size, _ = self._log.head()
        state, reason, waiting = "standing", "", tuple[str, ...]()
        seen = max((a.witnessed.size for a in self._answers.values()), default=0)
        try:
            self._look(self._caught_up)
        except QuarantinedError as e:
            state, reason = "quarantined", str(e.members["reason"])
            seen = int(str(e.members["witnessed"]))
        except VaultStartingError as e:
            state, reason = "starting", str(e.members["reason"])
            fresh = self._fresh()
            waiting = tuple(p for p in self._circles.peers if p not in fresh)
        return StandingReport(
            state=state,  # type: ignore[arg-type]  # one of the three above
            reason=reason,
            waiting=waiting,
            size=size,
            witnessed=seen,
        )

    def witnessed(self) -> tuple[Signed, ...]:
        """Return each witness's newest answer."""
        return tuple(a.signed for a in self._answers.values())

    def lease(self) -> float | None:
        """Return the seconds until some key is not served, if nobody answers; none without keys."""
        ages = self._ages()
        return min((self._left(circle, ages) for circle in self._circles.all), default=None)

    def knows(self, vault: str) -> bool:
        """Say whether a vault keeps a key together with this one."""
        return vault in self._circles.peers

    # --- what the peers ask --------------------------------------------------------------

    def peers(self) -> tuple[Peer, ...]:
        """Return whom to ask."""
        return tuple(self._circles.peers.values())

    def peer(self, peer: str) -> Peer:
        """Return where a peer may be, by now."""
        return self._circles.peers[peer]

    def young(self) -> bool:
        """Say whether answers may be expected any moment."""
        return self._quarantine is None and self._clock.monotonic() - self._young < YOUNG

    def ask(self, peer: str, since: int) -> Asked:
        """Return a beat for a peer.

        Raises:
            QuarantinedError: This vault has nothing to ask any more.
        """
        self._check_quarantine()
        size, root = self._log.head()
        old = min(self._sizes.get(peer, 0), size)
        before, _, proof = self._log.consistency(old, size)
        beat = Beat(
            vault=self.id,
            line=self._line or UNSET,
            to=peer,
            boot=self._boot,
            boots=self._boots,
            nonce=b64(self._rng(32)),
            checkpoint=self._checkpoint(size, root),
            time=self._clock.now(),
        )
        request = WitnessRequest(
            beat=sign_record(beat, self._key),
            old=old,
            before=self._checkpoint(old, before) if old else "",
            proof=tuple(map(b64, proof)),
            since=since,
        )
        clock = self._clock
        return Asked(beat, request, clock.monotonic(), clock.wall(), clock.now())

    def hear(self, peer: str, asked: Asked, answer: WitnessAnswer) -> bool:
        """Take an answer; say whether the peer is to be asked again at once.

        Raises:
            QuarantinedError: It proves that this vault is not the newest: for good.
            UnavailableError: It knows a copy of this start, and others may yet decide.
            VerificationError: It is not to be believed.
        """
        try:
            said = judge(
                asked.beat,
                answer,
                witness=peer,
                public_key=self._public,
                size=self._log.head()[0],
                root_at=self._root_at,
            )
        except QuarantinedError as e:
            self._lost.add(peer)
            # A copy that lost a race stops once it cannot win; one witness decides no race.
            if e.members["reason"] == "cloned" and self._may_win():
                raise UnavailableError(e.detail, e.hint, **e.members) from e
            self._quarantine = e
            self.stood()
            raise
        if isinstance(said, Again):
            self._sizes[peer] = said.old
            return True
        witnessed = said.witnessed
        self._sizes[peer] = witnessed.size
        skew = witnessed.time - asked.now
        # A wrong clock of the host's may have been set right since this start.
        if abs(skew) > MAX_SKEW and self._clock.settle():
            self._answers.clear()
            self.changed(tuple(self._circles.peers))
            return True
        self._answers[peer] = _Answer(asked.at, asked.wall, skew, witnessed, answer.witnessed)
        self._try_to_begin()
        self.stood()
        return False

    def catch_up(self, peer: str) -> None:
        """Hear that what a peer knew to be newer was taken, or cannot be."""
        if peer not in self._caught_up:
            self._caught_up.add(peer)
            self.stood()

    # --- inside --------------------------------------------------------------------------

    def _checkpoint(self, size: int, root: bytes) -> str:
        return checkpoint_at(self._key, self._boot, size, root, self._line)

    def _root_at(self, size: int) -> bytes:
        return self._log.consistency(size, self._log.head()[0])[0]

    def _fresh(self) -> dict[str, int]:
        """Return who answered within the lease, and how its clock differs from ours."""
        ages = self._ages()
        return {peer: a.skew for peer, a in self._answers.items() if ages[peer] <= LEASE}

    def _ages(self) -> dict[str, float]:
        """Return how old each answer is, by whichever clock says more: a host may set one back."""
        at, wall = self._clock.monotonic(), self._clock.wall()
        return {peer: max(at - a.at, wall - a.wall) for peer, a in self._answers.items()}

    def _left(self, circle: Circle, ages: dict[str, float]) -> float:
        answered = set[str]()
        for peer in sorted(ages, key=ages.__getitem__):
            answered.add(peer)
            if circle.stands(self.id, answered):
                return max(0.0, LEASE - ages[peer])
        return 0.0

    def _stands(self, circle: Circle, fresh: dict[str, int], within: set[str] | None) -> None:
        skews = {
            one: fresh[one]
            for one in circle.others(self.id)
            if one in fresh and (within is None or one in within)
        }
        reason: Literal["lease", "starting"] = "lease" if circle in self._stood else "starting"
        check_standing(circle, self.id, skews, reason=reason)

    def _check_quarantine(self) -> None:
        if self._quarantine is not None:
            e = self._quarantine
            raise QuarantinedError(e.detail, e.hint, **e.members)

    def _check(self, circle: Circle, within: set[str] | None) -> None:
        self._check_quarantine()
        self._stands(circle, self._fresh(), within)
        if within is not None:
            self._stood.add(circle)
        self._start()

    def _check_any(self, within: set[str] | None) -> None:
        self._look(within)
        self._start()

    def _look(self, within: set[str] | None) -> None:
        """Raise unless it stands for any circle, or has none."""
        self._check_quarantine()
        first: VaultStartingError | None = None
        fresh = self._fresh()
        for circle in self._circles.all:
            try:
                self._stands(circle, fresh, within)
            except VaultStartingError as e:
                first = first or e
            else:
                return
        if first is not None:
            raise first

    def _may_win(self) -> bool:
        return all(
            circle.stands(self.id, set(circle.others(self.id)) - self._lost)
            for circle in self._circles.all
        )

    def _start(self) -> None:
        """Log this start, once, before anything else of it is logged."""
        if not self._began:
            self._begin()
            self._began = True

    def _kept(self) -> None:
        self._begun = self._began

    def _void(self) -> None:
        self._began = self._begun  # its entry is in the log, or is written again

    def _try_to_begin(self) -> None:
        try:
            self._check_any(None)
        except VaultStartingError:
            return
        except PlacetError as e:
            log.warning("this start could not be logged: %s", e.type)
