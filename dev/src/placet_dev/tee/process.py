"""INSECURE: start one measured copy of a bundle, and serve that process alone.

The socket pair is made before exec; the kernel stamps every message on it with its
sender's pid (``SO_PASSCRED``), and the pid is not free for others before the channel is
closed. Processes of the same user are **not** kept out: they may trace the process or
change its copy. Root may forge the stamp as well.
"""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import ctypes
import os
import py_compile
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from placet.attest.produce.socket import VARIABLE
from placet.core.limits import MAX_FRAME
from placet.errors import MalformedError
from placet_dev.tee import measure
from placet_dev.tee.bundle import MANIFEST, TREES, Bundle, command_line, read_bundle
from placet_dev.tee.control import Started
from placet_dev.tee.enclave import Enclave

BASE = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
"""Below the measured environment, always the same. Without a locale CPython sets one itself."""
CREDENTIALS = struct.Struct("3i")
"""pid, uid, gid (``struct ucred``)."""
PR_SET_PDEATHSIG = 1

INTERPRETER = str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
"""The host's, outside of any virtual environment. Not measured."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_COMPILING = threading.Lock()


def take_copy(source: Path, target: Path, compiled: Path) -> Bundle:
    """Copy a bundle into a private folder, hash the copy and make it read-only.

    Args:
        source: The bundle; whatever happens to it later is of no consequence.
        target: New folder for the copy.
        compiled: Where modules are kept that this launcher compiled from measured source,
            by runtime digest. Bundles cannot bring any.

    Raises:
        NotFoundError: There is no bundle.
        MalformedError: It is not what its manifest says, or cannot be measured.
    """
    target.mkdir(mode=0o700)
    for name in TREES:
        measure.copy_tree(source / name, target / name)
    with contextlib.suppress(FileNotFoundError):  # read_bundle says so better
        measure.copy_file(source / MANIFEST, target / MANIFEST)
    bundle = read_bundle(target)
    _add_compiled(target / "runtime", compiled / bundle.runtime.partition(":")[2])
    for folder, _, files in os.walk(target):
        for name in files:
            path = Path(folder, name)
            path.chmod(path.stat().st_mode & 0o555)
        Path(folder).chmod(0o500)
    return bundle


def remove_copy(target: Path) -> None:
    """Remove a copy, read-only as it is."""
    for folder, _, _ in os.walk(target):
        Path(folder).chmod(0o700)
    shutil.rmtree(target, ignore_errors=True)


class Running:
    """A process, its enclave and its channel; on the event loop's thread only.

    Args:
        bundle: The copy to start; removed when the process has ended.
        params: Unmeasured values for the placeholders of its argv.
        log: Where its output is appended.
        make_enclave: Makes the enclave of a pid.

    Raises:
        MalformedError: A parameter is not what it must be, or the log cannot be opened.
    """

    def __init__(
        self,
        bundle: Bundle,
        params: dict[str, str],
        log: Path | None,
        make_enclave: Callable[[Bundle, int], Enclave],
    ) -> None:
        arguments = command_line(bundle.config, params, INTERPRETER)
        with _open_log(log) as output:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            # Both before exec: whoever writes to the other end is stamped from the start.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            ours.settimeout(0)
            with theirs, contextlib.ExitStack() as failed:
                failed.callback(ours.close)
                self._process = subprocess.Popen(
                    [INTERPRETER, "-I", "-S", "-B", "runtime/boot.py", *arguments],
                    cwd=bundle.folder,
                    env={
                        **BASE,
                        **bundle.config.environment,
                        VARIABLE: str(theirs.fileno()),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - one call of libc
                )
                failed.pop_all()
        self._channel = ours
        self._pidfd = os.pidfd_open(self._process.pid)
        self.enclave = make_enclave(bundle, self._process.pid)
        self.exit: int | None = None
        self.ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, self._serve)
        loop.add_reader(self._pidfd, self._end)

    def status(self, name: str) -> Started:
        """Return what was measured, and how the process is."""
        bundle = self.enclave.bundle
        return Started(
            id=name,
            kind=bundle.kind,
            app=bundle.config.app,
            image=bundle.image,
            config=bundle.config_digest,
            measurement=bundle.measurement,
            boot=self.enclave.boot,
            pid=self._process.pid,
            exit=self.exit,
        )

    def signal(self, signum: int) -> None:
        """Send a signal; SIGKILL is a power failure, which spares no child."""
        if self.exit is not None:
            return
        if signum == signal.SIGKILL:
            self._kill_all()
        else:
            signal.pidfd_send_signal(self._pidfd, signum)

    def _serve(self) -> None:
        """Answer one message, or close the channel."""
        try:
            raw, controls, _, _ = self._channel.recvmsg(
                MAX_FRAME + 1, socket.CMSG_SPACE(CREDENTIALS.size)
            )
        except BlockingIOError:
            return
        except OSError:
            raw, controls = b"", []
        if not raw:
            self._hang_up()
            return
        sender = 0
        for level, kind, data in controls:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                sender, _, _ = CREDENTIALS.unpack(data)
        try:
            self._channel.send(self.enclave.answer(raw, sender))
        except OSError:
            # It is gone, or asks and does not read.
            self._hang_up()

    def _hang_up(self) -> None:
        asyncio.get_running_loop().remove_reader(self._channel)
        self._channel.close()

    def _end(self) -> None:
        """Take note of the end: first the channel, then the pid becomes free."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._channel.fileno() >= 0:
            self._hang_up()
        self._kill_all()
        self.exit = self._process.wait()
        remove_copy(self.enclave.bundle.folder)
        self.ended.set()

    def _kill_all(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _die_with(launcher: int) -> Callable[[], None]:
    """Return what the child does before exec: it ends with its TEE and dumps no core."""

    def prepare() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if os.getppid() != launcher:
            os._exit(1)

    return prepare


def _open_log(log: Path | None) -> BinaryIO:
    flags = os.O_NOFOLLOW
    try:
        return open(
            log or os.devnull, "ab", opener=lambda path, mode: os.open(path, mode | flags, 0o600)
        )
    except OSError as e:
        raise MalformedError(f"cannot append to the log {log}: {e}") from e


def _add_compiled(runtime: Path, cache: Path) -> None:
    """Put compiled modules beside the sources of a measured runtime, compiling them once."""
    with _COMPILING:
        if not cache.exists():
            # By hash and unchecked: the sources were measured, their times say nothing.
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            compileall.compile_dir(runtime, quiet=2, invalidation_mode=mode)
            fresh = cache.with_name(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            for folder in runtime.rglob("__pycache__"):
                shutil.copytree(folder, fresh / folder.relative_to(runtime))
            fresh.rename(cache)
            return
    shutil.copytree(cache, runtime, dirs_exist_ok=True)
