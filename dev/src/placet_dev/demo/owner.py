"""The owner of the demo: the real command line, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from placet.core.encoding import encode
from placet.core.profile import Profile
from placet.core.signer import KeySigner
from placet.core.statement import SignedStatement, UntrustedStatement, open_statement
from placet_dev.demo.steps import StepFailedError
from placet_dev.platform_process import PLACET

TIMEOUT = 120.0
FINDINGS, PARTLY = 1, 5
"""Exit codes of ``placet`` that are no failure."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Where a statement took effect, as ``placet promote`` and ``placet retire`` say it."""

    effective: bool
    needed: int
    confirmed: frozenset[str]
    missing: frozenset[str]
    """Vault ids."""
    words: str


@dataclass(frozen=True, slots=True)
class Owner:
    """Runs ``placet ... --json`` as the owner would.

    Args:
        home: ``$PLACET_HOME``: key file, keys, settings.
    """

    home: Path

    def init(self) -> str:
        """Make the owner's key; return the fingerprint that a workload's config names."""
        return str(self._placet("owner", "init")["fingerprint"])

    def new_key(self, *, label: str, vaults: Path, profile: Profile, stager: KeySigner) -> str:
        """Give birth to a key at all vaults; return the key id."""
        listed = self._write("stager", stager)
        born = self._placet(
            *("key", "new", label, "--vaults", str(vaults), "--stager", str(listed)),
            *("--profile", str(self._write("profile", profile)), "--yes"),
        )
        return str(born["key"])

    def pending(self, key: str) -> dict[str, int]:
        """Return what is staged for a key: code, and at how many vaults."""
        staged = self._placet("pending", key)["pending"]
        return {s["code"]: len(s["at"]) for s in staged}

    def review(self, key: str, code: str, own: Profile) -> list[str]:
        """Compare what is staged with the owner's own build; return what was found."""
        measured = str(self._write("own-build", own))
        arguments = ("review", key, code, "--profile", measured)
        return [f["finding"] for f in self._placet(*arguments, expect=(0, FINDINGS))["findings"]]

    def promote(self, key: str, code: str) -> Effect:
        """Approve what is staged; those before it are retired after the usual overlap."""
        return _effect(self._placet("promote", key, code, "--yes", expect=(0, PARTLY)))

    def retire(self, key: str, code: str) -> Effect:
        """End an approval."""
        reason = ("--reason", "replaced by version 2", "--yes")
        return _effect(self._placet("retire", key, code, *reason, expect=(0, PARTLY)))

    def sync(self, key: str) -> None:
        """Bring vaults up to date."""
        self._placet("key", "sync", key)

    def sign_promote(self, key: str, profile: Profile) -> UntrustedStatement:
        """Sign an approval for somebody else to carry: nothing is sent."""
        file = self.home / "carry.json"
        listed = str(self._write("carry-profile", profile))
        self._placet("promote", key, "--profile", listed, "--keep", "--out", str(file), "--yes")
        return open_statement(msgspec.json.decode(file.read_bytes(), type=SignedStatement))

    def take_back(self, sent: UntrustedStatement) -> None:
        """Think better of a signed statement: the tool says to remove its file."""
        (self.home / "outbox" / f"{sent.digest.removeprefix('sha256:')}.json").unlink()

    def _write(self, name: str, value: object) -> Path:
        file = self.home / f"{name}.json"
        file.write_bytes(encode(value))
        return file

    def _placet(self, *arguments: str, expect: Sequence[int] = (0,)) -> Any:  # noqa: ANN401 - JSON
        """Run a command and return the JSON that it printed.

        Raises:
            StepFailedError: It ended with another code than those expected, or without JSON.
        """
        done = subprocess.run(
            [*PLACET, *arguments, "--json"],
            env={**os.environ, "PLACET_HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        try:
            said = json.loads(done.stdout)
        except ValueError:
            said = None
        if said is None or done.returncode not in expect:
            text = f"{done.stdout}{done.stderr}".strip()[-800:]
            raise StepFailedError(
                f"`placet {' '.join(arguments[:2])}` ended with {done.returncode}: {text}"
            )
        return said


def _effect(said: Any) -> Effect:  # noqa: ANN401 - JSON
    return Effect(
        effective=said["effective"],
        needed=said["needed"],
        confirmed=frozenset(v["vault"] for v in said["confirmed"]),
        missing=frozenset(v["vault"] for v in said["missing"]),
        words=said["words"],
    )
