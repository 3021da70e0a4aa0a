"""What two processes of one vault say to each other when the newer takes over (spec/12)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from placet.core.encoding import Base64, Int, Record, Sha256
from placet.core.limits import MAX_LOG_PAGE

Line = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]
"""Names one log of a vault: each process that took over has its own."""

Endpoint = Annotated[str, Meta(pattern=r"\A[!-~]{1,255}\Z")]
"""``host:port``, where a successor says that it answers; a hint, and nothing more."""


class HandOverList(Record):
    """GET /v1/hand-over?since=INDEX: the keys of a page of the log that the caller may have."""

    keys: Annotated[tuple[Sha256, ...], Meta(max_length=MAX_LOG_PAGE)]
    next: Int
    """Where the next page begins."""
    end: bool
    """Whether the log ended with this page."""
    kept: Int
    """Keys that the old process has not let go of for good, the caller's or not."""


class HandOverRequest(Record):
    """POST /v1/keys/{key}/hand-over."""

    line: Line
    """Drawn by the new process, for its own log."""
    endpoint: Endpoint
    offset: Int
    """Of the package, in bytes: it comes in parts."""


class HandOverAnswer(Record):
    """A part of the package; from now on the key is not served by the process that answers."""

    identity: Base64
    """The vault's private key, Ed25519: the new process is the same vault."""
    size: Int
    """Bytes of the package."""
    digest: Sha256
    """Label ``placet-hand-over/1``."""
    part: Base64
    """From ``offset`` on; empty once it was confirmed."""
    confirmed: bool
    """Whether this very line confirmed it before."""


class HandOverConfirm(Record):
    """POST /v1/keys/{key}/hand-over/confirm: the package is durable in the new process."""

    line: Line
    digest: Sha256


class HandOverConfirmed(Record):
    """It is erased here. Only now the new process may serve the key."""

    digest: Sha256
