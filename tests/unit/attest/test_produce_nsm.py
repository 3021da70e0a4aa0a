"""A Nitro enclave: one CBOR request to ``/dev/nsm``, one document back."""

from __future__ import annotations

import ctypes
import errno

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from placet_testing.kernels import NSM, Kernel, Nsm, document
from placet_testing.machines import about, context_of

from placet.attest.produce.device import Machine
from placet.attest.produce.nsm import NSM_IOCTL_RAW, NsmProducer, RawMessage
from placet.core.attestation import report_data
from placet.core.encoding import unb64
from placet.errors import MalformedError, UnavailableError


def started(nsm):
    """Start a producer on a module."""
    return NsmProducer(about(), machine=Kernel({NSM: nsm}).machine)


def answering(value):
    """Return a module that always answers one value."""
    return Nsm(answer=lambda _: value if isinstance(value, bytes) else cbor2.dumps(value))


def test_layout_is_that_of_the_kernels_header():
    """Size, places and the request number that is made of them."""
    assert ctypes.sizeof(RawMessage) == 32
    assert RawMessage.response_len.offset == 24
    assert NSM_IOCTL_RAW == 3 << 30 | 32 << 16 | 0x0A << 8


def test_document_is_the_quote_and_holds_the_report_data():
    """As user data; nonce and key stay empty, and there is no collateral."""
    nsm = Nsm()
    evidence = started(nsm).quote(context_of())
    assert (evidence.family, evidence.collateral) == ("nitro", None)
    assert unb64(evidence.quote) == document(report_data(context_of()))
    told = {"user_data": report_data(context_of()), "nonce": None, "public_key": None}
    assert nsm.requests[-1] == {"Attestation": told}


def test_tagged_document_is_read_as_well():
    """Both forms occur; it travels as it came."""

    def answer(asked):
        raw = document(asked["Attestation"]["user_data"], tagged=True)
        return cbor2.dumps({"Attestation": {"document": raw}})

    raw = unb64(started(Nsm(answer=answer)).quote(context_of()).quote)
    assert raw == document(report_data(context_of()), tagged=True)


def test_document_for_other_user_data_is_not_believed():
    """Nobody else's document goes out."""
    with pytest.raises(UnavailableError, match="other 64 bytes"):
        started(answering({"Attestation": {"document": document(b"u" * 64)}}))
    with pytest.raises(UnavailableError, match="other 64 bytes"):
        started(answering({"Attestation": {"document": document(None)}}))


@pytest.mark.parametrize("code", ["InternalError", "InputTooLarge", "x" * 5000, 7, None])
def test_error_of_the_module_is_unavailable(code):
    """With its word, cut."""
    with pytest.raises(UnavailableError, match="Nitro Security Module says") as caught:
        started(answering({"Error": code}))
    assert len(caught.value.detail) <= 300


ODD = {
    "nothing": b"",
    "no CBOR": b"\xff\xff",
    "half": cbor2.dumps({"Attestation": {"document": document(b"u")}})[:40],
    "text": "Attestation",
    "a list": ["Attestation"],
    "another answer": {"DescribePCR": {}},
    "no members": {"Attestation": None},
    "no document": {"Attestation": {}},
    "a document that is text": {"Attestation": {"document": "text"}},
    "a document that is no CBOR": {"Attestation": {"document": b"\xff"}},
    "a document of three parts": {"Attestation": {"document": cbor2.dumps([b"", {}, b""])}},
    "another tag": {"Attestation": {"document": b"\xd1" + document(b"u")}},
    "bytes behind the document": {"Attestation": {"document": document(b"u") + b"\0"}},
    "a payload that is no bytes": {"Attestation": {"document": cbor2.dumps([b"", {}, 7, b""])}},
    "a payload that is no map": {
        "Attestation": {"document": cbor2.dumps([b"", {}, cbor2.dumps(7), b""])}
    },
    "deep nesting": b"\x81" * 10000 + b"\x01",
}


@pytest.mark.parametrize("odd", ODD)
def test_answer_that_is_no_document_is_malformed(odd):
    """Only our own errors leave."""
    with pytest.raises(MalformedError):
        started(answering(ODD[odd]))


@given(raw=st.binary(max_size=200))
def test_any_bytes_raise_only_our_errors(raw):
    """Whatever the module answers."""
    with pytest.raises((MalformedError, UnavailableError)):
        started(answering(raw))


def test_answer_that_was_cut_to_the_buffer_is_malformed():
    """The kernel truncates silently, so half a document must not pass."""
    big = document(bytes(0x4000))
    with pytest.raises(MalformedError):
        started(answering({"Attestation": {"document": big}}))


def test_as_much_is_read_as_the_kernel_says_that_came():
    """The rest of the buffer is nobody's answer."""
    producer = started(Nsm())
    assert producer._exchange(cbor2.dumps("Other")) == cbor2.dumps({"Error": "InvalidOperation"})


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT, errno.EMSGSIZE, errno.EFAULT])
def test_error_of_the_kernel_is_unavailable(number):
    """With its name."""
    with pytest.raises(UnavailableError) as caught:
        started(Nsm(fails=number))
    assert caught.value.members == {"errno": errno.errorcode[number]}


def test_missing_device_is_unavailable():
    """On a machine that is no Nitro enclave."""
    with pytest.raises(UnavailableError, match="did not answer"):
        NsmProducer(about(), machine=Machine())
