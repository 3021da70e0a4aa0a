"""The list of vaults that an owner chooses from: what ``--vaults FILE`` reads.

A phonebook (DESIGN section 2): whoever wrote it can deny service. What it says of trust
roots and profiles becomes the owner's own word by signing the birth statement, so the
tool shows it before, and `placet vault show` verifies it live.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from placet.attest.trust import TrustAnchor, trust_from_config
from placet.client.whole_files import write_whole
from placet.core.config import TrustRoot
from placet.core.encoding import Record
from placet.core.limits import MAX_BODY, MAX_PROFILES, MAX_VAULTS
from placet.core.profile import (
    Profile,
    VaultMember,
    VaultSet,
    WitnessMember,
    check_vault_set,
)
from placet.errors import MalformedError, TooLargeError, UnavailableError


class VaultsFile(Record, kw_only=True):
    """Vaults, the code that they must run, and the roots that may vouch for it."""

    schema: Literal[1] = 1
    k: Annotated[int, Meta(ge=1, le=MAX_VAULTS)]
    vaults: tuple[VaultMember, ...]
    profiles: Annotated[tuple[Profile, ...], Meta(max_length=MAX_PROFILES)]
    trust_roots: tuple[TrustRoot, ...]
    witnesses: Annotated[tuple[WitnessMember, ...], Meta(max_length=MAX_VAULTS)] = ()
    """Outside witnesses of these vaults, if there are any (spec/10)."""

    @property
    def vault_set(self) -> VaultSet:
        """Return the vault set for a birth statement."""
        return VaultSet(
            k=self.k, vaults=self.vaults, profiles=self.profiles, witnesses=self.witnesses
        )

    @property
    def trust(self) -> tuple[TrustAnchor, ...]:
        """Return what may vouch for these vaults."""
        return trust_from_config(self.trust_roots)


def read_vaults(path: Path) -> VaultsFile:
    """Read a vaults file (JSON, in any layout).

    Raises:
        UnavailableError: It cannot be read.
        MalformedError: It is no vaults file, or its set breaks I12.
    """
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise UnavailableError(f"vaults file {path} cannot be read: {e.strerror}") from e
    if len(raw) > MAX_BODY:
        raise TooLargeError(f"vaults file {path} is {len(raw)} bytes, at most {MAX_BODY}")
    try:
        found = msgspec.json.decode(raw, type=VaultsFile)
    except msgspec.DecodeError as e:
        raise MalformedError(f"{path} is no vaults file: {e}") from e
    check_vault_set(found.vault_set)
    return found


def write_vaults(path: Path, vaults: VaultsFile) -> None:
    """Write a vaults file that people can read, whole or not at all."""
    text = msgspec.json.format(msgspec.json.encode(vaults), indent=2) + b"\n"
    write_whole(path, text, mode=0o644)
