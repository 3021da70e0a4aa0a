"""Make images and bundles of notes: version 1, and version 2 that somebody may not want yet."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from placet.core.config import Opens, TrustRoot, WorkloadConfig
from placet.errors import NotFoundError
from placet_dev.tee.bundle import RUN, Bundle, BundleSpec, write_bundle
from placet_dev.tee.runtime import build_runtime

APP = "notes"
LABEL = "notes/data"
PACKAGES = ("starlette", "sqlcipher3")
EDITIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"1": ("app", "edition.py"), "2": ("edition2.py",)}
)
"""The one file in which versions differ, by version."""
ARGV = (
    *("placet.agent.main:main", "--key", "{key}", "--volume", "{volume}"),
    *("--charter", "{charter}", "--", *RUN, "notes.main:main", "--listen", "{listen}"),
)
"""Measured. The agent becomes the app's parent, in the same bundle."""


def write_image(folder: Path, version: str) -> Path:
    """Write the app's own files of one version into the new folder ``folder``.

    Raises:
        NotFoundError: There is no such version.
    """
    if version not in EDITIONS:
        raise NotFoundError(f"notes has no version {version}", f"There are: {', '.join(EDITIONS)}.")
    package = folder / APP
    source = resources.files(__package__ or "placet_dev.notes")
    package.mkdir(parents=True)
    for item in source.joinpath("app").iterdir():
        if item.name.endswith(".py"):
            (package / item.name).write_bytes(item.read_bytes())
    (package / "edition.py").write_bytes(source.joinpath(*EDITIONS[version]).read_bytes())
    return folder


def notes_config(owner: str, roots: tuple[TrustRoot, ...], label: str = LABEL) -> WorkloadConfig:
    """Return what is measured of every version alike.

    Args:
        owner: `owner_fingerprint` of the birth owner whose key it may open.
        roots: Who may vouch for the vaults.
        label: Of the key that it may open.
    """
    return WorkloadConfig(
        app=APP,
        argv=ARGV,
        environment={},
        mounts=(),
        trust_roots=roots,
        opens=Opens(owner=owner, label=label, label_prefix=None),
    )


def write_notes(folder: Path, version: str, config: WorkloadConfig, cache: Path) -> Bundle:
    """Write the bundle of one version into the new folder ``folder`` and return it, measured.

    Args:
        folder: New folder.
        version: ``1`` or ``2``.
        config: Of `notes_config`.
        cache: Where runtimes are kept.
    """
    image = cache / f"image-{folder.name}"
    shutil.rmtree(image, ignore_errors=True)
    try:
        runtime = build_runtime(cache, PACKAGES)
        write_image(image, version)
        return write_bundle(folder, BundleSpec(config=config, runtime=runtime, image=image))
    finally:
        shutil.rmtree(image, ignore_errors=True)
