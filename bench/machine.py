"""What the figures were taken on: without it they say nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

LIBRARIES = (
    "placet", "cryptography", "pyOpenSSL", "dcap-qvl", "msgspec", "httptools", "uvicorn"
)  # fmt: skip


def machine(store: Path) -> list[str]:
    """Return lines that name the machine, the software and how busy it was.

    Args:
        store: Folder of the vaults' stores; its file system decides what a commit costs.
    """
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    load = ", ".join(f"{average:.2f}" for average in os.getloadavg())
    return [
        f"cpu        {_cpu()}, {os.cpu_count()} cores, {platform.machine()}",
        f"kernel     {platform.system()} {platform.release()}",
        f"python     {platform.python_implementation()} {platform.python_version()}, asyncio loop",
        f"openssl    {backend.openssl_version_text()}",
        f"sqlite     {sqlite3.sqlite_version}, synchronous=FULL, on {_file_system(store)}",
        f"libraries  {versions}",
        f"load       {load} (1, 5, 15 minutes, at the start)",
    ]


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown CPU"


def _file_system(folder: Path) -> str:
    """Return type and device of the mount that the folder lies on."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, at, kind, *_ = line.split()
        if folder.resolve().is_relative_to(at) and len(at) >= len(best[0]):
            best = (at, f"{kind} ({device})")
    return best[1]
