"""Fuzz one target with atheris: ``python fuzz/run.py TARGET [--seconds N] [--corpus DIR]``.

New inputs go to ``build/fuzz/TARGET/corpus``, never into the saved corpus; an input that is
a finding to ``build/fuzz/TARGET/``, and the command that repeats it is printed. With
``--repeat FILE`` one input is run, without atheris. With ``--real`` evidence that lies beside
this repository is read too; what comes of it is kept apart and is never merged into it.

Bounds: 64 KiB of input, 5 seconds for any of them, 1 GiB of memory for the process.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VECTORS = ROOT.parent / "shared" / "vectors"
REAL = {"fields": ("sgx", "tdx", "snp", "nitro"), "nitro": ("nitro",)}
"""Targets that take evidence as it lies in files there."""
MAX_LENGTH, MAX_SECONDS, MAX_MEGABYTES = 64 * 1024, 5, 1024


def prepared(name: str, arguments: argparse.Namespace) -> list[str]:
    """Return what libFuzzer is told, having made the folders that it writes to."""
    found = ROOT / "build" / "fuzz" / name
    own = found / ("real" if arguments.real else "corpus")
    own.mkdir(parents=True, exist_ok=True)
    folders = (own, HERE / "corpus" / name, *arguments.corpus)
    if any(option.startswith("-merge") for option in arguments.libfuzzer):
        folders = ()  # those that are merged stand behind it
    return [
        f"{sys.executable} {sys.argv[0]} {name} --",  # what starts it anew, for a merge
        f"-max_total_time={arguments.seconds}",
        f"-max_len={MAX_LENGTH}",
        f"-timeout={MAX_SECONDS}",
        f"-rss_limit_mb={MAX_MEGABYTES}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
        "-reload=0",
        *arguments.libfuzzer,
        *(str(d) for d in folders if d.is_dir()),
    ]


def main() -> None:
    """Fuzz, or repeat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, action="append", default=[], help="read only")
    parser.add_argument("--real", action="store_true", help="start from ../shared/vectors too")
    parser.add_argument("--repeat", type=Path, help="run this one input")
    parser.add_argument("libfuzzer", nargs="*", help="further options, after --")
    arguments = parser.parse_args()
    sys.path[:0] = [str(HERE), str(ROOT / "tests" / "support")]
    if arguments.repeat is not None:
        import_module("targets").TARGETS[arguments.target](arguments.repeat.read_bytes())
        return
    if arguments.real:
        arguments.corpus += [VECTORS / family for family in REAL.get(arguments.target, ())]
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["placet"]):
        target = import_module("targets").TARGETS[arguments.target]
    atheris.Setup(prepared(arguments.target, arguments), target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
