"""The command line: ``placet-audit verify``, and ``placet audit verify`` beside placet."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from placet_audit import __version__
from placet_audit.audit import audit
from placet_audit.export import read_exports
from placet_audit.page import page
from placet_audit.problems import Unreadable
from placet_audit.report import document, text

EXPORTERS = "placet.exporters"
CLEAN, UNREADABLE, FINDINGS = 0, 2, 3
"""Exit codes: nothing is wrong; it is no export, or wrong usage; something is."""


def main() -> None:
    """Run ``placet-audit``."""
    words = sys.argv[1:]
    if words[:1] == ["verify"]:
        sys.exit(command(words[1:]))
    parser = argparse.ArgumentParser(prog="placet-audit", description=__doc__)
    parser.add_argument("--version", action="version", version=f"placet-audit {__version__}")
    parser.add_argument("command", choices=("verify",), help="check exports, offline")
    parser.parse_args(words)


def command(argv: Sequence[str]) -> int:
    """Verify exports, and say what was found.

    Args:
        argv: What stands behind ``verify``.

    Returns:
        0 if nothing is wrong, 3 with findings, 2 if an export cannot be read.
    """
    options = _parser().parse_args(argv)
    try:
        if options.fetch:
            _fetch(options.fetch, options.exports[0] if len(options.exports) == 1 else None)
        one = audit(read_exports(options.exports, options.receipts), key=options.key)
        if options.html:
            options.html.write_text(page(one))
    except Unreadable as e:
        print(f"placet-audit: {e}", file=sys.stderr)
        return UNREADABLE
    except OSError as e:
        print(f"placet-audit: {e.filename}: {e.strerror}", file=sys.stderr)
        return UNREADABLE
    if options.json:
        print(json.dumps(document(one), indent=2))
    else:
        for line in text(one):
            print(line)
    return FINDINGS if one.findings else CLEAN


def _fetch(key: str, folder: Path | None) -> None:
    """Have placet's own client export a key into a folder, where it is installed.

    Nothing of it is believed: what it wrote is read and judged like any other export.
    """
    if folder is None or folder.is_file():
        raise Unreadable("--fetch needs the one folder in which exports are kept")
    for entry in entry_points(group=EXPORTERS):
        silent = entry.load()(key, folder)
        if silent:
            print(f"placet-audit: vaults that gave nothing: {silent}", file=sys.stderr)
        return
    raise Unreadable("--fetch needs placet beside this program; else export, and verify that")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="placet-audit verify",
        description="Decide every entry of exported logs again, offline, and list each release "
        "with the statement and signatures that justify it.",
        epilog="Exit codes: 0 nothing is wrong, 3 findings, 2 usage, or no export.",
    )
    add = parser.add_argument
    add("exports", nargs="+", type=Path, metavar="EXPORT", help="files, or folders of *.jsonl")
    add("--fetch", metavar="KEY", help="have placet export this key into the folder first")
    add("--key", help="the key id that is meant (whole), where exports are of several")
    add("--receipts", type=Path, action="append", default=[], metavar="FILE",
        help="what an app kept: placet-receipts.jsonl of its volume")  # fmt: skip
    add("--json", action="store_true", help="print one JSON document and nothing else")
    add("--html", type=Path, metavar="FILE", help="write a page with the timeline")
    return parser
