"""Ask an authenticator: a passkey on a page of this tool's, or a security key by CTAP2.

Whichever is asked, what comes back is verified here exactly as each vault will do it, and
only then attached. ``fido2`` is imported when a security key is named and not before.
"""

from __future__ import annotations

import os
import secrets
import sys
import webbrowser
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
from rich.text import Text

from placet.cli.output import plain, say, warn
from placet.cli.passkey_kept import PORT, USB, Browser, Pen, SecurityKey
from placet.cli.passkey_pages import Shown, approval_page, enrolment_page
from placet.cli.passkey_server import Site, ask
from placet.client.authenticators import (
    Enrolled,
    Wanted,
    assertion,
    attach,
    challenge_of,
    check_wanted,
    enrolled,
)
from placet.client.signing import SigningKey
from placet.core.encoding import unb64
from placet.core.signer import PasskeySigner
from placet.core.statement import UntrustedStatement
from placet.core.words import six_words
from placet.errors import MalformedError, NotFoundError, PlacetError, PolicyDeniedError

if TYPE_CHECKING:
    from fido2.ctap import CtapDevice

    from placet.client.ctap import Person

DEVICES = "placet.security-keys"
"""Entry points of stand-ins for a security key: a callable of the text after ``KIND:``."""
PATIENCE = 300
"""Seconds for which a page waits for its answer."""
TOKEN = 16
"""Bytes of the random part of its address."""


def sign_with(
    pen: Pen, sent: UntrustedStatement, shown: Shown, *, port: int = PORT
) -> UntrustedStatement:
    """Return the statement with the signature of what the owner signs with here.

    Args:
        pen: A key file, a security key, or a passkey in a browser.
        sent: Composed or read here, and shown.
        shown: What the terminal said of it; a page says the same.
        port: Loopback port of pages whose origin is not on localhost.

    Raises:
        PolicyDeniedError: The person said no, or nothing, or gave no PIN.
        ApprovalError: The authenticator signed something else, or refused.
        NotFoundError: It is not here.
    """
    if isinstance(pen, SigningKey):
        return pen.sign(sent)
    if isinstance(pen, SecurityKey):
        from placet.client import ctap  # noqa: PLC0415 - only where a security key is used

        with open_device(pen.device) as device:
            person = _person(pen.signer.label)
            approval = ctap.approve(device, pen.signer, challenge_of(sent), person)
        return attach(sent, pen.signer, approval)
    return _sign_on_page(pen.signer, sent, shown, port)


def enrol_passkey(wanted: Wanted, *, port: int = PORT) -> tuple[Browser, Enrolled]:
    """Have a browser make a passkey, on a page that explains before it asks.

    Raises:
        PolicyDeniedError: The person said no, or nothing.
        ApprovalError, MalformedError: What came back is no credential that vaults take.
    """
    check_wanted(wanted)

    def judge(answer: Mapping[str, object]) -> Enrolled:
        _check_not_declined(answer)
        return enrolled(wanted, *_parts(answer, "client_data", "authenticator_data"))

    made = ask(
        site_of(wanted.origins[0], port),
        enrolment_page(wanted),
        judge,
        token=secrets.token_urlsafe(TOKEN),
        seconds=PATIENCE,
        announce=lambda url: _announce(f"make the passkey {wanted.label!r}", url),
    )
    return Browser(signer=made.signer), made


def enrol_security_key(wanted: Wanted, named: str) -> tuple[SecurityKey, Enrolled]:
    """Have a security key make a credential.

    Args:
        wanted: What is asked for.
        named: ``usb``, or ``KIND:ARGUMENT`` of a stand-in.

    Raises:
        NotFoundError, ConflictError, ApprovalError, PolicyDeniedError: See `ctap.enrol`.
    """
    from placet.client import ctap  # noqa: PLC0415 - only where a security key is used

    check_wanted(wanted)
    with open_device(named) as device:
        made = ctap.enrol(device, wanted, _person(wanted.label))
    return SecurityKey(signer=made.signer, device=named), made


def site_of(origin: str, port: int) -> Site:
    """Return where a page of an origin is served: on the origin's own port, on localhost."""
    parts = urlsplit(origin)
    if parts.hostname == "localhost":
        return Site(origin=origin, port=parts.port or (443 if parts.scheme == "https" else 80))
    return Site(origin=origin, port=port)


def open_device(named: str) -> CtapDevice:
    """Return the security key that is plugged in, or the stand-in that is named.

    Raises:
        NotFoundError: There is none.
        MalformedError: It is not clear which.
    """
    if named == USB:
        return _usb()
    kind, _, argument = named.partition(":")
    found = {e.name: e for e in entry_points(group=DEVICES)}
    if kind not in found or not argument:
        known = "".join(f" or {name}:FILE" for name in sorted(found))
        raise MalformedError(f"{named!r} is no security key", f"Write --security-key {USB}{known}.")
    device: CtapDevice = found[kind].load()(argument)
    warn(f"{named}: {getattr(device, 'note', 'this is no real security key')}")
    return device


def _usb() -> CtapDevice:
    from fido2.hid import CtapHidDevice  # noqa: PLC0415 - only where a security key is used

    try:
        devices = list(CtapHidDevice.list_devices())
    except OSError as e:
        raise NotFoundError(f"security keys cannot be listed: {e.strerror}") from e
    if not devices:
        raise NotFoundError(
            "no security key is plugged in, or this user may not use it",
            "Plug it in and repeat; on Linux its /dev/hidraw* must be yours (udev rules).",
        )
    if len(devices) > 1:
        for device in devices:
            device.close()
        raise MalformedError(
            f"{len(devices)} security keys are plugged in, and each would be asked",
            "Leave the one in that shall sign, and repeat.",
        )
    return devices[0]


def _sign_on_page(
    signer: PasskeySigner, sent: UntrustedStatement, shown: Shown, port: int
) -> UntrustedStatement:
    def judge(answer: Mapping[str, object]) -> UntrustedStatement:
        _check_not_declined(answer)
        client, data, raw = _parts(answer, "client_data", "authenticator_data", "signature")
        approval = assertion(signer, client_data=client, authenticator_data=data, signature=raw)
        return attach(sent, signer, approval)

    def announce(url: str) -> None:
        say(Text.assemble(("six words: ", "dim"), (" ".join(six_words(sent.digest)), "bold cyan")))
        _announce(f"sign with the passkey {signer.label!r}", url)

    return ask(
        site_of(signer.origins[0], port),
        approval_page(shown, sent, signer),
        judge,
        token=secrets.token_urlsafe(TOKEN),
        seconds=PATIENCE,
        announce=announce,
    )


def _person(label: str) -> Person:
    from placet.client.ctap import Person  # noqa: PLC0415 - only where a security key is used

    def pin() -> str:
        if not sys.stdin.isatty():
            raise MalformedError(
                "nobody can be asked for the security key's PIN: standard input is no terminal",
                "Run it on a terminal.",
            )
        said: str = click.prompt(f"PIN of security key {plain(label)}", hide_input=True, err=True)
        return said

    return Person(pin=pin, touch=lambda: say(f"touch the security key {label!r} now"))


def _check_not_declined(answer: Mapping[str, object]) -> None:
    if answer.get("declined") is True:
        raise PolicyDeniedError("the answer on the page was no: nothing was signed")


def _parts(answer: Mapping[str, object], *names: str) -> list[bytes]:
    """Return the binary members of an answer.

    Raises:
        MalformedError: Another number of them, or one is no base64url.
    """
    if answer.keys() != set(names):
        raise MalformedError(f"the page answered {len(answer)} members, expected {len(names)}")
    return [_binary(answer[name], name) for name in names]


def _binary(value: object, name: str) -> bytes:
    try:
        return unb64(value if isinstance(value, str) else "=")
    except (PlacetError, ValueError) as e:
        raise MalformedError(f"{name} in the page's answer is no base64url") from e


def _announce(what: str, url: str) -> None:
    say(Text.assemble(("open: ", "dim"), (url, "bold"), f"   (to {plain(what)})"))
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.stderr.isatty() and (screen or sys.platform == "darwin"):
        webbrowser.open(url)
