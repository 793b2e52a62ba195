"""Coroutines that wait for the next event of one source: how they wait, and how the source wakes them.

The source knows of no reader, and a reader may be cancelled at any time. So each one waits for a future of its own, and
looks again at the source's state when it is woken: an event says that something has changed, not what.
"""

from __future__ import annotations

import asyncio

__all__ = ["Waiters"]


class Waiters:
    """Everyone who waits for one source of events.

    Nearly all requests end before anyone has waited. A source that is made for each request makes its waiters when
    the first one comes.

    Args:
        loop: The loop on which they wait, and on which :meth:`wake` is called.
    """

    __slots__ = ("_first", "_more", "_new")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._new = loop.create_future
        self._first: asyncio.Future[None] | None = None  # nearly always the only one: a list would cost 1 % of a message
        self._more: list[asyncio.Future[None]] = []

    def next_event(self) -> asyncio.Future[None]:
        """Return a future that is done after the next :meth:`wake`; it may be cancelled."""
        future = self._new()
        if self._first is None or self._first.done():
            self._first = future
        else:
            # A reader that is cancelled and comes again, such as one under a timeout, must not leave a trail.
            self._more = [waiting for waiting in self._more if not waiting.done()]
            self._more.append(future)
        return future

    def wake(self) -> None:
        """Let everyone go on who waits now; they run in a later turn of the loop."""
        first = self._first
        if first is not None:
            self._first = None
            if not first.done():  # cancelled
                first.set_result(None)
        if self._more:
            more, self._more = self._more, []
            for future in more:
                if not future.done():
                    future.set_result(None)
