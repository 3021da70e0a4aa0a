"""Signers and principals as a policy file names them: each signer once, then by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from placet.cli.files import read_bytes, read_json
from placet.cli.policy_toml import Table, near
from placet.cli.signers import public_signer
from placet.core.limits import MAX_SIGNERS
from placet.core.signer import KeySigner, OidcSigner, OwnKeySigner, PasskeySigner, Signer, Threshold
from placet.errors import MalformedError, PlacetError
from placet.policy.signers import signer_key_check

T = TypeVar("T")
KINDS: dict[str, type[KeySigner | PasskeySigner | OidcSigner]] = {
    "key": KeySigner,
    "passkey": PasskeySigner,
    "oidc": OidcSigner,
}
WHO = ("any", "all", "at_least", "of", "from", "label")
"""Keys of a principal."""
PRINCIPAL = '{ any = ["phone", "laptop"] }, or { at_least = 2, of = ["a", "b", "c"] }'
SIGNER = '[signers.NAME] and below it from = "FILE.json"'


def with_place(place: str, act: Callable[[], T]) -> T:
    """Do something, and have what it refuses say where."""
    try:
        return act()
    except PlacetError as e:
        raise type(e)(f"{place}: {e.detail}", e.hint, **e.members) from e


@dataclass(slots=True)
class People:
    """Signers by name, and principals that mention them."""

    top: Table
    named: dict[str, Signer] = field(default_factory=dict)
    mentioned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for name, table in self.top.tables("signers", SIGNER):
            self.named[name] = read_signer(name, table)

    def one(self, table: Table, key: str, name: str) -> Signer:
        """Return the signer of a name."""
        if name not in self.named:
            raise MalformedError(
                f"{table.file}: {table.at(key)}: no signer is called {name!r}",
                f"{near(name, self.named)} A signer is named once: {SIGNER}",
            )
        self.mentioned.add(name)
        return self.named[name]

    def several(self, table: Table, key: str) -> tuple[OwnKeySigner, ...]:
        """Return a list of signers that hold keys of their own."""
        found: list[OwnKeySigner] = []
        for name in table.texts(key, f'{key} = ["NAME"]'):
            signer = self.one(table, key, name)
            if isinstance(signer, OidcSigner):
                table.wrong(key, "signers of kind key or passkey", "one that has a key", name)
            found.append(signer)
        if len(found) > MAX_SIGNERS:
            table.wrong(key, f"at most {MAX_SIGNERS} signers", "fewer", f"{len(found)} of them")
        return tuple(found)

    def who(self, table: Table, key: str) -> Threshold | None:
        """Return the principal at a key, if it is written."""
        value = table.values.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            return Threshold(label=key, threshold=1, of=(self.one(table, key, value),))
        within = table.table(key, f"{key} = {PRINCIPAL}")
        within.only(*WHO)
        return self._principal(within, key)

    def part(
        self, table: Table, key: str, others: tuple[str, ...]
    ) -> tuple[Table, Threshold] | None:
        """Return a table that is a principal and has other keys beside it."""
        if not table.has(key):
            return None
        within = table.table(key, f"[{key}] and below it its keys")
        within.only(*WHO, *others)
        return within, self._principal(within, key)

    def _principal(self, table: Table, label: str) -> Threshold:
        forms = [k for k in ("any", "all", "at_least", "from") if table.has(k)]
        if len(forms) != 1 or table.has("of") != (forms == ["at_least"]):
            raise MalformedError(
                f"{table.file}: {table.path}: expected one of any, all, at_least with of, or from",
                f"Write {PRINCIPAL}",
            )
        if forms == ["from"]:
            return _kept(table)
        parts = self._parts(table, "of" if forms == ["at_least"] else forms[0], label)
        least = {"any": 1, "all": len(parts)}.get(forms[0])
        if least is None:
            least = table.number("at_least", 1, len(parts))
        if table.has("label"):
            label = table.text("label", 'label = "NAME"')
        return Threshold(label=label, threshold=least, of=parts)

    def _parts(self, table: Table, key: str, label: str) -> tuple[Signer | Threshold, ...]:
        value = table.values.get(key)
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_SIGNERS:
            write = f'{key} = ["phone", "laptop"]'
            table.wrong(key, f"a list of 1 to {MAX_SIGNERS} names", write, value)
        parts: list[Signer | Threshold] = []
        for number, item in enumerate(value, 1):
            if isinstance(item, str):
                parts.append(self.one(table, key, item))
            elif isinstance(item, dict):
                within = Table(table.file, f"{table.at(key)}[{number}]", item)
                within.only(*WHO)
                parts.append(self._principal(within, f"{label}/{number}"))
            else:
                table.wrong(key, "names, or principals in braces", f"{key} = [{PRINCIPAL}]", item)
        return tuple(parts)


def read_signer(name: str, table: Table) -> Signer:
    """Read one signer. Its name is its label, unless it says another."""
    label = table.text("label", 'label = "NAME"') if table.has("label") else name
    kind = table.values.get("kind")
    if kind is not None and (not isinstance(kind, str) or kind not in KINDS):
        table.wrong("kind", f"one of {', '.join(KINDS)}", 'kind = "key"', kind)
    if table.has("from"):
        table.only("kind", "label", "from")
        signer = _signer_file(table, table.file.parent / table.text("from", 'from = "FILE.json"'))
        if kind is not None and not isinstance(signer, KINDS[str(kind)]):
            table.wrong("kind", "the kind that the file has", "no kind at all", kind)
    else:
        signer = _signer_inline(table, kind)
    signer = msgspec.structs.replace(signer, label=label)
    with_place(f"{table.file}: {table.path}", lambda: signer_key_check(signer))
    return signer


def _signer_inline(table: Table, kind: object) -> Signer:
    if kind is None:
        table.wrong("from", "a file, or kind and the fields of that kind", 'from = "FILE.json"')
    shape = KINDS[str(kind)]
    table.only("kind", *shape.__struct_fields__)
    try:
        return msgspec.convert({"label": "", **table.values}, shape)
    except msgspec.ValidationError as e:
        raise MalformedError(
            f"{table.file}: {table.path}: {str(e).replace('`$', f'`{table.path}')}",
            f"A {kind} has: {', '.join(shape.__struct_fields__)}. Or name its file: from = ...",
        ) from e


def _signer_file(table: Table, path: Path) -> Signer:
    def read() -> Signer:
        if not read_bytes(path).lstrip().startswith(b"{"):
            return public_signer(str(path))  # PEM, or base64
        signer: Signer = read_json(path, Signer, "public signer")  # type: ignore[arg-type] # a union
        return signer

    return with_place(f"{table.file}: {table.at('from')}", read)


def _kept(table: Table) -> Threshold:
    """Read a principal from a JSON file, such as ``owner.json`` of `placet owner init`."""
    table.only("from")
    path = table.file.parent / table.text("from", 'from = "owner.json"')
    place = f"{table.file}: {table.at('from')}"
    return with_place(place, lambda: read_json(path, Threshold, "principal"))
