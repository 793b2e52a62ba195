"""Lets coroutines wait for the next event of a source, and lets the source wake them.

An event says that the source has changed, not how. A coroutine that is woken looks at the source's state again. Each
one waits for a future of its own, since it may be cancelled at any time.
"""

from __future__ import annotations

import asyncio

__all__ = ["Waiters"]


class Waiters:
    """The coroutines that wait for one source of events.

    Nearly all requests end before any coroutine has waited. So a source that is made for each request makes its Waiters
    when the first coroutine comes.

    Args:
        loop: The event loop of the coroutines. :meth:`wake` is called on its thread.
    """

    __slots__ = ("_first", "_more", "_new")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._new = loop.create_future
        self._first: asyncio.Future[None] | None = None  # nearly always the only one
        self._more: list[asyncio.Future[None]] = []

    def next_event(self) -> asyncio.Future[None]:
        """Return a future that is done after the next :meth:`wake`; it may be cancelled."""
        future = self._new()
        if self._first is None or self._first.done():
            self._first = future
        else:
            # A coroutine that waits again and again under a timeout must not make the list grow.
            self._more = [waiting for waiting in self._more if not waiting.done()]
            self._more.append(future)
        return future

    def wake(self) -> None:
        """Wake all coroutines that wait now; they run in the next turn of the loop."""
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
