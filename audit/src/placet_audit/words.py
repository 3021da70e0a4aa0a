"""What statements and entries mean, in words. What others wrote is made harmless to show."""

from __future__ import annotations

from datetime import UTC, datetime

from placet_audit.canonical import Json
from placet_audit.principals import leaves, signer_id
from placet_audit.profile import code_id
from placet_audit.statement import Statement

ENTRIES = {
    "taken": "statement taken",
    "waiting": "statement waits",
    "fork": "another branch seen",
    "branch-changed": "branch changed",
    "denied": "request refused",
    "staged": "version put forward",
    "revoked": "version taken back",
    "promised": "creation promised",
    "held": "share held",
    "committed": "share committed",
    "release": "share released",
    "recover": "share released to finish the creation",
}


def plain(text: object) -> str:
    """Return a text in which nothing moves a cursor, colours or turns around what follows."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in str(text))


def short(digest: str | None) -> str:
    """Return the first 12 hex digits of a digest, as people compare them."""
    return (digest or "-").rpartition(":")[2][:12]


def count(number: int, noun: str) -> str:
    """Return so many of something."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def moment(unix: int) -> str:
    """Return a time in UTC."""
    try:
        return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{unix} s after 1970"


def span(seconds: int) -> str:
    """Return a duration."""
    for name, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {name if seconds != size else name[:-1]}"
    return f"{seconds} seconds"


def code_of(profile: Json) -> str:
    """Return what a profile lets in, as people name it."""
    version = profile["security_version"]
    return f"{plain(profile['app'])}, code {short(code_id(profile))}, security version {version}"


def signer_of(signer: Json) -> str:
    """Return who signed, and with what."""
    kinds = {"key": "key", "passkey": "passkey", "oidc": "identity at a provider"}
    page = ", on a page of others" if signer.get("screen") == "page" else ""
    return f"{plain(signer['label'])} ({kinds[signer['kind']]}{page})"


def describe(statement: Statement) -> str:
    """Return what a statement does."""
    body, kind = statement.body, statement.type
    if kind in {"birth", "promote"}:
        return _birth(body) if kind == "birth" else _promote(body)
    if kind == "recover":
        return _recover(body) + _why(body)
    if kind == "merge":
        return f"ends a fork of {len(body['heads'])} branches{_why(body)}"
    if kind == "update-policy":
        added = len(body.get("vault_profiles", []))
        return (f"adds {count(added, 'vault release')}" if added else "changes the rules") + _why(
            body
        )
    about = {"retire": "code", "void": "statement"}.get(kind)
    named = f" {short(body[about])}" if about else ""
    verb = {"retire": "retires code", "void": "says no to statement", "delete": "destroys the key"}
    return f"{verb[kind]}{named}{_why(body)}"


def _recover(body: Json) -> str:
    if body["owner"] is None:
        return f"puts the new owner of intent {short(body['intent'])} in place"
    names = ", ".join(signer_of(s) for s in leaves(body["owner"]))
    return f"guardians put a new owner forward: {names}"


def _birth(body: Json) -> str:
    vaults, table = body["vault_set"], body["policy"]
    lets = "; ".join(code_of(p) for p in table["profiles"])
    owners = len({signer_id(s) for s in leaves(table["owner"])})
    return (
        f"gives birth to {plain(body['label'])}: {count(owners, 'owner signer')}, {vaults['k']} of "
        f"{len(vaults['vaults'])} vaults; lets in {lets}"
    )


def _promote(body: Json) -> str:
    earlier = {
        "keep": "earlier versions stay",
        "retire": "earlier versions end now",
        "retire-at": f"earlier versions end {moment(body['retire_at'] or 0)}",
    }
    auto = ", by the auto-migrate clause" if "auto" in body else ""
    again = ", which was retired" if body["unretire"] else ""
    return f"lets in {code_of(body['profile'])}{again}{auto}; {earlier[body['earlier']]}"


def _why(body: Json) -> str:
    return f": {plain(body['reason'])}" if body["reason"] else ""
