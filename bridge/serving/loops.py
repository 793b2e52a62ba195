"""The event loop of a process, its end, and the signals before and while it runs."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from bridge.errors import ConfigError
from bridge.telemetry import messages

__all__ = ["Interrupted", "Signals", "loop_factory", "process_runner"]

# Seconds that closing the loop may take after a graceful stop. Nothing important is left to do then.
_CLOSING = 5.0


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the function that makes the loop *name*, a value of ``--loop``.

    Raises:
        ConfigError: uvloop is asked for and is not installed.
    """
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise ConfigError("--loop uvloop: uvloop is not installed; install it, or use --loop asyncio") from None
        else:
            factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
            return factory
    return asyncio.new_event_loop


@contextmanager
def process_runner(name: str, last: Callable[[], None]) -> Iterator[asyncio.Runner]:
    """Return a runner for the only loop of this process. If closing the loop hangs, end the process.

    uvloop's ``close()`` sometimes waits forever for a handle that no longer exists (seen after connections were taken
    out of the loop). By then the server has stopped and its logs are written, so nothing is lost.

    Args:
        name: As for :func:`loop_factory`.
        last: Called before the process ends because of that.
    """
    runner = asyncio.Runner(loop_factory=loop_factory(name))
    try:
        yield runner
    except BaseException:
        runner.close()
        raise
    guard = threading.Timer(_CLOSING, _leave, (last,))
    guard.daemon = True
    guard.start()
    runner.close()
    guard.cancel()


def _leave(last: Callable[[], None]) -> None:
    last()
    messages.flush()
    os._exit(0)


class Interrupted(KeyboardInterrupt):
    """A signal has asked for the end before the server had started."""


class Signals:
    """Handles signals while a ``with`` block runs, and then restores the old handlers.

    Outside the main thread it does nothing. A server's start has three phases:

    1. At first, the *ending* signals raise :class:`Interrupted` wherever the main thread is, since an import can take
       long and no loop runs. The others do nothing.
    2. After :meth:`cancel`, the first ending signal cancels the task. The second raises Interrupted.
    3. After :meth:`deliver`, all signals call a function on the loop.

    Args:
        numbers: The signals.
        ending: Those of them that end the start.

    Attributes:
        ended: The signal that has ended the start; None if none has.
    """

    def __init__(self, numbers: Iterable[int], ending: Iterable[int] = ()) -> None:
        self.ended: signal.Signals | None = None
        self._numbers = tuple(numbers)
        self._ending = frozenset(ending)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in self._numbers}
            for number in self._numbers:
                signal.signal(number, self._end if number in self._ending else _ignore)
        return self

    def _end(self, number: int, frame: object) -> None:
        again = self.ended is not None
        self.ended = signal.Signals(number)
        if self._task is None or again:  # a second signal comes because the loop is blocked
            raise Interrupted(self.ended.name)
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def cancel(self, task: asyncio.Task[Any]) -> None:
        """Let the next ending signal cancel *task*."""
        self._task = task

    def deliver(self, function: Callable[[int], None]) -> None:
        """From now on, call *function* with each signal's number, on the running loop."""
        self._loop = loop = asyncio.get_running_loop()
        for number in self._before:
            try:
                loop.add_signal_handler(number, function, number)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda number, _: loop.call_soon_threadsafe(function, number))

    def restore(self) -> None:
        """Restore the old handlers. After :meth:`deliver`, call it on the loop. May be called again."""
        for number, before in self._before.items():
            if self._loop is not None:
                with suppress(NotImplementedError):
                    self._loop.remove_signal_handler(number)
            if before is not None:
                signal.signal(number, before)  # type: ignore[arg-type]  # signal.getsignal is annotated as returning int
        self._before.clear()

    def __exit__(self, *_: object) -> None:
        self.restore()


def _ignore(number: int, frame: object) -> None:
    pass
