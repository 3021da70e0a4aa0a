"""Attacks on the attested channel, with real sockets and real quotes (I3, R1.x, spec/05)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from placet_testing.charters import owner_of, person
from placet_testing.serving import Served, client_context, serving, trust
from placet_testing.tee import Tee, workload_config

from placet.attest.verify import bind, verify_evidence
from placet.core.attestation import (
    EXPORTER_LABEL,
    Claims,
    Context,
    Evidence,
    exporter_context,
    keys_digest,
    report_data,
)
from placet.core.encoding import b64, decode, encode, unb64
from placet.core.limits import MAX_FRAME
from placet.core.signer import owner_fingerprint
from placet.errors import (
    BindingError,
    EvidenceError,
    MalformedError,
    NotApprovedError,
    PlacetError,
    UnavailableError,
    VaultReleaseError,
    VerificationError,
)
from placet.ratls.certificate import make_certificate
from placet.ratls.context import make_context
from placet.ratls.exchange import (
    ClientExchange,
    ExpectVault,
    ServerExchange,
    VerifiedPeer,
    WorkloadProver,
)
from placet.ratls.frames import FrameChannel, TlsPeer
from placet.ratls.http import ConnectionPool
from placet.ratls.proofs import Hello, PeerProof, VaultProof, Verdict
from placet.ratls.server import serve
from placet.ratls.transport import connect

KEY = "sha256:" + "6b" * 32
OWNER = owner_fingerprint(owner_of(person("owner").signer))


def workload(**changes: Any) -> WorkloadProver:
    """Return an honest workload's prover."""
    tee = Tee(workload_config(OWNER))
    fields = {"producer": tee, "instance": "w-1", "purpose": "release", "keys": (KEY,)}
    return WorkloadProver(**(fields | changes))


def exchange(
    vault: Served, prover: WorkloadProver | None = None, rng: Callable[[int], bytes] = os.urandom
) -> ClientExchange:
    """Return what an honest client does to meet that vault."""
    expect = ExpectVault(id=vault.identity.id, profiles=(vault.tee.profile(),), trust=trust())
    return ClientExchange(expect=expect, prover=prover, clock=vault.clock, rng=rng)


@dataclass
class Recorder:
    """An application that only notes that somebody got as far as HTTP."""

    requests: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Take a request and answer with nothing."""
        del receive
        self.requests.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def listening(
    attest: Callable[[FrameChannel, TlsPeer], Awaitable[Any]],
    certificate: tuple[Any, Any] | None = None,
) -> AsyncIterator[tuple[int, Recorder]]:
    """Listen with any attest hook: an attacker's server, or a vault without a vault."""
    app, stop = Recorder(), asyncio.Event()
    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    pair = certificate or make_certificate(now=int(time.time()), lifetime=600)
    context = make_context(*pair, server=True)
    running = asyncio.create_task(serve(app, context, attest, announce=bound.set_result, stop=stop))
    try:
        yield await bound, app
    finally:
        stop.set()
        await running


async def meet(port: int, attest: Any) -> VerifiedPeer:
    """Connect, run the exchange and ask for something; return whom we met."""
    pool = ConnectionPool(
        "127.0.0.1", port, client_context, attest, max_age=60, clock=time.monotonic, timeout=5
    )
    try:
        async with pool.acquire() as connection:
            await connection.request("GET", "/secret")
            return connection.peer
    finally:
        pool.close()


async def test_an_honest_workload_and_vault_meet(tmp_path: Path) -> None:
    """Both ends prove themselves; what each sees of the other is what it claimed."""
    async with serving(tmp_path) as vault:
        peer = await meet(vault.port, exchange(vault, workload()))
        assert peer.identity is not None
        assert peer.identity.claims.instance == vault.identity.id


async def test_a_refusal_counts_only_from_a_vault_that_proved_itself(tmp_path: Path) -> None:
    """Who sits on the network cannot deny in a vault's name, nor put words in its mouth."""

    async def impostor(channel: FrameChannel, _: TlsPeer) -> object:
        await channel.receive(MAX_FRAME)
        said = NotApprovedError("no", "Run this: something bad")
        problem = {"type": said.problem()["type"], "detail": said.detail, "hint": said.hint}
        await channel.send(encode(Verdict(problem=problem)))
        raise said

    async with serving(tmp_path) as vault, listening(impostor) as (port, _):
        with pytest.raises(UnavailableError, match="before it proved itself") as refused:
            await meet(port, exchange(vault, workload()))
        assert "something bad" not in str(refused.value) + refused.value.hint


# --- relay ------------------------------------------------------------------------------------


@pytest.mark.req("I3")
@pytest.mark.req("R1.1")
@pytest.mark.parametrize("who", ["visitor", "workload"])
async def test_relay_with_the_vaults_leaked_tls_key(tmp_path: Path, who: str) -> None:
    """A man in the middle has the vault's very TLS key and bridges every frame: refused."""
    async with serving(tmp_path) as vault:
        sent_by_victim: list[bytes] = []

        async def bridge(channel: FrameChannel, _: TlsPeer) -> object:
            done = asyncio.get_running_loop().create_future()

            async def upstream(vault_channel: FrameChannel, _: TlsPeer) -> object:
                for towards in ("vault", "victim", "vault", "victim"):
                    source, sink = (
                        (channel, vault_channel) if towards == "vault" else (vault_channel, channel)
                    )
                    frame = await source.receive(MAX_FRAME)
                    if towards == "vault":
                        sent_by_victim.append(frame)
                    await sink.send(frame)
                done.set_result(None)
                return None

            with contextlib.suppress(PlacetError):
                await connect(
                    "127.0.0.1",
                    vault.port,
                    client_context(),
                    upstream,
                    lambda _: asyncio.Protocol(),
                )
            return None

        async with listening(bridge, vault.certificate) as (port, app):
            prover = workload() if who == "workload" else None
            with pytest.raises(BindingError) as refused:
                await meet(port, exchange(vault, prover))
            assert refused.value.type == "binding-mismatch"
            # The victim said hello, and not one byte more.
            assert [type(decode(f, Hello)) for f in sent_by_victim] == [Hello]
            assert app.requests == []


@pytest.mark.req("I3")
@pytest.mark.req("R1.1")
async def test_relayed_evidence_on_a_connection_of_ones_own(tmp_path: Path) -> None:
    """Evidence that the vault made for one connection is worth nothing on the next."""
    async with serving(tmp_path) as vault:
        stolen: list[VaultProof] = []

        async def visit(channel: FrameChannel, _: TlsPeer) -> object:
            await channel.send(encode(Hello("placet-attest/1", "visitor", "A" * 43)))
            stolen.append(decode(await channel.receive(MAX_FRAME), VaultProof))
            return None

        transport, _ = await connect(
            "127.0.0.1", vault.port, client_context(), visit, lambda _: asyncio.Protocol()
        )
        transport.abort()

        async def replay(channel: FrameChannel, _: TlsPeer) -> object:
            await channel.receive(MAX_FRAME)
            await channel.send(encode(stolen[0]))
            return await channel.receive(MAX_FRAME)

        async with listening(replay, vault.certificate) as (port, app):
            with pytest.raises(BindingError):
                await meet(port, exchange(vault))
            assert app.requests == []


# --- reflection and diversion -------------------------------------------------------------------


@pytest.mark.req("I3")
@pytest.mark.req("R1.2")
async def test_reflection_of_the_vaults_own_evidence(tmp_path: Path) -> None:
    """A client hands the vault's own proof back as its own: refused before any request."""
    async with serving(tmp_path) as vault:

        async def reflect(channel: FrameChannel, _: TlsPeer) -> object:
            await channel.send(encode(Hello("placet-attest/1", "workload", "A" * 43)))
            proof = decode(await channel.receive(MAX_FRAME), VaultProof)
            claims = msgspec.structs.replace(
                proof.claims, purpose="release", keys=keys_digest((KEY,))
            )
            echo = PeerProof(claims=claims, keys=(KEY,), evidence=proof.evidence)
            await channel.send(encode(echo))
            verdict = decode(await channel.receive(MAX_FRAME), Verdict)
            raise EvidenceError(str((verdict.problem or {}).get("type")))

        with pytest.raises(EvidenceError, match="binding-mismatch"):
            await connect(
                "127.0.0.1", vault.port, client_context(), reflect, lambda _: asyncio.Protocol()
            )


@pytest.mark.req("I3")
@pytest.mark.req("R1.2")
async def test_reflection_of_the_clients_own_evidence(tmp_path: Path) -> None:
    """A server without a TEE gives the client's earlier evidence back as a vault's."""
    async with serving(tmp_path) as vault:
        prover = workload()

        async def mirror(channel: FrameChannel, tls: TlsPeer) -> object:
            hello = decode(await channel.receive(MAX_FRAME), Hello)
            # The best that a mirror can have: a quote of the client's over this connection.
            context = _context_of(prover, tls, hello)
            evidence = prover.producer.quote(context)
            key = vault.identity.key.public_key().public_bytes_raw()
            claims = replace_claims(context, instance=vault.identity.id, purpose=None, keys=None)
            await channel.send(
                encode(VaultProof(hello.nonce, claims, evidence, b64(key), b64(bytes(64))))
            )
            return await channel.receive(MAX_FRAME)

        async with listening(mirror) as (port, app):
            with pytest.raises(EvidenceError):
                await meet(port, exchange(vault, prover))
            assert app.requests == []


@pytest.mark.req("R1.2")
async def test_one_vaults_evidence_in_place_of_anothers(tmp_path: Path) -> None:
    """Vault A answers at vault B's address, genuine and with equal measurement: refused."""
    async with serving(tmp_path, 1) as a, serving(tmp_path, 2) as b:
        assert a.tee.profile() == b.tee.profile()
        with pytest.raises(BindingError, match="in place of"):
            await meet(a.port, exchange(b))


@pytest.mark.req("R1.2")
async def test_a_vault_id_without_its_sealed_key(tmp_path: Path) -> None:
    """Genuine vault code that claims another vault's id has not that vault's key: refused."""
    async with serving(tmp_path, 1) as honest, serving(tmp_path, 2) as other:

        async def claims_it(channel: FrameChannel, tls: TlsPeer) -> object:
            tee = Tee(honest.tee.config, boot="boot-x")
            own = ServerExchange(
                producer=_Claiming(tee, honest.identity.id),
                identity_key=other.identity.key,
                trust=trust(),
                clock=honest.clock,
                rng=os.urandom,
            )
            return await own(channel, tls)

        async with listening(claims_it) as (port, app):
            with pytest.raises(VerificationError):
                await meet(port, exchange(honest))
            assert app.requests == []


# --- every field ------------------------------------------------------------------------------

FIELDS = [f.name for f in msgspec.structs.fields(Context) if f.name != "schema"]


def flipped(context: Context, name: str) -> Context:
    """Return the context with another value of one field, of the right shape."""
    was = getattr(context, name)
    other = {
        "protocol": "placet-attest/2",
        "role": "vault",
        "direction": "server",
        "purpose": "create",
    }
    if name in other:
        return msgspec.structs.replace(context, **{name: other[name]})
    last = was[-1]
    return msgspec.structs.replace(context, **{name: was[:-1] + ("0" if last != "0" else "1")})


@pytest.mark.req("I3")
@pytest.mark.req("R1.3")
@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_the_context_is_load_bearing(name: str) -> None:
    """The verifier expects one field otherwise: 64 bytes differ, refused."""
    assert len(FIELDS) == 15
    prover = workload()
    about = prover.producer.describe()
    context = Context(
        role="workload",
        direction="client",
        spki="sha256:" + "01" * 32,
        peer_spki="sha256:" + "02" * 32,
        verifier_nonce="A" * 43,
        prover_nonce="B" * 42 + "A",
        exporter="C" * 42 + "A",
        instance="w-1",
        app=about.app,
        image=about.image,
        config=about.config,
        purpose="release",
        keys=keys_digest((KEY,)),
        boot=about.boot,
    )
    evidence = verify_evidence(prover.producer.quote(context), trust=trust(), now=int(time.time()))
    assert bind(evidence, context).claims.instance == "w-1"
    with pytest.raises(BindingError):
        bind(evidence, flipped(context, name))


@pytest.mark.req("I3")
@pytest.mark.req("R1.3")
@pytest.mark.parametrize("name", [n for n in FIELDS if n != "protocol"])
async def test_a_quote_over_any_other_field_is_refused_on_the_wire(
    tmp_path: Path, name: str
) -> None:
    """A workload whose TEE quotes one field otherwise never reaches a request."""
    async with serving(tmp_path) as vault:
        prover = workload()
        prover = replace(prover, producer=_Lying(prover.producer, name))
        with pytest.raises(EvidenceError):
            await meet(vault.port, exchange(vault, prover))


# --- what is sent -----------------------------------------------------------------------------


HOSTILE: dict[str, tuple[type[PlacetError], Callable[[PeerProof], bytes]]] = {
    "no evidence": (EvidenceError, lambda p: encode(msgspec.structs.replace(p, evidence=None))),
    "no claims": (EvidenceError, lambda p: encode(msgspec.structs.replace(p, claims=None))),
    "other keys than the evidence names": (
        BindingError,
        lambda p: encode(msgspec.structs.replace(p, keys=("sha256:" + "00" * 32,))),
    ),
    "no purpose": (
        BindingError,
        lambda p: encode(
            msgspec.structs.replace(p, claims=msgspec.structs.replace(p.claims, purpose=None))
        ),
    ),
    "evidence twice": (
        MalformedError,
        lambda p: encode(p).replace(b'{"claims"', b'{"evidence":null,"claims"', 1),
    ),
    "an unknown field": (
        MalformedError,
        lambda p: encode(p).replace(b'{"claims"', b'{"also":1,"claims"', 1),
    ),
    "trailing bytes": (MalformedError, lambda p: encode(p) + b" "),
    "another message": (MalformedError, lambda _: encode(Verdict(problem=None))),
    "an oversized quote": (
        EvidenceError,
        lambda p: encode(
            msgspec.structs.replace(
                p, evidence=msgspec.structs.replace(p.evidence, quote="A" * 100_000)
            )
        ),
    ),
    "no message": (MalformedError, lambda _: b""),
    "no json": (MalformedError, lambda _: b"\x1f\x8b\x08" * 100),
}


@pytest.mark.req("R1.7")
@pytest.mark.parametrize(("expect", "make"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_proofs_get_a_typed_no(
    tmp_path: Path, expect: type[PlacetError], make: Callable[[PeerProof], bytes]
) -> None:
    """Whatever a peer sends in place of its proof, the vault's verdict names the problem."""
    async with serving(tmp_path) as vault:
        prover = workload()

        async def hostile(channel: FrameChannel, tls: TlsPeer) -> object:
            await channel.send(encode(Hello("placet-attest/1", "workload", "A" * 43)))
            theirs = decode(await channel.receive(MAX_FRAME), VaultProof)
            context = _context_of(prover, tls, Hello("placet-attest/1", "workload", theirs.nonce))
            evidence = prover.producer.quote(context)
            good = PeerProof(claims=replace_claims(context), keys=prover.keys, evidence=evidence)
            await channel.send(make(good))
            verdict = decode(await channel.receive(MAX_FRAME), Verdict)
            raise EvidenceError(str((verdict.problem or {}).get("type")))

        with pytest.raises(EvidenceError) as refused:
            await connect(
                "127.0.0.1", vault.port, client_context(), hostile, lambda _: asyncio.Protocol()
            )
        assert refused.value.detail.endswith(f"/{expect.type}")


async def test_a_visitor_that_sends_evidence_is_refused(tmp_path: Path) -> None:
    """A visitor proves nothing, and must not pretend to."""
    async with serving(tmp_path) as vault:

        async def both(channel: FrameChannel, _: TlsPeer) -> object:
            await channel.send(encode(Hello("placet-attest/1", "visitor", "A" * 43)))
            await channel.receive(MAX_FRAME)
            await channel.send(encode(PeerProof(claims=None, keys=(KEY,), evidence=None)))
            verdict = decode(await channel.receive(MAX_FRAME), Verdict)
            raise EvidenceError(str((verdict.problem or {}).get("type")))

        with pytest.raises(EvidenceError, match="malformed"):
            await connect(
                "127.0.0.1", vault.port, client_context(), both, lambda _: asyncio.Protocol()
            )


@pytest.mark.req("R1.11")
async def test_every_connection_draws_its_own_nonces(tmp_path: Path) -> None:
    """As many nonces as connections, on both sides."""
    async with serving(tmp_path) as vault:
        drawn: list[bytes] = []

        def rng(count: int) -> bytes:
            drawn.append(os.urandom(count))
            return drawn[-1]

        seen: list[str] = []
        for _ in range(10):
            wire = exchange(vault, rng=rng)

            async def watched(
                channel: FrameChannel, tls: TlsPeer, wire: ClientExchange = wire
            ) -> VerifiedPeer:
                receive = channel.receive

                async def spy(limit: int = MAX_FRAME) -> bytes:
                    frame = await receive(limit)
                    with contextlib.suppress(MalformedError):
                        seen.append(decode(frame, VaultProof).nonce)
                    return frame

                channel.receive = spy  # type: ignore[method-assign]
                return await wire(channel, tls)

            await meet(vault.port, watched)
        assert len(set(drawn)) == len(drawn) == 10
        assert len(set(seen)) == len(seen) == 10


@pytest.mark.req("I9")
async def test_a_vault_that_cannot_quote_serves_nobody(tmp_path: Path) -> None:
    """Its TEE is gone: no evidence, no HTTP."""

    class Gone(Tee):
        """A TEE that stopped answering."""

        def quote(self, context: Context) -> Evidence:
            """Fail."""
            del context
            raise UnavailableError("the TEE hung up")

    async with serving(tmp_path) as vault:
        broken = ServerExchange(
            producer=Gone(vault.tee.config),
            identity_key=vault.identity.key,
            trust=trust(),
            clock=vault.clock,
            rng=os.urandom,
        )
        async with listening(broken) as (port, app):
            with pytest.raises(UnavailableError):
                await meet(port, exchange(vault))
            assert app.requests == []


async def test_a_vault_of_other_code_is_refused(tmp_path: Path) -> None:
    """The vault's profile is the charter's: genuine evidence of other code is not enough."""
    async with serving(tmp_path) as vault:
        other = Tee(vault.tee.config, version=9).profile()
        wire = exchange(vault)
        expect = ExpectVault(id=vault.identity.id, profiles=(other,), trust=trust())
        with pytest.raises(VaultReleaseError):
            await meet(vault.port, replace(wire, expect=expect))


# --- what hostile ends are made of --------------------------------------------------------------


def _context_of(prover: WorkloadProver, tls: TlsPeer, hello: Hello) -> Context:
    """Return the context of a workload's evidence for nonces that the test chose."""
    mine = unb64("A" * 43)
    theirs = unb64(hello.nonce)
    about = prover.producer.describe()
    label_context = exporter_context(theirs, mine, "workload", "client")
    return Context(
        role="workload",
        direction="client",
        spki=tls.own_spki,
        peer_spki=tls.peer_spki,
        verifier_nonce=hello.nonce,
        prover_nonce="A" * 43,
        exporter=b64(tls.export(EXPORTER_LABEL, label_context, 32)),
        instance=prover.instance,
        app=about.app,
        image=about.image,
        config=about.config,
        purpose=prover.purpose,
        keys=keys_digest(prover.keys),
        boot=about.boot,
    )


def replace_claims(context: Context, **changes: Any) -> Any:
    """Return the claims that a context makes."""
    fields = {f.name: getattr(context, f.name) for f in msgspec.structs.fields(Claims)}
    return Claims(**(fields | changes))


class _Lying:
    """A producer whose TEE quotes one field of the context otherwise."""

    def __init__(self, honest: Any, name: str) -> None:
        self._honest, self._name = honest, name

    def describe(self) -> Any:
        return self._honest.describe()

    def quote(self, context: Context) -> Evidence:
        data = report_data(flipped(context, self._name))
        return self._honest.quoter(self._honest.bundle.measurement, data)


class _Claiming:
    """A producer for genuine vault code that quotes for an id it does not own."""

    def __init__(self, honest: Tee, vault: str) -> None:
        self._honest, self._vault = honest, vault

    def describe(self) -> Any:
        return self._honest.describe()

    def quote(self, context: Context) -> Evidence:
        return self._honest.quote(msgspec.structs.replace(context, instance=self._vault))
