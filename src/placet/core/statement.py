"""Statements: what owners sign, byte for byte (DESIGN section 4, spec/03 sections 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from msgspec import Meta

from placet.core.body import (
    BirthBody,
    DeleteBody,
    MergeBody,
    PromoteBody,
    RecoverBody,
    RetireBody,
    RevokePendingBody,
    StageBody,
    UpdatePolicyBody,
    VoidBody,
)
from placet.core.encoding import (
    Base64,
    Int,
    Record,
    Sha256,
    b64,
    decode,
    digest,
    encode,
    unb64,
)
from placet.core.limits import (
    MAX_SIGNERS,
    MAX_STATEMENT,
)
from placet.core.signer import OidcSigner, Signature, Threshold
from placet.core.table import PolicyTable, Rules
from placet.errors import MalformedError

STATEMENT_LABEL = "placet-statement/1"
STATEMENT_TYPE: Literal["application/vnd.placet.statement.v1+json"] = (
    "application/vnd.placet.statement.v1+json"
)


class _Chained(Record, kw_only=True):
    schema: Literal[1, 2] = 1
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


class UpdatePolicy(_Chained, kw_only=True, tag_field="type", tag="update-policy"):
    """Other rules."""

    body: UpdatePolicyBody


class Recover(_Chained, kw_only=True, tag_field="type", tag="recover"):
    """A new owner, by the guardians."""

    body: RecoverBody


class Void(_Chained, kw_only=True, tag_field="type", tag="void"):
    """A veto."""

    body: VoidBody


class Merge(_Chained, kw_only=True, tag_field="type", tag="merge"):
    """The end of a fork."""

    body: MergeBody


class Delete(_Chained, kw_only=True, tag_field="type", tag="delete"):
    """The end of a key."""

    body: DeleteBody


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


Chained = Birth | Promote | Retire | UpdatePolicy | Recover | Void | Merge | Delete
Loose = Stage | RevokePending
Statement = Chained | Loose
S = TypeVar("S", bound=Statement)


class SignedStatement(Record, kw_only=True):
    """A statement's exact bytes and signatures over them (a DSSE envelope, extended)."""

    payload_type: Literal["application/vnd.placet.statement.v1+json"] = STATEMENT_TYPE
    payload: Base64
    signatures: Annotated[tuple[Signature, ...], Meta(max_length=MAX_SIGNERS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class UntrustedStatement:
    """A statement that parsed. Its signatures were *not* checked."""

    statement: Statement
    payload: bytes
    """The canonical bytes that were signed."""
    digest: str
    signatures: tuple[Signature, ...]

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


def compose(statement: Statement, signatures: tuple[Signature, ...] = ()) -> UntrustedStatement:
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


def schema_of(statement: Statement) -> Literal[1, 2]:
    """Return the one schema that a statement is written in: the lowest that has all it uses.

    So what a vault of schema 1 can read goes on being written in a way that it reads.
    """
    if isinstance(statement, Retire | Stage | RevokePending):
        return 1
    if isinstance(statement, Promote):
        return 1 if statement.body.auto is None else 2
    if isinstance(statement, Birth):
        plain = _is_first_table(statement.body.policy) and not statement.body.vault_set.witnesses
        return 1 if plain else 2
    return 2


def _is_first_table(table: PolicyTable) -> bool:
    plain = PolicyTable(
        owner=table.owner,
        stagers=table.stagers,
        profiles=table.profiles,
        security_version_floor=table.security_version_floor,
    )
    return table == plain and not _has_oidc(table.owner)


def _has_oidc(threshold: Threshold) -> bool:
    return any(
        _has_oidc(part) if isinstance(part, Threshold) else isinstance(part, OidcSigner)
        for part in threshold.of
    )


def _check_shape(statement: Statement) -> None:
    if statement.schema != schema_of(statement):
        raise MalformedError(
            f"statement says schema {statement.schema}; what it uses is schema "
            f"{schema_of(statement)}"
        )
    if statement.expires_at <= statement.issued_at:
        raise MalformedError("statement ends before it was issued")
    if len(unb64(statement.nonce)) != 32:  # noqa: PLR2004 - the one length there is
        raise MalformedError("statement's nonce is not 32 bytes")
    if isinstance(statement, Birth):
        if (statement.key, statement.prev, statement.base_version) != (None, None, 0):
            raise MalformedError("birth statement has a key, a prev or a version before it")
    elif isinstance(statement, Chained) and (
        statement.key is None or statement.prev is None or statement.base_version == 0
    ):
        raise MalformedError("statement after birth lacks its key, prev or base version")
    _check_body(statement)


def _check_body(statement: Statement) -> None:
    body = statement.body
    if isinstance(body, PromoteBody) and (
        (body.retire_at is None) != (body.earlier != "retire-at")
    ):
        raise MalformedError("promote has retire_at without retire-at, or the reverse")
    if isinstance(body, RecoverBody) and ((body.owner is None) == (body.intent is None)):
        raise MalformedError("recover names a new owner (intent) or an intent (completion)")
    if isinstance(body, MergeBody):
        _check_sorted("heads", body.heads)
        _check_sorted("tombstones", body.tombstones)
    rules = _rules_of(statement)
    if rules is not None:
        _check_sorted("immutable fields", rules.immutable)
        if rules.auto_migrate is not None:
            _check_sorted("changes", rules.auto_migrate.changes)


def _rules_of(statement: Statement) -> Rules | None:
    if isinstance(statement, Birth | UpdatePolicy | Merge):
        return statement.body.policy
    return None


def _check_sorted(what: str, values: tuple[str, ...]) -> None:
    if list(values) != sorted(set(values)):
        raise MalformedError(f"{what} are not sorted, or one is named twice")
