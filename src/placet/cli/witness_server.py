"""An outside witness: one process that remembers how far vaults are (spec/10, section 2).

Plain HTTP, since every word is signed and nothing is secret (docs/adr/0024). Who floods it
costs others nothing: sizes, rates and the number of remembered vaults are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from placet.core.continuity import WitnessRequest
from placet.core.dsse import vault_id
from placet.core.encoding import decode, encode, unb64
from placet.core.limits import KIB, MAX_SEEN
from placet.errors import (
    InternalError,
    MalformedError,
    NotFoundError,
    PlacetError,
    RateLimitedError,
    RoleDeniedError,
    TooLargeError,
    UnavailableError,
)
from placet.storage.sealed import Seal
from placet.storage.sqlite import SqliteStore
from placet.vault.witnessing import Witnessing

KEY = "witness.pem"
MAX_HEAD = 8 * KIB
MAX_REQUEST = 128 * KIB
"""Bytes of a beat with its proof."""
CONNECTIONS = 256
IDLE = 90.0
"""Seconds until the next request on a connection; a vault asks every 60."""
SLOW = 10.0
"""Seconds for one request to arrive."""
ADDRESSES = 4096
"""Senders whose rates are kept at one time."""


@dataclass
class Allowance:
    """So many at once, and so many a second after that."""

    burst: float
    rate: float
    left: dict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def spend(self, who: str, now: float) -> None:
        """Take one.

        Raises:
            RateLimitedError: None is left.
        """
        left, since = self.left.pop(who, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.rate)
        self.left[who] = max(left - 1, 0), now
        while len(self.left) > ADDRESSES:
            self.left.pop(next(iter(self.left)))
        if left < 1:
            raise RateLimitedError("too much at once", "Ask again in a minute.", retry_after=60)


class Witness:
    """Key and memory of one witness, in one folder.

    Args:
        folder: Made if it is missing; the key file in it is readable by its user only.
        allowed: Ids of the vaults that it remembers; empty: any, up to `MAX_SEEN`.
        now: Returns Unix seconds.
        running: Returns seconds of a clock that nobody sets.

    Raises:
        UnavailableError: The folder cannot be used, or another witness runs in it.
        MalformedError: The key file is none.
    """

    def __init__(
        self,
        folder: Path,
        allowed: frozenset[str] = frozenset(),
        *,
        now: Callable[[], float] = time.time,
        running: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed, self._running = allowed, running
        key = _key(folder)
        self.id = vault_id(key.public_key().public_bytes_raw())
        secret = hashlib.sha256(b"placet-witness/1\0" + key.private_bytes_raw()).digest()
        self._store = SqliteStore(folder / "witness.db", Seal(secret, self.id, os.urandom))
        self._seen = {n.removeprefix("seen/") for n in self._store.names("seen")}
        self._witnessing = Witnessing(self._store, key, lambda: int(now()), self._knows)
        self._requests = Allowance(burst=200, rate=20)
        self._strangers = Allowance(burst=64, rate=1 / 60)

    def answer(self, method: str, path: str, body: bytes, sender: str) -> bytes:
        """Return the body of the answer.

        Raises:
            PlacetError: What is refused, and why.
        """
        self._requests.spend(sender, self._running())
        if (method, path) == ("GET", "/healthz"):
            return encode({"witness": self.id, "vaults": len(self._seen)})
        if (method, path) != ("POST", "/v1/witness"):
            raise NotFoundError(f"there is no {method} {path[:200]} here")
        request = decode(body, WitnessRequest, limit=MAX_REQUEST)
        vault = vault_id(unb64(request.beat.vault_key))
        if vault not in self._seen:
            self._strangers.spend(sender, self._running())
        answer = encode(self._witnessing.answer(request))
        self._seen.add(vault)
        return answer

    def close(self) -> None:
        """Let go of the files."""
        self._store.close()

    def _knows(self, vault: str) -> bool:
        if self._allowed and vault not in self._allowed:
            raise RoleDeniedError(
                f"this witness does not remember vault {vault}",
                "Its operator names it: placet witness serve --allow ID.",
            )
        if vault not in self._seen and len(self._seen) >= MAX_SEEN:
            raise RateLimitedError(f"this witness remembers {MAX_SEEN} vaults and no more")
        return True


@contextlib.asynccontextmanager
async def witnessing(witness: Witness, host: str, port: int) -> AsyncIterator[int]:
    """Answer until the block is left; yield the port.

    Raises:
        OSError: The address cannot be listened on.
    """
    open_now: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(open_now) >= CONNECTIONS:
            writer.transport.abort()
            return
        open_now.add(writer)
        sender = str((writer.get_extra_info("peername") or ("",))[0])
        try:
            while await _one(witness, reader, writer, sender):
                pass
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, ValueError):
            pass  # it went away, was too slow, or is no HTTP
        finally:
            open_now.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, host, port, limit=MAX_HEAD)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in tuple(open_now):
            writer.transport.abort()


async def _one(
    witness: Witness, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sender: str
) -> bool:
    """Answer one request; say whether another one may follow."""
    async with asyncio.timeout(IDLE):
        head = await reader.readuntil(b"\r\n\r\n")
    last = False
    try:
        method, path, length, last = _head(head)
        async with asyncio.timeout(SLOW):
            body = await reader.readexactly(length)
        status, kind, answer = 200, "application/json", witness.answer(method, path, body, sender)
    except PlacetError as e:
        status, kind, answer = e.status, "application/problem+json", _problem(e)
        last = last or isinstance(e, MalformedError)
    except Exception:  # noqa: BLE001 - whatever it is, the next one is answered
        failure = InternalError("the witness failed; nothing was changed")
        status, kind, last = failure.status, "application/problem+json", True
        answer = _problem(failure)
    writer.write(
        f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}\r\n"  # noqa: PLR2004 - RFC 9110
        f"content-type: {kind}\r\ncontent-length: {len(answer)}\r\n"
        f"connection: {'close' if last else 'keep-alive'}\r\n\r\n".encode()
        + answer
    )
    async with asyncio.timeout(SLOW):
        await writer.drain()
    return not last


def _head(head: bytes) -> tuple[str, str, int, bool]:
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    parts = first.split(" ")
    if len(parts) != 3 or parts[2] not in {"HTTP/1.1", "HTTP/1.0"}:  # noqa: PLR2004 - RFC 9112
        raise MalformedError("this is no HTTP/1.1 request")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name.lower() in fields:
            raise MalformedError("a header is none, or is there twice")
        fields[name.lower()] = value.strip()
    length = fields.get("content-length", "0")
    if "transfer-encoding" in fields or not length.isdecimal() or not length.isascii():
        raise MalformedError("a body comes with its content-length")
    if len(length) > 9 or int(length) > MAX_REQUEST:  # noqa: PLR2004 - digits, before they count
        raise TooLargeError(f"body is {length[:20]} bytes, at most {MAX_REQUEST} are read")
    last = parts[2] == "HTTP/1.0" or fields.get("connection", "").lower() == "close"
    return parts[0], parts[1], int(length), last


def _problem(error: PlacetError) -> bytes:
    return json.dumps(error.problem(), default=str).encode()


def _key(folder: Path) -> Ed25519PrivateKey:
    """Return the witness's key; make it at the first start."""
    path = folder / KEY
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            made = Ed25519PrivateKey.generate()
            pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            fresh = folder / f"{KEY}.new"
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
                f.write(pem)
                f.flush()
                os.fsync(f.fileno())
            fresh.rename(path)
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as e:
        raise UnavailableError(f"{path} cannot be used: {e.strerror}") from e
    except ValueError as e:
        raise MalformedError(f"{path} is no private key") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise MalformedError(f"{path} is no Ed25519 key")
    return key
