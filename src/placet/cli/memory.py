"""What this tool remembers of vaults it met, and what it says when one contradicts itself."""

from __future__ import annotations

import os
from pathlib import Path

from placet.cli.files import read_json, write_json
from placet.cli.output import short, warn
from placet.cli.settings import Home
from placet.client.constellation import Constellation
from placet.client.heads import Head, Proof, RollbackProof, compare
from placet.client.vault_client import VaultClient
from placet.core.dsse import Signed
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
                _tell(home, vault, proof)
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


def _tell(home: Home, vault: VaultClient, proof: Proof) -> None:
    number = vault.id.removeprefix("sha256:")[:12]
    path = home.data / "proofs" / f"fork-proof-{number}.json"
    write_json(path, proof)
    what = "was put back to an older disk" if isinstance(proof, RollbackProof) else "forked"
    warn(
        f"vault {short(vault.id)} ({vault.endpoint}) {what}: it signed two words about its log "
        f"that contradict each other. The proof is in {path}; show it to its operator, and replace "
        "the vault. See docs/continuity.md"
    )


def _kept(home: Home, vault: str, line: str) -> Path:
    name = vault.removeprefix("sha256:") + (f"-{line}" if line else "")
    return home.data / "vaults" / f"{name}.json"
