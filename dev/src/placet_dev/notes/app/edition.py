"""Version 1 of notes: it lists and adds."""

from __future__ import annotations

VERSION = "1"
SEARCH = False
