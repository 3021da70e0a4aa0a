"""``placet oidc``: an identity at a provider, as a factor beside a passkey or a key."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

import click
from rich.text import Text

from placet.cli.arguments import FILE
from placet.cli.content import content, identity
from placet.cli.files import write_json
from placet.cli.output import (
    answer,
    err,
    hint,
    json_option,
    plain,
    print_json,
    reported,
    say,
    show_facts,
)
from placet.cli.pen import ask, write_out
from placet.cli.settings import Home, the_one
from placet.cli.statement_files import learn_birth, read_statement, still_lacking, ways_of
from placet.client import oidc as client
from placet.client.oidc_web import ProviderWeb
from placet.core.signer import OidcSigner, signer_id
from placet.core.statement import UntrustedStatement, compose
from placet.policy.authority import signers_of
from placet.policy.jwk import thumbprint


@click.group()
def oidc() -> None:
    """Approve by a sign-in at an identity provider, beside a passkey or a key.

    A provider alone approves nothing, whatever a policy says: who runs it, or steals its
    key, could sign in as you. So an identity always stands beside a signer of your own.
    """


@oidc.command()
@click.argument("issuer")
@click.option(
    "--client-id", required=True, help="A client that is registered for approvals and nothing else."
)
@click.option("--label", default="identity", show_default=True, help="Name of this signer.")
@click.option("--out", type=FILE, required=True, metavar="FILE", help="Where to write the signer.")
@click.option("--no-browser", is_flag=True, help="Only print the address to open.")
@json_option
@reported
def enrol(
    *, issuer: str, client_id: str, label: str, out: Path, no_browser: bool, as_json: bool
) -> None:
    r"""Sign in at ISSUER, and write a signer for a policy.

    The provider's keys of today are pinned in it: vaults fetch none, and ask nobody. Compare
    them with what the provider publishes elsewhere. ISSUER is written exactly as the provider
    writes it.

    \b
    Example:
      placet oidc enrol https://accounts.example --client-id placet-approvals --out me.json
    """
    signer = client.enrol(issuer, client_id, label=label, means=_means(browse=not no_browser))
    write_json(out, signer)
    if as_json:
        print_json({"signer": signer_id(signer), "file": str(out), **_public(signer)})
        return
    answer(signer_id(signer))
    show_facts(
        [
            ("issuer", signer.issuer),
            ("client", signer.audience),
            ("sub", signer.sub),
            *((f"{k.alg} key", f"{k.kid}  {thumbprint(k)}") for k in signer.jwks),
            ("file", str(out)),
        ]
    )
    hint('name it in a policy file, beside a signer of your own: [signers.work] from = "FILE"')


@oidc.command()
@click.argument("file", type=FILE)
@click.option("--signer", metavar="NAME", help="Label of the identity, if there are several.")
@click.option("--no-browser", is_flag=True, help="Only print the address to open.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@reported
def sign(*, file: Path, signer: str | None, no_browser: bool, yes: bool, as_json: bool) -> int:
    """Sign in for the statement in a file, and add the ID token to it.

    The person signs in anew for each statement; the token is good for this one only, and
    for as long as the provider says. So sign last, and deliver at once.
    """
    home = Home.find()
    sent = read_statement(file)
    found = ways_of(home, sent)
    identities = [s for s in signers_of(found) if isinstance(s, OidcSigner)]
    who = the_one(
        [s for s in identities if signer in (None, s.label, signer_id(s))],
        signer or "OIDC identity",
        "signer",
        lambda s: f"{s.label} ({s.issuer})",
        "placet policy explain KEY",
    )
    shown = content(sent, own=False)
    if not (yes and as_json):
        say(Text(shown.title, style="bold"))
        show_facts([*shown.facts, *identity(sent)], err)
    if not yes:
        ask(f"Sign this as {plain(who.label)}, by a sign-in at {who.issuer}?")
    signed = _with_token(sent, who, browse=not no_browser)
    lacking = still_lacking(found, signed)
    learn_birth(home, signed)
    return write_out(signed, file, home, as_json=as_json, lacking=lacking)


def _with_token(sent: UntrustedStatement, who: OidcSigner, *, browse: bool) -> UntrustedStatement:
    """Return the statement with this identity's token, in the place of an older one."""
    signature = client.sign_in(who, sent, _means(browse=browse))
    others = tuple(s for s in sent.signatures if s.signer != signature.signer)
    return compose(sent.statement, (*others, signature))


def _means(*, browse: bool) -> client.Means:
    return client.Means(browse=_open if browse else _print, web=ProviderWeb())


def _print(url: str) -> None:
    say(Text.assemble(("open: ", "dim"), (url, "bold"), "   (to sign in)"))


def _open(url: str) -> None:
    _print(url)
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.stderr.isatty() and (screen or sys.platform == "darwin"):
        webbrowser.open(url)


def _public(signer: OidcSigner) -> dict[str, object]:
    return {
        "issuer": signer.issuer,
        "audience": signer.audience,
        "sub": signer.sub,
        "keys": [{"kid": k.kid, "alg": k.alg, "thumbprint": thumbprint(k)} for k in signer.jwks],
    }
