"""How many requests of one connection may have threads at once, where a connection has many: HTTP/2.

Otherwise one client could keep all threads busy, with the requests of a single connection. What is beyond its share
waits on the connection, in order, and not in the queue of all. The more connections have requests, the smaller is the
share of each, and one share is always left for others: with one connection a half of the threads, with two a third.
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


__all__ = ["Lane", "Lanes"]


class Lanes:
    """The lanes of one pool, on the loop. A lane is in use while it has requests in threads or in the pool's queue.

    Args:
        pool: The threads.
        loop: The event loop.
    """

    __slots__ = ("_loop", "_pool", "_running", "_used", "_waiting", "_waiting_requests")

    def __init__(self, pool: ThreadPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._running = 0  # requests of all lanes in the pool's queue, or in its threads
        self._used = 0
        self._waiting: deque[Lane] = deque()  # lanes with requests that wait; the next one first
        self._waiting_requests = 0  # of all lanes

    def has_room(self, lane: Lane) -> bool:
        """Tell whether another request of *lane* may have a thread. The first one always may."""
        if not lane.running:
            return True
        maximum = self._pool.maximum
        share = max(1, maximum // (self._used + 1))
        return lane.running < share and self._running < maximum - share

    def start(self, lane: Lane, request: Request) -> bool:
        """Queue a request of *lane*; return False if too many wait for a thread."""
        if not self._pool.add(request, self._loop):
            return False
        self._used += not lane.running
        self._running += 1
        lane.running += 1
        return True

    def withdraw(self, request: Request) -> bool:
        """Take a request out of the pool's queue; tell whether it was there."""
        return self._pool.withdraw(request)

    def wait(self, lane: Lane, request: Request) -> bool:
        """Let a request of *lane* wait; return False if too many wait in all lanes, as many as the pool's queue takes.

        Without this bound, 1,000 connections with 100 requests each held 134 MiB.
        """
        if self._waiting_requests >= self._pool.queue_limit:
            return False
        self._waiting_requests += 1
        if not lane.waiting:
            self._waiting.append(lane)
        lane.waiting.append(request)
        return True

    def leave(self, lane: Lane) -> None:
        """Take note that *lane* has one request less that waits."""
        self._waiting_requests -= 1
        if not lane.waiting:
            self._waiting.remove(lane)

    def ended(self, lane: Lane) -> None:
        """Take note that a request of *lane* has left its thread, or the queue; queue those for which there is room."""
        self._running -= 1
        lane.running -= 1
        self._used -= not lane.running
        if lane.waiting and not lane.running:
            self._waiting.remove(lane)
            self._waiting.appendleft(lane)
        without_room = 0
        while without_room < len(self._waiting):
            lane = self._waiting[0]
            if not self.has_room(lane):
                without_room += 1
                self._waiting.rotate(-1)
                continue
            without_room = 0
            request = lane.waiting.popleft()
            self._waiting_requests -= 1
            if lane.waiting:
                self._waiting.rotate(-1)
            else:
                self._waiting.popleft()
            if not self.start(lane, request):
                request.refuse("overload")


class Lane:
    """The requests of one connection, on the loop.

    Args:
        lanes: All lanes of the pool.

    Attributes:
        running: How many of them are in the pool's queue, or in its threads.
        waiting: The others.
    """

    __slots__ = ("_lanes", "running", "waiting")

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self.running = 0
        self.waiting: deque[Request] = deque()

    def add(self, request: Request) -> bool:
        """Queue a request, or let it wait for others.

        Returns:
            False if too many wait for a thread.
        """
        if self.waiting or not self._lanes.has_room(self):
            return self._lanes.wait(self, request)
        return self._lanes.start(self, request)

    def withdraw(self, request: Request) -> bool:
        """Take a request out that no thread has begun; tell whether it was there."""
        if self._lanes.withdraw(request):
            self.ended()
            return True
        try:
            self.waiting.remove(request)
        except ValueError:
            return False
        self._lanes.leave(self)
        return True

    def ended(self, _: object = None) -> None:
        """Take note that a request has left its thread, or the queue; queue the next one."""
        self._lanes.ended(self)
