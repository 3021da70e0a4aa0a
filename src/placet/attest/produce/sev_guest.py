"""SEV-SNP: a key that the firmware derives for one measurement (``/dev/sev-guest``).

Layouts are those of Linux's ``sev-guest.h`` and of AMD's firmware ABI (56860), tables of
MSG_KEY_REQ and MSG_KEY_RSP.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from placet.attest.produce.device import Machine, reported
from placet.errors import UnavailableError

DEVICE = Path("/dev/sev-guest")
SNP_GET_DERIVED_KEY = 0xC0205301
MESSAGE_VERSION = 1
POLICY, MEASUREMENT = 1 << 0, 1 << 3
"""Bits of GUEST_FIELD_SELECT: what is mixed into the key."""


class GuestRequest(ctypes.Structure):
    """``struct snp_guest_request_ioctl``."""

    _fields_ = (
        ("msg_version", ctypes.c_uint8),
        ("req_data", ctypes.c_uint64),
        ("resp_data", ctypes.c_uint64),
        ("exitinfo2", ctypes.c_uint64),
    )


class KeyRequest(ctypes.Structure):
    """``struct snp_derived_key_req``. Root key 0 is the chip's own, the VCEK."""

    _fields_ = (
        ("root_key_select", ctypes.c_uint32),
        ("rsvd", ctypes.c_uint32),
        ("guest_field_select", ctypes.c_uint64),
        ("vmpl", ctypes.c_uint32),
        ("guest_svn", ctypes.c_uint32),
        ("tcb_version", ctypes.c_uint64),
    )


class KeyResponse(ctypes.Structure):
    """``struct snp_derived_key_resp``, with the firmware's layout of it."""

    _fields_ = (
        ("status", ctypes.c_uint32),
        ("reserved", ctypes.c_uint8 * 28),
        ("key", ctypes.c_uint8 * 32),
    )


def derived_key(machine: Machine, *, vmpl: int, device: Path = DEVICE) -> bytes:
    """Return 32 bytes that guests of this measurement and policy get on this chip.

    HOST_DATA is *not* part of the key, so whoever uses it mixes image and config in. That
    no other process of this guest opens the device is *not* checked.

    Args:
        machine: The kernel of this guest.
        vmpl: Privilege level that is mixed in, 0 to 3; not below the guest's own.
        device: The guest's device.

    Raises:
        UnavailableError: Kernel or firmware refused.
    """
    request = KeyRequest(guest_field_select=POLICY | MEASUREMENT, vmpl=vmpl)
    response = KeyResponse()
    message = GuestRequest(
        msg_version=MESSAGE_VERSION,
        req_data=ctypes.addressof(request),
        resp_data=ctypes.addressof(response),
    )
    try:
        with reported("firmware derived no key"):
            machine.ask(device, SNP_GET_DERIVED_KEY, message)
        if response.status:
            raise UnavailableError(
                f"firmware derived no key: status {response.status:#x}",
                "Is the privilege level one of this guest's?",
            )
        return bytes(response.key)
    finally:
        # The copy that is returned lives on; this one need not.
        ctypes.memset(ctypes.addressof(response), 0, ctypes.sizeof(response))
