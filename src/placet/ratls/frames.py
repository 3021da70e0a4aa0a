"""What the attest hook sees of a connection: the TLS facts, and frames over its plaintext."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from placet.core.limits import MAX_FRAME
from placet.errors import TooLargeError
from placet.ratls.certificate import PeerCertificate

T = TypeVar("T")


class Plaintext(Protocol):
    """The plaintext of a TLS connection, while no application protocol has it."""

    async def send_plain(self, data: bytes) -> None:
        """Encrypt and send."""

    async def receive_plain(self, count: int) -> bytes:
        """Return exactly ``count`` bytes, as they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPeer:
    """What the handshake established; every field is as this end saw it.

    ``export(label, context, length)`` is the TLS exporter (RFC 8446, section 7.5).
    """

    own_spki: str
    peer_spki: str
    certificate: PeerCertificate
    group: str
    cipher: str
    export: Callable[[bytes, bytes, int], bytes]
    network: str = ""
    """Where it comes from (`placet.ratls.door`); vouches for nothing."""


class FrameChannel:
    """Length-prefixed messages over the TLS plaintext, before HTTP starts.

    Bytes after the last frame stay in TLS and go to the application protocol.
    """

    def __init__(self, transport: Plaintext) -> None:
        self._transport = transport

    async def send(self, frame: bytes) -> None:
        """Send one frame: 4 bytes of big-endian length, then the bytes.

        Raises:
            ValueError: Longer than `MAX_FRAME`: the caller is wrong.
        """
        if len(frame) > MAX_FRAME:
            raise ValueError(f"frame: {len(frame)} bytes, at most {MAX_FRAME} are sent")
        await self._transport.send_plain(len(frame).to_bytes(4, "big") + frame)

    async def receive(self, limit: int = MAX_FRAME) -> bytes:
        """Return the next frame.

        Args:
            limit: Bytes, at most `MAX_FRAME`; checked before any of the frame is read.

        Raises:
            TooLargeError: The peer announced more than ``limit``.
        """
        length = int.from_bytes(await self._transport.receive_plain(4), "big")
        if length > min(limit, MAX_FRAME):
            raise TooLargeError(f"frame is {length} bytes, at most {limit} are read")
        return await self._transport.receive_plain(length)


Attest = Callable[[FrameChannel, TlsPeer], Coroutine[Any, Any, T]]
