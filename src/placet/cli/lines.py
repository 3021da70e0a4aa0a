"""Standard output as a collector reads it: whole lines, of which is known how many went out."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import os
import select
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO


class LineWriter:
    """Writes lines, and counts those that went out whole.

    A pipe takes several lines at once or none of them, as long as they are no longer than
    ``PIPE_BUF`` bytes; while it is full this waits and can be cancelled. A file has them on
    its disk when `write` returns. What the reader of a pipe does with them is not known here.

    Args:
        stream: Where to; nothing of it may be in its own buffer.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.count = 0
        self._stream, self._fd, mode = stream, -1, 0
        with contextlib.suppress(io.UnsupportedOperation):
            self._fd = stream.fileno()
            mode = os.fstat(self._fd).st_mode
        self._file, self._pipe = stat.S_ISREG(mode), stat.S_ISFIFO(mode)
        self._waits = self._pipe or stat.S_ISSOCK(mode)
        if self._file:
            self._end_cut_line()

    async def write(self, lines: Sequence[bytes]) -> None:
        """Write lines, each with its line feed.

        Raises:
            OSError: It takes no more; `BrokenPipeError`, because nobody reads it any more.
        """
        done = 0
        try:
            for chunk, count in _chunks(lines):
                rest = memoryview(chunk)
                while rest:
                    if self._waits:
                        await self._room()
                    rest = rest[self._write(rest[: select.PIPE_BUF]) :]
                done += count
        finally:
            if self._file:
                os.fsync(self._fd)  # else they count for nothing
            self.count += done

    @contextlib.contextmanager
    def watched(self, closed: Callable[[], object]) -> Iterator[None]:
        """Call ``closed`` once nobody reads the pipe any more, even if nothing is written."""
        if not self._pipe:
            yield
            return
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(self._fd)
            closed()

        # Nothing is ever there to read at this end; what wakes is that the other one is gone.
        loop.add_reader(self._fd, gone)
        try:
            yield
        finally:
            loop.remove_reader(self._fd)

    def _write(self, data: memoryview) -> int:
        if self._fd < 0:
            self._stream.write(data)
            self._stream.flush()
            return len(data)
        return os.write(self._fd, data)

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(self._fd)

    def _end_cut_line(self) -> None:
        """End a line of a file that a kill cut off, so that the next one stands by itself."""
        size = os.fstat(self._fd).st_size
        if not size or not fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_APPEND:
            return
        try:
            with Path(f"/dev/fd/{self._fd}").open("rb") as file:
                file.seek(size - 1)
                cut = file.read(1) != b"\n"
        except OSError:
            cut = True  # not ours to read: an empty line harms less than two joined ones
        if cut:
            os.write(self._fd, b"\n")


def _chunks(lines: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield lines joined, as many as a pipe takes at once, and how many they are."""
    chunk, count = b"", 0
    for line in lines:
        if chunk and len(chunk) + len(line) > select.PIPE_BUF:
            yield chunk, count
            chunk, count = b"", 0
        chunk, count = chunk + line, count + 1
    if chunk:
        yield chunk, count
