"""Ask Intel's PCS, a PCCS or AMD's KDS for collateral. Nothing that they say is verified here.

Proxies are those of the environment (``https_proxy``, ``no_proxy``). Every answer has a
limit in bytes and in time, and a vendor that says "too much" is left alone for as long as
it says.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from placet import __version__
from placet.attest.verify.quote import pem_chain
from placet.attest.verify.snp import LAYOUT, TURIN_HWID, TURIN_LAYOUT
from placet.core.limits import MAX_COLLATERAL
from placet.errors import (
    MalformedError,
    NotFoundError,
    PlacetError,
    RateLimitedError,
    TooLargeError,
    UnavailableError,
)

PCS = "https://api.trustedservices.intel.com"
ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
KDS = "https://kdsintf.amd.com"
V4 = "/sgx/certification/v4"
ROOT_CRL_OF_PCCS = V4 + "/rootcacrl"

TIMEOUT = 20
"""Seconds for one answer."""
PAUSE, MAX_PAUSE = 60, 86400
"""Seconds for which a vendor that said "too much" is left alone, if it does not say or at most."""

SEQUENCE = b"\x30"
"""What DER of a revocation list begins with; its hex begins with another byte."""

_SIGNED = re.compile(
    rb'\{"(tcbInfo|enclaveIdentity)":(\{.*\}),"signature":"([0-9a-fA-F]{128})"\}\s*', re.DOTALL
)
"""The signed text is what stands there, byte for byte: one space more is another one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose size was bounded."""

    body: bytes
    headers: Message


class _Redirects(HTTPRedirectHandler):
    """Few, and never to something weaker than what was asked."""

    max_redirections, max_repeats = 3, 2

    def redirect_request(  # noqa: PLR0917 - the signature is urllib's
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> Request | None:
        allowed = ("https",) if req.type == "https" else ("https", "http")
        if urlsplit(newurl).scheme not in allowed:
            raise HTTPError(req.full_url, code, f"redirected to {newurl[:200]}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Web:
    """GET, with limits. Answers are remembered until `forget`.

    Args:
        timeout: Seconds for one answer.
        limit: Bytes of one answer.
        opener: What opens a URL; by default urllib's, with the environment's proxies.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        timeout: float = TIMEOUT,
        limit: int = MAX_COLLATERAL,
        opener: OpenerDirector | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout, self._limit, self._clock = timeout, limit, clock
        self._opener = opener or build_opener(_Redirects())
        self._answers: dict[str, Answer | PlacetError] = {}
        self._busy: dict[str, float] = {}

    def forget(self) -> None:
        """Ask again from now on, but not those that asked to be left alone."""
        self._answers.clear()

    def get(self, url: str) -> Answer:
        """Return what is at a URL.

        Raises:
            NotFoundError: There is nothing.
            RateLimitedError: Too much was asked; ``retry_after`` says for how many seconds.
            UnavailableError: No whole answer in time, or another status.
            TooLargeError: It is longer than the limit.
            MalformedError: It is no http or https URL.
        """
        known = self._answers.get(url)
        if known is None:
            try:
                known = self._ask(url)
            except PlacetError as e:
                known = e
            self._answers[url] = known
        if isinstance(known, PlacetError):
            raise known
        return known

    def _ask(self, url: str) -> Answer:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise MalformedError(f"{url!r} is no http or https address")
        left = self._busy.get(parts.netloc, 0) - self._clock()
        if left > 0:
            raise RateLimitedError(
                f"{parts.hostname} asked to be left alone", retry_after=int(left) + 1
            )
        request = Request(url, headers={"User-Agent": f"placet/{__version__}"})  # noqa: S310 - http(s), see above
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return Answer(self._read(response, url), response.headers)
        except HTTPError as e:
            with e:
                error = _error(e, url)
            if isinstance(error, RateLimitedError):
                self._busy[parts.netloc] = self._clock() + _seconds(error)
            raise error from e
        except (OSError, HTTPException, ValueError) as e:
            why = e.reason if isinstance(e, URLError) else e
            raise UnavailableError(f"{url} does not answer: {why}"[:300]) from e

    def _read(self, response: HTTPResponse, url: str) -> bytes:
        """Read a body: within the limit, to its end, and in time as a whole."""
        announced, until = response.length, self._clock() + self._timeout
        body = bytearray()
        while part := response.read1(self._limit + 1 - len(body)):
            body += part
            if len(body) > self._limit:
                raise TooLargeError(f"{url} answers more than {self._limit} bytes")
            if self._clock() > until:
                raise UnavailableError(f"{url} takes longer than {self._timeout} seconds")
        if announced is not None and len(body) < announced:
            raise UnavailableError(f"{url} sent {len(body)} of {announced} bytes")
        return bytes(body)


def _error(answer: HTTPError, url: str) -> PlacetError:
    if answer.code == HTTPStatus.NOT_FOUND:
        return NotFoundError(f"{url} is not there")
    wait = _retry_after(answer.headers.get("Retry-After"))
    if answer.code == HTTPStatus.TOO_MANY_REQUESTS or wait is not None:
        wait = min(MAX_PAUSE, PAUSE if wait is None else wait)
        return RateLimitedError(
            f"{url} says {answer.code}: too much",
            f"Try again in {wait} seconds; --watch does so by itself.",
            retry_after=wait,
        )
    return UnavailableError(f"{url} says {answer.code} {answer.reason}"[:300])


def _retry_after(text: str | None) -> int | None:
    """Return seconds from a number or a date (RFC 9110, section 10.2.3)."""
    if text is None:
        return None
    if re.fullmatch("[0-9]{1,9}", text):
        return int(text)
    try:
        return max(0, int(email.utils.parsedate_to_datetime(text).timestamp() - time.time()))
    except (ValueError, OverflowError):
        return None


def _seconds(error: PlacetError) -> int:
    return int(str(error.members["retry_after"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Intel:
    """Intel's PCS, or a PCCS, which has the same paths.

    Args:
        web: What asks.
        base: Address, with or without ``/sgx/certification/v4``.
        root_crl: Address of the root's revocation list; by default Intel's, or the PCCS's own.
        update: ``standard``, or ``early`` for both TCB info and QE identity.
    """

    web: Web
    base: str = PCS
    root_crl: str | None = None
    update: str = "standard"

    def members(self, tee: str, fmspc: str, ca: str) -> dict[str, str]:
        """Return collateral in the form of spec/02, section 3, as it was received.

        Args:
            tee: ``sgx`` or ``tdx``.
            fmspc: Twelve hex digits.
            ca: ``platform`` or ``processor``.

        Raises:
            PlacetError: As `Web.get`; `MalformedError`: an answer has another form.
        """
        base = self.base.rstrip("/").removesuffix(V4)
        own = f"{base}/{tee}/certification/v4"
        channel = "" if self.update == "standard" else f"update={self.update}"
        info = self.web.get(f"{own}/tcb?fmspc={fmspc}" + (channel and f"&{channel}"))
        identity = self.web.get(f"{own}/qe/identity" + (channel and f"?{channel}"))
        crl = self.web.get(f"{base}{V4}/pckcrl?ca={ca}&encoding=der")
        default = ROOT_CRL if base == PCS else base + ROOT_CRL_OF_PCCS
        root = self.web.get(self.root_crl or default)
        tcb_info, tcb_info_signature = _signed(info, "tcbInfo")
        qe_identity, qe_identity_signature = _signed(identity, "enclaveIdentity")
        return {
            "tcb_info": tcb_info,
            "tcb_info_signature": tcb_info_signature,
            "tcb_info_issuer_chain": _chain(
                info, "TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"
            ),
            "qe_identity": qe_identity,
            "qe_identity_signature": qe_identity_signature,
            "qe_identity_issuer_chain": _chain(identity, "SGX-Enclave-Identity-Issuer-Chain"),
            "root_ca_crl": _der(root).hex(),
            "pck_crl": _der(crl).hex(),
            "pck_crl_issuer_chain": _chain(crl, "SGX-PCK-CRL-Issuer-Chain"),
        }


def _signed(answer: Answer, name: str) -> tuple[str, str]:
    found = _SIGNED.fullmatch(answer.body)
    if found is None or found[1].decode() != name or not found[2].isascii():
        raise MalformedError(f"an answer is no {name} with its signature")
    return found[2].decode(), found[3].decode().lower()


def _chain(answer: Answer, *headers: str) -> str:
    for header in headers:
        if (text := answer.headers.get(header)) is not None:
            return unquote(text)
    raise MalformedError(f"an answer has no {headers[0]}")


def _der(answer: Answer) -> bytes:
    """Return a revocation list that came as DER or as hex."""
    body = answer.body
    if body[:1] != SEQUENCE:
        try:
            body = bytes.fromhex(body.decode("ascii").strip())
        except ValueError:
            body = b""
    if body[:1] != SEQUENCE:
        raise MalformedError("an answer is no revocation list (DER or hex)")
    return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Amd:
    """AMD's key distribution service.

    Args:
        web: What asks. About one VCEK in ten seconds is given to one address.
        base: Address.
    """

    web: Web
    base: str = KDS

    def vcek(self, product: str, chip_id: bytes, tcb: bytes) -> bytes:
        """Return a chip's certificate for a TCB version, as DER.

        Args:
            product: ``milan``, ``genoa`` or ``turin``.
            chip_id: CHIP_ID of the report, 64 bytes.
            tcb: REPORTED_TCB of the report, 8 bytes in its order.

        Raises:
            PlacetError: As `Web.get`.
        """
        turin = product == "turin"
        hwid = chip_id[:TURIN_HWID] if turin else chip_id
        parts = dict(zip(TURIN_LAYOUT if turin else LAYOUT, tcb, strict=True))
        asked = ("fmc", "bl", "tee", "snp", "ucode") if turin else ("bl", "tee", "snp", "ucode")
        query = "&".join(f"{part}SPL={parts[part]:02d}" for part in asked)
        return self.web.get(f"{self._product(product)}/{hwid.hex()}?{query}").body

    def above(self, product: str) -> tuple[bytes, bytes]:
        """Return the certificates above VCEKs, as DER: ASK and ARK.

        Raises:
            PlacetError: As `Web.get`; `EvidenceError`: it is no such chain.
        """
        ask, ark = pem_chain(self.web.get(self._product(product) + "/cert_chain").body, 2, "chain")
        return ask, ark

    def crl(self, product: str) -> bytes:
        """Return the root's revocation list, as DER.

        Raises:
            PlacetError: As `Web.get`; `MalformedError`: another form.
        """
        return _der(self.web.get(self._product(product) + "/crl"))

    def _product(self, product: str) -> str:
        return f"{self.base.rstrip('/')}/vcek/v1/{product.capitalize()}"
