"""Which authenticators this machine can ask, as the owner's tool keeps them; nothing secret.

The credentials themselves are in ``authenticators.json``, so that one can be asked which no
policy names yet. What a policy names decides at the vaults; nothing here does.
"""

from __future__ import annotations

from typing import Literal

from placet.client.signing import SigningKey
from placet.core.encoding import Record, Sha256
from placet.core.signer import KeySigner, OwnKeySigner, PasskeySigner, signer_id

PORT = 7459
"""Where the owner's tool serves its page; part of an origin on localhost, so fixed for life."""
USB = "usb"
"""A real security key, whichever is plugged in."""


class SecurityKey(Record, tag_field="kind", tag="security-key"):
    """A credential on a security key, asked by CTAP2."""

    signer: PasskeySigner
    device: str = USB
    """``usb``, or ``KIND:ARGUMENT`` of one that another distribution contributes."""


class Browser(Record, tag_field="kind", tag="browser"):
    """A passkey that a browser finds, asked on a page of this tool's."""

    signer: PasskeySigner


Authenticator = SecurityKey | Browser
Pen = SigningKey | SecurityKey | Browser
"""Whatever the owner can sign with here."""


class Kept(Record):
    """``authenticators.json``."""

    schema: Literal[1] = 1
    use: Sha256 | None = None
    """Signer id of the one that signs unless another is named; else the key file, or the first."""
    authenticators: tuple[SecurityKey | Browser, ...] = ()


def pen_id(pen: Pen) -> str:
    """Return the signer id of what signs."""
    return signer_id(pen.signer)


def kind(signer: OwnKeySigner, pen: Pen | None = None) -> str:
    """Return in words what a signer is, and where it is asked if that is here."""
    if isinstance(signer, KeySigner):
        return f"{signer.algorithm} key"
    if isinstance(pen, SecurityKey):
        return "security key" if pen.device == USB else f"security key ({pen.device})"
    return "passkey"
