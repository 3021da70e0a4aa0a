"""Count the vault's trusted base: lines of each room, and the distributions it rests on.

A line counts when it holds a token of code. Blanks, comments and docstrings do not, so
explaining costs nothing. Dependencies are the third-party modules that the rooms import,
mapped to installed distributions, closed over what those require (without extras).
Fails when a room is over its budget in ``spec/tcb.toml``.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "placet"
LAYOUT = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def sources(room: str) -> list[Path]:
    """Return the Python files of a room: one module, or a package."""
    module = PACKAGE / f"{room}.py"
    return [module] if module.exists() else sorted((PACKAGE / room).rglob("*.py"))


def docstring_lines(tree: ast.AST) -> set[int]:
    """Return the lines of every string that stands as a statement (docstrings, notes)."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def count(text: str) -> int:
    """Return how many lines of ``text`` hold code.

    Example:
        >>> count('"Doc."' + chr(10) + "x = 1  # why" + chr(10) * 3 + "y = (" + chr(10) + "2)")
        3
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstring_lines(ast.parse(text)))


def imported(text: str) -> set[str]:
    """Return the top-level names of the modules that ``text`` imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import():
                names |= {alias.name.partition(".")[0] for alias in node.names}
            case ast.ImportFrom(module=str(module), level=0):
                names.add(module.partition(".")[0])
    return names - {"placet"} - sys.stdlib_module_names


def distributions(modules: set[str]) -> set[str]:
    """Return the distributions behind these modules, with all that those require.

    Raises:
        LookupError: A module comes from no installed distribution.
    """
    owners = metadata.packages_distributions()
    missing = sorted(modules - owners.keys())
    if missing:
        raise LookupError(f"no installed distribution provides {', '.join(missing)}")
    found: set[str] = set()
    waiting = {name for module in modules for name in owners[module]}
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            waiting |= required(name)
    return found


def required(distribution: str) -> set[str]:
    """Return what a distribution requires on this machine, extras left out."""
    needs = [Requirement(line) for line in metadata.requires(distribution) or ()]
    return {n.name for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})}


def main() -> int:
    """Print the table; return 1 when a room is over its budget."""
    settings = tomllib.loads((ROOT / "spec" / "tcb.toml").read_text())
    budgets: dict[str, int] = settings["budget"]
    total, over, modules = 0, [], set[str](settings["implied"])
    print(f"{'room':<10}{'lines':>7}{'budget':>8}")
    for room, budget in budgets.items():
        texts = [path.read_text() for path in sources(room)]
        lines = sum(count(text) for text in texts)
        modules |= {name for text in texts for name in imported(text)}
        total += lines
        over += [room] if lines > budget else []
        print(f"{room:<10}{lines:>7}{budget:>8}{'  OVER' if lines > budget else ''}")
    needed = distributions(modules)
    print(f"{'sum':<10}{total:>7}{sum(budgets.values()):>8}\n")
    print("imported:  " + ", ".join(sorted(modules)))
    print("rests on:  " + ", ".join(f"{n} {metadata.version(n)}" for n in sorted(needed)))
    for room in over:
        print(f"tcb: {room} is over its budget in spec/tcb.toml", file=sys.stderr)
    print(f"total: {total} lines, {len(needed)} dependencies")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
