"""Evidence over a socket that the TEE's launcher made before it started this process.

The descriptor's number stands in ``PLACET_TEE_FD``. Each message is one packet with the
canonical JSON of a `Request` or of an `Answer`. The other side knows the sender by the
kernel's word (``SO_PASSCRED``), so neither forks nor children are served.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import MutableMapping

from placet.attest.produce.producer import Description
from placet.core.attestation import CertificateClaims, Context, Evidence
from placet.core.config import config_digest
from placet.core.encoding import Base64, Int, Record, b64, decode, encode, unb64
from placet.core.limits import MAX_FRAME
from placet.errors import MalformedError, TooLargeError, UnavailableError, from_problem

VARIABLE = "PLACET_TEE_FD"
TIMEOUT = 30.0
"""Seconds for one answer; a quote takes milliseconds."""


class Describe(Record, tag_field="op", tag="describe"):
    """Ask what was measured."""


class Quote(Record, tag_field="op", tag="quote"):
    """Ask for a quote over a context, never over 64 bytes (R1.6)."""

    context: Context


class CertificateQuote(Record, tag_field="op", tag="certificate-quote"):
    """Ask for a quote over what a certificate shows, under the label for that."""

    claims: CertificateClaims


class AppReport(Record, tag_field="op", tag="app-report"):
    """Ask for a quote over an application's own data, under the label for that."""

    data: Base64


class SealingKey(Record, tag_field="op", tag="sealing-key"):
    """Ask for the key that is bound to this measurement."""


Ask = Describe | Quote | CertificateQuote | AppReport | SealingKey


class Request(Record):
    """One question. The answer repeats its number."""

    id: Int
    ask: Ask


class Answer(Record):
    """One answer: one value, or the members of a problem."""

    id: Int
    description: Description | None = None
    evidence: Evidence | None = None
    secret: Base64 | None = None
    problem: dict[str, object] | None = None


class SocketProducer:
    """The `Producer` of a process that a launcher started.

    Args:
        sock: This end of the socket pair (``SOCK_SEQPACKET``). Owned from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.set_inheritable(False)
        sock.settimeout(TIMEOUT)
        self._sock = sock
        self._lock = threading.Lock()
        self._ids = itertools.count(1)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> SocketProducer:
        """Take over the descriptor that ``PLACET_TEE_FD`` names, and forget the variable.

        Raises:
            UnavailableError: The variable is missing or names no such socket.
        """
        number = environ.pop(VARIABLE, "")
        try:
            sock = socket.socket(fileno=int(number))
        except (ValueError, OSError) as e:
            raise UnavailableError(
                f"{VARIABLE} is {number!r}, not the number of a socket to a TEE",
                "Start this program by the launcher of a TEE.",
            ) from e
        return cls(sock)

    def describe(self) -> Description:
        """Return what was measured, and this start's boot id."""
        found = self._ask(Describe()).description
        if found is None or config_digest(found.measured_config) != found.config:
            raise MalformedError("the TEE's description lacks the config of its digest")
        return found

    def quote(self, context: Context) -> Evidence:
        """Return evidence whose report data is `report_data` of ``context``."""
        return _evidence(self._ask(Quote(context=context)))

    def certificate_quote(self, claims: CertificateClaims) -> Evidence:
        """Return evidence whose report data is `report_data` of ``claims``."""
        return _evidence(self._ask(CertificateQuote(claims=claims)))

    def app_report(self, data: bytes) -> Evidence:
        """Return evidence whose report data is `app_report_data` of ``data``."""
        return _evidence(self._ask(AppReport(data=b64(data))))

    def sealing_key(self) -> bytes:
        """Return 32 bytes that only this measurement gets on this machine."""
        key = unb64(self._ask(SealingKey()).secret or "")
        if len(key) != 32:  # noqa: PLR2004 - the size that the protocol names
            raise MalformedError(f"the TEE's sealing key has {len(key)} bytes, not 32")
        return key

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def _ask(self, ask: Ask) -> Answer:
        with self._lock:
            number = next(self._ids)
            raw = encode(Request(id=number, ask=ask))
            if len(raw) > MAX_FRAME:
                raise TooLargeError(f"request is {len(raw)} bytes, at most {MAX_FRAME} are sent")
            answer = self._exchange(raw)
            # An answer that came too late for an earlier question is not this one's.
            while answer.id != number:
                answer = self._exchange(b"")
        if answer.problem is not None:
            raise from_problem(answer.problem)
        return answer

    def _exchange(self, raw: bytes) -> Answer:
        try:
            if raw:
                self._sock.sendall(raw)
            got = self._sock.recv(MAX_FRAME + 1)
        except OSError as e:
            raise UnavailableError(f"the TEE did not answer: {e}") from e
        if not got:
            raise UnavailableError("the TEE hung up", "See its log; then start this again.")
        return decode(got, Answer, limit=MAX_FRAME)


def _evidence(answer: Answer) -> Evidence:
    if answer.evidence is None:
        raise MalformedError("the TEE answered without evidence")
    return answer.evidence
