"""A thread that hears of signals when the main thread may not."""

from __future__ import annotations

import contextlib
import os
import signal
from _thread import allocate_lock, start_new_thread  # before an application can replace them (gevent)
from collections.abc import Callable

from bridge import forks

__all__ = ["Listener"]

# Seconds that the thread has to end.
_PATIENCE = 0.5


class Listener:
    """Hears of signals while the main thread does not, such as in a library's call that waits for a database.

    Args:
        heard: Called with each signal's number, by a thread of its own.
    """

    def __init__(self, heard: Callable[[int], None]) -> None:
        self._heard = heard
        self._closed = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._listening = allocate_lock()
        self._listening.acquire()
        start_new_thread(self._listen, ())

    def _listen(self) -> None:
        while not self._closed:
            for number in os.read(self._read, 64):
                if number:
                    self._heard(number)
        os.close(self._read)  # nobody else may: the number could be another file's while this thread reads from it
        self._listening.release()

    def drop(self) -> None:
        """Close the pipe in a forked child, which has no part in it."""
        forks.drop((self._read, self._write))

    def close(self) -> None:
        """Stop listening."""
        signal.set_wakeup_fd(self._before)
        self._closed = True
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # the pipe is full, or the thread has ended by now
            os.write(self._write, b"\0")  # a process that was forked meanwhile may hold this end open
        os.close(self._write)
        self._listening.acquire(timeout=_PATIENCE)
