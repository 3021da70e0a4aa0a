"""What evidence says about itself, read by offset: for people to look at.

Nothing here is verified and nothing decides by it; `placet.attest.verify` reads what it
needs again. Layouts: Intel DCAP quote library reference, appendix A; AMD 56860, table 23.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from placet.attest.verify.nitro import read_message
from placet.core.attestation import Family
from placet.errors import EvidenceError

SGX_VERSIONS, TDX_VERSIONS, SNP_VERSIONS = (3, 4, 5), (4, 5), range(1, 9)
SNP_REPORT = 1184
COSE = (b"\x84\x44", b"\xd2\x84", b"\xd1\x84", b"\x84\x40")
"""How a COSE_Sign1 message may begin, tagged or not."""
ENVELOPED = 5
"""From this version on a quote says the type of its body before it."""

SGX = {
    "cpusvn": (0, 16),
    "attributes": (48, 16),
    "mrenclave": (64, 32),
    "mrsigner": (128, 32),
}
TDX = {
    "tee_tcb_svn": (0, 16),
    "mrseam": (16, 48),
    "mrsignerseam": (64, 48),
    "seamattr": (112, 8),
    "tdattr": (120, 8),
    "xfam": (128, 8),
    "mrtd": (136, 48),
    "mrconfigid": (184, 48),
    "mrowner": (232, 48),
    "mrownerconfig": (280, 48),
    "rtmr0": (328, 48),
    "rtmr1": (376, 48),
    "rtmr2": (424, 48),
    "rtmr3": (472, 48),
}
SNP = {
    "measurement": (0x90, 48),
    "host_data": (0xC0, 32),
    "id_key_digest": (0xE0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "reported_tcb": (0x180, 8),
    "current_tcb": (0x38, 8),
    "committed_tcb": (0x1E0, 8),
    "launch_tcb": (0x1F0, 8),
    "chip_id": (0x1A0, 64),
    "family_id": (0x10, 16),
    "image_id": (0x20, 16),
}

Value = str | int | bool | dict[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What evidence claims. Nothing of it is verified."""

    family: Family | None
    version: int | None = None
    measurements: dict[str, Value] = field(default_factory=dict)
    report_data: str | None = None
    debug: bool | None = None
    made: int | None = None
    """Unix seconds, where the format says when it was made (Nitro)."""


def family_of(raw: bytes) -> Family | None:
    """Return which family bytes look like, if any."""
    if raw[:2] in COSE:
        return "nitro"
    if len(raw) < 8:  # noqa: PLR2004 - as much as is looked at
        return None
    version, key_type, tee = struct.unpack_from("<HHI", raw)
    report, _ = struct.unpack_from("<II", raw)
    if tee == 0x81:  # noqa: PLR2004 - Intel's number for TDX
        return "tdx"
    if len(raw) >= SNP_REPORT and report in SNP_VERSIONS and key_type == 0:
        return "snp"
    if tee == 0 and version in SGX_VERSIONS and key_type in (2, 3):
        return "sgx"
    return "snp" if len(raw) == SNP_REPORT else None


def read_fields(raw: bytes, family: Family) -> Fields:
    """Return what evidence claims; what cannot be read is left out."""
    try:
        return {"sgx": _sgx, "tdx": _tdx, "snp": _snp, "nitro": _nitro}[family](raw)
    except (struct.error, IndexError, EvidenceError):
        return Fields(family=family)


def _cut(raw: bytes, table: dict[str, tuple[int, int]], base: int) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, (at, size) in table.items():
        value = raw[base + at : base + at + size]
        if len(value) < size:
            raise IndexError(name)
        found[name] = value.hex()
    return found


def _intel(raw: bytes) -> tuple[int, int]:
    (version,) = struct.unpack_from("<H", raw)
    return version, 54 if version >= ENVELOPED else 48


def _sgx(raw: bytes) -> Fields:
    version, base = _intel(raw)
    product, svn = struct.unpack_from("<HH", raw, base + 256)
    return Fields(
        family="sgx",
        version=version,
        measurements={**_cut(raw, SGX, base), "isvprodid": product, "isvsvn": svn},
        report_data=str(_cut(raw, {"": (320, 64)}, base)[""]),
        debug=bool(raw[base + 48] & 2),
    )


def _tdx(raw: bytes) -> Fields:
    version, base = _intel(raw)
    return Fields(
        family="tdx",
        version=version,
        measurements=_cut(raw, TDX, base),
        report_data=str(_cut(raw, {"": (520, 64)}, base)[""]),
        debug=raw[base + 120] != 0,
    )


def _snp(raw: bytes) -> Fields:
    version, guest_svn, policy = struct.unpack_from("<IIQ", raw)
    vmpl, _, _, platform, flags = struct.unpack_from("<IIQQI", raw, 0x30)
    names = {0: "VCEK", 1: "VLEK", 7: "none"}
    return Fields(
        family="snp",
        version=version,
        measurements={
            **_cut(raw, SNP, 0),
            "vmpl": vmpl,
            "policy": f"{policy:016x}",
            "guest_svn": guest_svn,
            "platform_info": f"{platform:016x}",
            "signing_key": names.get(flags >> 2 & 7, "unknown"),
        },
        report_data=raw[0x50:0x90].hex(),
        debug=bool(policy >> 19 & 1),
    )


def _nitro(raw: bytes) -> Fields:
    document = read_message(raw).document
    pcrs = {str(i): v.hex() for i, v in sorted(document.pcrs.items())}
    return Fields(
        family="nitro",
        measurements={
            **{f"pcr{i}": v for i, v in pcrs.items()},
            "pcrs": pcrs,
            "module_id": document.module_id,
            "nonce": None if document.nonce is None else document.nonce.hex(),
            "public_key": None if document.public_key is None else document.public_key.hex(),
        },
        report_data=None if document.user_data is None else document.user_data.hex(),
        debug=not any(document.pcrs[0]),
        made=document.timestamp // 1000,
    )
