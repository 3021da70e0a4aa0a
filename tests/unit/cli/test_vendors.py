"""Vendors that answer, and those that are slow, busy, broken or lying about where they are."""

from __future__ import annotations

import email.utils
import itertools
import json
import threading
import time

import pytest
from placet_testing import amd
from placet_testing.vendors import FMSPC, Said, intel_pages, pem, site

from placet.cli.vendors import MAX_PAUSE, PAUSE, Amd, Intel, Web
from placet.errors import (
    EvidenceError,
    MalformedError,
    NotFoundError,
    RateLimitedError,
    TooLargeError,
    UnavailableError,
)
from placet_dev.tee.pki import DevPki

NOW = 1_800_000_000


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Let no proxy of this machine come between."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def vendor():
    """Give a site with nothing on it."""
    with site() as started:
        yield started


@pytest.fixture(scope="module")
def members():
    """Give collateral of a development PKI."""
    return json.loads(DevPki.create(NOW).collateral("tdx", NOW))


# --- one answer ---------------------------------------------------------------------------


def refused(web, url, error):
    """Return the error that a URL ends in."""
    with pytest.raises(error) as caught:
        web.get(url)
    assert type(caught.value) is error
    return caught.value


def test_an_answer_is_remembered_until_it_is_forgotten(vendor):
    """What many files share is asked for once a round."""
    vendor["/x"] = Said(b"one", {"A": "b"})
    web = Web()
    for _ in range(2):
        answer = web.get(vendor.url + "/x")
        assert (answer.body, answer.headers["a"]) == (b"one", "b")
    assert vendor.asked == ["/x"]
    web.forget()
    web.get(vendor.url + "/x")
    assert vendor.asked == ["/x", "/x"]


STATUSES = {400: UnavailableError, 404: NotFoundError, 500: UnavailableError, 502: UnavailableError}


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_is_an_error_and_is_remembered_too(vendor, status):
    """A vendor that is down is asked once a round."""
    vendor["/x"] = Said(b"why", status=status)
    web = Web()
    for _ in range(2):
        refused(web, vendor.url + "/x", STATUSES[status])
    assert vendor.asked == ["/x"]


def some_day():
    """Return a date that lies ahead of this very moment."""
    return email.utils.formatdate(time.time() + 1000, usegmt=True)


BUSY = {
    "in seconds": (429, "17", range(17, 18)),
    "with a date": (429, some_day, range(900, 1001)),
    "with a date that is over": (429, "Mon, 01 Jan 2024 00:00:00 GMT", range(1)),
    "without a word": (429, None, range(PAUSE, PAUSE + 1)),
    "with nonsense": (429, "soon", range(PAUSE, PAUSE + 1)),
    "for ever": (429, "999999999", range(MAX_PAUSE, MAX_PAUSE + 1)),
    "and unavailable": (503, "5", range(5, 6)),
}


@pytest.mark.parametrize("case", BUSY)
def test_a_busy_vendor_says_for_how_long(vendor, case):
    """By 429, with or without Retry-After, or by another status that has one."""
    status, after, expected = BUSY[case]
    after = after() if callable(after) else after
    vendor["/x"] = Said(status=status, headers={} if after is None else {"Retry-After": after})
    error = refused(Web(), vendor.url + "/x", RateLimitedError)
    assert error.members["retry_after"] in expected


def test_a_busy_vendor_is_left_alone(vendor):
    """Nothing else is asked there until the time is over, in no later round either."""
    vendor["/x"] = Said(status=429, headers={"Retry-After": "17"})
    vendor["/y"] = Said(b"y")
    at = [100.0]
    web = Web(clock=lambda: at[0])
    refused(web, vendor.url + "/x", RateLimitedError)
    web.forget()
    at[0] += 10
    assert refused(web, vendor.url + "/y", RateLimitedError).members["retry_after"] == 8
    assert vendor.asked == ["/x"]
    web.forget()
    at[0] += 8
    assert web.get(vendor.url + "/y").body == b"y"


def test_the_limit_is_a_limit(vendor):
    """A byte more is refused, however long it goes on."""
    vendor["/fits"], vendor["/long"] = Said(b"x" * 100), Said(b"x" * 101)
    web = Web(limit=100)
    assert len(web.get(vendor.url + "/fits").body) == 100
    refused(web, vendor.url + "/long", TooLargeError)


def test_a_body_that_is_cut_is_no_answer(vendor):
    """Half a revocation list is none."""
    vendor["/x"] = Said(b"half", cut=4)
    assert "4 of 8" in refused(Web(), vendor.url + "/x", UnavailableError).detail
    vendor["/chunks"] = Said(b"9\r\nhalf", {"Transfer-Encoding": "chunked"})
    refused(Web(), vendor.url + "/chunks", UnavailableError)


def test_a_slow_vendor_is_given_up(vendor):
    """One that never answers, and one that takes too long over a whole answer."""
    leave = threading.Event()
    vendor["/x"] = Said(wait=leave)
    try:
        refused(Web(timeout=0.2), vendor.url + "/x", UnavailableError)
    finally:
        leave.set()
    vendor["/y"] = Said(b"slow")
    slowly = itertools.count(0, 7)
    web = Web(timeout=20, clock=lambda: next(slowly))
    assert web.get(vendor.url + "/y").body == b"slow"
    slowly = itertools.count(0, 21)
    web = Web(timeout=20, clock=lambda: next(slowly))
    assert "20 seconds" in refused(web, vendor.url + "/y", UnavailableError).detail


def test_nobody_is_there():
    """A refused connection is an outage."""
    with site() as gone:
        pass
    refused(Web(), gone.url + "/x", UnavailableError)


REDIRECTS = {
    "a loop": "/x",
    "another kind of address": "ftp://127.0.0.1/x",
    "a file": "file:///etc/hostname",
    "nowhere": "",
}


@pytest.mark.parametrize("case", REDIRECTS)
def test_redirects_lead_nowhere_else(vendor, case):
    """Loops end, and only http and https are followed."""
    vendor["/x"] = Said(status=302, headers={"Location": REDIRECTS[case]})
    refused(Web(), vendor.url + "/x", UnavailableError)
    assert len(vendor.asked) <= 4


def test_a_redirect_is_followed_but_not_for_ever(vendor):
    """Three are; a longer way is given up."""
    for n in range(5):
        vendor[f"/{n}"] = Said(status=302, headers={"Location": f"/{n + 1}"})
    vendor["/5"] = Said(b"there")
    assert Web().get(vendor.url + "/2").body == b"there"
    refused(Web(), vendor.url + "/0", UnavailableError)


def test_https_is_not_left_by_a_redirect():
    """What was asked over TLS is not answered without it."""
    from urllib.error import HTTPError
    from urllib.request import Request

    from placet.cli.vendors import _Redirects

    request = Request("https://pcs.invalid/x")
    same = _Redirects().redirect_request(request, None, 302, "", {}, "https://pcs.invalid/y")
    assert same.full_url == "https://pcs.invalid/y"
    with pytest.raises(HTTPError) as caught:
        _Redirects().redirect_request(request, None, 302, "", {}, "http://pcs.invalid/y")
    caught.value.close()


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://x/", "pcs", "", "http://"])
def test_other_addresses_are_not_asked(url):
    """An address is http or https, and names a host."""
    refused(Web(), url, MalformedError)


def test_the_environments_proxy_is_asked(vendor, monkeypatch):
    """And not for hosts that it says are near."""
    vendor["/x"] = Said(b"by proxy")
    monkeypatch.setenv("http_proxy", vendor.url)
    assert Web().get("http://pcs.invalid/x").body == b"by proxy"
    assert vendor.asked == ["http://pcs.invalid/x"]
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert Web().get(vendor.url + "/x").body == b"by proxy"


# --- Intel --------------------------------------------------------------------------------


@pytest.mark.parametrize("pccs", [False, True])
@pytest.mark.parametrize("suffix", ["", "/", "/sgx/certification/v4", "/sgx/certification/v4/"])
def test_collateral_is_put_together_as_it_was_received(vendor, members, pccs, suffix):
    """From a PCS and from a PCCS, which writes headers and lists otherwise."""
    vendor.pages |= intel_pages(members, pccs=pccs)
    intel = Intel(web=Web(), base=vendor.url + suffix)
    assert intel.members("tdx", FMSPC, "platform") == members


def test_the_root_list_may_lie_elsewhere(vendor, members):
    """Intel's is at another host than its PCS."""
    vendor.pages |= intel_pages(members)
    with site() as other:
        other["/root.der"] = Said(bytes.fromhex(members["root_ca_crl"]))
        intel = Intel(web=Web(), base=vendor.url, root_crl=other.url + "/root.der")
        assert intel.members("tdx", FMSPC, "platform") == members
        assert other.asked == ["/root.der"]


def test_intels_own_root_list_is_the_default(vendor, members, monkeypatch):
    """A PCS has none, a PCCS has its own."""
    vendor.pages |= intel_pages(members)
    monkeypatch.setattr("placet.cli.vendors.PCS", vendor.url)
    monkeypatch.setattr("placet.cli.vendors.ROOT_CRL", vendor.url + "/IntelSGXRootCA.der")
    assert Intel(web=Web(), base=vendor.url + "/").members("tdx", FMSPC, "platform") == members
    assert vendor.asked[-1] == "/IntelSGXRootCA.der"


def test_both_documents_are_of_the_same_channel(vendor, members):
    """TCB info and QE identity are selected alike."""
    vendor.pages |= intel_pages(members, update="early")
    intel = Intel(web=Web(), base=vendor.url, update="early")
    assert intel.members("tdx", FMSPC, "platform") == members


TCB, QE = f"/tdx/certification/v4/tcb?fmspc={FMSPC}", "/tdx/certification/v4/qe/identity"
CRL, ROOT = (
    "/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
    ("/sgx/certification/v4/rootcacrl"),
)
STRANGE = {
    "no JSON": (TCB, b"<html>"),
    "the other document": (TCB, QE),
    "a short signature": (TCB, b'{"tcbInfo":{},"signature":"00"}'),
    "another order": (TCB, b'{"signature":"%s","tcbInfo":{}}' % (b"0" * 128)),
    "no ASCII": (TCB, b'{"tcbInfo":{"a":"\xff"},"signature":"%s"}' % (b"0" * 128)),
    "a space more": (TCB, b'{"tcbInfo": {},"signature":"%s"}' % (b"0" * 128)),
    "an empty list": (CRL, b""),
    "a page instead of a list": (ROOT, b"<html>"),
    "letters instead of a list": (ROOT, b"zz"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_an_answer_of_another_form_is_refused(vendor, members, case):
    """A page of an inspecting proxy is no collateral."""
    path, body = STRANGE[case]
    vendor.pages |= intel_pages(members)
    said = vendor.pages[path]
    body = vendor.pages[body].body if isinstance(body, str) else body
    vendor[path] = Said(body, said.headers)
    with pytest.raises(MalformedError):
        Intel(web=Web(), base=vendor.url).members("tdx", FMSPC, "platform")


@pytest.mark.parametrize("path", [TCB, QE, CRL])
def test_an_answer_without_its_chain_is_refused(vendor, members, path):
    """The chain comes in a header."""
    vendor.pages |= intel_pages(members)
    vendor[path] = Said(vendor.pages[path].body)
    with pytest.raises(MalformedError, match="Issuer-Chain"):
        Intel(web=Web(), base=vendor.url).members("tdx", FMSPC, "platform")


# --- AMD ----------------------------------------------------------------------------------

VERSIONS = {
    "milan": "blSPL=04&teeSPL=01&snpSPL=23&ucodeSPL=211",
    "genoa": "blSPL=04&teeSPL=01&snpSPL=23&ucodeSPL=211",
    "turin": "fmcSPL=02&blSPL=05&teeSPL=01&snpSPL=04&ucodeSPL=77",
}


@pytest.mark.parametrize("product", VERSIONS)
def test_a_chips_certificate_is_asked_for_by_its_versions(vendor, product):
    """Turin has another order, one more version and a shorter id."""
    made = amd.PRODUCTS[product]
    hwid = made.chip_id[: made.hwid].hex()
    vendor[f"/vcek/v1/{made.name}/{hwid}?{VERSIONS[product]}"] = Said(b"vcek")
    found = Amd(web=Web(), base=vendor.url + "/").vcek(product, made.chip_id, made.tcb_bytes())
    assert found == b"vcek"


def test_what_is_above_it_is_asked_for_by_product(vendor):
    """ASK before ARK, and the root's list."""
    pki = amd.Amd.create("milan")
    vendor["/vcek/v1/Milan/cert_chain"] = Said(pem(pki.ask.der, pki.ark.der))
    vendor["/vcek/v1/Milan/crl"] = Said(amd.revocation_list(pki.ark))
    kds = Amd(web=Web(), base=vendor.url)
    assert kds.above("milan") == (pki.ask.der, pki.ark.der)
    assert kds.crl("milan") == vendor.pages["/vcek/v1/Milan/crl"].body
    vendor["/vcek/v1/Genoa/cert_chain"] = Said(pem(pki.ark.der))
    with pytest.raises(EvidenceError):
        kds.above("genoa")
