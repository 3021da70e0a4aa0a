"""What every source of evidence offers, whatever hardware is behind it (spec/02)."""

from __future__ import annotations

from typing import Protocol

from placet.core.attestation import Context, Evidence
from placet.core.config import Config
from placet.core.encoding import Record, Sha256, Sha384, Text


class Description(Record):
    """What a TEE says about the process that asks; quotes prove it, this does not."""

    app: Text
    image: Sha256
    config: Sha384
    """`config_digest` of ``measured_config``."""
    measured_config: Config
    boot: Text
    """Drawn by the TEE at each start."""


class Producer(Protocol):
    """Makes evidence about the process that runs it.

    No method takes 64 bytes: what is quoted is either a whole `Context` or an
    application's data under a label of its own (R1.6). All methods block, shortly, and
    may be called from any thread.

    Raises (every method):
        UnavailableError: The TEE did not answer.
        RoleDeniedError: It refuses this request to this process.
    """

    def describe(self) -> Description:
        """Return what was measured, and this start's boot id."""
        ...

    def quote(self, context: Context) -> Evidence:
        """Return evidence whose report data is `report_data` of ``context``."""
        ...

    def sealing_key(self) -> bytes:
        """Return 32 bytes that only this measurement gets on this machine."""
        ...

    def app_report(self, data: bytes) -> Evidence:
        """Return evidence whose report data is `app_report_data` of ``data``."""
        ...
