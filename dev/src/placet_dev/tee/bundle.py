"""A bundle: one folder with all that a software TEE starts and measures.

    bundle.toml     kind, app, image digest, argv, [env], [files], [config]
    runtime/        boot.py, the agent or the vault, and the packages they need
    image/          the app's own files; may be empty

All of it is measured. The host's interpreter is not in it, and not measured; `[files]`
names the interpreter's ABI so that a bundle does not start on another one. ``argv`` is a
template: an element ``{name}`` is replaced by the unmeasured parameter of that name, as
exactly one argument and through no shell. What is unmeasured decides nothing (I17).
"""

from __future__ import annotations

import re
import sysconfig
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import tomli_w

from placet.core.config import Arguments, Config, Environment, VaultConfig, config_digest
from placet.core.encoding import Record, Sha256, Sha384, Text
from placet.core.profile import Anchor, Measurement, Profile, TcbRules
from placet.errors import ConflictError, MalformedError, NotFoundError, TooLargeError
from placet_dev.tee import measure

MANIFEST = "bundle.toml"
TREES = ("runtime", "image")
MAX_MANIFEST = 256 * 1024
MAX_VALUE = 4096
"""Characters of one parameter."""

PYTHON = "{python}"
"""Filled in by the launcher: the host's interpreter. No parameter may have this name."""
RUN = (PYTHON, "-I", "-S", "-B", "runtime/boot.py")
"""How a measured argv starts Python code of the bundle: ``(*RUN, "notes.main:main")``."""

_ENTRY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Files(Record):
    """What the bundle's trees hold, and which interpreter they need besides."""

    runtime: Sha384
    python: Text


class Manifest(Record):
    """``bundle.toml``. Its image and runtime digests must be those of the files."""

    schema: Literal[1]
    kind: Literal["workload", "vault"]
    app: Text
    image: Sha256
    argv: Arguments
    env: Environment
    files: Files
    config: dict[str, object]
    """The members of a `Config` that stand nowhere above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSpec:
    """What `write_bundle` puts together.

    Args:
        config: Role, app, argv, environment and all else that is measured.
        runtime: The folder of `placet_dev.tee.runtime.build_runtime`, or one like it.
        image: The app's own files, if any.
    """

    config: Config
    runtime: Path
    image: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose files were hashed and found to be what its manifest says."""

    folder: Path
    config: Config
    image: str
    runtime: str

    @property
    def kind(self) -> Literal["workload", "vault"]:
        """Return which role it has: vaults get SGX quotes, workloads TDX quotes."""
        return "vault" if isinstance(self.config, VaultConfig) else "workload"

    @property
    def config_digest(self) -> str:
        """Return the digest of the measured config."""
        return config_digest(self.config)

    @property
    def measurement(self) -> Measurement:
        """Return what its quotes will say."""
        return measure.measure(runtime=self.runtime, image=self.image, config=self.config)


def write_bundle(folder: Path, spec: BundleSpec) -> Bundle:
    """Write a bundle into the new folder ``folder`` and return it, measured.

    Raises:
        ConflictError: The folder exists.
        MalformedError: A file, the argv or the environment cannot be measured or started.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as e:
        raise ConflictError(f"{folder} exists", "Name a folder that does not.") from e
    measure.copy_tree(spec.runtime, folder / "runtime")
    if spec.image is None:
        (folder / "image").mkdir()
    else:
        measure.copy_tree(spec.image, folder / "image")
    return _state(folder, spec.config)


def restate(folder: Path) -> Bundle:
    """Write the digests of changed files into ``bundle.toml``: a bundle of other code.

    Whoever may write a bundle may do this; what they get is another measurement.
    """
    return _state(folder, config_of(_manifest(folder)))


def read_bundle(folder: Path) -> Bundle:
    """Hash a bundle's files and return it.

    Raises:
        NotFoundError: There is no bundle.
        MalformedError: ``bundle.toml`` is garbled or is not about these files, or something
            in the folder cannot be measured.
    """
    manifest = _manifest(folder)
    config = config_of(manifest)
    _check_names(folder)
    bundle = _hashed(folder, config)
    for name, said, is_now in (
        ("image", manifest.image, bundle.image),
        ("files.runtime", manifest.files.runtime, bundle.runtime),
    ):
        if said != is_now:
            raise MalformedError(
                f"{MANIFEST} says {name} = {said}, the files are {is_now}",
                "Build the bundle again: its files were changed after it was written.",
            )
    if manifest.files.python != abi():
        raise MalformedError(
            f"bundle needs the interpreter {manifest.files.python}, this host has {abi()}",
            "Build the bundle with this host's interpreter.",
        )
    return bundle


def profile_of(bundle: Bundle, *, anchor: Anchor, security_version: int, tcb: TcbRules) -> Profile:
    """Return the profile that an owner approves to let this bundle in."""
    return Profile(
        app=bundle.config.app,
        image=bundle.image,
        config=bundle.config_digest,
        security_version=security_version,
        anchor=anchor,
        measurement=bundle.measurement,
        tcb=tcb,
    )


def command_line(config: Config, params: Mapping[str, str], python: str) -> list[str]:
    """Return the arguments after ``runtime/boot.py``, placeholders filled.

    Args:
        config: Whose ``argv`` is the template.
        params: One value for every placeholder. A value cannot be an option.
        python: Path of the interpreter.

    Raises:
        MalformedError: A parameter is missing, unknown, empty, too long, holds a zero byte
            or starts with ``-``.
    """
    wanted = {m[1] for a in config.argv if (m := _PLACEHOLDER.fullmatch(a))} - {"python"}
    if wanted != set(params):
        raise MalformedError(
            f"argv has the placeholders {sorted(wanted)}, the parameters are {sorted(params)}",
            "Give a value for each placeholder and for nothing else.",
        )
    for name, value in params.items():
        if not 0 < len(value) <= MAX_VALUE or value.startswith("-") or "\0" in value:
            raise MalformedError(
                f"parameter {name} is empty, too long, holds a zero byte or starts with '-'",
                "Parameters are values, never options: those are measured.",
            )
    filled = {f"{{{k}}}": v for k, v in params.items()} | {PYTHON: python}
    return [filled.get(a, a) for a in config.argv]


def config_of(manifest: Manifest) -> Config:
    """Return the measured config that a manifest spells out, checked.

    Raises:
        MalformedError: A member is missing, unknown, given twice or of the wrong type; argv
            names no ``module:function``, or has a placeholder inside an element; the
            environment names a variable that is the launcher's.
    """
    above = {
        "role": manifest.kind,
        "app": manifest.app,
        "argv": manifest.argv,
        "environment": manifest.env,
    }
    told = dict(manifest.config)
    if twice := sorted(set(above) & set(told)):
        raise MalformedError(f"{MANIFEST}: [config] must not hold {', '.join(twice)}")
    if isinstance(opens := told.get("opens"), dict):
        # TOML has no null; the config says one for what does not apply.
        told["opens"] = {"label": None, "label_prefix": None} | opens
    config: Config = _convert(above | told, Config)
    if not config.argv or not _ENTRY.fullmatch(config.argv[0]):
        raise MalformedError(f"{MANIFEST}: argv must begin with 'module:function'")
    for argument in config.argv:
        if "\0" in argument or (
            _PLACEHOLDER.search(argument) and not _PLACEHOLDER.fullmatch(argument)
        ):
            raise MalformedError(
                f"{MANIFEST}: argv element {argument!r} has a placeholder inside, or a zero byte",
                "Let a placeholder be an element of its own.",
            )
    for name, value in config.environment.items():
        if not _VARIABLE.fullmatch(name) or name == "PLACET_TEE_FD" or "\0" in value:
            raise MalformedError(f"{MANIFEST}: [env] cannot set {name!r}")
    return config


# Read once, on import: two threads that are the first to ask sysconfig may be told None.
_ABI = str(sysconfig.get_config_var("SOABI"))


def abi() -> str:
    """Return the ABI tag of this interpreter, which compiled packages need."""
    return _ABI


def _manifest(folder: Path) -> Manifest:
    try:
        with (folder / MANIFEST).open("rb") as f:
            raw = f.read(MAX_MANIFEST + 1)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise NotFoundError(
            f"{folder} is no bundle: it has no {MANIFEST}", "Name a bundle's folder."
        ) from e
    if len(raw) > MAX_MANIFEST:
        raise TooLargeError(f"{MANIFEST} is over {MAX_MANIFEST} bytes")
    try:
        manifest: Manifest = _convert(tomllib.loads(raw.decode()), Manifest)
    except ValueError as e:
        raise MalformedError(f"{MANIFEST} is not TOML: {e}") from e
    return manifest


def _convert(plain: object, shape: Any) -> Any:  # noqa: ANN401 - msgspec's own signature
    """Return what ``plain`` says as a ``shape``, which may be a union."""
    try:
        return msgspec.convert(plain, shape)
    except msgspec.ValidationError as e:
        raise MalformedError(
            f"{MANIFEST}: {e}", "Let `write_bundle` write it, or compare with spec/02."
        ) from e


def _check_names(folder: Path) -> None:
    names = {p.name for p in folder.iterdir()}
    if extra := sorted(names - {MANIFEST, *TREES}):
        raise MalformedError(f"bundle holds {', '.join(extra)}, which nothing would measure")
    if not (folder / "runtime" / "boot.py").is_file():
        raise MalformedError("bundle has no runtime/boot.py: it could not start")


def _hashed(folder: Path, config: Config) -> Bundle:
    runtime, image = (measure.entries(folder / name) for name in TREES)
    return Bundle(
        folder=folder,
        config=config,
        image=measure.image_digest(image),
        runtime=measure.runtime_digest(runtime),
    )


def _state(folder: Path, config: Config) -> Bundle:
    bundle = _hashed(folder, config)
    told = _without_null(msgspec.to_builtins(config))
    manifest = {
        "schema": told.pop("schema"),
        "kind": told.pop("role"),
        "app": told.pop("app"),
        "image": bundle.image,
        "argv": told.pop("argv"),
        "env": told.pop("environment"),
        "files": {"runtime": bundle.runtime, "python": abi()},
        "config": told,
    }
    (folder / MANIFEST).write_text(tomli_w.dumps(manifest))
    return read_bundle(folder)


def _without_null(plain: Any) -> Any:  # noqa: ANN401 - plain JSON values
    if isinstance(plain, dict):
        return {k: _without_null(v) for k, v in plain.items() if v is not None}
    if isinstance(plain, list | tuple):
        return [_without_null(v) for v in plain]
    return plain
