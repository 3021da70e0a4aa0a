"""What this tool remembers of vaults it met, and what it says when one contradicts itself."""

from __future__ import annotations

import os
from pathlib import Path

from placet.cli.files import read_json, write_json
from placet.cli.output import short, warn
from placet.cli.settings import Home
from placet.client.constellation import Constellation
from placet.client.heads import Head, Proof, compare, what_it_shows
from placet.client.vault_client import VaultClient
from placet.core.dsse import Signed, vault_id
from placet.core.encoding import unb64
from placet.errors import InternalError, MalformedError, UnavailableError, VerificationError

DEADLINE = 5.0
"""Seconds for vaults that were met a moment ago."""
_SILENT = (UnavailableError, InternalError)


async def look_back(vaults: Constellation, home: Home) -> None:
    """Compare what the vaults that were met say of their logs with what they said before.

    A contradiction is kept as a file and told; it stops nothing by itself, since no vault
    alone is believed anyway.
    """

    async def one(vault: VaultClient) -> None:
        status = await vault.standing(os.urandom(32))
        now = Head.of(status.status, vault.id)
        path = _kept(home, vault.id, now.line)
        before = _read(path, vault.id)
        if before is not None:
            proof = await compare(before, now, vault.consistency)
            if proof is not None:
                _tell(vault, proof)
                return
        write_json(path, status.status)

    met = [v.id for v in vaults.vaults if v.met]
    outcomes = await vaults.fan_out(one, only=met, deadline=DEADLINE)
    for vault, error in outcomes.errors.items():
        if not isinstance(error, _SILENT):
            warn(f"vault {short(vault)} does not show that its log only grew: {error.detail}")


def _read(path: Path, vault: str) -> Head | None:
    if not path.exists():
        return None
    try:
        return Head.of(read_json(path, Signed, "remembered status"), vault)
    except (MalformedError, VerificationError):
        return None  # Of an earlier release, or damaged: remembered anew.


def remembered(status: Signed) -> Signed | None:
    """Return what the vault that signed a status was last seen to sign before, if anything."""
    vault = vault_id(unb64(status.vault_key))
    before = _read(_kept(Home.find(), vault, Head.of(status, vault).line), vault)
    return None if before is None else before.signed


def keep_proof(proof: Proof) -> Path:
    """Keep what proves that a vault's log did not just grow; return the file."""
    home = Home.find()
    number = proof.vault.removeprefix("sha256:")[:12]
    path = home.data / "proofs" / f"fork-proof-{number}.json"
    write_json(path, proof)
    return path


def _tell(vault: VaultClient, proof: Proof) -> None:
    path = keep_proof(proof)
    warn(
        f"vault {short(vault.id)} ({vault.endpoint}) {what_it_shows(proof)}: it signed two words "
        f"about its log that contradict each other. The proof is in {path}; show it to its "
        "operator, and replace the vault. See docs/continuity.md"
    )


def _kept(home: Home, vault: str, line: str) -> Path:
    name = vault.removeprefix("sha256:") + (f"-{line}" if line else "")
    return home.data / "vaults" / f"{name}.json"
