"""How many requests of one connection may have threads at once, where a connection has many: HTTP/2.

Otherwise one client could keep all threads busy, with the requests of a single connection. What is beyond its share
waits on the connection, in order, and not in the queue of all.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from bridge.adapters.wsgi.threadpool import Job, ThreadPool

    class Request(Job, Protocol):
        """A request, as the pool and its lane see it."""

        def refuse(self, reason: str | None = None) -> None: ...


__all__ = ["Lane"]


class Lane:
    """The requests of one connection, on the loop.

    Args:
        pool: The threads, of which the connection gets half.
        loop: The event loop.
    """

    __slots__ = ("_limit", "_loop", "_pool", "_running", "_waiting")

    def __init__(self, pool: ThreadPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._limit = max(1, pool.maximum // 2)
        self._running = 0  # in the pool's queue, or in its threads
        self._waiting: deque[Request] = deque()

    def add(self, request: Request) -> bool:
        """Queue a request, or let it wait for others of its connection.

        Returns:
            False if too many wait for a thread.
        """
        if self._running >= self._limit:
            self._waiting.append(request)
            return True
        if not self._pool.add(request, self._loop):
            return False
        self._running += 1
        return True

    def withdraw(self, request: Request) -> bool:
        """Take a request out that no thread has begun; tell whether it was there."""
        if self._pool.withdraw(request):
            self.ended()
            return True
        try:
            self._waiting.remove(request)
        except ValueError:
            return False
        return True

    def ended(self, _: object = None) -> None:
        """Take note that a request has left its thread, or the queue; queue the next one."""
        self._running -= 1
        while self._waiting and self._running < self._limit:
            request = self._waiting.popleft()
            if self._pool.add(request, self._loop):
                self._running += 1
            else:
                request.refuse("overload")
