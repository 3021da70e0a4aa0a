"""The app's process: it gets its key by an inherited descriptor, and our signals."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from placet.agent.volume import Unlocked
from placet.errors import UnavailableError

KEY_FD = "PLACET_KEY_FD"
"""Environment variable with the number of the descriptor to read the key from, to its end."""
VOLUME = "PLACET_VOLUME"
FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
SIGNALLED = 128


def run_child(command: Sequence[str], unlocked: Unlocked, environ: Mapping[str, str]) -> int:
    """Run a command with the volume's key, stay its parent and return its exit code.

    The key goes through a pipe: it is on no disk, in no argument and in no environment
    (I13). Signals that we get are passed on.

    Args:
        command: Program and arguments; no shell sees them.
        unlocked: The volume.
        environ: The child's environment, to which the two variables are added.

    Returns:
        The child's exit code, or 128 and the number of the signal that ended it.

    Raises:
        UnavailableError: The program cannot be started.
    """
    readable, writable = os.pipe()
    try:
        # 32 bytes fit into any pipe, so this never waits for the child.
        os.write(writable, unlocked.secret)
    finally:
        os.close(writable)
    variables = {**environ, KEY_FD: str(readable), VOLUME: str(unlocked.path)}
    early: list[int] = []
    before = {n: signal.signal(n, lambda number, _: early.append(number)) for n in FORWARDED}
    try:
        # The command is part of the measured argv; no shell reads it.
        child = subprocess.Popen(command, env=variables, pass_fds=(readable,))  # noqa: S603
    except OSError as e:
        _restore(before)
        raise UnavailableError(f"{command[0]} cannot be started: {e.strerror}") from e
    finally:
        os.close(readable)
    for number in FORWARDED:
        signal.signal(number, lambda number, _: child.send_signal(number))
    for missed in early:
        child.send_signal(missed)
    try:
        code = child.wait()
    finally:
        _restore(before)
    return code if code >= 0 else SIGNALLED - code


def _restore(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
