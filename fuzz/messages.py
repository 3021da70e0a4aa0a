"""What peers, owners and logs send: exchange frames, certificates, statements, notes, passkeys."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import inspect
from typing import Any

import msgspec
from harness import attempt, parts, target, trust
from placet_testing import charters
from placet_testing.amd import NOW
from placet_testing.oidc_provider import SoftwareProvider
from placet_testing.passkey import SoftwarePasskey

from placet.attest.produce import Description
from placet.attest.trust import trust_from_config
from placet.core import messages as wire
from placet.core.attestation import CertificateClaims, Context, Evidence
from placet.core.checkpoint import Checkpoint, open_note
from placet.core.config import Config, VaultConfig, VaultSettings, config_digest
from placet.core.dsse import Signed, open_signed
from placet.core.encoding import Record, b64, decode
from placet.core.limits import MAX_STATEMENT
from placet.core.logentry import LogEntry
from placet.core.manifest import KeyManifest, check_manifest
from placet.core.profile import Profile, check_profile
from placet.core.signer import OidcSignature, PasskeySignature, signer_id
from placet.core.statement import Birth, SignedStatement, UntrustedStatement, open_statement
from placet.errors import UnavailableError, from_problem
from placet.policy.charter import Courier, replay, take
from placet.policy.oidc import verify_enrolment, verify_id_token
from placet.policy.pending import check_stage
from placet.policy.principal import check_principal, leaves
from placet.policy.provider import Provider
from placet.policy.signers import signer_key_check
from placet.policy.webauthn import parse_cose_key, verify_assertion
from placet.ratls.certificate import WITH_EVIDENCE, PeerCertificate, parse_certificate
from placet.ratls.exchange import ClientExchange, ServerExchange, UnsafeExpectAnyVault
from placet.ratls.frames import FrameChannel, TlsPeer
from placet.ratls.wrapper import verify_shown

# --- the attestation exchange -----------------------------------------------------------------

OWN, PEER = "sha256:" + "0a" * 32, "sha256:" + "0b" * 32
IDENTITY = charters.vault_key(1)
VAULT = VaultConfig(
    app="placet-vault",
    argv=(),
    environment={},
    settings=VaultSettings(evidence_age=60, max_keys=9),
    trust_roots=(),
)
ABOUT = Description(
    app=VAULT.app,
    image=charters.profile(0).image,
    config=config_digest(VAULT),
    measured_config=VAULT,
    boot="b1",
)


class Wire:
    """The plaintext of a connection whose other end has said all it will say."""

    def __init__(self, heard: bytes) -> None:
        self._heard = heard
        self.sent = b""

    async def send_plain(self, data: bytes) -> None:
        """Keep what is sent."""
        self.sent += data

    async def receive_plain(self, count: int) -> bytes:
        """Return the next bytes; an end is an error of ours, as a transport's is."""
        if len(self._heard) < count:
            raise UnavailableError("peer closed the connection")
        found, self._heard = self._heard[:count], self._heard[count:]
        return found


class Clock:
    """A clock that stands."""

    def now(self) -> int:
        """Return the time of the seeds."""
        return NOW

    def monotonic(self) -> float:
        """Return zero."""
        return 0.0


class Producer:
    """A producer of a quote that nobody reads."""

    def describe(self) -> Description:
        """Return a vault's description."""
        return ABOUT

    def quote(self, context: Context) -> Evidence:  # noqa: ARG002 - it is the interface
        """Return no evidence worth the name."""
        return Evidence(family="sgx", quote="", collateral=None)

    def certificate_quote(self, claims: CertificateClaims) -> Evidence:  # noqa: ARG002 - the same
        """Return no evidence worth the name."""
        return Evidence(family="sgx", quote="", collateral=None)

    def sealing_key(self) -> bytes:
        """Return zeros."""
        return bytes(32)

    def app_report(self, data: bytes) -> Evidence:
        """Refuse."""
        raise UnavailableError(f"nobody asks for a report of {len(data)} bytes here")


def tls(own: str = OWN, peer: str = PEER) -> TlsPeer:
    """Return what a handshake established; its exporter is a hash."""
    return TlsPeer(
        own_spki=own,
        peer_spki=peer,
        certificate=PeerCertificate(der=b"", spki_der=b"", spki_digest=peer),
        group="X25519MLKEM768",
        cipher="TLS_AES_256_GCM_SHA384",
        export=lambda label, context, n: hashlib.shake_256(label + b"\0" + context).digest(n),
    )


def nonce(count: int) -> bytes:
    """Return what is no randomness, so that a saved answer fits."""
    return bytes([7]) * count


def client() -> ClientExchange:
    """Return a visitor's side of the exchange."""
    expect = UnsafeExpectAnyVault(trust=trust())
    return ClientExchange(expect=expect, prover=None, clock=Clock(), rng=nonce)


def server() -> ServerExchange:
    """Return a vault's side of the exchange."""
    return ServerExchange(
        producer=Producer(), identity_key=IDENTITY, trust=trust(), clock=Clock(), rng=nonce
    )


@target
def client_frames(data: bytes) -> None:
    """Read a vault's side of the exchange."""
    asyncio.run(client()(FrameChannel(Wire(data)), tls()))


@target
def vault_frames(data: bytes) -> None:
    """Read a client's side of the exchange."""
    asyncio.run(server()(FrameChannel(Wire(data)), tls(PEER, OWN)))


@target
def certificate(data: bytes) -> None:
    """Read a peer's certificate, and the evidence in it."""
    verify_shown(parse_certificate(data, allowed=WITH_EVIDENCE), trust=trust(), now=NOW)


@target
def wrapper(data: bytes) -> None:
    """Read the evidence in a certificate that is good otherwise."""
    about = PeerCertificate(der=b"", spki_der=b"", spki_digest=OWN, evidence=data)
    verify_shown(about, trust=trust(), now=NOW)


# --- what owners sign -------------------------------------------------------------------------


@functools.cache
def birth() -> UntrustedStatement:
    """Return the birth of the key that later statements are about."""
    return charters.signed(charters.composer().birth(charters.birth_body()))


@target
def statement(data: bytes) -> None:
    """Read a signed statement, and let it be taken, staged, or reviewed."""
    sent = open_statement(decode(data, SignedStatement, limit=2 * MAX_STATEMENT))
    policy = replay([birth()])
    attempt(
        lambda: take(None, [Courier(sent=sent)], now=NOW),
        lambda: take(policy, [Courier(sent=sent)], now=NOW),
        lambda: check_stage(policy, sent, now=NOW),
    )
    if isinstance(sent.statement, Birth):
        owner = sent.statement.body.policy.owner
        attempt(lambda: check_principal(owner), lambda: [*map(signer_key_check, leaves(owner))])
        attempt(*(functools.partial(check_profile, p) for p in sent.statement.body.policy.profiles))


PASSKEYS = (SoftwarePasskey(name="ann"), SoftwarePasskey(name="bob", algorithm="eddsa"))
CHALLENGE = bytes(range(32))


@target
def passkey(data: bytes) -> None:
    """Read an assertion: clientDataJSON, authenticator data, signature; or a COSE key."""
    client_data, authenticator_data, signature = map(b64, parts(data, 3))
    attempt(lambda: parse_cose_key(data))
    for key in PASSKEYS:
        assertion = PasskeySignature(
            signer=signer_id(key.signer),
            client_data=client_data,
            authenticator_data=authenticator_data,
            signature=signature,
        )
        attempt(functools.partial(verify_assertion, key.signer, assertion, CHALLENGE))


PROVIDER = SoftwareProvider(kid="ed", algorithm="EdDSA")
IDENTITY_THERE = PROVIDER.signer()


@target
def id_token(data: bytes) -> None:
    """Read an ID token as it came; and a header and a payload that the provider signed."""
    header, payload = parts(data, 2)
    asked: dict[str, Any] = {"nonce": CHALLENGE, "issued_at": NOW, "expires_at": NOW + 600}
    there = Provider(issuer=PROVIDER.issuer, audience=PROVIDER.audience, jwks=IDENTITY_THERE.jwks)
    tokens = [data.decode("latin-1"), PROVIDER.jws(payload), PROVIDER.jws(payload, header)]
    for token in tokens:
        sent = OidcSignature(signer=signer_id(IDENTITY_THERE), token=token)
        attempt(
            functools.partial(verify_id_token, IDENTITY_THERE, sent, **asked),
            functools.partial(verify_enrolment, there, token, label="x", **asked),
        )


# --- what vaults sign -------------------------------------------------------------------------

SHAPES: tuple[Any, ...] = (
    *(
        shape
        for _, shape in inspect.getmembers(wire, inspect.isclass)
        if issubclass(shape, Record) and shape.__module__ == wire.__name__
    ),
    LogEntry,
    Profile,
)


@target
def records(data: bytes) -> None:
    """Read requests and answers of vaults, and records that they sign."""

    def opened() -> None:
        signed = decode(data, Signed)
        for shape in SHAPES:
            attempt(functools.partial(open_signed, signed, shape, vault=charters.vault_name(1)))

    def configured() -> None:
        config: Config = decode(data, Config)  # type: ignore[arg-type]
        config_digest(config)
        trust_from_config(config.trust_roots)

    def refused() -> None:
        with contextlib.suppress(msgspec.DecodeError, ValueError, RecursionError):
            from_problem(msgspec.json.decode(data, type=dict[str, object])).problem()

    read = (functools.partial(decode, data, shape) for shape in SHAPES)
    attempt(*read, opened, configured, refused)


@target
def manifest(data: bytes) -> None:
    """Read a key's manifest."""
    check_manifest(decode(data, KeyManifest))


LOG = "placet.invalid/log"


@target
def note(data: bytes) -> None:
    """Read a log's checkpoint, with and without its signature."""
    text = data.decode("utf-8", "replace")
    public = IDENTITY.public_key().public_bytes_raw()
    attempt(lambda: Checkpoint.from_text(text), lambda: open_note(text, LOG, public))
