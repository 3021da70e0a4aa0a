"""INSECURE: measure a bundle's files, as hardware would measure a loaded image.

Only paths, the owner's execute bit, sizes and contents count. Times, owners, other mode
bits and where the folder lies do not, so the same bundle measures alike everywhere. What
could be read without being measured (links, devices, compiled modules) is refused. The
host's interpreter is **not** measured.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from placet.core.config import Config, VaultConfig, config_digest
from placet.core.encoding import Hex32, Int, Record, digest, encode
from placet.core.profile import Measurement, rtmr3_of_image
from placet.errors import MalformedError, NotFoundError, TooLargeError
from placet_dev.tee.quotes import sgx_measurement, tdx_measurement

MAX_FILES = 20_000
MAX_BYTES = 2 * 1024**3
"""Files and bytes of one tree."""

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Entry(Record):
    """One file of a tree, as it is measured."""

    path: str
    """Relative, with ``/``."""
    executable: bool
    size: Int
    sha256: Hex32


def entries(tree: Path) -> tuple[Entry, ...]:
    """Return all files below ``tree``, sorted by path.

    Raises:
        NotFoundError: ``tree`` is no folder.
        MalformedError: It holds a link, a special file, a compiled module or a name that
            is no printable Unicode.
        TooLargeError: More files or bytes than the limits.
    """
    found: list[Entry] = []
    total = 0
    for path in paths(tree):
        fd = os.open(tree / path, READ)
        with open(fd, "rb") as f:  # noqa: PTH123 - a descriptor, opened without following links
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise MalformedError(f"{path} is no regular file")
            sha256 = hashlib.file_digest(f, "sha256").hexdigest()
            size = f.tell()
        total += size
        if len(found) >= MAX_FILES or total > MAX_BYTES:
            raise TooLargeError(f"{tree.name}: over {MAX_FILES} files or {MAX_BYTES} bytes")
        executable = bool(mode & stat.S_IXUSR)
        found.append(Entry(path=path, executable=executable, size=size, sha256=sha256))
    return tuple(sorted(found, key=lambda e: e.path))


def paths(tree: Path, prefix: str = "") -> Iterator[str]:
    """Yield the relative path of every file below ``tree``, refusing what `entries` refuses."""
    try:
        listing = sorted(os.scandir(tree / prefix), key=lambda e: e.name)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise NotFoundError(f"there is no folder {tree}", "Name a bundle's folder.") from e
    for item in listing:
        path = prefix + item.name
        if not path.isprintable() or "\\" in path:
            raise MalformedError(f"{tree.name}: the name {path!r} cannot be measured")
        if item.name == "__pycache__" or item.name.endswith(".pyc"):
            raise MalformedError(
                f"{tree.name}/{path} is a compiled module, which could hide its source",
                "Remove it: the launcher compiles what it measured.",
            )
        if item.is_dir(follow_symlinks=False):
            yield from paths(tree, path + "/")
        elif item.is_file(follow_symlinks=False):
            yield path
        else:
            raise MalformedError(f"{tree.name}/{path} is a link or a special file")


def copy_tree(source: Path, target: Path) -> None:
    """Copy the files of ``source`` to the new folder ``target``; links are never followed."""
    target.mkdir()
    for path in paths(source):
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy_file(source / path, copy)


def copy_file(source: Path, target: Path) -> None:
    """Copy one regular file with its execute bit and nothing else."""
    fd = os.open(source, READ)
    with open(fd, "rb") as f, target.open("xb") as copy:  # noqa: PTH123 - as above
        shutil.copyfileobj(f, copy, 1 << 20)
        os.fchmod(copy.fileno(), 0o755 if os.fstat(fd).st_mode & stat.S_IXUSR else 0o644)


def image_digest(files: tuple[Entry, ...]) -> str:
    """Return ``sha256:`` and the hex over the canonical list: the image's name."""
    return "sha256:" + hashlib.sha256(encode(files)).hexdigest()


def runtime_digest(files: tuple[Entry, ...]) -> str:
    """Return ``sha384:`` and the hex over the canonical list: what MRTD holds."""
    return "sha384:" + hashlib.sha384(encode(files)).hexdigest()


def measure(*, runtime: str, image: str, config: Config) -> Measurement:
    """Return what quotes of this code say: SGX for a vault, TDX for a workload.

    Args:
        runtime: `runtime_digest` of the agent and the packages.
        image: `image_digest` of the app's own files.
        config: What it was told; the kind of TEE follows from its role.
    """
    told = config_digest(config)
    if isinstance(config, VaultConfig):
        parts = {"config": told, "image": image, "runtime": runtime}
        return sgx_measurement(digest("placet-dev-mrenclave/1", encode(parts)).partition(":")[2])
    return tdx_measurement(
        runtime.partition(":")[2],
        rtmr3=rtmr3_of_image(image),
        mr_config_id=told.partition(":")[2],
    )
