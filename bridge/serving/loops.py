"""Which event loop a server runs on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from bridge.errors import ConfigError

__all__ = ["Interrupted", "Signals", "loop_factory", "process_runner"]

# Seconds that closing the loop may take after a graceful stop, when nothing is left to be done.
_CLOSING = 5.0


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop that ``--loop`` names.

    Raises:
        ConfigError: uvloop was asked for and is not installed.
    """
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise ConfigError(
                    "--loop uvloop: uvloop is not installed; install it, or take --loop asyncio"
                ) from None
        else:
            factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
            return factory
    return asyncio.new_event_loop


@contextmanager
def process_runner(name: str, last: Callable[[], None]) -> Iterator[asyncio.Runner]:
    """Run a process's only loop; its closing cannot keep the process from ending.

    uvloop's ``close()`` now and then waits for ever for a handle that is long gone (seen after connections that were
    taken out of the loop). The server has stopped by then and its logs are written, so the process ends all the same.

    Args:
        name: As for :func:`loop_factory`.
        last: What is still to be done when the process ends that way.
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
    os._exit(0)


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end before there was a server."""


class Signals:
    """Takes signals while a ``with`` block runs; outside the main thread it does nothing.

    Until :meth:`deliver` they do nothing, except for the *ending* ones. Those raise :class:`Interrupted` wherever the
    main thread is: an import can take long, and no loop turns meanwhile. Once there is a loop, the first of them
    cancels the task of :meth:`cancel`. What handled them before does so again afterwards.

    Args:
        numbers: Which ones.
        ending: Those of them that end a start.

    Attributes:
        ended: The signal that has ended the start; None while none has.
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
                signal.signal(number, self._end if number in self._ending else _nothing)
        return self

    def _end(self, number: int, frame: object) -> None:
        again = self.ended is not None
        self.ended = signal.Signals(number)
        if self._task is None or again:  # the second one comes because the loop does not turn
            raise Interrupted(self.ended.name)
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def cancel(self, task: asyncio.Task[Any]) -> None:
        """Have *task* cancelled by the next signal that ends the start."""
        self._task = task

    def deliver(self, function: Callable[[int], None]) -> None:
        """Call *function* with the number from now on, on the running loop."""
        self._loop = asyncio.get_running_loop()
        for number in self._before:
            self._loop.add_signal_handler(number, function, number)

    def restore(self) -> None:
        """Take no more signals; on the loop, if it gave them to a function. May be called again."""
        for number, before in self._before.items():
            if self._loop is not None:
                self._loop.remove_signal_handler(number)
            if before is not None:
                signal.signal(number, before)  # type: ignore[arg-type]  # getsignal's own word for it
        self._before.clear()

    def __exit__(self, *_: object) -> None:
        self.restore()


def _nothing(number: int, frame: object) -> None:
    pass
