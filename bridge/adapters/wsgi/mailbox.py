"""The way from the threads to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bridge.core.log import app_log

__all__ = ["Mailbox"]


class Mailbox:
    """Calls that threads want made on the loop, in order; the loop is woken once for all that have gathered.

    Args:
        loop: The event loop.
    """

    __slots__ = ("_calls", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._woken = False

    def post(self, function: Callable[[Any], None], argument: Any = None) -> None:
        """Have *function* called with *argument* on the loop, soon; for any thread."""
        self._calls.append((function, argument))
        if not self._woken:
            self._woken = True
            # RuntimeError: the loop was closed. A thread has outlived the server, and nobody is left to hear of it.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # first: what is posted from here on may come too late for this round
        calls = self._calls
        for _ in range(len(calls)):
            function, argument = calls.popleft()
            try:
                function(argument)
            except Exception:
                app_log.exception("Uncaught exception in %r", function)
