"""Evidence of an SGX enclave under Gramine (``/dev/attestation``).

The folder's files are process-wide and not thread-safe: what is written to
``user_report_data`` is in whichever quote is opened next.
"""

from __future__ import annotations

from pathlib import Path

from placet.attest.produce.device import Machine, reported
from placet.attest.produce.hardware import HardwareProducer, Quoted, field
from placet.attest.produce.producer import Description
from placet.core.limits import MAX_EVIDENCE
from placet.errors import MalformedError, UnavailableError

FOLDER = Path("/dev/attestation")
KEY = "keys/_sgx_mrenclave"
KEY_SIZE = 16
MAX_TYPE = 32
"""Bytes of the name of an attestation scheme."""
REPORT_DATA = 48 + 320
"""Header, and the place in the enclave's report."""


class GramineProducer(HardwareProducer):
    """The `Producer` of an enclave. Makes one quote when it starts.

    No register is compared with what the process claims: config, image and app are
    covered by MRENCLAVE, if the manifest measures the config file.

    Args:
        about: What this process is.
        machine: Its kernel.
        folder: Gramine's folder.
        collateral: A file to staple to each quote.

    Raises:
        UnavailableError: No quote was made, or not by DCAP.
    """

    def __init__(
        self,
        about: Description,
        *,
        machine: Machine | None = None,
        folder: Path = FOLDER,
        collateral: Path | None = None,
    ) -> None:
        super().__init__(about, machine=machine or Machine(), collateral=collateral)
        self._folder = folder
        with reported("attestation type could not be read"):
            kind = self._machine.read(folder / "attestation_type", MAX_TYPE).strip()
        if kind != b"dcap":
            raise UnavailableError(
                f"this enclave attests by {kind.decode('ascii', 'replace')!r}, not by 'dcap'",
                'Set sgx.remote_attestation = "dcap" in the manifest.',
            )
        self.self_test()

    def _quoted(self, data: bytes) -> Quoted:
        with reported("no quote was made"):
            self._machine.write(self._folder / "user_report_data", data)
            raw = self._machine.read(self._folder / "quote", MAX_EVIDENCE)
        return Quoted(family="sgx", raw=raw, report_data=field(raw, REPORT_DATA, 64))

    def _root_key(self) -> bytes:
        with reported("enclave got no sealing key"):
            key = self._machine.read(self._folder / KEY, KEY_SIZE)
        if len(key) != KEY_SIZE:
            raise MalformedError(f"the enclave's sealing key has {len(key)} bytes, not {KEY_SIZE}")
        return key
