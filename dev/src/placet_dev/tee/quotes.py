"""INSECURE: SGX v3 and TDX v4 quotes, signed by a development PKI.

The formats are Intel's (DCAP ECDSA quote library reference, appendix A). Registers that
software has nothing to put into hold fixed values.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from placet.core.profile import SgxMeasurement, TdxMeasurement
from placet_dev.tee import pki as dev
from placet_dev.tee.pki import DevPki, Tee

REPORT_DATA = 64
QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""Intel's QE vendor id: the only one that verifiers know."""
SGX_ATTRIBUTES = bytes([0x05]) + bytes(15)
"""INIT and MODE64BIT; bit 1 would be DEBUG."""
SEPT_VE_DISABLE = (1 << 28).to_bytes(8, "little").hex()
FIRST_ENVELOPED = 4
"""From this version on the QE's report and its chain lie in an envelope of their own."""
XFAM = "e702060000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a quote is put together; as the specification says, by default. For tests.

    ``None`` stands for the value that fits the TEE.
    """

    version: int | None = None
    key_type: int = 2
    tee_type: int | None = None
    vendor: bytes = QE_VENDOR
    sgx_attributes: bytes = SGX_ATTRIBUTES
    tee_tcb_svn: bytes = dev.TEE_TCB_SVN
    cpu_svn: bytes = dev.CPU_SVN
    qe_attributes: bytes = bytes([0x11]) + bytes(15)
    qe_mrsigner: bytes = dev.QE_MRSIGNER
    auth_data: bytes = bytes(range(32))
    outer_type: int = 6
    chain_type: int = 5
    chain: str | None = None
    """PEM of leaf, intermediate and root."""


STANDARD = Form()


def sgx_measurement(
    mrenclave: str, *, mrsigner: str = "00" * 32, isv_prod_id: int = 0, isv_svn: int = 0
) -> SgxMeasurement:
    """Return the measurement of a software enclave; all of it is in ``mrenclave``."""
    return SgxMeasurement(
        mrenclave=mrenclave, mrsigner=mrsigner, isv_prod_id=isv_prod_id, isv_svn=isv_svn
    )


def tdx_measurement(mrtd: str, *, rtmr3: str, mr_config_id: str) -> TdxMeasurement:
    """Return the measurement of a software trust domain.

    Args:
        mrtd: Runtime digest, 96 hex digits.
        rtmr3: Image register (`placet.core.profile.rtmr3_of_image`), 96 hex digits.
        mr_config_id: SHA-384 of the canonical config, 96 hex digits.
    """
    return TdxMeasurement(
        mrtd=mrtd,
        rtmr0="00" * 48,
        rtmr1="00" * 48,
        rtmr2="00" * 48,
        rtmr3=rtmr3,
        mr_config_id=mr_config_id,
        td_attributes=SEPT_VE_DISABLE,
        xfam=XFAM,
    )


def sgx_quote(
    pki: DevPki, *, measurement: SgxMeasurement, report_data: bytes, form: Form = STANDARD
) -> bytes:
    """Return an SGX quote v3 over ``report_data`` (64 bytes)."""
    body = _enclave_report(
        report_data,
        cpu_svn=form.cpu_svn,
        attributes=form.sgx_attributes,
        mrenclave=bytes.fromhex(measurement.mrenclave),
        mrsigner=bytes.fromhex(measurement.mrsigner or "00" * 32),
        product=measurement.isv_prod_id or 0,
        svn=measurement.isv_svn or 0,
    )
    return assemble(pki, "sgx", body, form)


def tdx_quote(
    pki: DevPki, *, measurement: TdxMeasurement, report_data: bytes, form: Form = STANDARD
) -> bytes:
    """Return a TDX quote v4 over ``report_data`` (64 bytes)."""
    _check_report_data(report_data)
    m = measurement
    seam = bytes(48 + 48 + 8)  # MRSEAM, MRSIGNERSEAM, SEAMATTRIBUTES
    early = seam + bytes.fromhex(m.td_attributes + m.xfam + m.mrtd + m.mr_config_id)
    owner = bytes(48 + 48)  # MROWNER, MROWNERCONFIG
    registers = bytes.fromhex(m.rtmr0 + m.rtmr1 + m.rtmr2 + m.rtmr3)
    return assemble(pki, "tdx", form.tee_tcb_svn + early + owner + registers + report_data, form)


def assemble(pki: DevPki, tee: Tee, body: bytes, form: Form = STANDARD) -> bytes:
    """Return header, body and signature section: a quote over any body."""
    tdx = tee == "tdx"
    version = form.version or (4 if tdx else 3)
    tee_type = form.tee_type if form.tee_type is not None else (0x81 if tdx else 0)
    header = struct.pack("<HHIHH", version, form.key_type, tee_type, 0, 0)
    signed = header + form.vendor + bytes(20) + body
    key = dev.public_bytes(pki.attestation)
    qe_report = _enclave_report(
        hashlib.sha256(key + form.auth_data).digest() + bytes(32),
        cpu_svn=form.cpu_svn,
        attributes=form.qe_attributes,
        mrenclave=bytes(32),
        mrsigner=form.qe_mrsigner,
        product=dev.QE_PRODUCT[tee],
        svn=dev.QE_SVN,
    )
    chain = form.chain if form.chain is not None else pki.pck.pem + pki.ca.pem + pki.root.pem
    chain_bytes = chain.encode() + b"\0"
    inner = (
        qe_report
        + pki.pck.sign(qe_report)
        + struct.pack("<H", len(form.auth_data))
        + form.auth_data
        + struct.pack("<HI", form.chain_type, len(chain_bytes))
        + chain_bytes
    )
    enveloped = version >= FIRST_ENVELOPED
    outer = struct.pack("<HI", form.outer_type, len(inner)) if enveloped else b""
    section = dev.sign(pki.attestation, signed) + key + outer + inner
    return signed + struct.pack("<I", len(section)) + section


def _enclave_report(
    report_data: bytes,
    *,
    cpu_svn: bytes,
    attributes: bytes,
    mrenclave: bytes,
    mrsigner: bytes,
    product: int,
    svn: int,
) -> bytes:
    _check_report_data(report_data)
    return b"".join(
        (
            cpu_svn,
            bytes(4 + 28),  # MISCSELECT, reserved
            attributes,
            mrenclave,
            bytes(32),
            mrsigner,
            bytes(96),
            struct.pack("<HH", product, svn),
            bytes(60),
            report_data,
        )
    )


def _check_report_data(report_data: bytes) -> None:
    if len(report_data) != REPORT_DATA:
        raise ValueError(f"report data is {len(report_data)} bytes, {REPORT_DATA} are quoted")
