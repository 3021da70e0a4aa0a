"""SEV-SNP derived keys: what they are bound to, and what the firmware may refuse."""

from __future__ import annotations

import ctypes
import errno

import pytest
from placet_testing.kernels import SEV, Kernel, SnpGuest

from placet.attest.produce import sev_guest
from placet.attest.produce.sev_guest import (
    SNP_GET_DERIVED_KEY,
    GuestRequest,
    KeyRequest,
    KeyResponse,
    derived_key,
)
from placet.errors import UnavailableError


def key(guest, vmpl=0):
    """Return the key that a guest gets."""
    return derived_key(Kernel({SEV: guest}).machine, vmpl=vmpl)


def guest(**changes):
    """Return a guest; ``changes`` make another one of it."""
    return SnpGuest(**({"host_data": bytes(32)} | changes))


def test_layouts_are_those_of_the_kernels_header():
    """Sizes, places and the request number that is made of them."""
    assert [ctypes.sizeof(s) for s in (GuestRequest, KeyRequest, KeyResponse)] == [32, 32, 64]
    assert (GuestRequest.req_data.offset, GuestRequest.exitinfo2.offset) == (8, 24)
    assert (KeyRequest.guest_field_select.offset, KeyRequest.tcb_version.offset) == (8, 24)
    assert KeyResponse.key.offset == 32
    assert 3 << 30 | 32 << 16 | ord("S") << 8 | 1 == SNP_GET_DERIVED_KEY


OTHERS = {
    "measurement": {"measurement": b"n" * 48},
    "policy": {"policy": 0x30001},
    "chip": {"chip": b"d" * 32},
}


@pytest.mark.parametrize("other", OTHERS)
def test_key_is_bound_to_measurement_policy_and_chip(other):
    """Each of them gives another key; the same ones the same."""
    assert key(guest()) == key(guest())
    assert len(key(guest())) == 32
    assert key(guest(**OTHERS[other])) != key(guest())


def test_key_is_bound_to_the_privilege_level():
    """What runs above it in the guest cannot name a level below its own."""
    assert key(guest(), vmpl=1) != key(guest(), vmpl=0)
    with pytest.raises(UnavailableError, match="0x16"):
        key(guest(floor=1), vmpl=0)


def test_host_data_is_not_part_of_the_key():
    """As in the firmware: producers mix image and config in themselves."""
    assert key(guest(host_data=b"h" * 32)) == key(guest())


def test_status_of_the_firmware_is_a_refusal():
    """The ioctl succeeds then, and there is no key."""
    with pytest.raises(UnavailableError, match="0x27"):
        key(guest(status=0x27))


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTTY, errno.ETIMEDOUT, errno.EFAULT])
def test_error_of_the_kernel_is_unavailable(number):
    """Also ``ENOTTY``, by which the driver says that it gave its channel up."""
    with pytest.raises(UnavailableError) as caught:
        key(guest(fails=number))
    assert caught.value.members == {"errno": errno.errorcode[number]}


def test_missing_device_is_unavailable():
    """On a machine that is no such guest."""
    from placet.attest.produce.device import Machine

    with pytest.raises(UnavailableError, match="derived no key"):
        derived_key(Machine(), vmpl=0)


def test_response_is_wiped_whatever_happens(monkeypatch):
    """One copy of the key less in this process's memory."""
    seen = []

    class Watched(KeyResponse):
        def __init__(self):
            super().__init__()
            seen.append(self)

    monkeypatch.setattr(sev_guest, "KeyResponse", Watched)
    assert any(key(guest()))
    with pytest.raises(UnavailableError):
        key(guest(status=1))
    assert [bytes(response) for response in seen] == [bytes(64)] * 2
