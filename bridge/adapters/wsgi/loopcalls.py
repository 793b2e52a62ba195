"""Calls from the application's threads to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bridge.core.log import app_log

if TYPE_CHECKING:
    from bridge.core.connection.clock import Clock

__all__ = ["LoopCalls"]


class LoopCalls:
    """Makes calls on the loop in the order in which threads ask for them.

    The loop is woken once for all the calls that have gathered.

    Args:
        loop: The event loop.
        clock: The clock of the server whose exchanges the calls concern. What the calls send goes out at once, so the
            threads work while the system takes it.
    """

    __slots__ = ("_calls", "_clock", "_loop", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._calls: deque[tuple[Callable[[Any, Any], None], Any, Any]] = deque()
        self._scheduled = False

    def post(self, function: Callable[[Any, Any], None], target: Any, argument: Any = None) -> None:
        """Let the loop call *function* with *target* and *argument*, soon; any thread may ask.

        Args:
            function: A method, taken from its class: binding it to *target* would cost as much as all the rest here.
            target: The object whose method it is.
            argument: The method's argument.
        """
        self._calls.append((function, target, argument))
        if not self._scheduled:
            self._scheduled = True
            try:  # noqa: SIM105 -- suppress() makes four calls, for each request
                self._loop.call_soon_threadsafe(self._make_calls)
            except RuntimeError:  # the loop was closed: this thread has outlived the server, and its client is gone
                pass

    def _make_calls(self) -> None:
        self._scheduled = False  # first of all: a call that is posted from now on may miss this round
        calls = self._calls
        clock = self._clock
        clock.write_through = True
        try:
            for _ in range(len(calls)):
                function, target, argument = calls.popleft()
                try:
                    function(target, argument)
                except Exception:
                    app_log.exception("Uncaught exception in %r", function)
        finally:
            clock.write_through = False
