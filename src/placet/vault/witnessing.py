"""Remember how far vaults are, and say so: what vaults do for each other (spec/10, section 2).

An outside witness runs this very code on a store of its own; see `placet witness serve`.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.core.checkpoint import line_of
from placet.core.continuity import (
    Beat,
    ForkProof,
    News,
    Seen,
    WitnessAnswer,
    Witnessed,
    WitnessRequest,
)
from placet.core.dsse import open_signed, sign_record, vault_id
from placet.core.encoding import decode, encode, unb64
from placet.core.limits import MAX_LINES
from placet.errors import RateLimitedError, RoleDeniedError
from placet.policy.continuity import receive
from placet.storage.store import Batch, Put, Store
from placet.vault.records import LinesRecord

NewsSince = Callable[[str, int], tuple[tuple[News, ...], int]]
"""Asked with a vault and a cursor, returns what changed since, and the new cursor."""


def _no_news(_vault: str, since: int) -> tuple[tuple[News, ...], int]:
    return (), since


class Witnessing:
    """Answer beats. What is told is durable first, and never goes back.

    Args:
        store: Of this vault or witness.
        key: Signs the answers.
        now: Returns Unix seconds.
        knows: Says whether there is reason to remember a vault.
        news: What else a vault is told that asks.
    """

    def __init__(
        self,
        store: Store,
        key: Ed25519PrivateKey,
        now: Callable[[], int],
        knows: Callable[[str], bool],
        news: NewsSince = _no_news,
    ) -> None:
        self._store, self._key, self._now = store, key, now
        self._knows, self._news = knows, news
        self.id = vault_id(key.public_key().public_bytes_raw())

    def answer(self, request: WitnessRequest) -> WitnessAnswer:
        """Take a beat, and say what is known of its vault by now.

        Raises:
            RoleDeniedError: There is no reason to remember this vault here.
            VerificationError, MalformedError: It is no beat, or for somebody else.
        """
        vault = vault_id(unb64(request.beat.vault_key))
        if not self._knows(vault):
            raise RoleDeniedError(
                f"vault {vault} keeps no key together with this one",
                "Bring this one the charters of the keys that both keep.",
            )
        line = line_of(_told(request), vault)
        name = seen_name(vault, line)
        stored = self._store.get(name)
        seen = decode(stored.value, Seen) if stored else None
        heard = receive(seen, request, own=self.id)
        if heard.fork is not None:
            self._keep(heard.fork)
        if heard.seen != seen:
            put = Put(name, encode(heard.seen), stored.version if stored else None)
            lines = () if stored or not line else (self._line_put(vault, line),)
            self._store.commit(Batch((put, *lines)))
        beat = open_signed(request.beat, Beat, vault=vault)
        known = heard.seen
        witnessed = Witnessed(
            witness=self.id,
            vault=vault,
            nonce=beat.nonce,
            boot=known.boot,
            boots=known.boots,
            size=known.size,
            root=known.root,
            time=self._now(),
        )
        news, cursor = self._news(vault, request.since)
        return WitnessAnswer(
            witnessed=sign_record(witnessed, self._key),
            newest=None if heard.accepted else known.beat,
            news=news,
            cursor=cursor,
        )

    def _line_put(self, vault: str, line: str) -> Put:
        """Return what counts a line of a vault; who runs one process after the other ends here."""
        stored = self._store.get(lines_name(vault))
        known = decode(stored.value, LinesRecord).lines if stored else ()
        if len(known) >= MAX_LINES:
            raise RateLimitedError(
                f"{len(known)} processes of vault {vault} were seen here already"
            )
        record = LinesRecord(lines=(*known, line))
        return Put(lines_name(vault), encode(record), stored.version if stored else None)

    def fork_of(self, vault: str) -> ForkProof | None:
        """Return what proves that a vault's log forked, if that was seen here."""
        stored = self._store.get(f"fork/{vault}")
        return decode(stored.value, ForkProof) if stored else None

    def _keep(self, fork: ForkProof) -> None:
        if self.fork_of(fork.vault) is None:
            self._store.commit(Batch((Put(f"fork/{fork.vault}", encode(fork)),)))


def seen_name(vault: str, line: str) -> str:
    """Return the name of what is remembered of a process of a vault: each has its own log."""
    return f"seen/{vault}/{line}" if line else f"seen/{vault}"


def lines_name(vault: str) -> str:
    """Return the name of the list of a vault's further processes."""
    return f"lines/{vault}"


def _told(request: WitnessRequest) -> str:
    """Return the checkpoint of a beat whose signature was not checked yet."""
    return decode(unb64(request.beat.payload), Beat).checkpoint
