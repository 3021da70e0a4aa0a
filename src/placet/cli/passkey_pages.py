"""The page on which a passkey is asked for: what it says, as HTML that holds no script.

What the script needs stands in ``data-`` attributes. Every text from elsewhere is escaped,
and shown with its control characters spelled out, as on the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from rich.console import Console
from rich.text import Text

from placet.cli.output import Cell, Fact, plain
from placet.client.authenticators import ALGORITHMS, Wanted
from placet.core.encoding import b64
from placet.core.signer import PasskeySigner
from placet.core.statement import UntrustedStatement
from placet.core.words import six_words

_SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="page.css">
<script src="page.js" defer></script>
</head>
<body>
<main data-step="{step}" data-options="{options}">
<p class="brand">placet <span>on this machine</span></p>
{content}
<noscript><p class="status bad">This page needs JavaScript to reach your passkey.</p></noscript>
<div class="buttons">
<button id="yes" type="button">{yes}</button>
<button id="no" type="button">{no}</button>
</div>
<p class="status" id="status" role="status" aria-live="polite">{status}</p>
<footer>{footer}</footer>
</main>
</body>
</html>
"""
_COLOURS = {"red": "bad", "yellow": "odd", "green": "good"}
_OWN = (
    "The <code>placet</code> on this machine composed this statement.",
    "Your terminal shows the same six words. If not, or if you did not start this, decline.",
)
_OTHERS = (
    "<b>Somebody else composed this statement.</b> Read all of it.",
    "Your terminal shows the same six words: it is the same statement, be it good or bad.",
)
_console = Console(width=4096)


@dataclass(frozen=True, slots=True)
class Shown:
    """What the terminal showed of a statement before it was signed.

    Args:
        title: What it is, in one line.
        facts: Its content.
        own: Composed by this tool; words vouch for nothing that somebody else composed.
    """

    title: str
    facts: Sequence[Fact]
    own: bool = True


def approval_page(shown: Shown, sent: UntrustedStatement, signer: PasskeySigner) -> bytes:
    """Return the page that asks whether to sign a statement.

    Args:
        shown: What the terminal showed.
        sent: The statement.
        signer: The passkey that is asked.
    """
    words = "".join(f"<li>{escape(w)}</li>" for w in six_words(sent.digest))
    origin, compare = _OWN if shown.own else _OTHERS
    content = f"""<h1>{_text(shown.title)}</h1>
<p>{origin} Without a signature it has no effect; you would sign it with your passkey
<b>{_text(signer.label)}</b>.</p>
{_facts(shown.facts)}
<h2>Six words</h2>
<ol class="words">{words}</ol>
<p class="hint">{compare}</p>
<p class="digest"><span>statement</span> {_text(sent.digest)}</p>"""
    return _page(
        step="approve",
        title=shown.title,
        options={
            "challenge": b64(bytes.fromhex(sent.digest.removeprefix("sha256:"))),
            "rpId": signer.rp_id,
            "credential": signer.credential_id,
        },
        content=content,
        yes="Sign with your passkey",
        no="Decline",
        status="Nothing is signed yet.",
    )


def enrolment_page(wanted: Wanted) -> bytes:
    """Return the page that explains what a passkey for approvals is, and asks to make one."""
    where = (
        "On <code>localhost</code> this is for trying things: any program of this machine could "
        "serve such a page. For data that matter take a security key on the command line, or an "
        "HTTPS origin of your own."
        if wanted.rp_id == "localhost"
        else "The address belongs to the passkey for life: it must stay yours."
    )
    content = f"""<h1>Make the passkey that approves</h1>
<p>With it you say <em>yes</em> to each new version of an app that may read your data. Each
vault checks that signature itself, so nobody else can say it for you: not the platform, not
whoever runs a vault.</p>
<ul>
<li>It approves and does nothing else: it signs you in nowhere.</li>
<li>Each approval asks for your fingerprint, face or PIN.</li>
<li>Its private key stays with your device or your passkey's provider; <code>placet</code>
keeps the public key only.</li>
<li>There is no reset. Have at least two authenticators, in two places.</li>
</ul>
{
        _facts(
            [
                ("name", wanted.label),
                ("relying party", wanted.rp_id),
                ("address", wanted.origins[0]),
            ]
        )
    }
<p class="hint">{where}</p>"""
    return _page(
        step="enrol",
        title="Make the passkey that approves",
        options={
            "challenge": b64(wanted.challenge),
            "rpId": wanted.rp_id,
            "user": b64(wanted.user),
            "name": wanted.label,
            "known": list(wanted.known),
            "algorithms": list(ALGORITHMS),
        },
        content=content,
        yes="Make a passkey",
        no="Cancel",
        status="Nothing is made yet.",
    )


def _page(
    *,
    step: str,
    title: str,
    options: Mapping[str, object],
    content: str,
    yes: str,
    no: str,
    status: str,
) -> bytes:
    return _SHELL.format(
        step=step,
        title=f"{_text(title)} - placet",
        options=escape(json.dumps(options)),
        content=content,
        yes=yes,
        no=no,
        status=status,
        footer="Served by your own placet, to this machine alone, for one answer.",
    ).encode()


def _facts(facts: Iterable[Fact]) -> str:
    rows = "".join(
        f"<tr><th>{_text(name.strip())}</th><td>{_text(value)}</td></tr>" for name, value in facts
    )
    return f"<table>{rows}</table>"


def _text(value: Cell) -> str:
    """Return a text as HTML, with the colours of the terminal that mean something."""
    if not isinstance(value, Text):
        return escape(plain("-" if value is None else str(value)))
    parts = []
    for text, style, _ in value.render(_console):
        colour = style.color.name if style is not None and style.color is not None else ""
        said = escape(text)
        known = _COLOURS.get(colour)
        parts.append(f'<span class="{known}">{said}</span>' if known else said)
    return "".join(parts)
