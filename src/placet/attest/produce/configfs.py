"""Evidence from Linux's report interface (configfs-tsm): TDX and SEV-SNP guests.

Whoever reads a report makes an entry, writes 64 bytes and reads what the firmware signed.
Every write counts ``generation`` up. Reports of an entry that somebody else wrote to are
thrown away, and another entry is made.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from placet.attest.produce.device import Machine, reported
from placet.attest.produce.hardware import HardwareProducer, Quoted, field
from placet.attest.produce.producer import Description
from placet.attest.produce.rtmr import LOG, confirmed, read_log
from placet.attest.produce.sev_guest import derived_key
from placet.core.limits import MAX_EVIDENCE
from placet.core.profile import host_data_of
from placet.errors import BindingError, MalformedError, UnavailableError

ROOT = Path("/sys/kernel/config/tsm/report")
TDX, SNP = "tdx_guest", "sev_guest"
ATTEMPTS = 4
MAX_ATTRIBUTE = 4096
"""Bytes of a text attribute; the kernel's page."""

SNP_REPORT = 1184
SNP_REPORT_DATA, SNP_HOST_DATA = 0x50, 0xC0
TDX_BODY = {4: 48, 5: 54}
"""Where the body of a quote begins, by its version."""
TDX_MR_CONFIG_ID, TDX_RTMR3, TDX_REPORT_DATA = 184, 472, 520
"""Places in the body."""


class ConfigfsProducer(HardwareProducer):
    """The `Producer` of a process in a TDX or SEV-SNP guest. Makes one quote when it starts.

    Args:
        about: What this process is; at start and at each quote the registers must agree.
        machine: Its kernel.
        root: The folder of the report interface.
        vmpl: SEV-SNP: the privilege level that reports and keys name; the kernel's default
            for reports, and 0 for keys, when left out.
        log: TDX: the event log of RTMR3. Where there is none, the image alone was measured.
        collateral: A file to staple to each quote.

    Raises:
        BindingError: The hardware measured another config or another image.
        UnavailableError: No report was made.
    """

    def __init__(
        self,
        about: Description,
        *,
        machine: Machine | None = None,
        root: Path = ROOT,
        vmpl: int | None = None,
        log: Path = LOG,
        collateral: Path | None = None,
    ) -> None:
        super().__init__(about, machine=machine or Machine(), collateral=collateral)
        self._root = root
        self._vmpl = vmpl
        self._log = log
        self._provider = ""
        self.self_test()

    def _quoted(self, data: bytes) -> Quoted:
        for _ in range(ATTEMPTS):
            with reported("no report was made"):
                got = self._report(data)
            if got is None:
                continue
            self._provider, raw, table = got
            if self._provider == TDX:
                return self._tdx(raw)
            return self._snp(raw, table)
        raise UnavailableError(
            f"somebody else wrote to {ATTEMPTS} report entries of this process",
            "Find out which process does that, and why it may.",
        )

    def _report(self, data: bytes) -> tuple[str, bytes, bytes] | None:
        """Return provider, report and certificate table, or ``None`` if somebody interfered."""
        entry = self._root / f"placet-{secrets.token_hex(8)}"
        machine = self._machine
        machine.files.mkdir(entry)
        try:
            provider = self._text(entry / "provider")
            if provider not in (TDX, SNP):
                raise UnavailableError(f"reports of {provider!r} are not known here")
            expected = self._generation(entry) + 1
            if provider == SNP and self._vmpl is not None:
                machine.write(entry / "privlevel", str(self._vmpl).encode())
                expected += 1
            machine.write(entry / "inblob", data)
            raw = machine.read(entry / "outblob", MAX_EVIDENCE)
            table = machine.read(entry / "auxblob", MAX_EVIDENCE) if provider == SNP else b""
            # The kernel loses the error of a refused ``inblob``; the count shows that as well.
            if self._generation(entry) != expected:
                return None
        finally:
            with suppress(OSError):  # what stays behind is 64 public bytes
                machine.files.rmdir(entry)
        return provider, raw, table

    def _text(self, path: Path) -> str:
        text = self._machine.read(path, MAX_ATTRIBUTE).decode("ascii", "replace")
        return text.removesuffix("\n")

    def _generation(self, entry: Path) -> int:
        text = self._text(entry / "generation")
        if not text.isdecimal():
            raise MalformedError(f"a report's generation is {text[:40]!r}, no number")
        return int(text)

    def _tdx(self, raw: bytes) -> Quoted:
        version = int.from_bytes(field(raw, 0, 2), "little")
        if version not in TDX_BODY:
            raise MalformedError(f"the TEE gave a TDX quote of version {version}")
        body = TDX_BODY[version]
        config = field(raw, body + TDX_MR_CONFIG_ID, 48).hex()
        if self._about.config != "sha384:" + config:
            raise BindingError(
                f"this machine was launched for config {config}, not {self._about.config}",
                "Launch it with the config's digest as MRCONFIGID.",
                check="config",
            )
        register = field(raw, body + TDX_RTMR3, 48).hex()
        image = self._about.image
        events = confirmed(read_log(self._log) or (image,), register)
        if events[:1] != (image,):
            raise BindingError(
                f"RTMR3 was extended by {events}, not by image {image} first",
                "Measure the image before anything else (docs/producers.md).",
                check="image",
            )
        return Quoted(
            family="tdx",
            raw=raw,
            report_data=field(raw, body + TDX_REPORT_DATA, 64),
            events=events if len(events) > 1 else (),
        )

    def _snp(self, raw: bytes, table: bytes) -> Quoted:
        if len(raw) != SNP_REPORT:
            raise MalformedError(f"the TEE's report is {len(raw)} bytes, not {SNP_REPORT}")
        measured = field(raw, SNP_HOST_DATA, 32).hex()
        expected = host_data_of(self._about.config, self._about.image)
        if measured != expected:
            raise BindingError(
                f"this machine was launched with HOST_DATA {measured}; this config and image "
                f"have {expected}",
                "Launch it with that HOST_DATA.",
                check="host-data",
            )
        return Quoted(family="snp", raw=raw + table, report_data=field(raw, SNP_REPORT_DATA, 64))

    def _root_key(self) -> bytes:
        if self._provider != SNP:
            raise UnavailableError(
                "TDX binds no key to a measurement",
                "Run vaults in SGX or SEV-SNP.",
            )
        return derived_key(self._machine, vmpl=self._vmpl or 0)
