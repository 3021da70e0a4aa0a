"""The notes app on a constellation that ``placet dev up`` left running."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from placet.core.encoding import encode
from placet.core.profile import code_id
from placet_dev import local
from placet_dev.apps import ANYWHERE, Refusal, Serving, settled
from placet_dev.constellation import SECURITY_VERSION, LocalConstellation
from placet_dev.notes.builds import APP, notes_config, write_notes
from placet_dev.tee.bundle import profile_of, read_bundle
from placet_dev.vaults import UP_TO_DATE


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle among the platform's, and the files that `placet key new` takes."""

    code: str
    profile: Path
    stager: Path


def build(state: Path, version: str, owner: str) -> Built:
    """Build a version of notes that opens keys of one owner, and write its profile.

    Args:
        state: Folder of the constellation; it must be running.
        version: ``1`` or ``2``.
        owner: Fingerprint of the owner.

    Raises:
        UnavailableError: The constellation does not run.
    """
    constellation, platform = LocalConstellation.find(state), local.platform(state)
    root = constellation.launcher.trust().root
    folder = platform.bundles / f"{APP}-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    write_notes(folder, version, notes_config(owner, (root,)), constellation.cache)
    profile = profile_of(
        read_bundle(folder),
        anchor=root.anchor,
        security_version=SECURITY_VERSION,
        tcb=UP_TO_DATE,
    )
    files = Built(code_id(profile), state / f"{APP}-{version}.json", state / "stager.json")
    files.profile.write_bytes(encode(profile))
    files.stager.write_bytes(encode(platform.stager()))
    return files


def stage(state: Path, version: str, key: str) -> int:
    """Have the platform put a version forward; return at how many vaults it is pending."""
    wanted = {
        "bundle": f"{APP}-{version}",
        "key": key,
        "version": version,
        "source": f"placet_dev.notes, version {version}",
        "security_version": SECURITY_VERSION,
    }
    answers = local.platform(state).ask("POST", "/v1/stage", wanted)["vaults"]
    return sum(a["status"] == 200 for a in answers)  # noqa: PLR2004 - HTTP


def start(state: Path, version: str, key: str) -> Serving | Refusal:
    """Start a version on the key's volume, once whatever ran there was stopped."""
    platform = local.platform(state)
    for workload in platform.ask("GET", "/v1/workloads")["workloads"]:
        if workload["exit"] is None:
            platform.stop(workload["id"])
    started = platform.start(f"{APP}-{version}", key, ANYWHERE, key.removeprefix("sha256:")[:16])
    return settled(started, lambda: platform.exit_of(started), lambda: platform.log_of(started))
