"""Where evidence comes from. Verifiers never import this.

`Producer` is what a program needs; `open_producer` finds the one of this machine.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from placet.attest.produce import configfs, gramine, nsm
from placet.attest.produce.configfs import ConfigfsProducer
from placet.attest.produce.device import Machine, reported
from placet.attest.produce.gramine import GramineProducer
from placet.attest.produce.hardware import describe
from placet.attest.produce.nsm import NsmProducer
from placet.attest.produce.producer import Description, Producer
from placet.attest.produce.socket import VARIABLE, SocketProducer
from placet.core.limits import MAX_BODY
from placet.errors import UnavailableError

__all__ = ["Description", "Producer", "open_producer"]

CONFIG, IMAGE = "PLACET_CONFIG", "PLACET_IMAGE"
"""On hardware: where the measured config lies, and the digest of the image. What they say
counts only where registers agree."""
COLLATERAL, VMPL = "PLACET_COLLATERAL", "PLACET_VMPL"
"""Optional: a file to staple to each quote; the SEV-SNP privilege level."""


def open_producer(
    environ: MutableMapping[str, str] = os.environ, machine: Machine | None = None
) -> Producer:
    """Return the producer of the TEE that this process runs in.

    Which one is found decides nothing: what it says counts only once it is quoted.

    Args:
        environ: The environment; nothing in it is measured.
        machine: The kernel to look at; this one's when left out.

    Raises:
        UnavailableError: This process runs in no TEE that is known here.
        BindingError: It runs in one that was launched for another config or image.
        MalformedError: Its config is not canonical.
    """
    if VARIABLE in environ:
        return SocketProducer.from_environment(environ)
    machine = machine or Machine()
    collateral = Path(environ[COLLATERAL]) if COLLATERAL in environ else None
    if machine.has(gramine.FOLDER):
        return GramineProducer(_about(environ, machine), machine=machine, collateral=collateral)
    if machine.has(configfs.ROOT):
        return ConfigfsProducer(
            _about(environ, machine),
            machine=machine,
            vmpl=_vmpl(environ.get(VMPL)),
            collateral=collateral,
        )
    if machine.has(nsm.DEVICE):
        return NsmProducer(_about(environ, machine), machine=machine)
    raise UnavailableError(
        f"this process runs in no TEE: {VARIABLE} is not set, and there is no device of one",
        "Start it in a TEE (docs/producers.md), or for development by placet-dev's software TEE.",
    )


def _about(environ: Mapping[str, str], machine: Machine) -> Description:
    for name in (CONFIG, IMAGE):
        if name not in environ:
            raise UnavailableError(
                f"{name} is not set, which a TEE in hardware needs", "See docs/producers.md."
            )
    with reported("measured config could not be read"):
        raw = machine.read(Path(environ[CONFIG]), MAX_BODY)
    # A restarted process is another start, so this is not the kernel's boot id.
    return describe(raw, image=environ[IMAGE], boot=secrets.token_hex(16))


def _vmpl(text: str | None) -> int | None:
    if text is None:
        return None
    if text not in ("0", "1", "2", "3"):
        raise UnavailableError(f"{VMPL} is {text!r}, not a privilege level from 0 to 3")
    return int(text)
