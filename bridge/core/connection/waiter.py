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

    __slots__ = ("_futures", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._futures: list[asyncio.Future[None]] = []

    def next_event(self) -> asyncio.Future[None]:
        """Return a future that is done after the next :meth:`wake`; it may be cancelled."""
        future = self._loop.create_future()
        if self._futures:
            # Futures of cancelled coroutines are removed here. Otherwise a coroutine that waits again and again under a
            # timeout would make the list grow.
            self._futures = [waiting for waiting in self._futures if not waiting.done()]
        self._futures.append(future)
        return future

    def wake(self) -> None:
        """Wake all coroutines that wait now; they run in the next turn of the loop."""
        if self._futures:
            woken, self._futures = self._futures, []
            for future in woken:
                if not future.done():  # done: it was cancelled
                    future.set_result(None)
