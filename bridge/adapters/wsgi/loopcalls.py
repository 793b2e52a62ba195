"""The way from the threads to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bridge.core.log import app_log

if TYPE_CHECKING:
    from bridge.core.connection.clock import Clock

__all__ = ["LoopCalls"]


class LoopCalls:
    """Calls that threads want made on the loop, in order; the loop is woken once for all that have gathered.

    Args:
        loop: The event loop.
        clock: Of the server whose exchanges the calls end. What they send goes out at once: the threads work
            while the system takes it.
    """

    __slots__ = ("_calls", "_clock", "_loop", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._calls: deque[tuple[Callable[[Any, Any], None], Any, Any]] = deque()
        self._scheduled = False

    def post(self, function: Callable[[Any, Any], None], target: Any, argument: Any = None) -> None:
        """Have *function* called with the two others on the loop, soon; for any thread.

        Args:
            function: A method as its class has it: to bind it would cost as much as the rest.
            target: The object whose method it is.
            argument: What the method takes.
        """
        self._calls.append((function, target, argument))
        if not self._scheduled:
            self._scheduled = True
            # RuntimeError: the loop was closed. A thread has outlived the server, and nobody is left to hear of it.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._make_calls)

    def _make_calls(self) -> None:
        self._scheduled = False  # first: what is posted from here on may come too late for this round
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
