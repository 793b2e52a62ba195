"""Signals as events of a selector: the interpreter writes their numbers into a pipe.

``master.py`` has what each signal does, and ``run.py`` where there is none.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from bridge import forks
from bridge.serving.ending import ending

__all__ = ["SignalPipe"]


class SignalPipe:
    """Receives signals from its construction until :meth:`close`, which restores the handlers from before.

    It works in the main thread only.

    Args:
        names: The signals, by names such as ``SIGTERM``.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._names = {int(getattr(signal, name)): name for name in names}
        self._before = {number: signal.signal(number, _ignore) for number in self._names}
        forks.add(self._in_child)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with the next signal."""
        return self._read

    def receive(self) -> list[str]:
        """Return the names of the signals that have arrived, in their order."""
        try:
            numbers = os.read(self._read, 4096)
        except BlockingIOError:
            return []
        # The interpreter writes the numbers of all handled signals, also of those that imported code handles.
        return [self._names[number] for number in numbers if number in self._names]

    def close(self) -> None:
        """Receive no more signals."""
        self.abandon()
        signal.set_wakeup_fd(self._wakeup)
        ending.restore_signals(self._before)

    def _in_child(self) -> None:
        forks.reset_signals(self._names, _ignore)
        forks.drop((self._read, self._write))

    def abandon(self) -> None:
        """Close the pipe but keep the handlers. This is for a forked child, which sets its own handlers."""
        forks.remove(self._in_child)
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)


def _ignore(number: int, frame: object) -> None:
    """Do nothing: the interpreter has written the number into the pipe."""
    forks.was_for_a_child(number)
