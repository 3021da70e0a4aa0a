"""What a vault's service asks before it does anything for a key (I6; spec/10, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.core.dsse import Signed
from placet.core.messages import StandingReport
from placet.core.profile import VaultSet
from placet.storage.log import Log
from placet.storage.store import Put, Store


class LeaseClock(Protocol):
    """What leases are measured with: a clock that nobody sets, and the one that hosts do."""

    def now(self) -> int:
        """Return this vault's time, in Unix seconds that never go back."""

    def monotonic(self) -> float:
        """Return seconds of a clock that nobody sets."""

    def wall(self) -> float:
        """Return what the host says, in Unix seconds."""

    def settle(self) -> bool:
        """Take the host's time anew, if nothing was decided by another; say whether it moved."""


class StandingRule(Protocol):
    """What the service asks before it does anything for a key."""

    def check(self, vault_set: VaultSet) -> None:
        """Raise unless keys of this set are served now."""

    def check_any(self) -> None:
        """Raise unless this vault serves at all: for what is of no key yet."""

    def check_writing(self, vault_set: VaultSet | None) -> None:
        """Raise unless the log may grow by what others took already."""

    def puts(self, vault_set: VaultSet) -> tuple[Put, ...]:
        """Return what is to be stored with a statement of a key of this set."""

    def took(self, vault_set: VaultSet) -> None:
        """Hear that a statement was taken, durably: witnesses are told at once."""

    def check_witnessed(self, vault_set: VaultSet, index: int) -> None:
        """Raise unless enough of a set's circle saw a log of this vault that holds an entry."""

    def report(self) -> StandingReport:
        """Say how it stands."""

    def witnessed(self) -> tuple[Signed, ...]:
        """Return each witness's newest answer."""

    def knows(self, vault: str) -> bool:
        """Say whether a vault keeps a key together with this one."""

    def begin_alone(self) -> None:
        """Begin at once where no key is that others could know more about."""

    def knows_nobody(self) -> bool:
        """Say whether no vault set was ever taken here."""


class StandingMaker(Protocol):
    """What makes a rule for one start; `Standing` is the one that vaults run with."""

    def __call__(  # noqa: PLR0913 - one keyword a part
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
        line: str,
    ) -> StandingRule:
        """Return the rule."""
