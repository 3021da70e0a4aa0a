"""One family of errors, read by programs by their type and by people by their texts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from placet import errors
from placet.errors import InternalError, NotApprovedError, PlacetError, from_problem, type_prefix

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "dev" / "src").rglob("*.py")])


def family(root):
    """Return a class and all below it."""
    return [root, *(c for child in root.__subclasses__() for c in family(child))]


CLASSES = [c for c in family(PlacetError) if c.__module__ == errors.__name__]


@pytest.mark.req("R8.6")
def test_every_type_is_unique_and_a_name_for_programs():
    """Two classes of one type could not be told apart on the other side."""
    types = [c.type for c in CLASSES]
    assert len(set(types)) == len(types)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", t) for t in types)


def test_the_tree_at_the_top_of_the_module_is_the_tree():
    """A class that is not drawn, or drawn under another parent, is found."""
    drawn, parents = {}, {4: "Exception"}
    for line in errors.__doc__.splitlines():
        if found := re.match(r"( +)(?:[x+] )?([A-Z]\w+Error)\b", line):
            depth = len(found[1]) + (0 if found[2] == "PlacetError" else 2)
            parent = max((d for d in parents if d < depth), default=4)
            drawn[found[2]] = parents[parent]
            parents = {d: name for d, name in parents.items() if d < depth} | {depth: found[2]}
    assert drawn == {c.__name__: c.__base__.__name__ for c in CLASSES}


@pytest.mark.req("R8.6")
@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.type)
def test_an_error_survives_the_wire(cls):
    """Class, both texts and the members for programs arrive as they left."""
    sent = cls("expected 3, got 2", "Start another vault.", vaults={"a": "down"}, missing=1)
    came = from_problem(sent.problem())
    assert type(came) is cls
    assert (came.detail, came.hint, came.members) == (sent.detail, sent.hint, sent.members)
    assert sent.problem()["status"] == cls.status
    assert 400 <= cls.status < 600


def test_an_unknown_type_is_the_plain_error():
    """A newer peer's error is still an error, and of no class that means something else."""
    came = from_problem({"type": type_prefix + "made-up", "detail": "x"})
    assert type(came) is PlacetError


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"type": 7, "detail": None, "hint": ["x"]},
        {"type": type_prefix + "internal", "detail": "d" * 9999, "hint": "h" * 9999},
        {"type": type_prefix + "internal", "not an identifier": 1, "self-made": 2},
    ],
    ids=["empty", "wrong types", "endless texts", "odd members"],
)
def test_a_hostile_problem_document_is_only_an_error(members):
    """Whatever a peer sends as its problem, an error of ours comes out, cut to size."""
    came = from_problem(members)
    assert type(came) in {PlacetError, InternalError}
    assert len(came.detail) <= 2000
    assert len(came.hint) <= 2000


@pytest.mark.parametrize("name", ["self", "detail", "hint", "type", "status", "title"])
def test_a_member_of_a_reserved_name_harms_nothing(name):
    """A member named like an argument of ours must not become a TypeError."""
    assert isinstance(from_problem({"type": type_prefix + "internal", name: "x"}), PlacetError)


def test_a_caller_can_catch_by_family():
    """A program that knows only the parent class still catches the child."""
    with pytest.raises(errors.PolicyDeniedError):
        raise NotApprovedError("measurement ab is not approved")


# --- R8.6: control flow never reads a message ------------------------------------------

MESSAGE = {"detail", "hint", "title"}
SEARCH = {"startswith", "endswith", "find", "index", "search", "match", "fullmatch", "count"}


def caught_names(tree):
    """Return the names that ``except ... as name`` binds anywhere in the module."""
    return {n.name for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and n.name}


def reads_message(node, caught):
    """Tell whether an expression reads the text of an error."""
    for part in ast.walk(node):
        match part:
            case ast.Attribute(attr=attr) if attr in MESSAGE:
                return True
            case ast.Attribute(value=ast.Name(id=name), attr="args") if name in caught:
                return True
            case ast.Subscript(slice=ast.Constant(value=str(key))) if key in MESSAGE:
                return True
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=name)]) if (
                name in caught
            ):
                return True
            case ast.FormattedValue(value=ast.Name(id=name)) if name in caught:
                return True
    return False


def decisions_on_messages(source):
    """Return the lines on which something is decided by the text of an error."""
    tree = ast.parse(source)
    caught = caught_names(tree)
    lines = []
    for node in ast.walk(tree):
        match node:
            case ast.Compare():
                asked = [node]
            case ast.Match(subject=subject):
                asked = [subject]
            case ast.Call(func=ast.Attribute(value=value, attr=attr), args=args) if attr in SEARCH:
                asked = [value, *args]
            case _:
                continue
        lines += [node.lineno for part in asked if reads_message(part, caught)]
    return lines


@pytest.mark.req("R8.6")
def test_control_flow_never_reads_a_message():
    """Reword any text in the tree, and no program behaves differently."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        for line in decisions_on_messages(path.read_text())
    ]
    assert found == []


@pytest.mark.req("R8.6")
@pytest.mark.parametrize(
    "line",
    [
        "if 'denied' in e.detail: pass",
        "if e.hint == 'again': pass",
        "x = 'down' in str(e)",
        "if e.args[0] == 'x': pass",
        "if e.detail.startswith('vault'): pass",
        "if re.search('k of n', str(e)): pass",
        "if 'x' in f'{e}': pass",
        "if problem['detail'] == 'x': pass",
        "match e.detail:\n    case 'x': pass",
    ],
)
def test_the_lint_sees_a_planted_decision(line):
    """A lint that finds nothing must be one that could."""
    body = "\n".join("    " + part for part in line.splitlines())
    assert decisions_on_messages(f"try:\n    f()\nexcept PlacetError as e:\n{body}\n")


@pytest.mark.parametrize(
    "line", ["print(e.detail)", "if isinstance(e, X): pass", "if e.type == 'x': pass", "raise e"]
)
def test_the_lint_lets_a_message_be_shown(line):
    """Printing a text, or deciding by type, is what both are for."""
    assert not decisions_on_messages(f"try:\n    f()\nexcept PlacetError as e:\n    {line}\n")
