"""Statements: what owners sign, byte for byte (DESIGN section 4, spec/03 sections 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from msgspec import Meta

from placet.core.encoding import (
    Base64,
    Int,
    Record,
    Sha256,
    Text,
    b64,
    decode,
    digest,
    encode,
    unb64,
)
from placet.core.limits import MAX_LABEL, MAX_PROFILES, MAX_SIGNERS, MAX_STATEMENT
from placet.core.profile import Profile, VaultSet
from placet.errors import MalformedError

STATEMENT_LABEL = "placet-statement/1"
STATEMENT_TYPE: Literal["application/vnd.placet.statement.v1+json"] = (
    "application/vnd.placet.statement.v1+json"
)


class KeySigner(Record, tag_field="kind", tag="key"):
    """A plain key: automation, smart card, HSM."""

    label: Text
    algorithm: Literal["ed25519", "p256"]
    public_key: Base64
    """32 raw bytes (Ed25519) or the 65-byte uncompressed point (P-256, SEC 1)."""


class PasskeySigner(Record, tag_field="kind", tag="passkey"):
    """A WebAuthn credential that approves and does nothing else."""

    label: Text
    rp_id: Text
    origins: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=8)]
    credential_id: Base64
    public_key: Base64
    """COSE_Key in CTAP2 canonical form: ES256 or EdDSA."""
    screen: Literal["own", "page"]
    """``page``: it signs on a page that an untrusted party serves."""


Signer = KeySigner | PasskeySigner


class Threshold(Record, tag_field="kind", tag="threshold"):
    """A principal: at least ``threshold`` of its parts must agree."""

    label: Text
    threshold: Annotated[int, Meta(ge=1, le=MAX_SIGNERS)]
    of: Annotated[
        tuple[KeySigner | PasskeySigner | Threshold, ...],
        Meta(min_length=1, max_length=MAX_SIGNERS),
    ]


class PolicyTable(Record):
    """The fixed table that a key is born with."""

    owner: Threshold
    stagers: Annotated[tuple[Signer, ...], Meta(max_length=MAX_SIGNERS)]
    profiles: Annotated[tuple[Profile, ...], Meta(max_length=MAX_PROFILES)]
    security_version_floor: Int


class BirthBody(Record):
    """The first policy, where the shares will live, and a human name."""

    label: Annotated[str, Meta(min_length=1, max_length=MAX_LABEL)]
    policy: PolicyTable
    vault_set: VaultSet


class PromoteBody(Record):
    """Let this profile in, and say what happens to those before it."""

    profile: Profile
    provenance: Sha256 | None
    review: Sha256 | None
    earlier: Literal["keep", "retire", "retire-at"]
    retire_at: Int | None
    """Unix seconds, with ``retire-at`` only."""
    unretire: bool
    """Says plainly that retired code comes back."""
    security_version_floor: Int
    """The floor from now on; it only rises."""


class RetireBody(Record):
    """Never again this code, unless a later promote says so plainly."""

    code: Sha256
    reason: Text


class StageBody(Record):
    """A version put forward. It changes nothing (I4)."""

    profile: Profile
    version: Text
    source: Text
    """Commit or other name of the source; the platform's word."""
    provenance: Sha256 | None
    review: Sha256 | None


class RevokePendingBody(Record):
    """Take back what was staged under this digest."""

    stage: Sha256
    reason: Text


class _Chained(Record, kw_only=True):
    schema: Literal[1] = 1
    key: Sha256 | None
    prev: Sha256 | None
    base_version: Int
    issued_at: Int
    expires_at: Int
    nonce: Base64


class Birth(_Chained, kw_only=True, tag_field="type", tag="birth"):
    """The first statement of a key; its digest is the key id."""

    body: BirthBody


class Promote(_Chained, kw_only=True, tag_field="type", tag="promote"):
    """An approval of one profile."""

    body: PromoteBody


class Retire(_Chained, kw_only=True, tag_field="type", tag="retire"):
    """The end of an approval."""

    body: RetireBody


class _Loose(Record, kw_only=True):
    schema: Literal[1] = 1
    key: Sha256 | None
    """One key, or ``None``: every key of the app that the signer may stage for."""
    issued_at: Int
    expires_at: Int
    nonce: Base64


class Stage(_Loose, kw_only=True, tag_field="type", tag="stage"):
    """Outside the chain: no ``prev``, no version."""

    body: StageBody


class RevokePending(_Loose, kw_only=True, tag_field="type", tag="revoke-pending"):
    """Outside the chain as well."""

    body: RevokePendingBody


Chained = Birth | Promote | Retire
Loose = Stage | RevokePending
Statement = Chained | Loose
S = TypeVar("S", bound=Statement)


class KeySignature(Record, tag_field="kind", tag="key"):
    """Ed25519 or DER ECDSA over the DSSE encoding of the statement's bytes."""

    signer: Sha256
    signature: Base64


class PasskeySignature(Record, tag_field="kind", tag="passkey"):
    """A whole WebAuthn assertion whose challenge is the statement's digest."""

    signer: Sha256
    authenticator_data: Base64
    client_data: Base64
    """clientDataJSON as the authenticator's client made it."""
    signature: Base64


class SignedStatement(Record, kw_only=True):
    """A statement's exact bytes and signatures over them (a DSSE envelope, extended)."""

    payload_type: Literal["application/vnd.placet.statement.v1+json"] = STATEMENT_TYPE
    payload: Base64
    signatures: Annotated[tuple[KeySignature | PasskeySignature, ...], Meta(max_length=MAX_SIGNERS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class UntrustedStatement:
    """A statement that parsed. Its signatures were *not* checked."""

    statement: Statement
    payload: bytes
    """The canonical bytes that were signed."""
    digest: str
    signatures: tuple[KeySignature | PasskeySignature, ...]

    @property
    def key(self) -> str:
        """Return the key id it is about (a birth's own digest)."""
        return self.digest if self.statement.key is None else self.statement.key

    def signed(self) -> SignedStatement:
        """Return the form in which it travels."""
        return SignedStatement(payload=b64(self.payload), signatures=self.signatures)


def statement_digest(payload: bytes) -> str:
    """Return D, what passkeys take as challenge and ``prev`` points to."""
    return digest(STATEMENT_LABEL, payload)


def compose(
    statement: Statement, signatures: tuple[KeySignature | PasskeySignature, ...] = ()
) -> UntrustedStatement:
    """Return a statement of our own making in its parsed form."""
    payload = encode(statement)
    return UntrustedStatement(
        statement=statement,
        payload=payload,
        digest=statement_digest(payload),
        signatures=signatures,
    )


def open_statement(signed: SignedStatement) -> UntrustedStatement:
    """Parse what was signed. Signatures are *not* checked here.

    Raises:
        MalformedError: The payload is too large, not canonical, of unknown type or
            schema, or contradicts itself.
    """
    payload = unb64(signed.payload)
    statement: Statement = decode(payload, Statement, limit=MAX_STATEMENT)  # type: ignore[arg-type]
    _check_shape(statement)
    return compose(statement, signed.signatures)


def signer_id(signer: Signer) -> str:
    """Return the fingerprint of a signer's key: one key is one signer under any label."""
    return digest("placet-signer/1", encode({"public_key": signer.public_key}))


def owner_fingerprint(owner: Threshold) -> str:
    """Return the digest of an owner principal, as a workload's measured config names it."""
    return digest("placet-owner/1", encode(owner))


def _check_shape(statement: Statement) -> None:
    if statement.expires_at <= statement.issued_at:
        raise MalformedError("statement ends before it was issued")
    if len(unb64(statement.nonce)) != 32:  # noqa: PLR2004 - the one length there is
        raise MalformedError("statement's nonce is not 32 bytes")
    if isinstance(statement, Birth):
        if (statement.key, statement.prev, statement.base_version) != (None, None, 0):
            raise MalformedError("birth statement has a key, a prev or a version before it")
    elif isinstance(statement, Promote | Retire):
        if statement.key is None or statement.prev is None or statement.base_version == 0:
            raise MalformedError("statement after birth lacks its key, prev or base version")
        if isinstance(statement, Promote) and (
            (statement.body.retire_at is None) != (statement.body.earlier != "retire-at")
        ):
            raise MalformedError("promote has retire_at without retire-at, or the reverse")
