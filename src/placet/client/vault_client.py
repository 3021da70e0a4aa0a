"""One vault, over attested connections: a method for each request of the wire (spec/07).

What a vault says is checked here as far as one vault can be checked: shape, the echo of
our nonce, and that it signed its receipts, as itself, about what was asked. Whether its
charter is the newest or its share the right one takes several vaults: `constellation`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import msgspec

from placet.attest.verify import EvidenceVerifier, verify_evidence
from placet.core.attestation import AttestedIdentity
from placet.core.continuity import ConsistencyAnswer
from placet.core.dsse import Signed, open_signed
from placet.core.encoding import Record, b64, decode, encode, unb64
from placet.core.limits import MAX_EVIDENCE_AGE
from placet.core.manifest import KeyManifest, manifest_digest
from placet.core.messages import (
    AuditAnswer,
    CharterAnswer,
    CommitAnswer,
    CommitRequest,
    Committed,
    CourierItem,
    DroppedAnswer,
    HashesAnswer,
    Held,
    HoldAnswer,
    HoldRequest,
    JournalAnswer,
    LogAnswer,
    PendingAnswer,
    PromiseAnswer,
    PromiseRequest,
    RecoverRequest,
    ReleaseAnswer,
    Released,
    ReleaseRequest,
    StageAnswer,
    StageRequest,
    Status,
    StatusBody,
    TakeAnswer,
    Taken,
    TakeRequest,
)
from placet.core.statement import RevokePending, SignedStatement, open_statement
from placet.errors import (
    EvidenceError,
    EvidenceStaleError,
    MalformedError,
    RateLimitedError,
    UnavailableError,
    VerificationError,
    from_problem,
)
from placet.ratls.certificate import make_certificate
from placet.ratls.context import AttestedContext, make_context
from placet.ratls.exchange import (
    ClientExchange,
    Clock,
    ExpectVault,
    UnsafeExpectAnyVault,
    VerifiedPeer,
    WorkloadProver,
)
from placet.ratls.frames import FrameChannel, TlsPeer
from placet.ratls.http import Answer, AttestedConnection, ConnectionPool

R = TypeVar("R", bound=Record)

CERTIFICATE_LIFETIME = 24 * 3600
"""Seconds; a new key and certificate are made after half of it."""

WORKLOAD_AGE = MAX_EVIDENCE_AGE - 10
"""Seconds after which a workload's connection is not used again."""

VISITOR_AGE = 300
"""The same for who sent no evidence that could become stale."""

RETRY_FIRST, RETRY_GROWTH, RETRY_LAST = 0.01, 1.15, 0.3
"""Seconds between attempts to be let in by a busy vault: two dozen, within three seconds."""

_ENDPOINT = re.compile(r"\[?([^\[\]]+)\]?:([0-9]{1,5})")


@dataclass(slots=True, kw_only=True)
class Session:
    """Both ends of one attested connection, and how often it was used."""

    peer: VerifiedPeer
    vault: str
    """The id that the exchange proved."""
    own_spki: str
    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """Who connects, and how: a visitor, or a workload for one purpose and its keys.

    Args:
        prover: ``None`` for a visitor.
        clock: Wall time for certificates and collateral, monotonic time for ages.
        rng: Cryptographically secure.
        contexts: Returns the TLS context for a new connection; see `renewed_contexts`.
        timeout: Seconds to connect and attest, and again for each request.
        verify: Verifies the vaults' evidence, e.g. with collateral from a folder.
    """

    prover: WorkloadProver | None
    clock: Clock
    rng: Callable[[int], bytes]
    contexts: Callable[[], AttestedContext]
    timeout: float = 10.0
    verify: EvidenceVerifier = verify_evidence

    def vault(self, endpoint: str, expect: ExpectVault | UnsafeExpectAnyVault) -> VaultClient:
        """Return a client of the vault at ``host:port``; nothing is connected yet."""
        exchange = ClientExchange(
            expect=expect,
            prover=self.prover,
            clock=self.clock,
            rng=self.rng,
            verify=self.verify,
        )

        async def attest(channel: FrameChannel, tls: TlsPeer) -> Session:
            peer = await exchange(channel, tls)
            vault = peer.identity.claims.instance if peer.identity is not None else ""
            return Session(peer=peer, vault=vault, own_spki=tls.own_spki)

        # An endpoint is a hint: a bad one is a vault that cannot be reached, and no crash.
        found = _ENDPOINT.fullmatch(endpoint)
        host, port = (found[1], int(found[2])) if found else (endpoint, 0)
        pool = ConnectionPool(
            host,
            port if port < 2**16 else 0,
            self.contexts,
            attest,
            max_age=VISITOR_AGE if self.prover is None else WORKLOAD_AGE,
            timeout=self.timeout,
            clock=self.clock.monotonic,
        )
        vault = expect.id if isinstance(expect, ExpectVault) else ""
        return VaultClient(vault, endpoint, pool, timeout=self.timeout)


def renewed_contexts(clock: Clock) -> Callable[[], AttestedContext]:
    """Return a source of client contexts whose key and certificate are renewed in time."""
    made: list[tuple[int, AttestedContext]] = []

    def current() -> AttestedContext:
        now = clock.now()
        if not made or now >= made[0][0] + CERTIFICATE_LIFETIME // 2:
            pair = make_certificate(now=now, lifetime=CERTIFICATE_LIFETIME)
            made[:] = [(now, make_context(*pair, server=False))]
        return made[0][1]

    return current


class VaultClient:
    """The requests of spec/07 to one vault.

    Every method raises what the vault refused with (`from_problem`), `UnavailableError`
    when it did not answer, `EvidenceError` when it did not prove who it is, and
    `VerificationError` or `MalformedError` when its answer is not to be believed.

    Args:
        id: The vault id that the pool's exchange expects; empty if it takes any vault.
        endpoint: ``host:port``, to name it by.
        pool: Attested connections to it.
        timeout: Seconds for one request.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - it is what the wire calls it
        endpoint: str,
        pool: ConnectionPool[Session],
        *,
        timeout: float = 10.0,
    ) -> None:
        self.id = id
        self.endpoint = endpoint
        self._pool, self._timeout = pool, timeout

    def close(self) -> None:
        """Close its connections."""
        self._pool.close()

    @property
    def met(self) -> bool:
        """Say whether a connection to it is open."""
        return self._pool.idle > 0

    async def meet(self) -> VerifiedPeer:
        """Return what a live connection to this vault proved."""
        async with self._connected() as connection:
            return connection.peer.peer

    async def identity(self) -> AttestedIdentity:
        """Return who the peer of a live connection proved to be.

        Raises:
            EvidenceError: It proved nothing.
        """
        peer = await self.meet()
        if peer.identity is None:
            raise EvidenceError("the peer proved nothing")
        return peer.identity

    # --- anyone ------------------------------------------------------------------------

    async def status(self, nonce: bytes) -> StatusBody:
        """Return what the vault says of itself, signed over our 32-byte nonce."""
        answer = await self.standing(nonce)
        return decode(unb64(answer.status.payload), StatusBody)

    async def standing(self, nonce: bytes) -> Status:
        """Return the whole status; what witnesses sign in it is theirs, and *not* verified."""
        answer, session = await self._ask("GET", f"/v1/status?nonce={b64(nonce)}", Status)
        body = open_signed(answer.status, StatusBody, vault=session.vault)
        _same("status", (body.vault, body.nonce), (session.vault, b64(nonce)))
        return answer

    async def consistency(self, old: int, new: int) -> ConsistencyAnswer:
        """Return what shows that the log only grew. Nothing in it is verified."""
        path = f"/v1/log/consistency?old={old}&new={new}"
        answer, _ = await self._ask("GET", path, ConsistencyAnswer)
        return answer

    async def take(self, chain: Sequence[CourierItem]) -> TakeAnswer:
        """Bring statements of one key, oldest first; the answer has a receipt for each."""
        sent = [open_statement(item.signed) for item in chain]
        request = TakeRequest(chain=tuple(chain))
        answer, session = await self._ask("POST", "/v1/statements", TakeAnswer, request)
        _same("number of receipts", len(answer.taken), len(sent))
        for receipt, one in zip(answer.taken, sent, strict=True):
            taken = open_signed(receipt, Taken, vault=session.vault)
            said = (taken.vault, taken.key, taken.statement)
            _same("taken receipt", said, (session.vault, one.key, one.digest))
        return answer

    async def charter(self, key: str) -> CharterAnswer:
        """Return everything that the vault took of a key. Nothing in it is verified."""
        answer, _ = await self._ask("GET", f"/v1/keys/{key}/charter", CharterAnswer)
        return answer

    async def stage(self, signed: SignedStatement) -> StageAnswer:
        """Put a version forward, or take one back."""
        request = StageRequest(signed=signed)
        answer, _ = await self._ask("POST", "/v1/pending", StageAnswer, request)
        sent = open_statement(signed)
        about = sent.statement
        stage = about.body.stage if isinstance(about, RevokePending) else sent.digest
        _same("stage", answer.stage, stage)
        return answer

    async def pending(self, scope: str) -> PendingAnswer:
        """Return what is staged for a key id or an app name. Nothing is verified."""
        path = f"/v1/pending?scope={quote(scope, safe='')}"
        answer, _ = await self._ask("GET", path, PendingAnswer)
        return answer

    async def log(self, key: str, since: int = 0) -> LogAnswer:
        """Return a key's trail from its entry ``since`` on. Nothing in it is verified."""
        answer, _ = await self._ask("GET", f"/v1/keys/{key}/log?since={since}", LogAnswer)
        return answer

    async def audit(self, key: str, since: int, size: int) -> AuditAnswer:
        """Return a page of a key's trail with proofs, at a size. Nothing in it is verified."""
        path = f"/v1/keys/{key}/audit?since={since}&size={size}"
        answer, _ = await self._ask("GET", path, AuditAnswer)
        return answer

    async def dropped(self, key: str) -> DroppedAnswer:
        """Return what was taken on branches that were left. Nothing in it is verified."""
        answer, _ = await self._ask("GET", f"/v1/keys/{key}/dropped", DroppedAnswer)
        return answer

    async def hashes(self, since: int) -> HashesAnswer:
        """Return entry hashes from number ``since`` on. Nothing in it is verified."""
        answer, _ = await self._ask("GET", f"/v1/log/hashes?since={since}", HashesAnswer)
        return answer

    async def journal(self, since: int) -> JournalAnswer:
        """Return a page of the vault's whole log. Nothing in it is verified."""
        answer, _ = await self._ask("GET", f"/v1/log?since={since}", JournalAnswer)
        return answer

    # --- workloads ---------------------------------------------------------------------

    async def release(self, key: str, nonce: bytes, head: str | None = None) -> ReleaseAnswer:
        """Return this vault's share; whether it is the right one `combine` says."""
        request = ReleaseRequest(nonce=b64(nonce), head=head)
        path = f"/v1/keys/{key}/release"
        answer, session = await self._ask("POST", path, ReleaseAnswer, request)
        _same("nonce", answer.nonce, request.nonce)
        _check_release(answer, session, key)
        return answer

    async def promise(self, key: str, attempt: int) -> PromiseAnswer:
        """Have the vault take nothing older than ``attempt`` from now on."""
        path, request = f"/v1/keys/{key}/shares/promise", PromiseRequest(attempt=attempt)
        answer, _ = await self._ask("POST", path, PromiseAnswer, request)
        _same("attempt", answer.attempt, attempt)
        return answer

    async def recover(self, key: str, manifest: str) -> ReleaseAnswer:
        """Return the share held or committed under a manifest."""
        path, request = f"/v1/keys/{key}/shares/recover", RecoverRequest(manifest=manifest)
        answer, session = await self._ask("POST", path, ReleaseAnswer, request)
        _same("manifest", manifest_digest(answer.manifest), manifest)
        _check_release(answer, session, key)
        return answer

    async def hold(
        self,
        key: str,
        attempt: int,
        manifest: KeyManifest,
        share: bytes,
        finishing: tuple[Signed, ...] = (),
    ) -> Signed:
        """Have a share held; return the vault's `Held`."""
        request = HoldRequest(
            attempt=attempt, manifest=manifest, share=b64(share), finishing=finishing
        )
        path = f"/v1/keys/{key}/shares/prepare"
        answer, session = await self._ask("POST", path, HoldAnswer, request)
        held = open_signed(answer.held, Held, vault=session.vault)
        said = (held.vault, held.key, held.attempt, held.manifest)
        _same("held receipt", said, (session.vault, key, attempt, manifest_digest(manifest)))
        return answer.held

    async def commit(
        self, key: str, attempt: int, manifest: str, held: tuple[Signed, ...]
    ) -> Signed:
        """Have the held share committed; return the vault's `Committed`."""
        request = CommitRequest(attempt=attempt, manifest=manifest, held=held)
        path = f"/v1/keys/{key}/shares/commit"
        answer, session = await self._ask("POST", path, CommitAnswer, request)
        committed = open_signed(answer.committed, Committed, vault=session.vault)
        said = (committed.vault, committed.key, committed.manifest)
        _same("committed receipt", said, (session.vault, key, manifest))
        return answer.committed

    # --- inside ------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[AttestedConnection[Session]]:
        """Lend a connection. A busy vault drops who comes while it is full: come again."""
        async with contextlib.AsyncExitStack() as lent:
            delay = RETRY_FIRST
            while True:
                try:
                    connection = await lent.enter_async_context(self._pool.acquire())
                    break
                except UnavailableError as e:
                    busy = RateLimitedError.type in (e.type, e.members.get("refused"))
                    if not busy or delay > RETRY_LAST:
                        raise
                # So many come again together: not all at the same moment.
                await asyncio.sleep(delay * (0.5 + os.urandom(1)[0] / 256))
                delay *= RETRY_GROWTH
            yield connection

    async def _ask(
        self, method: str, path: str, shape: type[R], body: Record | None = None
    ) -> tuple[R, Session]:
        """Send one request, again while connections from the pool turn out dead or stale.

        What is sent again is the same bytes, the same nonce among them. A new connection
        gets one chance.
        """
        raw = b"" if body is None else encode(body)
        while True:
            async with self._connected() as connection:
                session = connection.peer
                reused, session.requests = session.requests > 0, session.requests + 1
                try:
                    answer = await connection.request(method, path, raw, timeout=self._timeout)
                except UnavailableError:
                    connection.close()
                    if reused:
                        continue
                    raise
                try:
                    return _read(answer, shape), session
                except EvidenceStaleError:
                    connection.close()
                    if not reused:
                        raise


def _read(answer: Answer, shape: type[R]) -> R:
    if answer.status == 200:  # noqa: PLR2004 - RFC 9110, section 15.3.1
        return decode(answer.body, shape)
    try:
        problem = msgspec.json.decode(answer.body, type=dict[str, object])
    except (msgspec.DecodeError, ValueError, RecursionError) as e:
        raise MalformedError(f"vault answered {answer.status} without a problem document") from e
    raise from_problem(problem)


def _check_release(answer: ReleaseAnswer, session: Session, key: str) -> None:
    released = open_signed(answer.receipt, Released, vault=session.vault)
    said = (
        released.vault, released.key, released.manifest, released.version, released.recipient
    )  # fmt: skip
    manifest = manifest_digest(answer.manifest)
    want = (session.vault, key, manifest, answer.version, session.own_spki)
    _same("release receipt", said, want)


def _same(what: str, said: object, expected: object) -> None:
    if said != expected:
        raise VerificationError(f"vault's {what} says {said}, expected {expected}"[:600])
