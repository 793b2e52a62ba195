"""The thread that hears of signals."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from bridge.serving.listener import Listener


def test_it_hears_of_a_signal() -> None:
    heard = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    listener = Listener(lambda number: heard.set() if number == signal.SIGUSR1 else None)
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert heard.wait(20)
    finally:
        listener.close()
        signal.signal(signal.SIGUSR1, before)


def test_its_end_does_not_wait_for_who_has_a_copy_of_the_descriptors() -> None:
    """Else the thread goes on reading, and takes what is meant for the file that gets the number next."""
    listener = Listener(lambda number: None)
    copy = os.dup(listener._write)  # as a forked process has it
    try:
        listener.close()
        end = time.monotonic() + 20
        while os.path.exists(f"/proc/self/fd/{listener._read}") and time.monotonic() < end:
            time.sleep(0.001)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(listener._read)
    finally:
        os.close(copy)


def test_a_thread_that_has_ended_before_it_is_told() -> None:
    """It looks whether it is closed between two reads."""
    listener = Listener(lambda number: None)
    listener._closed = True
    with contextlib.suppress(BrokenPipeError):  # it may have looked, and ended, before
        os.write(listener._write, b"\0")
    assert listener._listening.acquire(timeout=20)
    listener._listening.release()
    listener.close()
