"""Which event loop a server runs on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from bridge.errors import ConfigError

__all__ = ["Signals", "loop_factory", "process_runner"]

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


class Signals:
    """Gives signals to a function while a ``with`` block runs; outside the main thread it does nothing.

    What handled them before does so again afterwards.

    Args:
        numbers: Which ones.
        function: Gets the number; called by the loop.
    """

    def __init__(self, numbers: Iterable[int], function: Callable[[int], None]) -> None:
        self._numbers = tuple(numbers)
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._before: list[tuple[int, object]] = []

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self._numbers:
            self._before.append((number, signal.getsignal(number)))
            self._loop.add_signal_handler(number, self._function, number)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before:
            self._loop.remove_signal_handler(number)
            if before is not None:
                signal.signal(number, before)  # type: ignore[arg-type]  # getsignal's own word for it
