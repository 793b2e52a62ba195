"""The standard streams of a process, of which any may be closed, full, missing or replaced."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from typing import TextIO

__all__ = ["abandon", "complete", "flush", "replace_error"]

# Interrupts what a thread waits for, and does nothing once the interpreter has given up its handlers.
_WAKES = getattr(signal, "SIGURG", signal.SIGINT)  # Windows has neither it nor the streams that need it


def complete() -> None:
    """Open the standard streams that are closed.

    Otherwise the next socket would get such a number, and whatever is written to the stream would go to a client.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # as Python starts with a closed stream
            setattr(sys, name, _stream(number))


def _stream(number: int) -> TextIO:
    return open(number, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)


def replace_error() -> None:
    """Let ``sys.stderr`` write to nothing if it writes to the process's standard error: that would fail."""
    with contextlib.suppress(Exception):  # the application has put something else there, or closed it
        if sys.stderr.fileno() == 2:
            sys.stderr = _stream(os.open(os.devnull, os.O_WRONLY))


def flush() -> None:
    """Write what the streams hold, before a fork: the child would write it a second time. A full pipe keeps it."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if stream is not None and _takes_more(number):
            with contextlib.suppress(Exception):  # closed, or replaced by something that cannot
                stream.flush()


def abandon() -> None:
    """Let no stream hinder the end of the process: Python flushes both, and waits for them.

    Those that take no more point at nothing from now on. That ends the writing of threads that hang in it, too: they
    hold locks that the end of the interpreter needs. Call it in the main thread.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is not None and not hasattr(getattr(sys, name), "flush"):
            setattr(sys, name, getattr(sys, f"__{name}__"))  # what the application has put there would be status 120
    full = [number for number in (1, 2) if not _takes_more(number)]
    if not full:
        return
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        for number in full:
            os.dup2(nothing, number)
        os.close(nothing)
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(_WAKES, lambda *_: None)
    for thread in threading.enumerate():  # an interrupted write begins again, with what the number means now (PEP 475)
        if thread is not threading.main_thread() and thread.ident is not None:
            with contextlib.suppress(OSError):
                signal.pthread_kill(thread.ident, _WAKES)


def _takes_more(number: int) -> bool:
    if not hasattr(select, "poll"):
        return True  # Windows does not tell
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    # An error comes without being asked for: the descriptor is closed, or nobody reads from it.
    return [events for _, events in poll.poll(0)] == [select.POLLOUT]
