"""Fields that came later: written where they differ from their default, and only there."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import msgspec.inspect as kinds
import pytest

import placet
from placet.core.encoding import LeanRecord, Record, decode, encode
from placet.core.limits import COOLDOWN, MAX_LIFETIME
from placet.core.profile import TcbRules
from placet.core.table import Act, Acts, Rules
from placet.errors import MalformedError
from placet_audit import shapes
from placet_audit.problems import Refused

TEXTS = (
    *("", "a", "A" * 43, "0" * 16, "0" * 32, "0" * 64, "0" * 96),
    *("sha256:" + "0" * 64, "sha384:" + "0" * 96, "intel"),
)


def records() -> list[type[Record]]:
    """Return every type of record that a module of placet defines."""
    for module in pkgutil.walk_packages(placet.__path__, "placet."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = {kind for kind in _below(Record) if kind.__module__.startswith("placet.")}
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


def _below(kind: type[Record]) -> Iterator[type[Record]]:
    for under in kind.__subclasses__():
        yield under
        yield from _below(under)


def _defaults(kind: type[Record]) -> dict[str, Any]:
    found = {}
    for field in msgspec.structs.fields(kind):
        made = field.default_factory
        default = field.default if made is msgspec.NODEFAULT else made()
        if default not in (msgspec.NODEFAULT, msgspec.UNSET):
            found[field.name] = msgspec.to_builtins(default)
    return found


HAVE = [kind for kind in records() if _defaults(kind)]
LEAN = [kind for kind in HAVE if kind.__struct_config__.omit_defaults]


def sample(kind: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """Return the least value that a type takes, in plain JSON."""
    match kind:
        case kinds.StructType():
            tag = {} if kind.tag is None else {kind.tag_field: kind.tag}
            whole = {} if issubclass(kind.cls, LeanRecord) else _defaults(kind.cls)
            return tag | whole | {f.name: sample(f.type) for f in kind.fields if f.required}
        case kinds.UnionType():
            return None if kind.includes_none else sample(kind.types[0])
        case kinds.VarTupleType() | kinds.ListType():
            return [sample(kind.item_type)] * (kind.min_length or 0)
        case kinds.TupleType():
            return [sample(item) for item in kind.item_types]
        case kinds.StrType():
            fitting = re.compile(kind.pattern or "").search
            return next(t for t in TEXTS if fitting(t) and len(t) >= (kind.min_length or 0))
        case kinds.IntType():
            return kind.ge or 0
        case kinds.BoolType():
            return False
        case kinds.LiteralType():
            return kind.values[0]
        case kinds.DictType():
            return {}
        case kinds.NoneType():
            return None
    raise TypeError(f"no sample of {kind}")


def test_the_walk_reaches_them() -> None:
    """The policy's table and what vaults answer; and whoever leaves out does it the same way."""
    names = {kind.__name__ for kind in LEAN}
    assert {"Act", "Acts", "Rules", "PolicyTable", "TcbRules", "VaultSet", "Status"} <= names
    assert all(issubclass(kind, LeanRecord) for kind in LEAN)


@pytest.mark.parametrize("kind", HAVE, ids=lambda kind: kind.__name__)
def test_a_default_has_one_spelling(kind: type[Record]) -> None:
    """Left out everywhere, or written everywhere: of the two spellings one parses."""
    good, whole, lean = sample(kinds.type_info(kind)), _defaults(kind), kind in LEAN
    value = decode(encode(good), kind)
    assert encode(value) == encode(good)
    for name, default in whole.items():
        other = good | {name: default} if lean else {n: v for n, v in good.items() if n != name}
        with pytest.raises(MalformedError, match="not in canonical form"):
            decode(encode(other), kind)
        # Equal to the default, and made elsewhere: written alike.
        again = msgspec.json.decode(msgspec.json.encode(default))
        made = msgspec.convert(good | {name: again}, kind)
        assert made == value
        assert encode(made) == encode(good)


def test_what_differs_is_written() -> None:
    """And read back; a whole row of defaults inside is none."""
    act = Act(lifetime=MAX_LIFETIME - 1)
    acts = Acts(promote=act, retire=Act(lifetime=int(str(MAX_LIFETIME))))
    assert encode(acts) == b'{"promote":{"lifetime":%d}}' % act.lifetime
    assert decode(encode(acts), Acts) == acts
    bare = sample(kinds.type_info(Rules))
    longer = decode(encode(bare | {"cooldown": COOLDOWN + 1}), Rules)
    assert longer.cooldown == COOLDOWN + 1
    back = msgspec.structs.replace(longer, cooldown=int(str(COOLDOWN)))
    assert encode(back) == encode(bare)


@pytest.mark.parametrize("kind", [Acts, Rules, TcbRules], ids=lambda kind: kind.__name__)
def test_the_auditor_reads_no_other_spelling(kind: type[Record]) -> None:
    """What it shares with the vault is this rule, and no code."""
    check = {Acts: shapes.FIELDS["acts"], Rules: shapes.RULES, TcbRules: shapes.TCB}[kind]
    good = sample(kinds.type_info(kind))
    if kind is not Acts:  # an empty row of acts is itself a default
        check(good)
    for name, default in _defaults(kind).items():
        with pytest.raises(Refused):
            check(good | {name: default})
