"""The attestation exchange: after the TLS handshake, before anything else (spec/05, spec/07).

    client                                   server (always a vault)
      Hello{role, nonce}          ------>
                                  <------    VaultProof{nonce, claims, evidence, signature}
      PeerProof{claims, evidence} ------>    (a visitor sends neither)
                                  <------    Verdict

The vault proves itself first. A client that is not satisfied closes, and has sent
nothing but a nonce. No HTTP exists on either side before the verdict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from placet.attest.produce import Description, Producer
from placet.attest.trust import TrustAnchor
from placet.attest.verify import EvidenceVerifier, bind, check_early, verify_evidence
from placet.attest.verify.binding import check_instance
from placet.core.attestation import (
    EXPORTER_LABEL,
    PROTOCOL,
    AttestedIdentity,
    Claims,
    Context,
    Direction,
    Purpose,
    Role,
    VerifiedEvidence,
    exporter_context,
    keys_digest,
    report_data,
)
from placet.core.dsse import pae, vault_id, verify_signature
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.limits import MAX_FRAME, MAX_GRACE, MAX_HELLO
from placet.core.profile import Profile
from placet.errors import (
    BindingError,
    EvidenceError,
    MalformedError,
    NotApprovedError,
    PlacetError,
    UnavailableError,
    VaultReleaseError,
    from_problem,
)
from placet.policy.match import code_of, match_any
from placet.ratls.certificate import PeerCertificate
from placet.ratls.frames import FrameChannel, TlsPeer
from placet.ratls.proofs import Hello, PeerProof, VaultProof, Verdict, verify_at_once

F = TypeVar("F")
NONCE = 32
CHANNEL_TYPE = "application/vnd.placet.channel.v1"

PeerRole = Literal["visitor", "workload", "vault", "resharer"]
_FIT: dict[str, tuple[tuple[Purpose | None, bool], ...]] = {
    "vault": ((None, True),),
    "workload": (("release", False), ("create", False)),
    "resharer": (("reshare", True),),
}
"""By role: the purposes that it may have, each with whether it names no keys."""


class Clock(Protocol):
    """Where a process gets its time; the mains make one, tests make others."""

    def now(self) -> int:
        """Return Unix seconds that never go back."""

    def monotonic(self) -> float:
        """Return seconds of a clock that nobody sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPeer:
    """The other end of a channel, as the exchange proved it."""

    role: PeerRole
    spki: str
    identity: AttestedIdentity | None
    """``None`` for a visitor, and only for one."""
    keys: tuple[str, ...]
    attested_at: float
    """On the monotonic clock, when the nonce that makes it fresh was drawn."""
    certificate: PeerCertificate | None = None
    """A vault's, whose evidence is there to be looked at; a client's is nobody's business."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectVault:
    """One vault by its id, running code that the charter's vault set names."""

    id: str
    profiles: tuple[Profile, ...]
    trust: tuple[TrustAnchor, ...]

    grace = MAX_GRACE
    """`check` compares with each profile's own, which is this or less."""

    def check(self, peer: AttestedIdentity) -> None:
        """Raise unless this is that vault with such code."""
        check_instance(peer, self.id)
        try:
            match_any(self.profiles, peer)
        except NotApprovedError as e:
            # Not a refusal by the vault: it may run what an owner approved since.
            raise VaultReleaseError(
                f"vault {self.id} runs a release that the charter, as known here, does not name",
                "If the owner added it, a newer copy of the charter says so (--charter, or "
                "placet key add). Else: placet key update KEY --add-vault-release PROFILE",
                check="vault-release",
                vault=self.id,
                code=code_of(peer),
            ) from e


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsafeExpectAnyVault:
    """Any genuine TEE that speaks for a vault, whatever its code: to look, never to trust."""

    trust: tuple[TrustAnchor, ...]

    grace = 0

    def check(self, peer: AttestedIdentity) -> None:
        """Accept what verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectPredecessor:
    """An older process of a vault, to take over from: ``id`` once that is known.

    That its release is one whose word counts is *not* checked here: each key's charter says.
    """

    id: str | None
    trust: tuple[TrustAnchor, ...]

    grace = MAX_GRACE

    def check(self, peer: AttestedIdentity) -> None:
        """Raise unless this is that vault."""
        check_instance(peer, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResharerProver:
    """What a new process of a vault proves with, to the old one that it takes over from."""

    producer: Producer


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadProver:
    """What a workload proves with: its quote producer, and what it came for."""

    producer: Producer
    instance: str
    purpose: Purpose
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientExchange:
    """The client's side. Call it on a fresh TLS connection.

    The call raises `EvidenceError` when the vault did not prove what was expected (only
    a nonce was sent by then), and the vault's own problem when it refused us.
    """

    expect: ExpectVault | ExpectPredecessor | UnsafeExpectAnyVault
    prover: WorkloadProver | ResharerProver | None
    clock: Clock
    rng: Callable[[int], bytes]
    verify: EvidenceVerifier = verify_evidence

    async def __call__(self, channel: FrameChannel, tls: TlsPeer) -> VerifiedPeer:
        """Run the exchange and return the verified vault."""
        nonce, started = self.rng(NONCE), self.clock.monotonic()
        role = _role_of(self.prover)
        await channel.send(encode(Hello(protocol=PROTOCOL, role=role, nonce=b64(nonce))))

        # 3.1 The vault proves itself, on this connection and for this nonce.
        answer: VaultProof | Verdict = await _receive(channel, VaultProof | Verdict)  # type: ignore[arg-type]
        if isinstance(answer, Verdict):
            # Whoever sits on the network can say this: it is no vault's word, nor is its text.
            kind = from_problem(answer.problem or {}).type
            raise UnavailableError(f"peer refused before it proved itself: {kind}", refused=kind)
        peer_nonce = _nonce(answer.nonce)
        context = _context(tls, "vault", "server", (nonce, peer_nonce), answer.claims, mine=False)
        _check_claims(context)
        shown = self.verify(
            answer.evidence,
            trust=self.expect.trust,
            now=self.clock.now(),
            grace=self.expect.grace,
        )
        identity = bind(shown, context)
        _check_identity_key(answer, context)
        self.expect.check(identity)

        # 3.2 Now ours, unless we are a visitor.
        proof = PeerProof(claims=None, keys=(), evidence=None)
        if self.prover is not None:
            proof = await _prove(self.prover, tls, (nonce, peer_nonce), answer.claims.instance)
        await channel.send(encode(proof))

        # 3.3 The vault's verdict, before any request.
        verdict = await _receive(channel, Verdict)
        if verdict.problem is not None:
            raise from_problem(verdict.problem)
        return VerifiedPeer(
            role="vault",
            spki=tls.peer_spki,
            identity=identity,
            keys=(),
            attested_at=started,
            certificate=tls.certificate,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerExchange:
    """A vault's side. What its gate decides on later, it decides by a profile's own grace.

    Args:
        verify: Verifies peers' evidence; called as `verify_at_once`, it may wait for its turn
            and must not hold up the loop.
        turn: Whose turn it is to have us make a quote, which takes long on hardware.
    """

    producer: Producer
    identity_key: Ed25519PrivateKey
    trust: Sequence[TrustAnchor]
    clock: Clock
    rng: Callable[[int], bytes]
    verify: Callable[..., Awaitable[VerifiedEvidence]] = verify_at_once
    turn: Callable[[str], AbstractAsyncContextManager[object]] = nullcontext

    async def __call__(self, channel: FrameChannel, tls: TlsPeer) -> VerifiedPeer:
        """Run the exchange and return the verified peer; a refusal is told, then raised."""
        try:
            peer = await self._meet(channel, tls)
        except PlacetError as e:
            facts = {k: v for k, v in e.problem().items() if isinstance(v, str | int | None)}
            await channel.send(encode(Verdict(problem=facts)))
            raise
        await channel.send(encode(Verdict(problem=None)))
        return peer

    async def _meet(self, channel: FrameChannel, tls: TlsPeer) -> VerifiedPeer:
        # 5.4 No frame is longer than what its sender has to say.
        hello = await _receive(channel, Hello, MAX_HELLO)
        peer_nonce, nonce = _nonce(hello.nonce), self.rng(NONCE)
        started = self.clock.monotonic()

        # 3.1 We prove ourselves, whoever asks.
        async with self.turn(tls.network):
            own = await self._prove(tls, peer_nonce, nonce)
        await channel.send(encode(own))

        # 3.2 The peer's turn. A visitor proves nothing, and is nobody.
        most = MAX_HELLO if hello.role == "visitor" else MAX_FRAME
        proof = await _receive(channel, PeerProof, most)
        visitor = VerifiedPeer(
            role="visitor", spki=tls.peer_spki, identity=None, keys=(), attested_at=started
        )
        if hello.role == "visitor":
            if proof.claims is not None or proof.evidence is not None or proof.keys:
                raise MalformedError("a visitor sends no evidence")
            return visitor
        if proof.claims is None or proof.evidence is None:
            raise EvidenceError(f"a {hello.role} must send evidence", check="missing")
        # 5.5 Claims, and what the evidence says of itself: before any signature.
        named = keys_digest(proof.keys) if hello.role == "workload" or proof.keys else None
        if proof.claims.purpose is None or proof.claims.keys != named:
            raise BindingError("the key ids sent are not those that the evidence names")
        context = _context(tls, hello.role, "client", (nonce, peer_nonce), proof.claims, mine=False)
        _check_claims(context)
        check_early(proof.evidence, context)
        shown = await self.verify(
            proof.evidence, tls.network, trust=self.trust, now=self.clock.now()
        )
        identity = bind(shown, context)
        return replace(visitor, role=hello.role, identity=identity, keys=proof.keys)

    async def _prove(self, tls: TlsPeer, peer_nonce: bytes, nonce: bytes) -> VaultProof:
        about, public = self.producer.describe(), self.identity_key.public_key().public_bytes_raw()
        claims = _claims(about, vault_id(public), None, None)
        context = _context(tls, "vault", "server", (peer_nonce, nonce), claims, mine=True)
        evidence = await asyncio.to_thread(self.producer.quote, context)
        signature = self.identity_key.sign(pae(CHANNEL_TYPE, report_data(context)))
        return VaultProof(
            nonce=b64(nonce),
            claims=claims,
            evidence=evidence,
            vault_key=b64(public),
            signature=b64(signature),
        )


def _role_of(
    prover: WorkloadProver | ResharerProver | None,
) -> Literal["visitor", "workload", "resharer"]:
    if prover is None:
        return "visitor"
    return "workload" if isinstance(prover, WorkloadProver) else "resharer"


async def _prove(
    prover: WorkloadProver | ResharerProver, tls: TlsPeer, nonces: tuple[bytes, bytes], vault: str
) -> PeerProof:
    about, keys = prover.producer.describe(), tuple[str, ...]()
    if isinstance(prover, WorkloadProver):
        keys = tuple(sorted(prover.keys))
        role: Role = "workload"
        claims = _claims(about, prover.instance, prover.purpose, keys_digest(keys))
    else:
        # It is to be the same vault, and may have what each key's charter lets it have.
        role, claims = "resharer", _claims(about, vault, "reshare", None)
    context = _context(tls, role, "client", nonces[::-1], claims, mine=True)
    evidence = await asyncio.to_thread(prover.producer.quote, context)
    return PeerProof(claims=claims, keys=keys, evidence=evidence)


def _claims(about: Description, instance: str, purpose: Purpose | None, keys: str | None) -> Claims:
    return Claims(
        instance=instance,
        app=about.app,
        image=about.image,
        config=about.config,
        purpose=purpose,
        keys=keys,
        boot=about.boot,
    )


def _context(
    tls: TlsPeer,
    role: Role,
    direction: Direction,
    nonces: tuple[bytes, bytes],
    claims: Claims,
    *,
    mine: bool,
) -> Context:
    """Build the context of the prover's evidence from what this end sees itself.

    ``nonces`` are the verifier's and the prover's; ``mine`` says that this end proves.
    """
    verifier_nonce, prover_nonce = nonces
    label_context = exporter_context(verifier_nonce, prover_nonce, role, direction)
    ends = (tls.own_spki, tls.peer_spki)
    spki, peer_spki = ends if mine else ends[::-1]
    return Context(
        role=role,
        direction=direction,
        spki=spki,
        peer_spki=peer_spki,
        verifier_nonce=b64(verifier_nonce),
        prover_nonce=b64(prover_nonce),
        exporter=b64(tls.export(EXPORTER_LABEL, label_context, 32)),
        **msgspec.structs.asdict(claims),
    )


def _check_claims(context: Context) -> None:
    if (context.purpose, context.keys is None) not in _FIT[context.role]:
        raise MalformedError(f"claims do not fit the role {context.role}")


def _check_identity_key(proof: VaultProof, context: Context) -> None:
    """Check that the sealed key whose digest is the vault id signed for this channel."""
    public = unb64(proof.vault_key)
    if vault_id(public) != context.instance:
        raise BindingError("vault's identity key is not the one that its id names")
    message = pae(CHANNEL_TYPE, report_data(context))
    verify_signature("ed25519", public, unb64(proof.signature), message)


def _nonce(text: str) -> bytes:
    nonce = unb64(text)
    if len(nonce) != NONCE:
        raise MalformedError(f"nonce is {len(nonce)} bytes, {NONCE} are needed")
    return nonce


async def _receive(channel: FrameChannel, shape: type[F], most: int = MAX_FRAME) -> F:
    return decode(await channel.receive(most), shape, limit=most)
