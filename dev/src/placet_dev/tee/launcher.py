"""INSECURE: the software TEE's daemon. It protects nobody; it makes development honest.

    python -m placet_dev.tee.launcher --state DIR --control SOCKET

It measures a bundle, starts a private copy of exactly what it hashed, and quotes for that
process alone. Its keys stay in this process and its private folder; whoever has the
control socket starts and stops, and can have nothing signed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from placet.core.attestation import Evidence
from placet.core.encoding import b64, decode, encode
from placet.core.limits import MAX_FRAME
from placet.core.profile import Measurement, SgxMeasurement, TdxMeasurement
from placet.errors import (
    ConflictError,
    MalformedError,
    NotFoundError,
    PlacetError,
    UnavailableError,
)
from placet_dev.tee.bundle import Bundle
from placet_dev.tee.control import (
    Ask,
    ControlAnswer,
    ControlRequest,
    List,
    Shutdown,
    Start,
    Stop,
    Trust,
    Trusted,
    Wait,
    short_address,
)
from placet_dev.tee.enclave import Enclave
from placet_dev.tee.pki import DevPki, Tee
from placet_dev.tee.process import INTERPRETER, Running, remove_copy, take_copy
from placet_dev.tee.quotes import sgx_quote, tdx_quote

DAY = 86400
GRACE = 5.0
"""Seconds that processes have to end when the launcher does."""

BANNER = """\
**************************************************************************
*  SOFTWARE TEE - INSECURE - FOR DEVELOPMENT ONLY                        *
*  It protects nobody from root on this machine, nor from any process    *
*  of the same user: they can read the memory and the keys of all that   *
*  runs here. Its evidence counts only where its root was put into the   *
*  measured config and named in a profile by hand.                       *
*  The interpreter is this host's; bundles do not contain or measure it. *
**************************************************************************"""


class Daemon:
    """All that one launcher keeps. On the event loop's thread only.

    Args:
        state: Private folder, made if it is missing.
        clock: Unix seconds, for the dates of collateral.

    Raises:
        ConflictError: Another launcher runs on the same folder.
    """

    def __init__(self, state: Path, clock: Callable[[], int]) -> None:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        self._lock = (state / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise ConflictError(
                f"another launcher runs on {state}", "Stop it, or name another --state."
            ) from e
        self._clock = clock
        self._pki = _load_pki(state / "pki", clock())
        self._sealing_secret = _load_secret(state / "sealing.key")
        self._copies = state / "copies"
        self._compiled = state / "compiled"
        remove_copy(self._copies)  # of a launcher that was killed
        self._copies.mkdir(mode=0o700)
        self._running: dict[str, Running] = {}
        self._names = 0
        self._collateral: dict[tuple[Tee, int], str] = {}
        self.over = asyncio.Event()

    @property
    def anchor(self) -> str:
        """Return the name of this TEE's root."""
        return self._pki.anchor().name

    async def answer(self, raw: bytes) -> bytes:
        """Return the encoded answer to one control request."""
        try:
            request = decode(raw, ControlRequest, limit=MAX_FRAME)
            return encode(await self._do(request.ask))
        except PlacetError as e:
            return encode(ControlAnswer(problem=e.problem()))
        except ValueError as e:  # a path that no system call takes
            return encode(ControlAnswer(problem=MalformedError(f"request: {e}").problem()))
        except OSError as e:
            failed = UnavailableError(f"the launcher could not: {e}", "Mend that, then try again.")
            return encode(ControlAnswer(problem=failed.problem()))

    async def close(self) -> None:
        """End all processes, those that do not listen by force, and remove their copies."""
        running = tuple(self._running.values())
        for process in running:
            process.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                for process in running:
                    await process.ended.wait()
        for process in running:
            process.signal(signal.SIGKILL)
            await process.ended.wait()
        remove_copy(self._copies)
        self._lock.close()

    async def _do(self, ask: Ask) -> ControlAnswer:
        if isinstance(ask, Trust):
            return ControlAnswer(trusted=self._trust())
        if isinstance(ask, List | Shutdown):
            if isinstance(ask, Shutdown):
                self.over.set()
            return ControlAnswer(processes=tuple(p.status(n) for n, p in self._running.items()))
        name = await self._start(ask) if isinstance(ask, Start) else ask.id
        process = self._find(name)
        if isinstance(ask, Stop):
            if ask.signal not in set(signal.Signals):
                raise MalformedError(f"there is no signal {ask.signal}")
            process.signal(ask.signal)
        elif isinstance(ask, Wait):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ask.milliseconds / 1000):
                    await process.ended.wait()
        return ControlAnswer(processes=(process.status(name),))

    async def _start(self, ask: Start) -> str:
        self._names += 1
        number = self._names
        target = self._copies / str(number)
        try:
            bundle = await asyncio.to_thread(take_copy, Path(ask.bundle), target, self._compiled)
            self._check_open()
            log = None if ask.log is None else Path(ask.log)
            started = Running(bundle, ask.params, log, self._enclave)
        except BaseException:
            remove_copy(target)
            raise
        name = f"{bundle.config.app}-{number}"
        self._running[name] = started
        return name

    def _check_open(self) -> None:
        if self.over.is_set():
            raise ConflictError("the launcher is ending", "Start it again first.")

    def _enclave(self, bundle: Bundle, pid: int) -> Enclave:
        return Enclave(
            bundle=bundle,
            boot=secrets.token_hex(16),
            pid=pid,
            quoter=self._quote,
            sealing_secret=self._sealing_secret,
        )

    def _quote(self, measurement: Measurement, report_data: bytes) -> Evidence:
        if isinstance(measurement, SgxMeasurement):
            family: Tee = "sgx"
            quote = sgx_quote(self._pki, measurement=measurement, report_data=report_data)
        elif isinstance(measurement, TdxMeasurement):
            family = "tdx"
            quote = tdx_quote(self._pki, measurement=measurement, report_data=report_data)
        else:
            raise UnavailableError("the software TEE speaks for SGX and TDX only")
        return Evidence(family=family, quote=b64(quote), collateral=self._stapled(family))

    def _stapled(self, family: Tee) -> str:
        now = self._clock()
        day = (family, now // DAY)
        if day not in self._collateral:
            self._collateral[day] = b64(self._pki.collateral(family, now))
        return self._collateral[day]

    def _trust(self) -> Trusted:
        root = self._pki.trust_root()
        return Trusted(root=root, sgx=self._stapled("sgx"), tdx=self._stapled("tdx"))

    def _find(self, name: str) -> Running:
        if name not in self._running:
            raise NotFoundError(f"no process {name!r} was started here", "See the list.")
        return self._running[name]


def listen(control: Path) -> socket.socket:
    """Return a socket that listens at ``control``, for this user only."""
    control.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        with short_address(control) as address:
            server.bind(address)
    finally:
        os.umask(before)
    server.listen()
    server.settimeout(0)
    return server


async def serve(daemon: Daemon, server: socket.socket) -> None:
    """Answer on a control socket until the daemon is over, then end all processes."""
    loop = asyncio.get_running_loop()
    connections: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        while True:
            connection, _ = await loop.sock_accept(server)
            connection.settimeout(0)
            task = loop.create_task(_converse(daemon, connection))
            connections.add(task)
            task.add_done_callback(connections.discard)

    accepting = loop.create_task(accept())
    await daemon.over.wait()
    accepting.cancel()
    await daemon.close()


async def _converse(daemon: Daemon, connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with connection, contextlib.suppress(OSError):
        while raw := await loop.sock_recv(connection, MAX_FRAME + 1):
            await loop.sock_sendall(connection, await daemon.answer(raw))


def main(argv: list[str] | None = None) -> int:
    """Run the daemon until SIGTERM, SIGINT, a shutdown request or the end of its starter."""
    parser = argparse.ArgumentParser(prog="placet_dev.tee.launcher", description="Software TEE.")
    parser.add_argument("--state", type=Path, required=True, help="private folder")
    parser.add_argument("--control", type=Path, required=True, help="control socket to make")
    parser.add_argument("--follow-stdin", action="store_true", help="end when stdin is closed")
    parser.add_argument("--ready-fd", type=int, help="gets one byte when requests are answered")
    options = parser.parse_args(argv)
    try:
        asyncio.run(_run(options))
    except PlacetError as e:
        print(f"placet: {e.detail}\n{e.hint}".rstrip(), file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _run(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    daemon = Daemon(options.state, lambda: int(time.time()))
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, daemon.over.set)
    if options.follow_stdin:
        loop.add_reader(sys.stdin, daemon.over.set)
    with listen(options.control) as server:
        _say_ready(daemon, options)
        await serve(daemon, server)


def _say_ready(daemon: Daemon, options: argparse.Namespace) -> None:
    with Path(INTERPRETER).open("rb") as f:
        interpreter = hashlib.file_digest(f, "sha256").hexdigest()
    lines = (
        BANNER,
        f"root         {daemon.anchor}",
        f"interpreter  {INTERPRETER} sha256:{interpreter} (not measured)",
        f"control      {options.control}",
    )
    print("\n".join(lines), file=sys.stderr, flush=True)  # noqa: T201
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"\n")
        os.close(options.ready_fd)


def _load_pki(folder: Path, now: int) -> DevPki:
    if not folder.exists():
        fresh = folder.with_suffix(".new")
        DevPki.create(now).save(fresh)
        fresh.rename(folder)
    return DevPki.load(folder)


def _load_secret(path: Path) -> bytes:
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(secrets.token_bytes(32))
        fresh.rename(path)
    return path.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
