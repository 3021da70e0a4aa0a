"""Enrol authenticators, and say what losing one of them would mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import click

from placet.cli.output import plain, say
from placet.cli.passkey import enrol_passkey, enrol_security_key
from placet.cli.passkey_kept import PORT, USB, Authenticator
from placet.client.authenticators import Screen, Wanted
from placet.core.signer import PasskeySigner, Signer, Threshold, signer_id
from placet.policy.principal import leaves, satisfied

F = TypeVar("F", bound=Callable[..., object])

LOCAL = "localhost"
Asked = Literal["passkey", "security key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relying:
    """What binds new credentials: RP ID, origins, and whose page they are used on."""

    rp_id: str
    origins: tuple[str, ...]
    screen: Screen

    @classmethod
    def of(cls, rp_id: str | None, origins: Sequence[str], screen: Screen) -> Relying:
        """Return what options say; the one follows from the other, without both: localhost.

        Whether they fit each other is checked before anybody is asked (`check_wanted`).
        """
        rp_id = rp_id or (urlsplit(origins[0]).hostname if origins else None) or LOCAL
        own = f"http://{LOCAL}:{PORT}" if rp_id == LOCAL else f"https://{rp_id}"
        return cls(rp_id=rp_id, origins=tuple(origins) or (own,), screen=screen)


@dataclass(frozen=True, slots=True, kw_only=True)
class New:
    """An authenticator that was enrolled just now."""

    kept: Authenticator
    synced: bool


def relying_options(command: F) -> F:
    """Add the options that say what a new credential is bound to."""
    for option in (
        click.option(
            "--screen",
            type=click.Choice(["own", "page"]),
            default="own",
            show_default=True,
            help="Who serves the page it signs on: this tool (own), or somebody else (page). "
            "What a page signer signs alone waits 24 hours at the vaults.",
        ),
        click.option(
            "--origin",
            "origins",
            multiple=True,
            metavar="URL",
            help="Address of the pages it signs on, fixed for life; repeatable.  "
            f"[default: http://{LOCAL}:{PORT}]",
        ),
        click.option(
            "--rp-id",
            metavar="HOST",
            help="Domain that it is bound to for life: your own, used for no sign-in.  "
            f"[default: {LOCAL}]",
        ),
        click.option(
            "--security-key",
            "security_keys",
            multiple=True,
            is_flag=False,
            flag_value=USB,
            metavar="[usb]",
            help="Enrol a security key that is plugged in; repeatable.",
        ),
        click.option("--passkey", "passkeys", count=True, help="Enrol a passkey in a browser."),
    ):
        command = option(command)
    return command


def enrol(
    asked: Sequence[tuple[Asked, str]],
    labels: Sequence[str],
    relying: Relying,
    known: Sequence[Authenticator],
    *,
    port: int,
) -> list[New]:
    """Enrol authenticators one after the other.

    Args:
        asked: For each its kind, and the device if it is a security key.
        labels: For each its name.
        relying: What they are bound to.
        known: Those enrolled before: none of them is taken for another one.
        port: Loopback port of pages that are not on localhost.

    Raises:
        PlacetError: One could not be enrolled; those before it are of no use then.
    """
    made: list[New] = []
    for (kind, device), label in zip(asked, labels, strict=True):
        earlier = [*known, *(m.kept for m in made)]
        wanted = Wanted(
            label=label,
            rp_id=relying.rp_id,
            origins=relying.origins,
            screen=relying.screen,
            challenge=os.urandom(32),
            user=os.urandom(32),
            known=tuple(a.signer.credential_id for a in earlier),
        )
        if kind == "passkey":
            passkey, new = enrol_passkey(wanted, port=port)
            made.append(New(kept=passkey, synced=new.synced))
            continue
        if device == USB and sys.stdin.isatty():
            click.prompt(
                f"Plug in the security key for {plain(label)}, and press Enter",
                default="",
                show_default=False,
                err=True,
            )
        security_key, new = enrol_security_key(wanted, device)
        made.append(New(kept=security_key, synced=new.synced))
    for new_one in made:
        say(f"enrolled {new_one.kept.signer.label!r}")
    return made


def asked_for(passkeys: int, security_keys: Sequence[str]) -> list[tuple[Asked, str]]:
    """Return what options ask for: passkeys first, each security key with its device."""
    return [
        *(("passkey", "") for _ in range(passkeys)),
        *(("security key", device) for device in security_keys),
    ]


def names(asked: Sequence[tuple[Asked, str]], given: Sequence[str]) -> list[str]:
    """Return a name for each: those given, in order, then what it is and its number."""
    found = list(given[: len(asked)])
    for number, (kind, _) in list(enumerate(asked, 1))[len(found) :]:
        found.append("owner" if len(asked) == 1 else f"{kind} {number}")
    return found


def warnings(principal: Threshold, new: Sequence[New] = ()) -> list[str]:
    """Return what the owner should know before anything is born under this principal.

    Args:
        principal: The owner.
        new: Those of it that were enrolled just now.
    """
    signers = leaves(principal)
    found = []
    if alone := critical(principal):
        who = " or ".join(alone)
        found.append(
            f"lose {plain(who)}, and nobody can approve, retire or change anything again: there "
            "is no back door. Versions approved by then go on reading the data; no later one "
            "ever will"
        )
    passkeys = [s for s in signers if isinstance(s, PasskeySigner)]
    if any(s.rp_id == LOCAL for s in passkeys):
        found.append(
            "RP ID localhost is for trying things: any program on your machine can serve a page "
            "there. For data that matter bind to a domain of your own: --rp-id HOST"
        )
    found += [
        f"{plain(s.label)} signs on a page that somebody else serves: what it signs alone waits "
        "24 hours at the vaults, and any other owner signer can void it until then"
        for s in passkeys
        if s.screen == "page"
    ]
    found += [
        f"{plain(n.kept.signer.label)} may be copied to its provider's account: whoever has that "
        "account may have the passkey"
        for n in new
        if n.synced
    ]
    return found


def critical(principal: Threshold) -> list[str]:
    """Return the names of those whose loss alone leaves too few to sign."""
    signers: tuple[Signer, ...] = leaves(principal)
    ids = frozenset(map(signer_id, signers))
    return [s.label for s in signers if not satisfied(principal, ids - {signer_id(s)})]
