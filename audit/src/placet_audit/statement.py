"""Statements: what was signed, and whether it is of its type (spec/03, section 1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from placet_audit.canonical import Json, digest, read, unb64
from placet_audit.principals import full, leaves
from placet_audit.shapes import ENVELOPE, check_statement, refuse


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that is well formed. Its signatures were not checked."""

    digest: str
    payload: bytes
    """The canonical bytes that were signed."""
    said: Json
    signatures: tuple[Json, ...]

    @property
    def type(self) -> str:
        """Return what kind of statement it is."""
        return str(self.said["type"])

    @property
    def body(self) -> Json:
        """Return what it says."""
        body: Json = self.said["body"]
        return body

    @property
    def key(self) -> str:
        """Return the key id it is about; a birth's own digest."""
        return self.said["key"] or self.digest

    @property
    def parents(self) -> tuple[str, ...]:
        """Return the statements that it may stand on."""
        if self.type == "merge":
            return tuple(self.body["heads"])
        return (self.said["prev"],) if self.said["prev"] else ()


def open_statement(envelope: Json) -> Statement:
    """Return the statement in an envelope.

    Raises:
        Refused: It is none: malformed, of another schema, or it contradicts itself.
    """
    ENVELOPE(envelope)
    payload = unb64(envelope["payload"])
    said = read(payload, 65536)
    check_statement(said)
    found = digest("placet-statement/1", payload)
    statement = Statement(found, payload, said, tuple(envelope["signatures"]))
    _check_place(statement)
    _check_body(statement)
    return statement


def _check_place(statement: Statement) -> None:
    said, birth = statement.said, statement.type == "birth"
    if said["schema"] != _schema(statement):
        raise refuse(f"it says schema {said['schema']}, what it uses is another")
    if said["expires_at"] <= said["issued_at"] or len(unb64(said["nonce"])) != 32:  # noqa: PLR2004
        raise refuse("it ends before it was issued, or its nonce is not 32 bytes")
    before = (said["key"], said["prev"], said["base_version"])
    if (birth and before != (None, None, 0)) or (not birth and not all(before)):
        raise refuse("its key, prev and base version are not those of its type")


def _check_body(statement: Statement) -> None:
    body, kind = statement.body, statement.type
    if kind == "promote" and (body["retire_at"] is None) != (body["earlier"] != "retire-at"):
        raise refuse("retire_at without retire-at, or the reverse")
    if kind == "recover" and (body["owner"] is None) == (body["intent"] is None):
        raise refuse("it is neither an intent nor a completion")
    if kind == "merge":
        _sorted(body["heads"])
        _sorted(body["tombstones"])
    if "policy" in body:
        _sorted(body["policy"].get("immutable", []))
        _sorted(body["policy"].get("auto_migrate", {}).get("changes", []))


def _schema(statement: Statement) -> int:
    body = statement.body
    if statement.type == "birth":
        table = body["policy"]
        plain = full({"owner": table["owner"], "stagers": table["stagers"]}) == full(table)
        oidc = any(s["kind"] == "oidc" for s in leaves(table["owner"]))
        return 1 if plain and not oidc and "witnesses" not in body["vault_set"] else 2
    first = statement.type == "retire" or (statement.type == "promote" and "auto" not in body)
    return 1 if first else 2


def _sorted(values: Iterable[str]) -> None:
    named = list(values)
    if named != sorted(set(named)):
        raise refuse("a list is not sorted, or names one twice")
