"""Only one module reads tokens, and no switch makes it read one unverified (R5.5)."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from placet.policy import oidc

SOURCE = Path(__file__).resolve().parents[3] / "src" / "placet"
MODULES = {str(p.relative_to(SOURCE)): p.read_text() for p in sorted(SOURCE.rglob("*.py"))}

READER = "policy/oidc.py"
TOUCHES = {
    "core/limits.py",  # its longest length
    "core/signer.py",  # the field that carries it
    "policy/jwk.py",  # the signature over it
    "policy/provider.py",  # whose it may be
    "policy/signers.py",  # asks the reader
    "policy/charter.py",  # keeps until when it supports a statement
    "client/oidc.py",  # gets it, and asks the reader before it hands it on
    "client/oidc_web.py",
    "cli/oidc.py",
}
"""Modules in whose code a token may be spoken of."""
TOKEN = re.compile(r"id_?token|verified_?token|\bjw[st]\b|jwt|\bjws|bearer", re.IGNORECASE)
LIBRARIES = {"jwt", "jose", "joserfc", "jwcrypto", "authlib", "oic", "idpyoidc", "python_jose"}


def spoken(source):
    """Return what a module's code names: identifiers, and texts that are no docstrings."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.alias(name=name):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case ast.Constant(value=str(text)) if not re.search(r"\s", text):
                yield text


def imported(source):
    """Return the first names of all that a module imports."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.split(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module)):
                yield module.split(".")[0]


def taken_apart(source):
    """Return calls that could read a token: its parts, its base64, its JSON."""
    reading = {"split", "rsplit", "partition", "rpartition", "unb64", "b64decode",
               "urlsafe_b64decode", "loads", "decode", "convert"}  # fmt: skip
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            words = set(spoken(ast.unparse(node)))
            if name in reading and words & {"token", "tokens", "id_token", "id_tokens"}:
                yield ast.unparse(node)


@pytest.mark.req("R5.5")
@pytest.mark.parametrize("name", MODULES)
def test_no_other_module_speaks_of_tokens(name):
    """A new one is seen here, and has to say what it does with them."""
    found = [word for word in spoken(MODULES[name]) if TOKEN.search(word)]
    assert name == READER or name in TOUCHES or found == []


@pytest.mark.req("R5.5")
@pytest.mark.parametrize("name", MODULES)
def test_no_other_module_takes_a_token_apart(name):
    """Nor does any import a library that would."""
    assert not LIBRARIES & set(imported(MODULES[name]))
    assert name == READER or list(taken_apart(MODULES[name])) == []


@pytest.mark.req("R5.5")
@pytest.mark.parametrize(
    "code",
    [
        "def f(signature):\n    return json.loads(unb64(signature.token.split('.')[1]))",
        "claims = msgspec.json.decode(b64decode(id_token))",
        "head, body, mac = token.split('.')",
        "who = unb64(token)",
    ],
)
def test_that_would_be_seen(code):
    """The check above can fail."""
    assert list(taken_apart(code))


@pytest.mark.req("R5.5")
@pytest.mark.parametrize(
    "code",
    ["import jwt", "def decode_jwt(): ...", "x = 'id_token'", "f(id_token=1)", "idToken = 1"],
)
def test_such_words_would_be_seen(code):
    """And so can the one on words."""
    assert [w for w in spoken(code) if TOKEN.search(w)]


@pytest.mark.req("R5.5")
def test_the_reader_has_no_switch():
    """Signer, token, and what they must fit: no option, no default, no global that is set."""
    calls = [oidc.verify_id_token, oidc.verify_enrolment]
    for call in calls:
        assert all(p.default is p.empty for p in inspect.signature(call).parameters.values())
    assert list(inspect.signature(oidc.verify_id_token).parameters) == [
        "signer", "signature", "nonce", "issued_at", "expires_at",
    ]  # fmt: skip
    tree = ast.parse(MODULES[READER])
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Global | ast.Nonlocal)]
    assert not {"os", "sys", "io", "pathlib", "logging", "importlib"} & set(
        imported(MODULES[READER])
    )
    assert not [w for w in spoken(MODULES[READER]) if re.search("unsafe|insecure|skip|debug", w)]


@pytest.mark.req("R5.5")
def test_the_payload_is_parsed_at_one_place_behind_the_signature():
    """`_parse` of a payload stands once, in the function that verifies, after it has."""
    tree = ast.parse(MODULES[READER])
    parsing = [
        (function.name, node.lineno)
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "_parse"
        and ast.unparse(node.args[0]) == "'payload'"
    ]  # fmt: skip
    verifying = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "verify_jws"
    ]
    assert [name for name, _ in parsing] == ["_verified"]
    assert len(verifying) == 1
    assert verifying[0] < parsing[0][1]
