"""The one page of notes, as plain HTML."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from .store import Note

STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem;
       color: #222; background: #fdfcf8 }
h1 small { font-size: 1rem; font-weight: normal; color: #777 }
form { display: flex; gap: .5rem; margin: 1rem 0 }
input { flex: 1; font: inherit; padding: .4rem .6rem; border: 1px solid #bbb; border-radius: .3rem }
button { font: inherit; padding: .4rem 1rem }
li { margin: .4rem 0; overflow-wrap: anywhere; white-space: pre-wrap }
"""
SEARCH_FORM = """<form role="search"><input name="q" value="{wanted}" placeholder="Find"
  aria-label="Find notes"><button>Find</button></form>"""
ADD_FORM = """<form method="post" action="/"><input name="text" required maxlength="4000"
  placeholder="A new note" aria-label="A new note" autofocus><button>Add</button></form>"""


def render(notes: Iterable[Note], *, version: str, search: bool, wanted: str) -> str:
    """Return the page: all notes, or those that were asked for, and a form for a new one."""
    items = "\n".join(f"<li>{escape(note.text)}</li>" for note in notes)
    listing = f"<ul>\n{items}\n</ul>" if items else "<p>No notes.</p>"
    find = SEARCH_FORM.format(wanted=escape(wanted)) if search else ""
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Notes</title><style>{STYLE}</style></head>
<body>
<h1>Notes <small>version {escape(version)}</small></h1>
{find}
{listing}
{ADD_FORM}
</body>
</html>
"""
