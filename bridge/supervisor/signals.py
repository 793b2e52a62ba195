"""Signals as numbers in a pipe, for a process that waits with a selector."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

__all__ = ["SignalPipe"]


class SignalPipe:
    """Takes signals from now on; :meth:`close` puts back what handled them before. Only in the main thread.

    Args:
        names: Which ones, as ``SIGTERM``.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._names = {int(getattr(signal, name)): name for name in names}
        self._before = {number: signal.signal(number, _noted) for number in self._names}

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with the next signal."""
        return self._read

    def take(self) -> list[str]:
        """Return the names of the signals that have come, in their order."""
        try:
            numbers = os.read(self._read, 4096)
        except BlockingIOError:
            return []
        # Code that was imported may handle signals of its own, whose numbers come here as well.
        return [self._names[number] for number in numbers if number in self._names]

    def close(self) -> None:
        """Take no more signals."""
        self.abandon()
        signal.set_wakeup_fd(self._wakeup)
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def abandon(self) -> None:
        """Close the pipe and leave the handlers as they are: for a child, which sets its own."""
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)


def _noted(number: int, frame: object) -> None:
    """Do nothing: the number has been written to the pipe."""
