"""Delete each check of the verifier, of core or of policy in turn: a test must fail.

A mutant is one edit of one module: a condition that never holds, an operand of ``or`` or
``and`` left out, ``<`` for ``<=``, an entry of a table that always holds, a call that checks
left out, a handler that lets the library's own error leave. The tests of that room run
against a copy of the tree in which only this edit was made. One that nobody notices
*survived*: a test is missing, or ``spec/mutants.toml`` says why no test could tell.

    python tools/mutants.py                                    # the verifier
    python tools/mutants.py --set policy                       # who may decide
    python tools/mutants.py src/placet/attest/marks.py --tests tests/unit/attest
    python tools/mutants.py src/placet/attest/verify/snp.py --list
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERIFY = ROOT / "src" / "placet" / "attest" / "verify"
MODULES = (
    *sorted(p for p in VERIFY.glob("*.py") if p.name != "__init__.py"),
    ROOT / "src" / "placet" / "attest" / "trust.py",
    ROOT / "src" / "placet" / "policy" / "match.py",
)
TESTS = ("tests/unit/attest", "tests/unit/policy", "tests/cli/test_evidence_vectors.py")
POLICY_TESTS = (
    "tests/unit/policy",
    "tests/scenario/test_governance.py",
    "tests/scenario/test_charter_model.py",
    "tests/model/test_branches.py",
    "tests/unit/vault/test_service.py",
)
SETS = {
    "verifier": (MODULES, TESTS),
    "core": (
        tuple(sorted((ROOT / "src" / "placet" / "core").glob("*.py"))),
        ("tests/unit/core", "tests/vectors", *POLICY_TESTS, "tests/unit/ratls"),
    ),
    "policy": (tuple(sorted((ROOT / "src" / "placet" / "policy").glob("*.py"))), POLICY_TESTS),
}
"""What is tried, and the tests that must notice."""
GOVERNANCE = "tests/scenario/test_governance.py"
FIRST = {
    **dict.fromkeys(
        ("auto_migrate", "authority", "governance", "rules", "timing"),
        "tests/unit/policy/test_rules_of_change.py",
    ),
    "branches": "tests/model/test_branches.py",
    "statement": GOVERNANCE,
    "charter": "tests/unit/policy/test_charter.py",
    "key_policy": "tests/unit/policy/test_charter.py",
    "pending": "tests/unit/policy/test_pending.py",
    "principal": "tests/unit/policy/test_principal.py",
    "signers": "tests/unit/policy/test_signers.py",
    "webauthn": "tests/unit/policy/test_webauthn.py",
    "oidc": "tests/unit/policy/test_oidc.py",
    "checkpoint": "tests/unit/core/test_checkpoint.py",
    "encoding": "tests/unit/core/test_encoding.py",
    "merkle": "tests/unit/core/test_merkle.py",
    "binding": "tests/unit/attest/test_binding.py",
    "chains": "tests/unit/attest/test_snp.py",
    "match": "tests/unit/policy/test_gate.py",
    "nitro": "tests/unit/attest/test_nitro.py",
    "snp": "tests/unit/attest/test_snp.py",
    "trust": "tests/unit/attest/test_trust.py",
}
"""Where a module's tests are; of the others in `USUAL`."""
USUAL = "tests/unit/attest/test_verify_evidence.py"
UNTIMED = "not 5_ms and not millisecond"
"""Tests that measure time fail on a busy machine, whatever was mutated."""
WARM = (
    "pytest", "_pytest.pytester", "_pytest.assertion.rewrite", "msgspec", "cbor2",
    "click.testing", "rich.console", "dcap_qvl", "cryptography.x509", "OpenSSL.SSL", "uvicorn",
    "cryptography.hazmat.primitives.asymmetric.ec", "asyncio", "email.message", "sqlite3",
)  # fmt: skip
"""Imported once, before the mutants' processes start; nothing of ours is among them."""
PROCESSES, MAX_SECONDS = 2, 240
CHECKING = re.compile(r"_?check_|bind$|verify|match_|update$")
"""Names of functions that are called for what they refuse."""
SWAPPED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One edit of one module."""

    module: Path
    line: int
    function: str
    what: str
    source: str

    @property
    def name(self) -> str:
        """Return what names it in ``spec/mutants.toml``: no line, which moves."""
        return f"{self.module.name} {self.function}: {self.what}"


# --- finding them ------------------------------------------------------------------------


def mutants_of(module: Path) -> list[Mutant]:
    """Return every mutant of a module, in the order of its lines."""
    tree = ast.parse(module.read_text())
    found: dict[str, Mutant] = {}
    for function in _functions(tree):
        for node, field, index, new, what in _edits(function):
            source = _edited(tree, node, field, index, new)
            mutant = Mutant(
                module=module,
                line=_line(node, field, index) or function.lineno,
                function=function.name,
                what=what,
                source=source,
            )
            found.setdefault(source, mutant)
    return sorted(found.values(), key=lambda m: m.line)


Edit = tuple[ast.AST, str, int | None, ast.AST | None, str]
"""A node, the field of it (and the place in it) that changes, to what, and in words."""


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


def _edits(function: ast.FunctionDef) -> Iterator[Edit]:
    yield from _statements(function)
    for node in _inside(function):
        yield from _conditions(node)
        yield from _refusals(node)
        yield from _statements(node)


def _conditions(node: ast.AST) -> Iterator[Edit]:
    """Yield conditions that never hold, or hold without one of their parts."""
    match node:
        case ast.If(test=test):
            yield node, "test", None, ast.Constant(value=False), f"never: {_text(test)}"
        case ast.BoolOp(op=op, values=values):
            word = "or" if isinstance(op, ast.Or) else "and"
            for i, value in enumerate(values):
                yield node, "values", i, None, f"without operand: {_text(value)} ({word})"
        case ast.comprehension(ifs=ifs):
            for i, test in enumerate(ifs):
                yield node, "ifs", i, None, f"without filter: {_text(test)}"
        case ast.Compare():
            yield from _compared(node)


def _refusals(node: ast.AST) -> Iterator[Edit]:
    """Yield handlers that refuse no more, and choices that are always the same."""
    match node:
        case ast.ExceptHandler(body=[*_, last]) if _refuses(last):
            bare = ast.Raise(exc=None, cause=None)
            yield node, "body", None, bare, f"library's own error leaves: {_text(last)}"
        case ast.Assign(value=ast.Compare() as test):
            for fixed in (True, False):
                yield node, "value", None, ast.Constant(value=fixed), f"{fixed}: {_text(test)}"
        case ast.IfExp(test=test):
            for fixed in (True, False):
                value = ast.Constant(value=fixed)
                yield node, "test", None, value, f"always {fixed}: {_text(test)}"
        case ast.Return(value=ast.Dict(values=rows)):
            yield from _table(rows)


def _inside(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield what is in a function, without what is in functions inside of it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, ast.FunctionDef):
            waiting += ast.iter_child_nodes(node)


def _compared(node: ast.Compare) -> Iterator[Edit]:
    text = _text(node)
    for i, op in enumerate(node.ops):
        if type(op) in SWAPPED:
            yield node, "ops", i, SWAPPED[type(op)](), f"boundary {i + 1} of: {text}"
    if len(node.ops) > 1:  # a <= b <= c
        legs = [node.left, *node.comparators]
        for i, (a, op, b) in enumerate(zip(legs, node.ops, legs[1:], strict=False)):
            one = ast.Compare(left=a, ops=[op], comparators=[b])
            yield node, "", None, one, f"only comparison {i + 1} of: {text}"


def _table(rows: Sequence[ast.expr]) -> Iterator[Edit]:
    for row in rows:
        if isinstance(row, ast.Tuple):
            yield row, "elts", 0, ast.Constant(value=True), f"always: {_text(row.elts[0])}"


def _statements(node: ast.AST) -> Iterator[Edit]:
    """Yield calls that check, and refusals that stand alone, each left out."""
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        if not isinstance(block, list) or isinstance(node, ast.ExceptHandler):
            continue
        for i, statement in enumerate(block):
            guarded = isinstance(node, ast.If) and field == "body"
            if _checks(statement) or (_refuses(statement) and not guarded):
                yield node, field, i, ast.Pass(), f"left out: {_text(statement)}"


def _checks(statement: ast.AST) -> bool:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        return False
    called = statement.value.func
    name = called.attr if isinstance(called, ast.Attribute) else _text(called)
    return bool(CHECKING.match(name))


def _refuses(statement: ast.AST) -> bool:
    match statement:
        case ast.Raise():
            return True
        case ast.Expr(value=ast.Call(func=ast.Name(id="refuse"))):
            return True
        case ast.Return(value=ast.Call(func=ast.Name(id="refuse"))):
            return True
    return False


def _text(node: ast.AST) -> str:
    return ast.unparse(node).replace("\n", " ")[:100]


def _line(node: ast.AST, field: str, index: int | None) -> int:
    value = getattr(node, field, node)
    found = value[index] if isinstance(value, list) and index is not None else value
    return int(getattr(found, "lineno", getattr(node, "lineno", 0)))


def _edited(
    tree: ast.Module, node: ast.AST, field: str, index: int | None, new: ast.AST | None
) -> str:
    """Return the module's source with one edit; the tree stays as it is."""
    place = next(i for i, n in enumerate(ast.walk(tree)) if n is node)
    changed = copy.deepcopy(tree)
    found = next(n for i, n in enumerate(ast.walk(changed)) if i == place)
    if not field:  # the node itself becomes another of its kind
        assert isinstance(new, ast.AST)  # noqa: S101 - of `_compared`
        found.__dict__.update(copy.deepcopy(new).__dict__)
    elif index is None:
        value = [new] if isinstance(getattr(found, field), list) else new
        setattr(found, field, value)
    elif new is None:
        del getattr(found, field)[index]
    else:
        getattr(found, field)[index] = new
    return ast.unparse(ast.fix_missing_locations(changed))


# --- running the tests -------------------------------------------------------------------


class First:
    """A pytest plugin that remembers the first test that failed."""

    def __init__(self) -> None:
        self.failed = ""

    def pytest_runtest_logreport(self, report: object) -> None:
        """Look at one report."""
        if getattr(report, "failed", False) and not self.failed:
            self.failed = str(getattr(report, "nodeid", "?"))

    def pytest_collectreport(self, report: object) -> None:
        """Look at what could not be collected."""
        self.pytest_runtest_logreport(report)


class Slot:
    """A copy of the tree in which one mutant at a time is tried, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "main"
        left = shutil.ignore_patterns("__pycache__")
        for name in ("src", "dev", "tests", "spec", "vectors", "fuzz"):
            if (ROOT / name).exists():
                shutil.copytree(ROOT / name, self._root / name, ignore=left)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, self._root / name)
        if (shared := ROOT.parent / "shared").exists():
            (folder / "shared").symlink_to(shared)
        self._answer = folder / "answer.json"
        self._changed: tuple[Path, str] | None = None

    def start(self, tests: Sequence[Sequence[str]], mutant: Mutant | None) -> int:
        """Start a process that runs runs of tests until one fails; return its id."""
        self._answer.unlink(missing_ok=True)
        if mutant is not None:
            path = self._root / mutant.module.relative_to(ROOT)
            self._changed = path, path.read_text()
            self._write(path, mutant.source)
        pid = os.fork()
        if pid == 0:
            self._child(tests)
        return pid

    def finish(self) -> str:
        """Put the module back; return the test that failed, or nothing."""
        if self._changed is not None:
            self._write(*self._changed)
            self._changed = None
        if not self._answer.exists():
            return f"no answer within {MAX_SECONDS} s"
        return str(json.loads(self._answer.read_text()))

    def _write(self, path: Path, source: str) -> None:
        path.write_text(source)
        # Compiled files are matched by size and second: what was written just now may fit.
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)

    def _child(self, tests: Sequence[Sequence[str]]) -> None:
        try:
            os.setsid()  # a test that ends its own group ends no other mutant
            signal.alarm(MAX_SECONDS)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            os.chdir(self._root)
            sys.path[:0] = [str(self._root / "src"), str(self._root / "dev" / "src")]
            os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
            self._answer.write_text(json.dumps(self._failed(tests)))
        except BaseException as e:  # noqa: BLE001 - a process that was forked must not return
            self._answer.write_text(json.dumps(f"{type(e).__name__}: {e}"))
        os._exit(0)

    def _failed(self, tests: Sequence[Sequence[str]]) -> str:
        pytest = importlib.import_module("pytest")
        for run in tests:
            first = First()
            options = ["-x", "-q", "-p", "no:cacheprovider", "-k", UNTIMED, "--no-header"]
            code = pytest.main([*options, *run], plugins=[first])
            if code != 0:
                return first.failed or f"pytest ended with {code}"
            placet = sys.modules["placet"]
            if not str(placet.__file__).startswith(str(self._root)):
                return "placet was not imported from the copy"
        return ""


def _runs(module: Path, tests: Sequence[str]) -> list[list[str]]:
    """Return what to run for a module: what fits it best, then the rest."""
    files: list[str] = []
    for test in tests:
        path = ROOT / test
        found = sorted(path.glob("test_*.py")) if path.is_dir() else [path]
        files += [str(p.relative_to(ROOT)) for p in found]
    best = [f for f in (FIRST.get(module.stem, USUAL), USUAL) if f in files]
    first = list(dict.fromkeys(best))[:1]
    return [run for run in (first, [f for f in files if f not in first]) if run]


def run(mutants: Sequence[Mutant], tests: Sequence[str], folder: Path) -> dict[str, str]:
    """Return for each mutant's source the test that killed it, or nothing.

    Raises:
        SystemExit: The tests fail without any mutant, or do not see what is broken.
    """
    # OpenSSL reads its settings once, here, as `placet` would have it (tests/conftest.py).
    os.environ["OPENSSL_CONF"] = str(ROOT / "src" / "placet" / "openssl.cnf")
    for name in WARM:
        importlib.import_module(name)
    del os.environ["OPENSSL_CONF"]
    slots = [Slot(folder / str(n)) for n in range(PROCESSES)]
    _sanity(slots[0], mutants[0], tests)
    waiting, busy, killers = list(mutants), dict[int, tuple[Slot, Mutant]](), dict[str, str]()
    while waiting or busy:
        while waiting and len(busy) < len(slots):
            slot = next(s for s in slots if s not in [b for b, _ in busy.values()])
            mutant = waiting.pop(0)
            busy[slot.start(_runs(mutant.module, tests), mutant)] = slot, mutant
        pid, _ = os.wait()
        slot, mutant = busy.pop(pid)
        killers[mutant.source] = slot.finish()
        mark = "." if killers[mutant.source] else f"\nsurvived: {mutant.line} {mutant.name}\n"
        print(mark, end="", flush=True)
    print()
    return killers


def _sanity(slot: Slot, mutant: Mutant, tests: Sequence[str]) -> None:
    """Check that the tests pass as they are, and that a module that is broken fails them."""
    broken = Mutant(
        module=mutant.module, line=0, function="", what="", source="raise RuntimeError('broken')"
    )
    for tried, good in ((None, True), (broken, False)):
        os.waitpid(slot.start(_runs(mutant.module, tests), tried), 0)
        failed = slot.finish()
        if good is bool(failed):
            print(f"mutants: nothing was tried: {failed or 'a broken module fails no test'}")
            raise SystemExit(2)


# --- saying what came of it --------------------------------------------------------------


def equivalents() -> dict[str, str]:
    """Return mutants that no test can tell from what they are made of, with the reason."""
    path = ROOT / "spec" / "mutants.toml"
    if not path.exists():
        return {}
    return {row["mutant"]: row["reason"] for row in tomllib.loads(path.read_text())["equivalent"]}


def report(
    mutants: Sequence[Mutant], killers: Mapping[str, str], known: Mapping[str, str]
) -> float:
    """Print a table and the survivors; return the score in percent."""
    survived = [m for m in mutants if not killers[m.source]]
    missed = [m for m in survived if m.name not in known]
    print(f"{'module':40}{'mutants':>9}{'killed':>9}{'known':>9}{'survived':>10}")
    for module in dict.fromkeys(m.module for m in mutants):
        of = [m for m in mutants if m.module == module]
        left, new = ([m for m in group if m.module == module] for group in (survived, missed))
        name = str(module.relative_to(ROOT / "src" / "placet"))
        counts = f"{len(of):9}{len(of) - len(left):9}{len(left) - len(new):9}{len(new):10}"
        print(f"{name:40}{counts}")
    for m in missed:
        print(f"survived: {m.module.relative_to(ROOT)}:{m.line} {m.function}: {m.what}")
    for m in mutants:
        if m.name in known and killers[m.source]:
            print(f"killed, though spec/mutants.toml says that nothing can: {m.name}")
    counted = len(mutants) - (len(survived) - len(missed))
    score = 100.0 * (counted - len(missed)) / max(1, counted)
    print(f"{score:.1f} % of {counted} mutants killed")
    return score


def main(argv: Sequence[str]) -> int:
    """Try all mutants."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", type=Path)
    parser.add_argument("--set", choices=SETS, default="verifier", help="modules and their tests")
    parser.add_argument("--tests", action="append", help="a folder or file, instead of the usual")
    parser.add_argument("--at-least", type=float, default=0.0, help="percent that must be killed")
    parser.add_argument("--grep", default="", help="only mutants whose name has this")
    parser.add_argument("--list", action="store_true", help="list the mutants only")
    parser.add_argument("--killers", action="store_true", help="say which test killed each")
    arguments = parser.parse_args(argv)
    usual, tests = SETS[arguments.set]
    modules = [path.resolve() for path in arguments.modules] or usual
    mutants = [m for path in modules for m in mutants_of(path) if arguments.grep in m.name]
    if arguments.list or not mutants:
        print(*(f"{m.line:4} {m.name}" for m in mutants), f"{len(mutants)} mutants", sep="\n")
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="placet-mutants-") as folder:
        killers = run(mutants, arguments.tests or tests, Path(folder))
    if arguments.killers:
        print(*(f"{m.line:4} {m.name}\n     {killers[m.source]}" for m in mutants), sep="\n")
    score = report(mutants, killers, equivalents())
    print(f"{time.monotonic() - began:.0f} s")
    return 0 if score >= arguments.at_least else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
