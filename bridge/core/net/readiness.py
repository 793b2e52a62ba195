"""Which sockets are ready: one epoll object for many sockets, that the event loop watches as one descriptor.

A loop's own ``add_reader`` is not enough for connections. uvloop stops watching a descriptor after its first error: if
bytes of the peer are still unread when the connection is reset, it calls the reader once more and then never again. And
each call goes through a handle and a context, which costs about a microsecond for each request.
"""

from __future__ import annotations

import select
import weakref
from typing import TYPE_CHECKING

from bridge.core.log import app_log

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

__all__ = ["READABLE", "WRITABLE", "Readiness"]

READABLE, WRITABLE = 1, 4
"""The events, as epoll counts them. Any other event is an error or an end, which the next read or write reports."""

# The most sockets that are served in one turn of the loop. The kernel reports the others first next time.
_PER_TURN = 256

# Loops that have ended take their entries with them.
_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Readiness] = weakref.WeakKeyDictionary()


class Readiness:
    """Calls functions when sockets are ready. A socket is reported in each turn of the loop while it is ready.

    A turn has two steps: first all sockets are read, then what was read is served. So OpenSSL's code and then that of
    the requests stay in the processor's caches, which takes 3 to 4 % off tls-mixed (see docs/benchmarks/time.md).

    Args:
        loop: The event loop.
    """

    __slots__ = ("__weakref__", "_epoll", "_functions", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: asyncio.AbstractEventLoop = weakref.proxy(loop)  # otherwise the entry would keep its loop
        self._functions: dict[int, Callable[[int], Callable[[], None] | None]] = {}
        self._epoll: select.epoll | None = None  # while there are sockets

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> Readiness | None:
        """Return the object for all sockets of *loop*; None where the system has no epoll."""
        if not hasattr(select, "epoll"):
            return None
        found = _of_loop.get(loop)
        if found is None:
            found = _of_loop[loop] = Readiness(loop)
        return found

    def add(self, number: int, events: int, function: Callable[[int], Callable[[], None] | None]) -> None:
        """Watch a descriptor.

        Args:
            number: The descriptor. It may not be closed before :meth:`remove`.
            events: READABLE, WRITABLE or both.
            function: Called with the events that have come, in a turn of the loop. If it returns a function, that one
                is called when all others have been called with their events. An exception of either is logged.

        Raises:
            OSError: The descriptor cannot be watched, or there is no room for another one.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._turn)
        try:
            self._epoll.register(number, events)
        except OSError:
            self._close_unused()
            raise
        self._functions[number] = function

    def change(self, number: int, events: int) -> None:
        """Watch for other events from now on."""
        assert self._epoll is not None
        self._epoll.modify(number, events)

    def remove(self, number: int) -> None:
        """Watch a descriptor no longer. Nothing happens if it is not watched."""
        if self._functions.pop(number, None) is None or self._epoll is None:
            return
        self._epoll.unregister(number)
        self._close_unused()

    def _close_unused(self) -> None:
        """Close the epoll object when no socket is left, so that a loop that ends leaves no descriptor open."""
        watched = self._epoll
        if not self._functions and watched is not None:
            self._epoll = None
            if not self._loop.is_closed():
                self._loop.remove_reader(watched.fileno())
            watched.close()

    @staticmethod
    def descriptors(loop: asyncio.AbstractEventLoop) -> tuple[int, ...]:
        """Return the descriptor that a forked child must not touch: parent and child share what is watched."""
        found = _of_loop.get(loop)
        return () if found is None or found._epoll is None else (found._epoll.fileno(),)

    def _turn(self) -> None:
        watched = self._epoll
        if watched is None:
            return
        functions = self._functions
        later: list[Callable[[], None]] = []
        try:
            for number, events in watched.poll(0, _PER_TURN):
                # An earlier function may have removed this socket. If a new socket has its number by now, its function
                # finds nothing to do.
                function = functions.get(number)
                if function is not None:
                    try:
                        serve = function(events)
                        if serve is not None:
                            later.append(serve)
                    except Exception:  # otherwise the other sockets would wait
                        app_log.exception("Uncaught exception in %r", function)
        finally:  # what was read is not reported again
            self._serve(iter(later))

    def _serve(self, later: Iterator[Callable[[], None]]) -> None:
        """Call what is left of the functions; in the next turn, if one of them ends this one by SystemExit."""
        try:
            for serve in later:
                try:
                    serve()
                except Exception:
                    app_log.exception("Uncaught exception in %r", serve)
        except BaseException:
            self._loop.call_soon(self._serve, later)
            raise
