"""The vault's log on stderr: a line a fact, as text or as JSON, never with what it keeps.

What is written is a message of this code and the ``facts`` beside it (I13): an exception is
named by its class and where it was raised, never by its text or its variables. What libraries
log is written without what they fill in, which may be anything that they hold.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal, TextIO

from placet.errors import raised_at

OURS = "placet"
"""Loggers of this project."""

Form = Literal["text", "json"]


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        return json.dumps({**line, **_facts(record)}, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        # One line each, whatever a message holds.
        return f"{record.name}: {_message(record)}{facts}".replace("\n", "\\n")


def start_logging(form: Form, stream: TextIO | None = None) -> None:
    """Write what this process logs to stderr, one line each."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def _message(record: logging.LogRecord) -> str:
    if record.name.startswith(OURS):
        return record.getMessage()
    # Errors of asyncio show tasks and callbacks with their arguments, as one finished text.
    return "failed inside" if record.levelno >= logging.ERROR else str(record.msg)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    facts = dict(getattr(record, "facts", {}))
    if record.exc_info and (error := record.exc_info[1]) is not None:
        facts |= {"exception": type(error).__name__, "at": raised_at(error)}
    return facts


def _time(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03}Z"
