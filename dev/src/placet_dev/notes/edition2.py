"""Version 2 of notes: it finds them again, too."""

from __future__ import annotations

VERSION = "2"
SEARCH = True
