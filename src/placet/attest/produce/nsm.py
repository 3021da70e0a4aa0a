"""Evidence of an AWS Nitro enclave (``/dev/nsm``): one CBOR request, one document."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import cbor2

from placet.attest.produce.device import Machine, reported
from placet.attest.produce.hardware import HardwareProducer, Quoted
from placet.attest.produce.producer import Description
from placet.attest.verify.nitro import read_message
from placet.errors import EvidenceError, MalformedError, UnavailableError

DEVICE = Path("/dev/nsm")
NSM_IOCTL_RAW = 0xC0200A00
RESPONSE_SIZE = 0x3000
"""The most that the module answers."""


class RawMessage(ctypes.Structure):
    """``struct nsm_raw``: where the request lies and where the response goes."""

    _fields_ = (
        ("request", ctypes.c_uint64),
        ("request_len", ctypes.c_uint64),
        ("response", ctypes.c_uint64),
        ("response_len", ctypes.c_uint64),
    )


class NsmProducer(HardwareProducer):
    """The `Producer` of a Nitro enclave. Makes one document when it starts.

    No register is compared with what the process claims: config, image and app are
    covered by PCR0 to 2, if they are in the enclave's image. There is no sealing key.

    Args:
        about: What this process is.
        machine: Its kernel.
        device: The module's device.

    Raises:
        UnavailableError: No document was made.
    """

    def __init__(
        self, about: Description, *, machine: Machine | None = None, device: Path = DEVICE
    ) -> None:
        super().__init__(about, machine=machine or Machine())
        self._device = device
        self.self_test()

    def _quoted(self, data: bytes) -> Quoted:
        ask = {"Attestation": {"user_data": data, "nonce": None, "public_key": None}}
        answer = _decode(self._exchange(cbor2.dumps(ask)))
        if isinstance(answer, Mapping) and "Error" in answer:
            raise UnavailableError(f"Nitro Security Module says {answer['Error']!r}"[:300])
        document = _member(_member(answer, "Attestation"), "document")
        if not isinstance(document, bytes):
            raise MalformedError("Nitro Security Module answered without a document")
        return Quoted(family="nitro", raw=document, report_data=_user_data(document))

    def _exchange(self, request: bytes) -> bytes:
        out = ctypes.create_string_buffer(request, len(request))
        back = ctypes.create_string_buffer(RESPONSE_SIZE)
        message = RawMessage(
            request=ctypes.addressof(out),
            request_len=len(request),
            response=ctypes.addressof(back),
            response_len=RESPONSE_SIZE,
        )
        with reported("Nitro Security Module did not answer"):
            self._machine.ask(self._device, NSM_IOCTL_RAW, message)
        return back.raw[: min(message.response_len, RESPONSE_SIZE)]

    def _root_key(self) -> bytes:
        raise UnavailableError(
            "a Nitro enclave gets no key that is bound to its measurement",
            "Run vaults in SGX or SEV-SNP.",
        )


def _user_data(document: bytes) -> bytes:
    """Return the bytes that a document says it was made for; nothing is verified.

    It is read as strictly as a verifier would read it.
    """
    try:
        return read_message(document).document.user_data or b""
    except EvidenceError as e:
        raise MalformedError("Nitro Security Module answered with what is no document") from e


def _member(value: object, name: str) -> object:
    if not isinstance(value, Mapping) or name not in value:
        raise MalformedError(f"Nitro Security Module answered without {name!r}")
    return value[name]


def _decode(raw: bytes) -> object:
    try:
        return cbor2.loads(raw, max_depth=8)
    except (
        cbor2.CBORError,
        ValueError,
        TypeError,
        ArithmeticError,
        LookupError,
        RecursionError,
    ) as e:
        raise MalformedError("Nitro Security Module answered with what is no CBOR") from e
