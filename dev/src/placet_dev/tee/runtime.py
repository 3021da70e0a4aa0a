"""Put the packages that a TEE runs into one folder, from those installed here.

The result depends on what is installed and on nothing else, neither on where, nor
whether this package is installed for editing. The interpreter is not copied.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import placet
from placet.errors import MalformedError, NotFoundError
from placet_dev.tee import boot
from placet_dev.tee.measure import Entry, runtime_digest

OWNERS = ("fido2", "rich")
"""What `placet` needs for the owner's command line only: nothing that is measured runs it."""
UNWANTED_FOLDERS = {"__pycache__", "test", "tests"}
UNWANTED = (".pyc", ".pyi", ".pth", "ruff.toml")
"""Files that no program reads when it runs."""


def build_runtime(cache: Path, extra: Iterable[str] = ()) -> Path:
    """Return a folder below ``cache`` with boot.py, `placet` and all they import.

    What lies there already is used again if it has the same digest by name; its content is
    hashed when a bundle is made of it.

    Args:
        cache: Where runtimes are kept, one per content.
        extra: Distributions that an app needs besides, with their own dependencies.

    Raises:
        NotFoundError: A distribution is not installed here.
        MalformedError: One is installed for editing, so its files cannot be listed.
    """
    sources = dict(_placet())
    for name in distributions(extra):
        sources.update(_files(metadata.distribution(name)))
    sources["boot.py"] = Path(boot.__file__)
    listed = tuple(_entry(path, sources[path]) for path in sorted(sources))
    target = cache / runtime_digest(listed).partition(":")[2]
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as folder:
            fresh = Path(folder) / "runtime"
            for path, source in sources.items():
                (fresh / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, fresh / path)
            try:
                fresh.rename(target)
            except OSError:
                # Somebody made the same one at the same time.
                if not target.exists():
                    raise
    return target


def distributions(extra: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of all distributions that ``placet`` and ``extra`` need to run.

    Extras of `placet` itself (``platform``) are not among them, nor is what only the
    owner's command line needs.
    """
    found: dict[str, None] = {}
    waiting = [*(name for name in _needs("placet") if name not in OWNERS), *extra]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name not in found:
            found[name] = None
            waiting += _needs(name)
    return tuple(sorted(found))


def _needs(name: str) -> list[str]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError as e:
        raise NotFoundError(
            f"the distribution {name} is not installed here", f"Install it: pip install {name}"
        ) from e
    needed = [Requirement(line) for line in lines]
    return [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]


def _placet() -> Iterator[tuple[str, Path]]:
    """Yield the files of the package that runs now, installed for editing or not."""
    package = Path(placet.__file__).parent
    for folder, _, names in os.walk(package):
        for name in names:
            path = Path(folder, name)
            if _wanted(inside := path.relative_to(package.parent)):
                yield inside.as_posix(), path


def _files(distribution: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    found = False
    for file in distribution.files or ():
        if _wanted(file):
            yield file.as_posix(), Path(str(distribution.locate_file(file)))
            found = found or file.suffix in {".py", ".so"}
    if not found:
        raise MalformedError(
            f"the distribution {distribution.name} lists no modules: it is installed for editing",
            "Install it as a wheel.",
        )


def _wanted(path: os.PathLike[str]) -> bool:
    parts = Path(path).parts
    if ".." in parts or UNWANTED_FOLDERS & set(parts) or parts[-1].endswith(UNWANTED):
        return False
    # Of the metadata only what `importlib.metadata.version` reads: the rest holds paths.
    return not parts[0].endswith(".dist-info") or parts[1:] == ("METADATA",)


def _entry(path: str, source: Path) -> Entry:
    with source.open("rb") as f:
        sha256 = hashlib.file_digest(f, "sha256").hexdigest()
        return Entry(path=path, executable=False, size=f.tell(), sha256=sha256)
