"""The new process's way to the old one: attested, as resharer (spec/12, section 4).

It asks, checks and stores; whether a key is served, the service decides. Where the old
process is, the operator says, and that decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.attest.produce import Producer
from placet.attest.trust import TrustAnchor
from placet.attest.verify import EvidenceVerifier
from placet.core.attestation import AttestedIdentity
from placet.core.dsse import vault_id
from placet.core.encoding import Record, decode, digest, encode, unb64
from placet.core.handover import (
    HandOverAnswer,
    HandOverConfirm,
    HandOverConfirmed,
    HandOverList,
    HandOverRequest,
)
from placet.core.limits import HAND_OVER_PART, MAX_EVIDENCE_AGE, MAX_PACKAGE
from placet.errors import (
    HandedOverError,
    MalformedError,
    PlacetError,
    UnavailableError,
    VaultStartingError,
    VerificationError,
    from_problem,
)
from placet.ratls.certificate import make_certificate
from placet.ratls.context import make_context
from placet.ratls.exchange import (
    ClientExchange,
    Clock,
    ExpectPredecessor,
    ResharerProver,
    VerifiedPeer,
)
from placet.ratls.http import ConnectionPool
from placet.vault.handover import LABEL
from placet.vault.takeover import CheckedPackage, TakeOver, check_package

R = TypeVar("R", bound=Record)

OK = 200
POLL = 5.0
"""Seconds between two looks whether an owner let go of another key."""
CERTIFICATE_LIFETIME = 30 * 24 * 3600
AGE = MAX_EVIDENCE_AGE - 10
"""Seconds after which a connection is not used again."""

_ENDPOINT = re.compile(r"\[?([^\[\]]+)\]?:([0-9]{1,5})")
log = logging.getLogger("placet.vault")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A key's package, who sent it, and the identity that goes along."""

    checked: CheckedPackage | None
    """``None`` if this line confirmed it before."""
    sender: AttestedIdentity
    identity: Ed25519PrivateKey


class Predecessor:
    """The old process of this vault.

    Args:
        endpoint: ``host:port``.
        vault: The vault id, once that is known.
        producer: Of this process.
        release: Returns the code id of this process.
        trust: Roots of the measured config.
        verify: Verifies evidence.
        clock: Wall time for certificates, monotonic time for ages.
        rng: Cryptographically secure.

    Raises:
        MalformedError: ``endpoint`` is none.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        vault: str | None,
        producer: Producer,
        release: Callable[[], str],
        trust: Sequence[TrustAnchor],
        verify: EvidenceVerifier,
        clock: Clock,
        rng: Callable[[int], bytes],
    ) -> None:
        found = _ENDPOINT.fullmatch(endpoint)
        if found is None or int(found[2]) >= 2**16:
            raise MalformedError(f"{endpoint!r} is no address of a vault", "Write HOST:PORT.")
        self.endpoint, self._release = endpoint, release
        exchange = ClientExchange(
            expect=ExpectPredecessor(id=vault, trust=tuple(trust)),
            prover=ResharerProver(producer=producer),
            clock=clock,
            rng=rng,
            verify=verify,
        )
        pair = make_certificate(now=clock.now(), lifetime=CERTIFICATE_LIFETIME)
        context = make_context(*pair, server=False)
        self._pool: ConnectionPool[VerifiedPeer] = ConnectionPool(
            found[1],
            int(found[2]),
            lambda: context,
            exchange,
            size=1,
            max_age=AGE,
            clock=clock.monotonic,
        )

    async def list(self, since: int) -> HandOverList:
        """Return the keys of a page of the old log that this release may have."""
        return (await self._ask("GET", f"/v1/hand-over?since={since}", HandOverList))[0]

    async def fetch(self, key: str, line: str, endpoint: str) -> Fetched:
        """Return a key's package, checked; the old process does not serve it any more.

        Raises:
            HandedOverError: Another process has it.
            PlacetError: It is refused, or what came is not to be believed.
        """
        path = f"/v1/keys/{key}/hand-over"
        raw, answer, sender = b"", None, None
        while answer is None or len(raw) < answer.size:
            request = HandOverRequest(line=line, endpoint=endpoint, offset=len(raw))
            got, peer = await self._ask("POST", path, HandOverAnswer, request)
            same = answer is None or (answer.size, answer.digest) == (got.size, got.digest)
            part = unb64(got.part)
            if not same or got.size > MAX_PACKAGE or len(part) > HAND_OVER_PART:
                raise VerificationError("the old process sends parts of different packages")
            if len(raw) < got.size and not part:
                raise VerificationError("the old process sends an empty part")
            answer, sender, raw = got, peer, raw + part
        if sender is None or sender.identity is None:
            raise VerificationError("the old process proved nothing")
        identity = _identity(answer, sender.identity)
        if answer.confirmed:
            return Fetched(checked=None, sender=sender.identity, identity=identity)
        if len(raw) != answer.size or digest(LABEL, raw) != answer.digest:
            raise VerificationError("the package is not the one that the old process named")
        checked = check_package(raw, key, sender.identity, release=self._release())
        return Fetched(checked=checked, sender=sender.identity, identity=identity)

    async def confirm(self, key: str, line: str, package: str) -> None:
        """Have the old process erase what is durable here."""
        path = f"/v1/keys/{key}/hand-over/confirm"
        request = HandOverConfirm(line=line, digest=package)
        answer, _ = await self._ask("POST", path, HandOverConfirmed, request)
        if answer.digest != package:
            raise VerificationError("the old process confirms another package")

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()

    async def _ask(
        self, method: str, path: str, shape: type[R], body: Record | None = None
    ) -> tuple[R, VerifiedPeer]:
        """Ask, for a while again where the old process waits for its witnesses."""
        for pause in (0.1, 0.2, 0.4, 0.8, 1.6):
            try:
                return await self._ask_once(method, path, shape, body)
            except VaultStartingError:
                await asyncio.sleep(pause)
        return await self._ask_once(method, path, shape, body)

    async def _ask_once(
        self, method: str, path: str, shape: type[R], body: Record | None
    ) -> tuple[R, VerifiedPeer]:
        async with self._pool.acquire() as connection:
            raw = b"" if body is None else encode(body)
            answer = await connection.request(method, path, raw)
            if answer.status == OK:
                return decode(answer.body, shape), connection.peer
        try:
            problem = msgspec.json.decode(answer.body, type=dict[str, object])
        except (msgspec.DecodeError, ValueError, RecursionError) as e:
            raise MalformedError(f"old process answered {answer.status} and no problem") from e
        raise from_problem(problem)


async def introduce(
    old: Predecessor, line: str, endpoint: str, pause: float = POLL
) -> Ed25519PrivateKey:
    """Wait for the first key whose owner let this release in; return the vault's identity.

    Nothing is stored by this, and nothing is lost: the package is asked for again.
    """
    said = ""
    while True:
        since, end = 0, False
        try:
            while not end:
                page = await old.list(since)
                for key in page.keys:
                    found = await _try_fetch(old, key, line, endpoint)
                    if found is not None:
                        return found.identity
                since, end = page.next, page.end
            why = "no key's owner has added this release yet"
        except UnavailableError as e:
            why = e.detail
        if why != said:
            log.info("waiting to take over from %s: %s", old.endpoint, why)
        said = why
        await asyncio.sleep(pause)


async def _try_fetch(old: Predecessor, key: str, line: str, endpoint: str) -> Fetched | None:
    try:
        return await old.fetch(key, line, endpoint)
    except UnavailableError as e:
        if not isinstance(e, HandedOverError):
            raise
    except PlacetError as e:
        log.warning("key %s is not taken over: %s: %s", key, e.type, e.detail)
    return None


class Adoption:
    """Takes over key after key, as their owners let go of them, for as long as it runs.

    Args:
        vault: The service of this process.
        old: The old process.
        line: This process's.
        endpoint: Where clients of handed keys are sent.
    """

    def __init__(self, vault: TakeOver, old: Predecessor, line: str, endpoint: str) -> None:
        self._vault, self._old, self._line, self._endpoint = vault, old, line, endpoint
        self.taken = 0
        """Keys that this process took over since it started."""
        self.kept = -1
        """Keys that stay with the old process for now."""
        self.caught_up = asyncio.Event()
        """Set once the end of the old log was reached, with all that may be had of it."""

    async def run(self, pause: float = POLL) -> None:
        """Follow the old log. What goes wrong with one key is told, and tried again."""
        since, failed = 0, False
        while True:
            try:
                before, page = self.taken, await self._old.list(since)
                for key in page.keys:
                    failed |= not await self._one(key)
                if self.taken > before:
                    continue  # what stays there is asked anew
                since = page.next
                if page.end:
                    if not failed and self.kept != page.kept:
                        self.kept = page.kept
                        log.info("caught up with the old process: %d keys stay there", page.kept)
                        self.caught_up.set()
                    since, failed = (0, False) if failed else (since, False)
                    await asyncio.sleep(pause)
            except PlacetError as e:
                log.info("old process at %s: %s: %s", self._old.endpoint, e.type, e.detail)
                await asyncio.sleep(pause)

    async def _one(self, key: str) -> bool:
        """Take one key over; say whether that is done with."""
        if self._vault.has(key):
            return True
        try:
            # 4.5 to 4.7 Checked, stored, confirmed, and only then served.
            found = await self._old.fetch(key, self._line, self._endpoint)
            if found.checked is not None:
                self._vault.receive(found.checked)
                await self._old.confirm(key, self._line, found.checked.digest)
            elif self._vault.incoming(key) is None and self._vault.knows(key):
                return True  # done with before
            self._vault.activate(key)
        except HandedOverError:
            return True  # another process has it
        except PlacetError as e:
            log.warning("key %s is not taken over: %s: %s", key, e.type, e.detail)
            return False
        self.taken += 1
        log.info("key %s is taken over", key[:15])
        return True


def _identity(answer: HandOverAnswer, sender: AttestedIdentity) -> Ed25519PrivateKey:
    try:
        key = Ed25519PrivateKey.from_private_bytes(unb64(answer.identity))
    except (ValueError, UnsupportedAlgorithm) as e:
        raise VerificationError("the old process sends no identity key") from e
    # 4.8 It is the key whose digest both are known by.
    if vault_id(key.public_key().public_bytes_raw()) != sender.claims.instance:
        raise VerificationError("the identity that came is not the old process's own")
    return key
