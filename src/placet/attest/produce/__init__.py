"""Where evidence comes from. Verifiers never import this.

`Producer` is what a program needs; `open_producer` finds the one of this machine.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from placet.attest.produce.producer import Description, Producer
from placet.attest.produce.socket import VARIABLE, SocketProducer
from placet.errors import UnavailableError

__all__ = ["Description", "Producer", "open_producer"]


def open_producer(environ: MutableMapping[str, str] = os.environ) -> Producer:
    """Return the producer of the TEE that this process runs in.

    Which one is found decides nothing: what it says counts only once it is quoted.

    Raises:
        UnavailableError: This process runs in no TEE that is known here.
    """
    if VARIABLE in environ:
        return SocketProducer.from_environment(environ)
    raise UnavailableError(
        f"this process runs in no TEE: {VARIABLE} is not set",
        "Start it by the launcher of a TEE, for development by placet-dev's software TEE.",
    )
